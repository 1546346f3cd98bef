"""Folds what only depends on weights, such as a transposed or reshaped weight, unless the file would grow."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from modelkit.decision import Decision
from modelkit.graph.evaluate import VIEWS, evaluate
from modelkit.graph.shapes import infer_shapes
from modelkit.graph.tensors import constant_of, nbytes, packed_bytes, static_shape

# Deterministic, and known to onnxruntime for all plain types.
_FOLDABLE = VIEWS | {
    *("Abs", "Add", "And", "Cast", "Ceil", "Clip", "Concat", "ConstantOfShape", "Cos", "Div", "Equal", "Erf"),
    *("Exp", "Expand", "Floor", "Gather", "GatherElements", "GatherND", "Greater", "GreaterOrEqual", "Less"),
    *("LessOrEqual", "Log", "MatMul", "Max", "Mean", "Min", "Mod", "Mul", "Neg", "Not", "Or", "Pad", "Pow"),
    *("Range", "Reciprocal", "ReduceL1", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd"),
    *("ReduceSum", "ReduceSumSquare", "Round", "ScatterElements", "ScatterND", "Shape", "Sigmoid", "Sign"),
    *("Sin", "Size", "Slice", "Softplus", "Split", "Sqrt", "Sub", "Sum", "Tanh", "Tile", "Trilu", "Where"),
    "Xor",
}
# Results this small may be larger than what they replace: shapes and axes, and a few numbers.
_SMALL_BYTES = 1024
_FEW_BYTES = 64
_LARGEST_BYTES = 1 << 29
_WHOLE = (ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL)


def fold_constants(model: ir.Model) -> list[Decision]:
    """Replace nodes that only depend on constants by their result, in place.

    A node, or a group of nodes that hang together, is folded when its results take no more bytes than
    the constants that it frees, or when they are small (64 bytes; whole numbers 1 KiB, since they are
    shapes and axes). So ``Expand``, a ``Cast`` to a wider type or a transposed copy of a weight that is
    also used elsewhere stay, and weights that are stored compactly (int8 behind ``Cast`` and ``Mul``,
    or behind ``DequantizeLinear``) stay compact. Where all inputs of the model have fixed shapes, the
    ``Shape`` of any value is a constant too.

    Returns:
        A decision for each node folded, and for each weight of more than 1 KiB that was kept.
    """
    decisions: dict[str, Decision] = {}
    while True:
        infer_shapes(model)
        folder = _Folder(model)
        for graph in model.graphs():
            folder.groups(graph)
            folder.single(graph)
        decisions.update({d.target: d for d in folder.decisions})
        if not any(d.action == "folded" for d in folder.decisions):
            return list(decisions.values())


def fold_shapes(model: ir.Model) -> None:
    """Fold only small whole numbers, in place: enough to follow computed shapes, and no weight is read."""
    while True:
        infer_shapes(model, outputs=True)
        folder = _Folder(model, only_small=True)
        for graph in model.graphs():
            folder.single(graph)
        if not folder.decisions:
            return


class _Folder:
    """One sweep over a model.

    Args:
        model: The model, its shapes inferred.
        only_small: Fold small whole numbers and nothing else.
    """

    def __init__(self, model: ir.Model, *, only_small: bool = False) -> None:
        self._model = model
        self._only_small = only_small
        self._fixed = all(static_shape(value) is not None for value in model.graph.inputs)
        self.decisions: list[Decision] = []

    def single(self, graph: ir.Graph) -> None:
        """Fold nodes one by one, where each alone does not make the file larger."""
        for node in list(graph):
            size = _result_bytes(node) if self._known(node, _is_constant) else None
            if size is None or size > _LARGEST_BYTES:
                continue
            whole = all(v.dtype in _WHOLE for v in node.outputs)
            if self._only_small:
                if whole and size <= _SMALL_BYTES:
                    self._replace(graph, node, size)
                continue
            sizes = _constant_sizes(node)
            freed = sum(
                sizes[key]
                for key, value in {id(v): v for v in node.inputs if v is not None}.items()
                if key in sizes and _only_used_by(value, {node})
            )
            if size <= max(freed, _SMALL_BYTES if whole else _FEW_BYTES):
                self._replace(graph, node, size)
            elif max(sizes.values(), default=0) > _SMALL_BYTES:
                reason = f"folding this {node.op_type} would make the file larger"
                self.decisions.append(Decision(_name(node), "kept", reason))

    def groups(self, graph: ir.Graph) -> None:
        """Fold groups of nodes that only together do not make the file larger.

        An exporter cuts the weights of a GRU into gates and joins them in another order: each cut alone
        would add to the file, since all of them read the same weight.
        """
        inside: set[int] = set()

        def known(value: ir.Value) -> bool:
            return _is_constant(value) or id(value) in inside

        members: list[ir.Node] = []
        sizes: dict[ir.Node, int] = {}
        for node in graph:
            size = _result_bytes(node) if self._known(node, known) else None
            if size is not None and size <= _LARGEST_BYTES:
                inside.update(id(v) for v in node.outputs)
                members.append(node)
                sizes[node] = size
        for group in _connected(members):
            nodes = set(group)
            kept = sum(
                packed_bytes(value.dtype, int(np.prod(static_shape(value) or (), dtype=object)))
                for node in group
                for value in node.outputs
                if value.dtype is not None and not _only_used_by(value, nodes)
            )
            sources = {id(v): v for node in group for v in node.inputs if v is not None and _is_constant(v)}
            freed = sum(
                nbytes(t)
                for value in sources.values()
                if (t := constant_of(value)) is not None and _only_used_by(value, nodes)
            )
            if len(group) > 1 and kept <= freed:
                for node in group:
                    self._replace(graph, node, sizes[node])

    def _known(self, node: ir.Node, known: Callable[[ir.Value], bool]) -> bool:
        """Whether a node can be computed now, given which values are known."""
        if node.domain or node.op_type not in _FOLDABLE or any(v.is_graph_output() for v in node.outputs):
            return False
        if any(attribute.is_ref() for attribute in node.attributes.values()):
            return False
        if node.op_type == "Size" and not self._only_small:
            # onnxruntime never folds it, so that branches which depend on it have never met its checks.
            return False
        present = [value for value in node.inputs if value is not None]
        if node.op_type in ("Shape", "Size") and self._fixed and len(present) == 1:
            return static_shape(present[0]) is not None
        return bool(present) and all(known(value) for value in present)

    def _replace(self, graph: ir.Graph, node: ir.Node, size: int) -> None:
        """Compute a node and put initializers in its place, if it can be computed."""
        results = evaluate(self._model, node)
        if results is None:
            return
        name, present = _name(node), [value for value in node.inputs if value is not None]
        for output, result in zip(node.outputs, results, strict=True):
            output_name = output.name
            if not output_name:
                continue
            tensor = ir.Tensor(result, output.dtype, name=output_name)
            value = ir.Value(name=output_name, shape=ir.Shape(result.shape), type=output.type, const_value=tensor)
            output.replace_all_uses_with(value)
            output.name = None
            graph.register_initializer(value)
        graph.remove(node, safe=True)
        _drop_unused(present)
        reason = f"the {node.op_type} only depends on constants"
        self.decisions.append(Decision(name, "folded", reason, {"bytes": size}))


def _name(node: ir.Node) -> str:
    return node.name or node.outputs[0].name or node.op_type


def _is_constant(value: ir.Value) -> bool:
    return constant_of(value) is not None


def _constant_sizes(node: ir.Node) -> dict[int, int]:
    """Bytes of a node's constant inputs by identity of the value."""
    return {id(v): nbytes(t) for v in node.inputs if v is not None and (t := constant_of(v)) is not None}


def _only_used_by(value: ir.Value, nodes: set[ir.Node]) -> bool:
    return not value.is_graph_output() and all(user in nodes for user, _ in value.uses())


def _connected(nodes: list[ir.Node]) -> list[list[ir.Node]]:
    """Split nodes into groups that share results or a constant of more than 1 KiB, in order.

    Small constants, such as axes, are shared by nodes that have nothing to do with each other.
    """
    leader = list(range(len(nodes)))

    def find(index: int) -> int:
        while leader[index] != index:
            leader[index] = leader[leader[index]]
            index = leader[index]
        return index

    first_with: dict[int, int] = {}
    for index, node in enumerate(nodes):
        for value in node.inputs:
            tensor = constant_of(value)
            if tensor is None or nbytes(tensor) > _SMALL_BYTES:
                leader[find(index)] = find(first_with.setdefault(id(value), index))
        first_with.update((id(value), index) for value in node.outputs)
    groups: dict[int, list[ir.Node]] = {}
    for index, node in enumerate(nodes):
        groups.setdefault(find(index), []).append(node)
    return list(groups.values())


def _drop_unused(values: list[ir.Value]) -> None:
    """Remove initializers that a fold left without a consumer, so that the next fold counts right."""
    for value in values:
        if value.is_initializer() and not value.uses() and not value.is_graph_output() and value.graph is not None:
            value.graph.initializers.pop(value.name or "", None)


def _result_bytes(node: ir.Node) -> int | None:
    """Bytes of a node's outputs as inferred; None where shape inference could not tell."""
    total = 0
    for output in node.outputs:
        if not output.name:
            continue
        shape = static_shape(output)
        if shape is None or output.dtype is None or output.dtype == ir.DataType.STRING:
            return None
        total += packed_bytes(output.dtype, int(np.prod(shape, dtype=object)))
    return total
