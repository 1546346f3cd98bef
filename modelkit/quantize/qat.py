"""Quantization-aware training of static candidates: on labels with the original's outputs, or on those alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from modelkit.data.dataset import Dataset
from modelkit.decision import Decision
from modelkit.errors import ModelError, ModelkitError, UsageError
from modelkit.progress import Progress
from modelkit.quantize.config import QuantizeConfig
from modelkit.train.config import QuantizationAware
from modelkit.train.history import note, summary
from modelkit.train.teacher import original_teacher


@dataclass
class QuantTrainer:
    """Trains quantized forms of one model.

    Attributes:
        original: The float model, which they follow.
        options: How to train.
        data: What to train on.
        seed: Seed of everything random.
    """

    original: ir.Model
    options: QuantizationAware
    data: Dataset
    seed: int

    def __call__(
        self, model: ir.Model, weights: Mapping[str, np.ndarray], bits: int, progress: Progress
    ) -> list[Decision]:
        """Train a quantized model in place, see `modelkit.train.qat.Trainer`; weights that are zero stay zero.

        Raises:
            ModelError: The graph has an operator that cannot be trained.
        """
        from modelkit.train.qat import train_quantized

        options = self.options
        decisions, history = train_quantized(
            model,
            self.data,
            options,
            weights=weights,
            bits=bits,
            teacher=original_teacher(self.original, options, self.data),
            progress=progress,
            seed=self.seed,
        )
        note(model, history)
        return [summary(history, "trained"), *decisions]


def trainer_for(original: ir.Model, config: QuantizeConfig, data: Dataset) -> QuantTrainer | None:
    """Return what trains quantized models, or None where the config asks for no training.

    Args:
        original: The float model.
        config: The resolved options.
        data: What to train on.

    Raises:
        UsageError: The loss needs labels, and there are none.
        ModelError: The model cannot be trained.
    """
    options = config.qat
    if not options.enabled:
        return None
    if not data.has_labels and options.loss not in ("auto", "distill"):
        name = data.name if data.path is None else data.path.name
        raise UsageError(
            f"the loss {options.loss} needs labels, and '{name}' has none",
            "leave out qat.loss: without labels the original's own outputs are followed",
        )
    from modelkit.train.qat import check_trainable

    check_trainable(original)
    return QuantTrainer(original, options, data, config.seed)


def nothing_to_train(data: Dataset | None) -> ModelkitError:
    """Why a model cannot be trained with the rounding in it, where there is no static candidate."""
    if data is None:
        return UsageError("quantization-aware training needs data", "give the training samples with --data")
    return ModelError(
        "no layer of this model can compute with integers, so there is no rounding to train",
        "modelkit inspect tells why for each layer; leave out --qat to store the weights in fewer bits",
    )


def some(data: Dataset, count: int, seed: int) -> Dataset:
    """Draw samples at random, in their old order; all where there are no more than wanted."""
    if data.count <= count:
        return data
    return data.subset(np.sort(np.random.default_rng(seed).permutation(data.count)[:count]))
