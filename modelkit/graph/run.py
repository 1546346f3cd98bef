"""Running a model that is in memory: serialised to onnxruntime without a file where it fits."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import onnx_ir as ir

from modelkit.graph.save import save
from modelkit.graph.tensors import nbytes, slots
from modelkit.runtime import DEFAULT_PROVIDERS, make_session

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnxruntime as ort

# Protocol buffers end at 2 GiB, and a model this large should not stand in memory a third time.
_IN_MEMORY_LIMIT = 256 * 1024 * 1024


def session_of(
    model: ir.Model,
    *,
    extra_outputs: Sequence[str] = (),
    threads: int = 1,
    providers: Sequence[str] = DEFAULT_PROVIDERS,
    optimize: bool = True,
    arena: bool = True,
) -> ort.InferenceSession:
    """Load a model in memory into onnxruntime; the model stays as it is.

    Args:
        model: Any model; large ones pass through a temporary folder as external data.
        extra_outputs: Names of values of the main graph to return after the model's own outputs.
        threads: Intra-op threads.
        providers: Execution providers.
        optimize: False switches onnxruntime's graph optimisations off.
        arena: False gives memory back after each run.
    """
    if extra_outputs:
        model = model.clone()
        expose(model, extra_outputs)
    tensors = [slot.tensor for slot in slots(model)]
    # A model in memory has no folder that external data could be found in.
    external = any(isinstance(tensor, ir.ExternalTensor) for tensor in tensors)
    if not external and sum(nbytes(tensor) for tensor in tensors) < _IN_MEMORY_LIMIT:
        serialized = ir.to_proto(model).SerializeToString()
        return make_session(serialized, threads=threads, providers=providers, optimize=optimize, arena=arena)
    with tempfile.TemporaryDirectory(prefix="modelkit-") as folder:
        path = Path(folder) / "model.onnx"
        save(model, path, external=True)
        return make_session(path, threads=threads, providers=providers, optimize=optimize, arena=arena)


def expose(model: ir.Model, names: Sequence[str]) -> None:
    """Make values of a model's main graph outputs of it too, behind its own, in place.

    Args:
        model: The model.
        names: Names of the values; those that are outputs already stay where they are.
    """
    wanted = dict.fromkeys(names)
    have = {value.name for value in model.graph.outputs}
    found: dict[str, ir.Value] = {}
    for node in model.graph:
        for value in node.outputs:
            if value.name in wanted and value.name not in have:
                found[str(value.name)] = value
    for name in wanted:
        if name in found:
            value = found[name]
            if value.type is None:
                value.type = ir.TensorType(ir.DataType.FLOAT)
            model.graph.outputs.append(value)
