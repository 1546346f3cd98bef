"""Small edits that every transform needs: fresh names, new initializers, replacing one value by another."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import onnx_ir as ir


class Namer:
    """Hands out names that no value or node of a model has, subgraphs included.

    Args:
        model: The model whose names are taken.
    """

    def __init__(self, model: ir.Model) -> None:
        self._taken: set[str] = set()
        graphs = [model.graph, *model.graph.subgraphs()]
        for graph in graphs:
            self._taken.update(value.name for value in graph.inputs if value.name)
            self._taken.update(graph.initializers)
            for node in graph:
                if node.name:
                    self._taken.add(node.name)
                self._taken.update(value.name for value in node.outputs if value.name)

    def __call__(self, wish: str) -> str:
        """Return ``wish`` or, where it is taken, ``wish`` with the first free number."""
        name, number = wish, 2
        while name in self._taken:
            name, number = f"{wish}_{number}", number + 1
        self._taken.add(name)
        return name


def add_initializer(graph: ir.Graph, name: str, array: np.ndarray, dtype: ir.DataType | None = None) -> ir.Value:
    """Register a constant tensor in a graph.

    Args:
        graph: The graph that will own it.
        name: A name that is free in the whole model (see Namer).
        array: Its numbers; copied only if not contiguous.
        dtype: Element type where numpy's own does not tell (int4, bfloat16).
    """
    tensor = ir.tensor(np.ascontiguousarray(array).reshape(array.shape), dtype=dtype, name=name)
    value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor)
    graph.register_initializer(value)
    return value


def renew_initializer(node: ir.Node, position: int, array: np.ndarray, namer: Namer) -> None:
    """Give a node a changed constant, which takes the old one's name where nothing else reads that.

    Names of weights are what patterns and decisions speak of: they go on meaning the same.

    Args:
        node: A node that reads an initializer.
        position: Index of that input.
        array: The new numbers.
        namer: Names of the model.
    """
    value = node.inputs[position]
    assert value is not None
    graph, name = owner_of(value), str(value.name)
    fresh = add_initializer(graph, namer(f"{name}.changed"), np.ascontiguousarray(array, dtype=np.float32))
    node.replace_input_with(position, fresh)
    if any(True for _ in value.uses()):
        return
    del graph.initializers[name]
    del graph.initializers[str(fresh.name)]
    value.name, fresh.name = None, name
    fresh.const_value.name = name  # type: ignore[union-attr]
    graph.register_initializer(fresh)


def prepend(graph: ir.Graph, nodes: Sequence[ir.Node]) -> None:
    """Put nodes at the very start of a graph, in the given order."""
    first = next(iter(graph), None)
    if first is None:
        graph.extend(nodes)
    else:
        graph.insert_before(first, nodes)


def make_node(
    op: str,
    inputs: Sequence[ir.Value | None],
    outputs: Sequence[str],
    *,
    name: str,
    attributes: dict[str, object] | None = None,
    domain: str = "",
    dtype: ir.DataType | None = ir.DataType.FLOAT,
    shapes: Sequence[ir.Shape | None] | None = None,
) -> ir.Node:
    """Make a node whose outputs carry names and types.

    Args:
        op: Operator type.
        inputs: Input values; None for an optional one that is absent.
        outputs: Output names.
        name: Node name.
        attributes: Attributes as plain Python values.
        domain: Operator domain.
        dtype: Element type of every output; None where unknown.
        shapes: A shape for each output.
    """
    values = [
        ir.Value(
            name=output,
            type=None if dtype is None else ir.TensorType(dtype),
            shape=None if shapes is None else shapes[i],
        )
        for i, output in enumerate(outputs)
    ]
    return ir.node(op, inputs, attributes or {}, domain=domain, outputs=values, name=name)  # type: ignore[arg-type]


def owner_of(value: ir.Value) -> ir.Graph:
    """Return the graph that holds an initializer."""
    graph = value.graph
    if graph is None:
        raise ValueError(f"the value {value.name!r} belongs to no graph")
    return graph


def drop_unused_initializers(model: ir.Model) -> list[str]:
    """Remove initializers that nothing reads; returns their names, sorted."""
    removed: list[str] = []
    for graph in [model.graph, *model.graph.subgraphs()]:
        outputs = {id(value) for value in graph.outputs}
        for name, value in list(graph.initializers.items()):
            if not value.uses() and id(value) not in outputs:
                del graph.initializers[name]
                removed.append(name)
    return sorted(removed)


def become(model: ir.Model, other: ir.Model) -> None:
    """Put another model's graph in the place of a model's own, in place; its metadata stay.

    Args:
        model: What changes.
        other: What it becomes; it must not be used any more.
    """
    model.graph, model.ir_version = other.graph, other.ir_version
    model.functions.clear()
    model.functions.update(other.functions)


def all_nodes(model: ir.Model) -> Iterable[ir.Node]:
    """Every node of the main graph and its subgraphs, in order."""
    return model.graph.all_nodes()
