"""Gradients of the loss by a graph's weights, batch by batch, without training."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from modelkit.data.dataset import Dataset
from modelkit.errors import DataError
from modelkit.train.config import TrainOptions
from modelkit.train.device import settings, tensor
from modelkit.train.feed import real_outputs
from modelkit.train.module import to_torch
from modelkit.train.objective import plan_objective

_BATCH = 16


def weight_gradients(model: ir.Model, data: Dataset, limit: int) -> Iterator[dict[str, np.ndarray]]:
    """Take the gradient of the labels' loss on batch after batch; the model stays as it is.

    Args:
        model: A model; its initializers' names are those of the gradients.
        data: Inputs with labels.
        limit: At most this many samples.

    Returns:
        For each batch the gradient of each float initializer that the loss depends on, in its shape.

    Raises:
        DataError: There are no labels, or they do not fit the outputs.
        ModelError: The model has an operator that cannot be trained.
    """
    if not data.has_labels:
        raise DataError(f"'{data.name}' has no labels, so there is no loss to follow")
    options = TrainOptions(device="cpu")
    module = to_torch(model).eval()
    with settings(options) as device:
        objective = None
        for batch in data.batches(_BATCH, limit):
            inputs = {name: tensor(array, device) for name, array in batch.inputs.items()}
            outputs = real_outputs(module, inputs, batch.valid)
            if objective is None:
                arrays = {name: value.detach().numpy() for name, value in outputs.items() if value.ndim}
                objective = plan_objective(arrays, data.labels, None, options)
            assert batch.labels is not None
            module.zero_grad(set_to_none=True)
            objective.of(outputs, tensor(batch.labels, device), {}).backward()
            yield {
                name: weight.grad.numpy().copy()
                for name, weight in module.initializers.items()
                if weight.grad is not None
            }
