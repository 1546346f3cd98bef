"""Random nets: for every one the cut model computes what the net computes with those channels at zero."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx
from channel_checks import check_cut, clean, some_of
from graph_builders import info, init, model, norm_inits, norm_node
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper

from modelkit.graph.channels import find_groups

SIZE = 4
STEPS = (
    *("conv", "conv", "conv", "grouped", "depthwise", "double", "add", "add", "concat", "twice", "split", "slice"),
    *("norm", "prelu", "gate", "pad", "shuffle", "pick", "transposed", "instance", "sum"),
)


class Net:
    """Writes a net node by node; every tensor is [N, C, 4, 4] and ends in Relu, so that zero stays zero."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.random = np.random.default_rng(draw(st.integers(0, 99)))
        self.nodes: list[onnx.NodeProto] = []
        self.inits: list[onnx.TensorProto] = []
        self.tensors: list[tuple[str, int]] = []

    def node(self, op: str, inputs: list[str], outputs: int = 1, **attributes: object) -> list[str]:
        name = f"n{len(self.nodes)}"
        names = [f"{name}.{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(op, inputs, names, name=name, **attributes))
        return names

    def weight(self, *shape: int) -> str:
        name = f"w{len(self.inits)}"
        fan = max(int(np.prod(shape[1:])), 1)
        self.inits.append(init(name, (self.random.standard_normal(shape) / np.sqrt(fan)).astype(np.float32)))
        return name

    def constant(self, *numbers: int) -> str:
        name = f"w{len(self.inits)}"
        self.inits.append(init(name, np.array(numbers, dtype=np.int64)))
        return name

    def pick(self) -> tuple[str, int]:
        # The first is the input: it is used by the first convolution only.
        return self.draw(st.sampled_from(self.tensors[1:] or self.tensors))

    def keep(self, name: str, channels: int, relu: bool = True) -> None:
        self.tensors.append((self.node("Relu", [name])[0] if relu else name, channels))

    def conv(self, source: str, inside: int, outside: int, group: int = 1, kernel: int = 1) -> str:
        weights = [self.weight(outside, inside // group, kernel, kernel), self.weight(outside)]
        pads = [kernel // 2] * 4
        return self.node("Conv", [source, *weights], group=group, pads=pads)[0]

    def step(self, kind: str) -> None:
        source, channels = self.pick()
        number = self.draw(st.integers(2, 6))
        match kind:
            case "conv":
                self.keep(self.conv(source, channels, number, kernel=self.draw(st.sampled_from((1, 3)))), number)
            case "grouped" if channels % 2 == 0:
                self.keep(self.conv(source, channels, 2 * number, group=2), 2 * number)
            case "depthwise":
                self.keep(self.conv(source, channels, channels, group=channels, kernel=3), channels)
            case "double":
                self.keep(self.conv(source, channels, 2 * channels, group=channels), 2 * channels)
            case "add":
                other, count = self.pick()
                if count != channels:
                    other = self.conv(other, count, channels)
                self.keep(self.node("Add", [source, other])[0], channels)
            case "sum":
                other, count = self.pick()
                third = self.conv(other, count, channels)
                self.keep(self.node("Sum", [source, third, source])[0], channels)
            case "concat":
                other, count = self.pick()
                self.keep(self.node("Concat", [source, other], axis=1)[0], channels + count, relu=False)
            case "twice":
                self.keep(self.node("Concat", [source, source], axis=1)[0], 2 * channels, relu=False)
            case "split" if channels > 2:
                sizes = self.constant(1, channels - 1)
                for name, size in zip(self.node("Split", [source, sizes], 2, axis=1), (1, channels - 1), strict=True):
                    self.keep(name, size, relu=False)
            case "slice" if channels > 2:
                bounds = [self.constant(1), self.constant(channels), self.constant(1)]
                self.keep(self.node("Slice", [source, *bounds])[0], channels - 1, relu=False)
            case "pick":
                order = self.random.permutation(channels)[: max(2, channels - 1)]
                self.keep(self.node("Gather", [source, self.constant(*order)], axis=1)[0], len(order), relu=False)
            case "norm":
                prefix = f"bn{len(self.nodes)}"
                self.inits += norm_inits(channels, self.random, prefix)
                self.nodes.append(norm_node(source, f"{prefix}.y", prefix))
                self.keep(f"{prefix}.y", channels)
            case "prelu":
                self.keep(self.node("PRelu", [source, self.weight(channels, 1, 1)])[0], channels)
            case "instance":
                numbers = [self.weight(channels), self.weight(channels)]
                self.keep(self.node("InstanceNormalization", [source, *numbers])[0], channels)
            case "gate":
                pooled = self.node("GlobalAveragePool", [source])[0]
                inner = self.node("Relu", [self.conv(pooled, channels, number)])[0]
                gate = self.node("Sigmoid", [self.conv(inner, number, channels)])[0]
                self.keep(self.node("Mul", [source, gate])[0], channels)
            case "pad":
                pads = self.constant(0, 1, 0, 0, 0, 2, 0, 0)
                self.keep(self.node("Pad", [source, pads])[0], channels + 3, relu=False)
            case "shuffle" if channels % 2 == 0:
                split = self.node("Reshape", [source, self.constant(0, 2, channels // 2, SIZE, SIZE)])[0]
                turned = self.node("Transpose", [split], perm=[0, 2, 1, 3, 4])[0]
                joined = self.node("Reshape", [turned, self.constant(0, -1, SIZE, SIZE)])[0]
                self.keep(joined, channels, relu=False)
            case "transposed":
                weights = [self.weight(channels, number, 1, 1), self.weight(number)]
                self.keep(self.node("ConvTranspose", [source, *weights])[0], number)

    def head(self) -> None:
        source, channels = self.tensors[-1]
        if self.draw(st.booleans()):
            flat = self.node("Flatten", [source])[0]
            size = channels * SIZE * SIZE
        else:
            flat = self.node("ReduceMean", [source], axes=[2, 3], keepdims=0)[0]
            size = channels
        if self.draw(st.booleans()):
            out = self.node("Gemm", [flat, self.weight(5, size), self.weight(5)], transB=1)[0]
        else:
            product = self.node("MatMul", [flat, self.weight(size, 5)])[0]
            out = self.node("Add", [product, self.weight(5)])[0]
        self.nodes.append(helper.make_node("Identity", [out], ["y"]))


@st.composite
def nets(draw: st.DrawFn) -> onnx.ModelProto:
    net = Net(draw)
    net.tensors.append(("x", 3))
    net.step("conv")
    for kind in draw(st.lists(st.sampled_from(STEPS), min_size=2, max_size=9)):
        net.step(kind)
    net.head()
    return model(net.nodes, [info("x", ["batch", 3, SIZE, SIZE])], [info("y", ["batch", 5])], net.inits, opset=17)


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(nets(), st.integers(0, 9))
def test_cut_is_zeroed(proto: onnx.ModelProto, seed: int) -> None:
    cleaned = clean(proto)
    groups = find_groups(cleaned)
    keep = {}
    for group in groups:
        kept = some_of(group, seed) if group.frozen is None else None
        if kept is not None:
            assert group.exact
            keep[group.name] = kept
    if keep:
        with tempfile.TemporaryDirectory() as folder:
            # Not every tensor reaches the output, and few channels may be dead at the start.
            check_cut(cleaned, keep, Path(folder), made_only=True, changes=False, tolerance=2e-5)
