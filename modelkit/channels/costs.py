"""What a model costs with some of its channels gone, without cutting it: channels, parameters, bytes, MACs."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import onnx_ir as ir

from modelkit.graph.channels import Group
from modelkit.graph.macs import Shapes, UnknownShape, node_macs
from modelkit.graph.static_shapes import shapes_at_one
from modelkit.graph.tensors import nbytes, slots

_RECURRENT = ("LSTM", "GRU", "RNN")

Countable = Literal["channels", "parameters", "macs", "bytes"]


@dataclass
class _Term:
    """A cost in proportion to a product of sizes, each of which shrinks with some groups.

    Attributes:
        amount: Cost of the whole.
        axes: For each axis its size and, for each group that it follows, the positions that a channel takes.
    """

    amount: float
    axes: list[tuple[int, dict[str, float]]] = field(default_factory=list)

    def value(self, removed: Mapping[str, int]) -> float:
        share = 1.0
        for size, groups in self.axes:
            share *= 1 - sum(k * removed.get(name, 0) for name, k in groups.items()) / size
        return self.amount * share

    def names(self) -> set[str]:
        return {name for _, groups in self.axes for name in groups}


class Costs:
    """Costs of one kind, as a function of how many channels each group keeps.

    Args:
        model: The model before the cut.
        groups: Its groups.
        kind: What is counted.

    Attributes:
        total: Cost of the whole model, for ``channels`` of the groups that can be cut.
    """

    def __init__(self, model: ir.Model, groups: Sequence[Group], kind: Countable) -> None:
        self._channels = {group.name: group.channels for group in groups}
        terms = {
            "channels": lambda: _channel_terms(groups),
            "parameters": lambda: _weight_terms(model, groups, by_bytes=False),
            "bytes": lambda: _weight_terms(model, groups, by_bytes=True),
            "macs": lambda: _mac_terms(model, groups),
        }[kind]()
        self.total = sum(term.amount for term in terms)
        self._of: dict[str, list[_Term]] = {}
        self._terms = [term for term in terms if term.axes]
        self._rest = sum(term.amount for term in terms if not term.axes)
        for term in self._terms:
            for name in term.names():
                self._of.setdefault(name, []).append(term)

    def of(self, keep: Mapping[str, int]) -> float:
        """Cost where groups keep this many channels; groups that are not named keep all."""
        removed = self._removed(keep)
        return self._rest + sum(term.value(removed) for term in self._terms)

    def saved(self, keep: Mapping[str, int], name: str, count: int) -> float:
        """How much less it costs when one group goes from what it keeps to ``count`` channels."""
        removed = self._removed(keep)
        before = sum(term.value(removed) for term in self._of.get(name, ()))
        removed[name] = self._channels[name] - count
        return before - sum(term.value(removed) for term in self._of.get(name, ()))

    def _removed(self, keep: Mapping[str, int]) -> dict[str, int]:
        return {name: self._channels[name] - count for name, count in keep.items()}


def _channel_terms(groups: Sequence[Group]) -> list[_Term]:
    return [_Term(group.channels, [(group.channels, {group.name: 1.0})]) for group in groups if group.frozen is None]


def _axes(groups: Sequence[Group]) -> dict[int, dict[int, dict[str, float]]]:
    """For each initializer (by identity) and axis, how many positions a channel of each group takes."""
    found: dict[int, dict[int, dict[str, float]]] = {}
    for group in groups:
        if group.frozen is not None:
            continue
        for part in group.parts:
            axis = found.setdefault(id(part.value), {}).setdefault(part.axis, {})
            taken = int((part.index >= 0).sum()) / group.channels / part.sections
            # An axis is listed once for each node that reads it.
            axis[group.name] = max(axis.get(group.name, 0.0), taken)
    return found


def _weight_terms(model: ir.Model, groups: Sequence[Group], *, by_bytes: bool) -> list[_Term]:
    axes = _axes(groups)
    terms = []
    for slot in slots(model):
        tensor = slot.tensor
        if not by_bytes and not tensor.dtype.is_floating_point():
            continue
        shape = tensor.shape.numpy()
        of = axes.get(id(slot.owner), {})
        terms.append(
            _Term(
                nbytes(tensor) if by_bytes else tensor.size, [(int(shape[axis]), names) for axis, names in of.items()]
            )
        )
    return terms


def _mac_terms(model: ir.Model, groups: Sequence[Group]) -> list[_Term]:
    """Layers count in proportion to their weights; products of activations to the channels of what they multiply."""
    axes = _axes(groups)
    flowing: dict[ir.Value, set[str]] = {}
    for group in groups:
        if group.frozen is None:
            for value, _, _ in group.activations:
                flowing.setdefault(value, set()).add(group.name)
    channels = {group.name: group.channels for group in groups}
    shapes = Shapes(shapes_at_one(model))
    terms: list[_Term] = []
    counted: set[ir.Node] = set()
    for node in model.graph.all_nodes():
        try:
            macs = node_macs(node, shapes)
        except (UnknownShape, IndexError, ValueError):
            continue
        if not macs:
            continue
        counted.add(node)
        weights = [
            v for v in node.inputs[: 3 if node.op_type in _RECURRENT else 2] if v is not None and _is_weight(v)
        ]
        sizes = [math.prod(value.const_value.shape.numpy()) for value in weights]  # type: ignore[union-attr]
        for value, size in zip(weights, sizes, strict=True):
            shape = value.const_value.shape.numpy()  # type: ignore[union-attr]
            of = axes.get(id(value), {})
            terms.append(_Term(macs * size / sum(sizes), [(int(shape[a]), names) for a, names in of.items()]))
        if not weights:
            names = {name for value in node.inputs for name in _behind(value, flowing, counted)}
            terms.append(_Term(macs, [(channels[name], {name: 1.0}) for name in sorted(names)]))
    return terms


def _is_weight(value: ir.Value) -> bool:
    return value.const_value is not None and len(value.const_value.shape) > 1


def _behind(value: ir.Value | None, flowing: Mapping[ir.Value, set[str]], products: Collection[ir.Node]) -> set[str]:
    """The groups whose channels a value holds, looked for behind reshapes and the like but not behind products."""
    found: set[str] = set()
    todo, seen = [value], {value}
    while todo:
        each = todo.pop()
        if each is None:
            continue
        if each in flowing:
            found |= flowing[each]
            continue
        producer = each.producer()
        if producer is not None and producer not in products:
            fresh = [source for source in producer.inputs if source not in seen]
            seen.update(fresh)
            todo += fresh
    return found
