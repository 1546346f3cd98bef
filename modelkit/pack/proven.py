"""Packs a model and proves it: every weight comes back bit by bit, and none is left to rebuild at run time."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import onnx
import onnx_ir as ir

from modelkit.algorithm.config import Effort
from modelkit.decision import Decision
from modelkit.errors import ModelError
from modelkit.graph.edit import become
from modelkit.graph.load import load
from modelkit.graph.save import INLINE_LIMIT_BYTES, save
from modelkit.graph.tensors import nbytes
from modelkit.pack.store import names_of_large, pack_weights
from modelkit.packing.body import DOMAIN
from modelkit.progress import Progress, silent
from modelkit.runtime import make_session

SECONDS: dict[Effort, float] = {"load": math.inf, "auto": 0.5, "size": math.inf}
"""What each effort may add to the time that loading takes, roughly; ``load`` takes no prefix codes in any case."""


def pack_model(
    model: ir.Model,
    effort: Effort,
    *,
    include: list[str] | None = None,
    exclude: list[str] | None = None,
    progress: Progress = silent,
) -> list[Decision]:
    """Pack the weights of a model in place, and prove that they are the same.

    Args:
        model: A model from ``load``, weights lifted out of ``Constant`` nodes.
        effort: What may be added to the time that loading takes.
        include: Name patterns of weights and nodes; empty means all.
        exclude: Name patterns of what stays as it is.
        progress: Told what is going on.

    Returns:
        A decision for every weight that is large enough, packed or kept.

    Raises:
        UsageError: A pattern matches nothing.
        ModelError: The model is too large, its opset cannot be raised, or a weight would not come back the same.
    """
    check_packable(model, include, exclude)
    original, stay = model.clone(), list[str]()
    while True:
        decisions = pack_weights(
            model,
            include=include,
            exclude=[*(exclude or []), *stay],
            prefix=effort != "load",
            seconds=SECONDS[effort],
            fours=effort == "size",
            progress=progress,
        )
        packed = [decision.target for decision in decisions if decision.action == "packed"]
        if not packed:
            return _with_reason(decisions, stay)
        progress("proving that nothing changed", 0, 1)
        with tempfile.TemporaryDirectory(prefix="modelkit-") as folder:
            path = Path(folder) / "packed.onnx"
            save(model, path, external=False)
            left = unfolded(path, packed)
            if not left:
                _same_bits(original, load(path).model, packed)
        progress("proving that nothing changed", 1, 1)
        if not left:
            return _with_reason(decisions, stay)
        stay += left
        become(model, original.clone())


def check_packable(model: ir.Model, include: list[str] | None, exclude: list[str] | None) -> None:
    """Refuse what is known before any work.

    Raises:
        UsageError: A pattern matches nothing.
        ModelError: The model is too large.
    """
    weights = [value.const_value for value in model.graph.initializers.values() if value.const_value is not None]
    if sum(map(nbytes, weights)) > INLINE_LIMIT_BYTES:
        raise ModelError(
            "models of more than 1.9 GB cannot be packed", "their weights must lie in a file of their own"
        )
    names_of_large(model, include, exclude)


def _with_reason(decisions: list[Decision], stay: list[str]) -> list[Decision]:
    why = "onnxruntime would rebuild it in each run"
    return [Decision(d.target, "kept", why) if d.target in stay else d for d in decisions]


def unfolded(path: Path, packed: Iterable[str]) -> list[str]:
    """Names of packed weights that onnxruntime does not rebuild once, while it loads the model.

    Args:
        path: The file.
        packed: The weights to look for.

    Raises:
        ModelError: onnxruntime does not load it.
    """
    with tempfile.TemporaryDirectory(prefix="modelkit-") as folder:
        seen = Path(folder) / "seen.onnx"
        make_session(path, optimized_path=seen)
        left = {tensor.name for tensor in onnx.load(seen, load_external_data=False).graph.initializer}
    calls = {node.output[0]: node for node in onnx.load(path).graph.node if node.domain == DOMAIN}
    return [name for name in packed if left & set(_streams(calls, name))]


def _streams(calls: Mapping[str, onnx.NodeProto], name: str) -> Iterator[str]:
    """Names of the initializers that a packed weight is made of."""
    for each in calls[name].input:
        if each in calls:
            yield from _streams(calls, each)
        else:
            yield each


def _same_bits(before: ir.Model, after: ir.Model, names: Iterable[str]) -> None:
    for name in names:
        old, new = before.graph.initializers[name].const_value, after.graph.initializers[name].const_value
        assert old is not None and new is not None
        if old.dtype != new.dtype or old.shape != new.shape or old.tobytes() != new.tobytes():
            raise ModelError(f"the weight '{name}' would not come back as it was", "please report this as a defect")
