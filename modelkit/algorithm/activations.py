"""Running a model over data and handing out what flows inside: streaming, constant memory, all data used."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir

from modelkit.data.dataset import Batch, Dataset
from modelkit.errors import DataError
from modelkit.graph.run import session_of
from modelkit.graph.stripped import strip
from modelkit.progress import Progress, silent

# Activations of one run that may stand in memory at once; a model with more of them is run in several parts.
CHUNK_BYTES = 192 * 1024 * 1024
_UNKNOWN_BYTES = 8 << 20
# What a batch's activations are to take where more samples would fit: caches hold no more, and it is no faster.
_BATCH_BYTES = 48 << 20


@dataclass(frozen=True)
class Seen:
    """What one tensor held for one batch.

    Attributes:
        name: Name of the value.
        values: Its values without the rows that only fill up a batch.
        sample: Number of the batch's first sample in the data.
    """

    name: str
    values: np.ndarray
    sample: int


def stream(
    model: ir.Model,
    tensors: Sequence[str],
    batches: Callable[[], Iterable[Batch]],
    *,
    count: int,
    threads: int = 0,
    step: str = "calibrating",
    progress: Progress = silent,
) -> Iterator[Seen]:
    """Run a model over data and hand out the tensors asked for, batch by batch.

    Tensors that do not fit in memory together are taken in several passes; those of one pass come batch by batch.

    Args:
        model: The float model.
        tensors: Names of values of the main graph (its inputs too).
        batches: Starts a new pass over the data; called once for each part the outputs are taken in.
        count: Samples in a pass, for the progress.
        threads: Threads of the forward pass.
        step: What the progress calls it.
        progress: Called after each batch.
    """
    wanted = dict.fromkeys(tensors)
    inputs = {str(value.name) for value in model.graph.inputs}
    inner = [name for name in wanted if name not in inputs]
    first = next(iter(batches()), None)
    if first is None or not wanted:
        return
    parts = _parts(model, inner, first.inputs)
    done = 0
    for number, part in enumerate(parts):
        session = session_of(model, extra_outputs=part, threads=threads, arena=False)
        seen = 0
        for batch in batches():
            progress(step, done + seen, count * len(parts))
            # An empty list would mean all outputs to onnxruntime.
            found = dict(zip(part, session.run(part, batch.inputs) if part else [], strict=True))
            for name, values in found.items():
                yield Seen(name, batch.trimmed(values), seen)
            if number == 0:
                for name in batch.inputs:
                    if name in wanted:
                        yield Seen(name, batch.real(name), seen)
            seen += batch.valid
        done += seen
    progress(step, count * len(parts), count * len(parts))


def fitting_rows(model: ir.Model, tensors: Sequence[str], data: Dataset, *, most: int) -> int:
    """Samples in a batch so that the tensors asked for take little memory at a time.

    Args:
        model: The model.
        tensors: Names of the values that will be returned.
        data: What the model will be run on.
        most: Largest answer.
    """
    feeds = next(iter(data.batches(1))).inputs
    sizes = _sizes(model, feeds)
    each = sum(sizes.get(name, _UNKNOWN_BYTES) for name in tensors)
    return max(1, min(most, _BATCH_BYTES // max(each, 1)))


def check_finite(name: str, values: np.ndarray, where: str) -> None:
    """Refuse activations that no sum or range can be taken of.

    Args:
        name: Name of the value.
        values: What it held.
        where: For the message: "near sample 4", "on the data".

    Raises:
        DataError: Some are infinite or NaN.
    """
    if not np.isfinite(values).all():
        raise DataError(
            f"the activation '{name}' is infinite or NaN {where}",
            hint="check the inputs' scale: does the model expect them normalised?",
        )


def _parts(model: ir.Model, names: Sequence[str], feeds: Mapping[str, np.ndarray]) -> list[list[str]]:
    """Split the tensors so that the outputs of one run stay within CHUNK_BYTES for batches like the first."""
    sizes = _sizes(model, feeds)
    parts: list[list[str]] = [[]]
    room = CHUNK_BYTES
    for name in names:
        size = sizes.get(name, _UNKNOWN_BYTES)
        if parts[-1] and size > room:
            parts.append([])
            room = CHUNK_BYTES
        parts[-1].append(name)
        room -= size
    return parts


def _sizes(model: ir.Model, feeds: Mapping[str, np.ndarray]) -> dict[str, int]:
    """Bytes of each value for given inputs, as far as they can be inferred."""
    proto, _ = strip(model)
    del proto.graph.value_info[:]
    for entry in proto.graph.input:
        if entry.name in feeds:
            entry.type.tensor_type.ClearField("shape")
            for length in feeds[entry.name].shape:
                entry.type.tensor_type.shape.dim.add().dim_value = length
    for entry in proto.graph.output:
        # Declared for other inputs: it would only contradict.
        entry.type.tensor_type.ClearField("shape")
    try:
        proto = onnx.shape_inference.infer_shapes(proto, data_prop=True)
    except Exception:  # the C++ code raises many classes; without sizes the guess has to do
        return {}
    sizes: dict[str, int] = {}
    for entry in [*proto.graph.value_info, *proto.graph.output]:
        shape = entry.type.tensor_type.shape
        if entry.type.tensor_type.HasField("shape") and all(dim.HasField("dim_value") for dim in shape.dim):
            sizes[entry.name] = 4 * math.prod(dim.dim_value for dim in shape.dim)
    return sizes
