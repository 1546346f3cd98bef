"""Two models over the same data, each run no further than the tensors that are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import onnx_ir as ir

from modelkit.data.dataset import Batch, Dataset
from modelkit.graph.normalise import remove_unused
from modelkit.graph.run import session_of

BATCH = 32


class Tap:
    """Runs the part of a model that some tensors need.

    Args:
        model: Any model; it stays as it is.
        names: Values of its main graph, inputs included.
        threads: Threads of the forward pass; 0 lets onnxruntime choose.
    """

    def __init__(self, model: ir.Model, names: Sequence[str], threads: int = 0) -> None:
        inputs = {str(value.name) for value in model.graph.inputs}
        self._names = list(dict.fromkeys(names))
        self._inner = [name for name in self._names if name not in inputs]
        self._session = session_of(_part(model, self._inner), threads=threads) if self._inner else None
        self._feeds = {arg.name for arg in self._session.get_inputs()} if self._session is not None else set()

    def __call__(self, batch: Batch) -> dict[str, np.ndarray]:
        """Run one batch; rows that only fill it up are cut off where the first axis counts samples."""
        found = {name: batch.inputs[name] for name in self._names if name in batch.inputs}
        if self._session is not None:
            feeds = {name: array for name, array in batch.inputs.items() if name in self._feeds}
            found.update(zip(self._inner, self._session.run(self._inner, feeds), strict=True))
        return {name: batch.trimmed(values) for name, values in found.items()}


def run_both(
    first: Tap, second: Tap, data: Dataset, limit: int
) -> Iterator[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]:
    """Hand out, batch by batch, what two models hold for the same samples."""
    for batch in data.batches(BATCH, limit):
        yield first(batch), second(batch)


def _part(model: ir.Model, names: Sequence[str]) -> ir.Model:
    """A copy of a model that computes these values and nothing else."""
    part = model.clone()
    wanted = set(names)
    found = {value.name: value for node in part.graph for value in node.outputs if value.name in wanted}
    part.graph.outputs.clear()
    for name in names:
        value = found[name]
        if value.type is None:
            value.type = ir.TensorType(ir.DataType.FLOAT)
        value.shape = None
        part.graph.outputs.append(value)
    remove_unused(part)
    return part
