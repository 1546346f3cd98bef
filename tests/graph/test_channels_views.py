"""Random reshapes, transposes and pieces of axes between products: index maps over several axes at once."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

import numpy as np
import onnx
from channel_checks import check_cut, clean, some_of
from graph_builders import info, init, model
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper

from modelkit.graph.channels import find_groups

STEPS = (
    *("reshape", "reshape", "reshape", "transpose", "transpose", "product", "scale", "slice", "twice", "reduce"),
    *("add", "split", "batched", "pick", "softmax", "pair"),
)


class Views:
    """Writes a net whose tensors are [batch, ...] with up to three more axes."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.random = np.random.default_rng(draw(st.integers(0, 99)))
        self.nodes: list[onnx.NodeProto] = []
        self.inits: list[onnx.TensorProto] = []
        self.tensors: list[tuple[str, tuple[int, ...]]] = []

    def node(self, op: str, inputs: list[str], outputs: int = 1, **attributes: object) -> list[str]:
        name = f"n{len(self.nodes)}"
        names = [f"{name}.{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(op, inputs, names, name=name, **attributes))
        return names

    def constant(self, array: np.ndarray) -> str:
        name = f"w{len(self.inits)}"
        self.inits.append(init(name, array))
        return name

    def weight(self, *shape: int) -> str:
        return self.constant((self.random.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32))

    def ints(self, *numbers: int) -> str:
        return self.constant(np.array(numbers, dtype=np.int64))

    def step(self, kind: str) -> None:
        source, shape = self.draw(st.sampled_from(self.tensors[-3:]))
        axis = self.draw(st.integers(0, len(shape) - 1))
        size = shape[axis]
        match kind:
            case "reshape":
                total = math.prod(shape)
                first = self.draw(st.sampled_from([d for d in range(1, total + 1) if total % d == 0]))
                rest = total // first
                second = self.draw(st.sampled_from([d for d in range(1, rest + 1) if rest % d == 0]))
                target = [d for d in (first, second, rest // second) if d != 1] or [1]
                written = list(target)
                if self.draw(st.booleans()):
                    written[self.draw(st.integers(0, len(target) - 1))] = -1
                name = self.node("Reshape", [source, self.ints(0, *written)])[0]
                self.tensors.append((name, tuple(target)))
            case "transpose":
                order = self.draw(st.permutations(range(len(shape))))
                name = self.node("Transpose", [source], perm=[0, *(a + 1 for a in order)])[0]
                self.tensors.append((name, tuple(shape[a] for a in order)))
            case "product":
                name = self.node("MatMul", [source, self.weight(shape[-1], 6)])[0]
                if len(shape) > 0:
                    self.tensors.append((name, (*shape[:-1], 6)))
            case "batched" if len(shape) == 3:
                name = self.node("MatMul", [source, self.weight(shape[0], shape[2], 4)])[0]
                self.tensors.append((name, (*shape[:-1], 4)))
            case "pair" if len(shape) > 1:
                turned = list(range(len(shape) + 1))
                turned[-1], turned[-2] = turned[-2], turned[-1]
                other = self.node("Transpose", [source], perm=turned)[0]
                name = self.node("MatMul", [source, other])[0]
                self.tensors.append((name, (*shape[:-1], shape[-2])))
            case "scale" | "add":
                kept = [d if i >= axis and self.draw(st.booleans()) else 1 for i, d in enumerate(shape)]
                op = "Mul" if kind == "scale" else "Add"
                self.tensors.append((self.node(op, [source, self.weight(*kept[axis:])])[0], shape))
            case "slice" if size > 2:
                bounds = [self.ints(1), self.ints(size), self.ints(axis + 1)]
                name = self.node("Slice", [source, *bounds])[0]
                self.tensors.append((name, (*shape[:axis], size - 1, *shape[axis + 1 :])))
            case "split" if size % 2 == 0:
                halves = self.node("Split", [source], 2, axis=axis + 1)
                name = self.node("Concat", halves[::-1], axis=axis + 1)[0]
                self.tensors.append((name, shape))
            case "twice" if math.prod(shape) < 100:
                name = self.node("Concat", [source, source], axis=axis + 1)[0]
                self.tensors.append((name, (*shape[:axis], 2 * size, *shape[axis + 1 :])))
            case "pick":
                order = self.random.permutation(size)
                self.tensors.append((self.node("Gather", [source, self.ints(*order)], axis=axis + 1)[0], shape))
            case "reduce" if len(shape) > 1:
                name = self.node("ReduceSum", [source, self.ints(axis + 1)], keepdims=0)[0]
                self.tensors.append((name, shape[:axis] + shape[axis + 1 :]))
            case "softmax":
                self.tensors.append((self.node("Softmax", [source], axis=axis + 1)[0], shape))

    def head(self) -> None:
        source, shape = self.tensors[-1]
        flat = self.node("Reshape", [source, self.ints(0, math.prod(shape))])[0]
        out = self.node("MatMul", [flat, self.weight(math.prod(shape), 3)])[0]
        self.nodes.append(helper.make_node("Identity", [out], ["y"]))


@st.composite
def nets(draw: st.DrawFn) -> onnx.ModelProto:
    net = Views(draw)
    net.tensors.append((net.node("MatMul", ["x", net.weight(5, 24)])[0], (24,)))
    for kind in draw(st.lists(st.sampled_from(STEPS), min_size=2, max_size=9)):
        net.step(kind)
    net.head()
    return model(net.nodes, [info("x", ["batch", 5])], [info("y", ["batch", 3])], net.inits, opset=17)


@settings(max_examples=50, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(nets(), st.integers(0, 9))
def test_cut_is_zeroed(proto: onnx.ModelProto, seed: int) -> None:
    cleaned = clean(proto)
    exact, all_ = {}, {}
    for group in find_groups(cleaned):
        kept = some_of(group, seed) if group.frozen is None else None
        if kept is not None:
            all_[group.name] = kept
            if group.exact:
                exact[group.name] = kept
    with tempfile.TemporaryDirectory() as folder:
        if exact:
            check_cut(cleaned, exact, Path(folder), changes=False, tolerance=2e-5)
        if len(all_) > len(exact):
            check_cut(cleaned, all_, Path(folder), changes=False, tolerance=np.inf)
