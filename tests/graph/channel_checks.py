"""Cuts channels and compares the result with zeros in the weights, in onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from modelkit.graph.channels import Group, cut, find_groups, zeroed
from modelkit.graph.layers import input_vocabulary
from modelkit.graph.normalise import normalise
from modelkit.graph.save import save
from modelkit.graph.verify import random_feeds
from modelkit.runtime import input_specs, make_session


def clean(proto: onnx.ModelProto) -> ir.Model:
    onnx.checker.check_model(proto, full_check=True)
    model = ir.serde.deserialize_model(proto)
    normalise(model)
    return model


def as_bytes(model: ir.Model, folder: Path) -> bytes:
    path = folder / "model.onnx"
    save(model, path)
    return path.read_bytes()


def some_of(group: Group, seed: int = 0, share: float = 0.5) -> np.ndarray | None:
    """A random choice of channels that may stay; None where none was found."""
    random = np.random.default_rng([seed, group.channels])
    sections = group.partition if group.partition is not None else np.zeros(group.channels, int)
    for attempt in range(30):
        kept = np.ones(group.channels, dtype=bool)
        wanted = max(1, int(len(np.unique(group.atoms[sections == 0])) * share * 0.9**attempt))
        for section in np.unique(sections):
            atoms = np.unique(group.atoms[sections == section])
            gone = [a for a in atoms if not kept[group.atoms == a].any()]
            free = [a for a in atoms if a not in gone]
            if wanted > len(gone):
                chosen = random.choice(free, min(wanted - len(gone), len(free)), replace=False)
                kept[np.isin(group.atoms, chosen)] = False
        if group.problem(kept) is None:
            return kept
    return None


def only_made_zero(model: ir.Model, keep: Mapping[str, np.ndarray]) -> ir.Model:
    """Zeros in what makes the channels only; what uses them is left alone."""
    copy = model.clone()
    for group in find_groups(copy):
        if group.name not in keep:
            continue
        gone = np.flatnonzero(~keep[group.name])
        for part in group.parts:
            if part.kind == "consumes" or part.sections > 1:
                continue
            tensor = part.value.const_value
            assert tensor is not None
            array = tensor.numpy().copy()
            np.moveaxis(array, part.axis, 0)[part.positions(gone)] = 0
            part.value.const_value = ir.Tensor(array, tensor.dtype, name=part.value.name)
    return copy


def check_cut(
    model: ir.Model,
    keep: Mapping[str, np.ndarray],
    folder: Path,
    *,
    made_only: bool = False,
    tolerance: float = 1e-5,
    changes: bool = True,
) -> float:
    """Cut, check, run, and compare with zeros; returns the largest relative difference."""
    small = model.clone()
    decisions = cut(small, keep)
    keep = {g.name: _mask(keep[g.name], g.channels) for g in find_groups(model) if g.name in keep}
    assert {d.target for d in decisions} == {name for name, kept in keep.items() if not kept.all()}
    content = as_bytes(small, folder)
    onnx.checker.check_model(content, full_check=True)
    onnx.shape_inference.infer_shapes(onnx.load_from_string(content), strict_mode=True, check_type=True)
    for before, after in ((model.graph.inputs, small.graph.inputs), (model.graph.outputs, small.graph.outputs)):
        assert [(v.name, v.shape, v.dtype) for v in before] == [(v.name, v.shape, v.dtype) for v in after]
    references = [zeroed(model, keep)] + ([only_made_zero(model, keep)] if made_only else [])
    original = make_session(as_bytes(model, folder))
    artifact = make_session(content)
    sessions = [make_session(as_bytes(reference, folder)) for reference in references]
    worst, differs = 0.0, False
    for count, feeds in enumerate(random_feeds(input_specs(original), input_vocabulary(model), 0)):
        try:
            expected = original.run(None, feeds)
        except Exception:
            continue
        found = artifact.run(None, feeds)
        differs |= any(not np.array_equal(a, b) for a, b in zip(expected, found, strict=True))
        for session in sessions:
            worst = max(worst, relative(session.run(None, feeds), found))
        if count >= 2:
            break
    assert worst <= tolerance, worst
    assert differs or not changes
    return worst


def _mask(kept: np.ndarray, channels: int) -> np.ndarray:
    mask = np.zeros(channels, dtype=bool)
    mask[kept] = True
    return mask


def relative(expected: Sequence[np.ndarray], found: Sequence[np.ndarray]) -> float:
    worst = 0.0
    for a, b in zip(expected, found, strict=True):
        assert a.shape == b.shape
        scale = max(float(np.abs(a).max(initial=0)), 1e-3)
        worst = max(worst, float(np.abs(a.astype(float) - b.astype(float)).max(initial=0)) / scale)
    return worst


def cut_everything(model: ir.Model, folder: Path, *, made_only: bool = False, changes: bool = True) -> list[Group]:
    """Cut all exact groups at once and compare with zeros; returns all groups."""
    groups = find_groups(model)
    keep = {}
    for group in groups:
        kept = some_of(group) if group.frozen is None else None
        if kept is not None and group.exact:
            keep[group.name] = kept
    if keep:
        check_cut(model, keep, folder, made_only=made_only, changes=changes)
    return groups
