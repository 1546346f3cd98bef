"""Islands of integer layers in a float graph: which of them cost more in conversions than they gain, as measured."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import onnx_ir as ir

from modelkit.config.options import Measure
from modelkit.graph.save import save
from modelkit.measure.latency import compare_fresh
from modelkit.progress import Progress, silent
from modelkit.quantize.plan import WEIGHTED, Plan, written_by
from modelkit.runtime import make_session, ready_run

# All variants are loaded side by side: no more of them, and no more bytes of them together.
MOST_ISLANDS = 12
_MOST_BYTES = 1 << 28
_MARGIN = 0.01


def find_islands(plan: Plan) -> list[frozenset[str]]:
    """Group the integer layers of a plan that hand integers to each other, directly or through other integer nodes.

    Args:
        plan: A plan that was not carried out yet.

    Returns:
        For each island the names of its Conv, Gemm and MatMul nodes, in graph order.
    """
    made = {value: node for node in plan.nodes for value in written_by(node)}
    leader = {node: node for node in plan.nodes}

    def find(node: ir.Node) -> ir.Node:
        while leader[node] is not node:
            leader[node] = leader[leader[node]]
            node = leader[node]
        return node

    carried = set(plan.activations)
    for node in plan.nodes:
        for value in node.inputs:
            if value is not None and value in made and value in carried:
                leader[find(node)] = find(made[value])
    groups: dict[ir.Node, set[str]] = {}
    for node in plan.nodes:
        group = groups.setdefault(find(node), set())
        if node.op_type in WEIGHTED:
            group.add(str(node.name or node.outputs[0].name))
    return [frozenset(group) for group in groups.values() if group]


def slow_islands(
    islands: list[frozenset[str]],
    make: Callable[[frozenset[str]], ir.Model],
    inputs: Mapping[str, np.ndarray],
    measure: Measure,
    *,
    seed: int = 0,
    progress: Progress = silent,
) -> frozenset[str]:
    """Time the model with each island in float against the model with all of them in integers.

    Args:
        islands: What ``find_islands`` found.
        make: Returns the quantized model with the layers of these names in float.
        inputs: One batch, by input name.
        measure: How to time; a quarter of its seconds are spent on each variant.
        seed: Seed of the order of runs.
        progress: Told how far the timing is.

    Returns:
        Names of the layers of all islands without which the model is faster by 1 % or more; empty also where there is
        one island only (the original is the model without it), more than 12, or too much to load. The estimates are
        short: the model without all of them is to be measured before it is believed.
    """
    if not 2 <= len(islands) <= MOST_ISLANDS:
        return frozenset()
    with tempfile.TemporaryDirectory(prefix="modelkit-") as folder:

        def written(name: str, keep: frozenset[str]) -> Path:
            path = Path(folder) / f"{name}.onnx"
            save(make(keep), path)
            return path

        paths = {"all": written("all", frozenset())}
        if paths["all"].stat().st_size * (len(islands) + 1) > _MOST_BYTES:
            return frozenset()
        paths.update({str(index): written(str(index), island) for index, island in enumerate(islands)})

        def runner(path: Path) -> Callable[[], object]:
            session = make_session(path, threads=measure.threads, providers=[measure.provider])
            return ready_run(session, inputs, path.name)

        factories = {name: partial(runner, path) for name, path in paths.items()}
        timed = compare_fresh(factories, baseline="all", seconds=measure.seconds / 4, seed=seed, progress=progress)
    slow = [island for index, island in enumerate(islands) if timed.ratios[str(index)].value > 1 + _MARGIN]
    return frozenset().union(*slow)
