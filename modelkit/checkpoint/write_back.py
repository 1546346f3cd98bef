"""What changed between two graphs, told in the keys of the state dict that they came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from modelkit.checkpoint.links import Link, Norm, gather
from modelkit.errors import ModelError
from modelkit.files import shown

if TYPE_CHECKING:
    from modelkit.checkpoint.container import Container

Kept = Mapping[str, Mapping[int, Any]]


@dataclass
class Change:
    """A tensor that is different now.

    Attributes:
        key: The file's key.
        array: Its new numbers.
        plan: What was done, for the plan: ``action`` and, for a cut, ``kept``.
    """

    key: str
    array: np.ndarray
    plan: dict[str, Any]


@dataclass
class _Draft:
    """A key's new numbers while they are put together, in the shape of the original.

    Attributes:
        array: The numbers.
        alive: Which positions are left; None as long as nothing was cut.
        touched: Whether a number changed.
    """

    array: np.ndarray
    alive: np.ndarray | None = None
    touched: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))


def write_back(
    held: Container, path: Path, before: ir.Model, after: ir.Model, kept: Kept | None = None
) -> dict[str, Any]:
    """Write a container again with what changed between two graphs.

    Args:
        held: The container that the graph came from.
        path: Where to; in the format of the original, whatever its name.
        before: The graph after ``normalise``, before it was changed.
        after: The changed graph.
        kept: For each initializer that was cut, by axis, the positions in ``before`` that are left.

    Returns:
        The plan, see ``Container.save``.

    Raises:
        ModelError: A change cannot be expressed in this state dict.
    """
    found = changes(held, before, after, kept or {})
    return held.save(path, {c.key: c.array for c in found}, {c.key: c.plan for c in found})


def changes(held: Container, before: ir.Model, after: ir.Model, kept: Kept) -> list[Change]:
    """Compare two graphs initializer by initializer.

    A number that is the same in both graphs stays the original's, bit for bit. Where a BatchNormalization was folded
    into a layer, the layer's new weight is divided by its scale again and a new bias is added to its beta, so that
    the module computes what the graph computes up to rounding.

    Raises:
        ModelError: A change cannot be expressed in the keys of this checkpoint; all such are named.
    """
    return _Writer(held, before, after, kept).run()


class _Writer:
    def __init__(self, held: Container, before: ir.Model, after: ir.Model, kept: Kept) -> None:
        self._held, self._kept = held, kept
        self._state = held.module_state
        self._before, self._after = _arrays(before), _arrays(after)
        self._biases = _biases(before)
        self._drafts: dict[str, _Draft] = {}
        self._problems: list[str] = []
        self._done: set[str] = set()

    def run(self) -> list[Change]:
        for name, norm in self._held.links.norms.items():
            if name in self._before and self._is_folded(name):
                self._folded(name, norm)
        for name, link in self._held.links.tensors.items():
            if name in self._before and name not in self._done:
                self._plain(name, link)
        self._strangers()
        if self._problems:
            raise ModelError(
                f"'{shown(self._held.path.name)}' cannot hold the changes: {'; '.join(self._problems[:6])}",
                "the ONNX artifact holds them",
            )
        return self._finish()

    def _strangers(self) -> None:
        """Find changes to what no key holds."""
        for name, array in self._after.items():
            if name in self._done or array.dtype.kind not in "fV" or array.size == 1:
                continue
            old = self._before.get(name)
            if old is None:
                self._problems.append(f"'{shown(name)}' is new")
            elif old.shape != array.shape or not np.array_equal(old, array, equal_nan=True):
                self._problems.append(f"'{shown(name)}' is no tensor of the state dict")
        gone = [n for n in self._held.links.tensors if n in self._before and n not in self._after]
        self._problems += [f"'{shown(name)}' is gone" for name in gone]

    def _is_folded(self, name: str) -> bool:
        original = gather(self._held.links.tensors[name], self._state, self._before[name].shape)
        return not np.array_equal(original, self._before[name], equal_nan=True)

    def _grid(self, name: str) -> tuple[np.ndarray, ...] | None:
        """Indices that take what is left of an initializer; None where its new shape is not explained."""
        shape, cut = self._before[name].shape, self._kept.get(name, {})
        axes = [np.asarray(cut.get(axis, np.arange(n)), dtype=np.int64) for axis, n in enumerate(shape)]
        if tuple(len(axis) for axis in axes) != self._after[name].shape:
            self._problems.append(f"'{shown(name)}' has another shape, and what was cut is not known")
            return None
        return np.ix_(*axes) if axes else ()

    def _plain(self, name: str, link: Link, scale: np.ndarray | None = None) -> None:
        """Take over an initializer; its numbers are divided by ``scale`` on the way."""
        self._done.add(name)
        if name not in self._after:
            return
        old, new = self._before[name], self._after[name]
        if scale is None and self._is_folded(name):
            if not np.array_equal(old, new, equal_nan=True):
                self._problems.append(f"'{shown(name)}' was merged with something else before it was changed")
            return
        grid = self._grid(name)
        if grid is None:
            return
        ids = link.positions(old.shape)[grid]
        changed = old[grid] != new
        values = new.astype(np.float64)
        if scale is not None:
            with np.errstate(all="ignore"):
                values = np.where(values == 0, 0.0, values / np.broadcast_to(scale, old.shape)[grid])
            if not np.isfinite(values[changed]).all():
                self._problems.append(f"the BatchNorm behind '{shown(name)}' multiplies by 0")
                return
        self._assign(link, ids, values, changed, cut=old.shape != new.shape, whole=old.size)

    def _assign(
        self, link: Link, ids: np.ndarray, values: np.ndarray, changed: np.ndarray, *, cut: bool, whole: int
    ) -> None:
        start = 0
        for key in link.keys:
            size = self._state[key].size
            mine = (ids >= start) & (ids < start + size)
            draft = self._draft(key)
            where = ids[mine] - start
            if cut:
                alive = np.zeros(size, bool)
                alive[where] = True
                draft.alive = alive if draft.alive is None else draft.alive & alive
            moved = changed[mine]
            draft.array.reshape(-1)[where[moved]] = values[mine][moved]
            draft.touched[where[moved]] = True
            start += size

    def _draft(self, key: str) -> _Draft:
        if key not in self._drafts:
            array = self._state[key]
            self._drafts[key] = _Draft(array.astype(np.float64).copy(), touched=np.zeros(array.size, bool))
        return self._drafts[key]

    def _folded(self, name: str, norm: Norm) -> None:
        """Take over a layer into which a BatchNormalization was folded."""
        link, old = self._held.links.tensors[name], self._before[name]
        gamma, _, _, variance = (self._state[key].astype(np.float64) for key in norm.keys)
        with np.errstate(all="ignore"):
            scale = gamma / np.sqrt(variance + norm.epsilon)
        wide = _spread(scale, norm, old.shape)
        expected = (gather(link, self._state, old.shape).astype(np.float64) * wide).astype(old.dtype)
        if not np.allclose(expected, old, rtol=1e-5, atol=1e-30, equal_nan=True):
            self._plain(name, link)
            return
        self._plain(name, link, wide)
        bias = self._biases.get(name)
        channels = self._channels(name, norm, len(scale))
        if channels is None:
            self._problems.append(
                f"the channels of '{shown(name)}' were cut in a way that its BatchNorm cannot follow"
            )
            return
        if len(channels) < len(scale):
            for key in norm.keys:
                self._keep(key, channels)
        if bias is None or bias not in self._before:
            return
        self._done.add(bias)
        own = self._held.links.tensors.get(bias)
        if own is not None and len(channels) < len(scale):
            self._keep(own.keys[0], channels)
        new = self._after.get(bias)
        if new is None or new.shape != (len(channels),):
            self._problems.append(f"the bias '{shown(bias)}' has another shape than its channels")
            return
        old_bias = self._before[bias][channels]
        changed = new != old_bias
        draft = self._draft(norm.bias)
        draft.array.reshape(-1)[channels[changed]] += (new.astype(np.float64) - old_bias.astype(np.float64))[changed]
        draft.touched[channels[changed]] = True

    def _channels(self, name: str, norm: Norm, count: int) -> np.ndarray | None:
        """Output channels of a layer that are left."""
        cut = self._kept.get(name, {}).get(norm.axis)
        if cut is None:
            return np.arange(count)
        return None if norm.groups > 1 else np.asarray(cut, dtype=np.int64)

    def _keep(self, key: str, channels: np.ndarray) -> None:
        draft = self._draft(key)
        alive = np.zeros(draft.array.size, bool)
        alive[channels] = True
        draft.alive = alive if draft.alive is None else draft.alive & alive

    def _finish(self) -> list[Change]:
        found: list[Change] = []
        names = {name: key for key, name in self._held.names.items()}
        for key, draft in self._drafts.items():
            if not draft.touched.any() and draft.alive is None:
                continue
            file_key = names.get(key) or self._twin(key, names)
            if file_key is None:
                self._problems.append(f"'{shown(key)}' is not in the file")
            else:
                found.append(self._change(file_key, key, draft))
        if self._problems:
            raise ModelError(f"the changes cannot be written back: {'; '.join(self._problems[:6])}")
        order = {key: i for i, key in enumerate(self._held.tensors)}
        return sorted([*found, *self._tied(found)], key=lambda change: order[change.key])

    def _twin(self, key: str, names: dict[str, str]) -> str | None:
        """The file's key of a tensor that the module knows under two names, and the file under the other."""
        place = self._state[key].ctypes.data
        for other, file_key in names.items():
            array = self._state.get(other)
            if array is not None and array.ctypes.data == place and array.shape == self._state[key].shape:
                return file_key
        return None

    def _change(self, file_key: str, key: str, draft: _Draft) -> Change:
        original = self._held.array(file_key)
        # Untouched numbers are the file's own, also where the module has another type.
        array = np.where(draft.touched.reshape(original.shape), draft.array, original.astype(np.float64))
        typed = np.where(
            draft.touched.reshape(original.shape), array.astype(original.dtype, copy=False), original
        ).astype(original.dtype, copy=False)
        zeros = bool((draft.array.reshape(-1)[draft.touched] == 0).all())
        plan: dict[str, Any] = {"action": "zeroed" if zeros else "updated"}
        if draft.alive is not None:
            axes = _product(draft.alive.reshape(original.shape))
            if axes is None:
                self._problems.append(f"what is left of '{shown(file_key)}' is no block of it")
                return Change(file_key, typed, plan)
            typed = typed[np.ix_(*axes)]
            cut = {str(a): axis.tolist() for a, axis in enumerate(axes) if len(axis) < original.shape[a]}
            plan = {"action": "cut", "kept": cut}
        return Change(file_key, typed, plan)

    def _tied(self, found: list[Change]) -> list[Change]:
        """Give keys that hold the same tensor as a changed one the same numbers."""
        by_place = {}
        for change in found:
            ref = self._held.tensors[change.key]
            by_place[ref.storage.key, ref.offset, ref.shape, ref.strides] = change
        done = {change.key for change in found}
        tied = []
        for key, ref in self._held.tensors.items():
            twin = by_place.get((ref.storage.key, ref.offset, ref.shape, ref.strides))
            if key not in done and twin is not None and ref.size:
                tied.append(Change(key, twin.array, {**twin.plan, "same_as": twin.key}))
        return tied


def _arrays(model: ir.Model) -> dict[str, np.ndarray]:
    return {
        name: value.const_value.numpy()
        for name, value in model.graph.initializers.items()
        if value.const_value is not None and value.const_value.dtype != ir.DataType.STRING
    }


def _biases(model: ir.Model) -> dict[str, str]:
    """The name of a layer's bias by that of its weight."""
    found: dict[str, str] = {}
    for node in model.graph:
        if node.op_type in ("Conv", "ConvTranspose", "Gemm") and len(node.inputs) > 2:
            weight, bias = node.inputs[1], node.inputs[2]
            if weight is not None and bias is not None and weight.name and bias.name:
                found[weight.name] = bias.name
    return found


def _spread(scale: np.ndarray, norm: Norm, shape: tuple[int, ...]) -> np.ndarray:
    """A number for each channel, laid out to multiply a weight."""
    if norm.groups > 1:
        # [C, M/group, ...]: the output channels of group g belong to its own part of the first axis.
        per = np.repeat(scale.reshape(norm.groups, -1), shape[0] // norm.groups, axis=0)
        return per.reshape(*per.shape, *[1] * (len(shape) - 2))
    sizes = [1] * len(shape)
    sizes[norm.axis] = len(scale)
    return scale.reshape(sizes)


def _product(alive: np.ndarray) -> list[np.ndarray] | None:
    """The indices along each axis whose product is what is left; None where it is not such a block."""
    axes = []
    for axis in range(alive.ndim):
        others = tuple(a for a in range(alive.ndim) if a != axis)
        axes.append(np.flatnonzero(alive.any(axis=others)))
    whole = np.zeros_like(alive)
    whole[np.ix_(*axes)] = True
    return axes if np.array_equal(whole, alive) else None
