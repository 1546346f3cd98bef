"""Networks of known sizes with random but sensible weights: ResNet-18, MobileNetV2, MobileNetV3.

Speed does not depend on the weights, and noise hardly does as long as activations are distributed as in a trained
network. So each convolution is followed by a batch normalisation with statistics of its own, gains around 1 and
shifts around 0, folded in; inputs are smooth, as images are.

Run: python benchmarks/made_nets.py FOLDER
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch.nn import functional

CALIBRATION, TEST = 16, 64
CLASSES = 1000


@dataclass
class Value:
    """A name in the graph and what it holds for the inputs that normalise it."""

    name: str
    array: torch.Tensor


@dataclass
class Builder:
    """Writes nodes and computes them at once, so that each layer can be normalised by what it sees."""

    seed: int
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = torch.Generator().manual_seed(self.seed)

    def node(self, op: str, inputs: list[str], array: torch.Tensor, **attributes: object) -> Value:
        """Add a node whose result is known."""
        name = f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return Value(name, array)

    def constant(self, array: torch.Tensor, name: str) -> str:
        """Add an initializer."""
        self.weights.append(numpy_helper.from_array(array.numpy(), name))
        return name

    def conv(self, x: Value, out: int, kernel: int, stride: int = 1, groups: int = 1, gain: float = 1.0) -> Value:
        """Convolution with its batch normalisation folded in."""
        channels = x.array.shape[1] // groups
        weight = torch.randn(out, channels, kernel, kernel, generator=self.random) / (channels * kernel**2) ** 0.5
        pad = (kernel - 1) // 2
        raw = functional.conv2d(x.array, weight, None, stride, pad, groups=groups)
        std, mean = _spread(raw)
        # Gains of trained networks differ by factors between channels.
        factor = gain * torch.exp(0.4 * torch.randn(out, generator=self.random)) / (std + 1e-5)
        bias = 0.3 * torch.randn(out, generator=self.random) - mean * factor
        weight = weight * factor[:, None, None, None]
        name = f"conv{len(self.nodes)}"
        return self.node(
            "Conv",
            [x.name, self.constant(weight, f"{name}.weight"), self.constant(bias, f"{name}.bias")],
            functional.conv2d(x.array, weight, bias, stride, pad, groups=groups),
            kernel_shape=[kernel] * 2,
            strides=[stride] * 2,
            pads=[pad] * 4,
            group=groups,
        )

    def relu(self, x: Value) -> Value:
        """Relu."""
        return self.node("Relu", [x.name], x.array.relu())

    def relu6(self, x: Value) -> Value:
        """Clip to 0 to 6."""
        bounds = [self.constant(torch.tensor(float(bound)), f"bound{len(self.nodes)}_{bound}") for bound in (0, 6)]
        return self.node("Clip", [x.name, *bounds], x.array.clamp(0, 6))

    def hardswish(self, x: Value) -> Value:
        """HardSwish."""
        return self.node("HardSwish", [x.name], functional.hardswish(x.array))

    def add(self, x: Value, y: Value) -> Value:
        """Sum."""
        return self.node("Add", [x.name, y.name], x.array + y.array)

    def pool(self, x: Value) -> Value:
        """Mean over all positions."""
        return self.node("GlobalAveragePool", [x.name], x.array.mean((2, 3), keepdim=True))

    def squeeze_excite(self, x: Value, inner: int) -> Value:
        """Scale channels by what is seen over all positions."""
        gate = self.conv(self.relu(self.conv(self.pool(x), inner, 1)), x.array.shape[1], 1)
        gate = self.node("HardSigmoid", [gate.name], functional.hardsigmoid(gate.array), alpha=1 / 6, beta=0.5)
        return self.node("Mul", [x.name, gate.name], x.array * gate.array)

    def linear(self, x: Value, out: int) -> Value:
        """Fully connected layer; the scores of its outputs get a standard deviation of 3."""
        weight = torch.randn(out, x.array.shape[1], generator=self.random) / x.array.shape[1] ** 0.5
        std, _ = _spread((x.array @ weight.T)[:, :, None, None])
        weight = weight * (3 / (std + 1e-5))[:, None]
        bias = 0.3 * torch.randn(out, generator=self.random)
        name = f"fc{len(self.nodes)}"
        names = [self.constant(weight, f"{name}.weight"), self.constant(bias, f"{name}.bias")]
        return self.node("Gemm", [x.name, *names], x.array @ weight.T + bias, transB=1)

    def flatten(self, x: Value) -> Value:
        """[N, C, 1, 1] to [N, C]."""
        return self.node("Flatten", [x.name], x.array.flatten(1))


def _spread(raw: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Standard deviation and mean of each channel, of [N, C, H, W].

    Behind a mean over all positions the images of a random network hardly differ. Blowing the difference up would
    blow up all noise: there one number for all channels takes the place of the standard deviation.
    """
    if raw.shape[2] * raw.shape[3] > 1:
        return torch.std_mean(raw, dim=(0, 2, 3))
    return raw.square().mean().sqrt().expand(raw.shape[1]), torch.zeros(raw.shape[1])


def images(count: int, seed: int) -> np.ndarray:
    """Smooth noise of several scales, [count, 3, 224, 224], about standard normal, each image with its own mean."""
    random = torch.Generator().manual_seed(seed)
    total = torch.randn(count, 3, 1, 1, generator=random) * 0.5
    for side, part in ((7, 0.7), (28, 0.5), (112, 0.25)):
        noise = torch.randn(count, 3, side, side, generator=random)
        total = total + part * functional.interpolate(noise, size=224, mode="bilinear", align_corners=False)
    return total.expand(count, 3, 224, 224).contiguous().numpy()


def resnet18(b: Builder, x: Value) -> Value:
    """He et al. 2015: 11.7 million weights, 1.8 GMAC."""
    x = b.relu(b.conv(x, 64, 7, 2))
    x = b.node(
        "MaxPool",
        [x.name],
        functional.max_pool2d(x.array, 3, 2, 1),
        kernel_shape=[3, 3],
        strides=[2, 2],
        pads=[1] * 4,
    )
    for stage, channels in enumerate((64, 128, 256, 512)):
        for block in range(2):
            stride = 2 if stage and not block else 1
            y = b.conv(b.relu(b.conv(x, channels, 3, stride)), channels, 3, gain=0.5)
            side = b.conv(x, channels, 1, stride) if stride > 1 else x
            x = b.relu(b.add(y, side))
    return b.linear(b.flatten(b.pool(x)), CLASSES)


def mobilenet_v2(b: Builder, x: Value) -> Value:
    """Sandler et al. 2018: 3.5 million weights, 0.3 GMAC."""
    x = b.relu6(b.conv(x, 32, 3, 2))
    rows = (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)
    for expand, out, count, first in rows:
        for index in range(count):
            stride, channels = first if index == 0 else 1, x.array.shape[1]
            y = b.relu6(b.conv(x, channels * expand, 1)) if expand > 1 else x
            y = b.relu6(b.conv(y, channels * expand, 3, stride, channels * expand))
            y = b.conv(y, out, 1, gain=0.7)
            x = b.add(x, y) if stride == 1 and channels == out else y
    return b.linear(b.flatten(b.pool(b.relu6(b.conv(x, 1280, 1)))), CLASSES)


# Kernel, expanded channels, channels, squeeze-excite, HardSwish, stride.
_SMALL = (
    (3, 16, 16, 1, 0, 2),
    (3, 72, 24, 0, 0, 2),
    (3, 88, 24, 0, 0, 1),
    (5, 96, 40, 1, 1, 2),
    (5, 240, 40, 1, 1, 1),
    (5, 240, 40, 1, 1, 1),
    (5, 120, 48, 1, 1, 1),
    (5, 144, 48, 1, 1, 1),
    (5, 288, 96, 1, 1, 2),
    (5, 576, 96, 1, 1, 1),
    (5, 576, 96, 1, 1, 1),
)
_LARGE = (
    (3, 16, 16, 0, 0, 1),
    (3, 64, 24, 0, 0, 2),
    (3, 72, 24, 0, 0, 1),
    (5, 72, 40, 1, 0, 2),
    (5, 120, 40, 1, 0, 1),
    (5, 120, 40, 1, 0, 1),
    (3, 240, 80, 0, 1, 2),
    (3, 200, 80, 0, 1, 1),
    (3, 184, 80, 0, 1, 1),
    (3, 184, 80, 0, 1, 1),
    (3, 480, 112, 1, 1, 1),
    (3, 672, 112, 1, 1, 1),
    (5, 672, 160, 1, 1, 2),
    (5, 960, 160, 1, 1, 1),
    (5, 960, 160, 1, 1, 1),
)


def _mobilenet_v3(b: Builder, x: Value, rows: tuple[tuple[int, ...], ...], hidden: int) -> Value:
    x = b.hardswish(b.conv(x, 16, 3, 2))
    for kernel, wide, out, squeeze, hard, stride in rows:
        act: Callable[[Value], Value] = b.hardswish if hard else b.relu
        channels = x.array.shape[1]
        y = act(b.conv(x, wide, 1)) if wide != channels else x
        y = act(b.conv(y, wide, kernel, stride, wide))
        if squeeze:
            y = b.squeeze_excite(y, max(8, (wide // 4 + 4) // 8 * 8))
        y = b.conv(y, out, 1, gain=0.7)
        x = b.add(x, y) if stride == 1 and channels == out else y
    x = b.pool(b.hardswish(b.conv(x, x.array.shape[1] * 6, 1)))
    return b.linear(b.hardswish(b.linear(b.flatten(x), hidden)), CLASSES)


def mobilenet_v3_small(b: Builder, x: Value) -> Value:
    """Howard et al. 2019: 2.5 million weights, 0.06 GMAC."""
    return _mobilenet_v3(b, x, _SMALL, 1024)


def mobilenet_v3_large(b: Builder, x: Value) -> Value:
    """Howard et al. 2019: 5.5 million weights, 0.22 GMAC."""
    return _mobilenet_v3(b, x, _LARGE, 1280)


NETS = (resnet18, mobilenet_v2, mobilenet_v3_small, mobilenet_v3_large)


def make(folder: Path) -> dict[str, Path]:
    """Write every network with its calibration and test inputs, unless they are there.

    Returns:
        The model files by name; ``images.calib.npz`` and ``images.eval.npz`` lie beside them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, count, seed in (("calib", CALIBRATION, 1), ("eval", TEST, 2)):
        if not (folder / f"images.{name}.npz").exists():
            np.savez(folder / f"images.{name}.npz", input=images(count, seed))
    found = {}
    for net in NETS:
        path = found[net.__name__] = folder / f"{net.__name__}.onnx"
        if not path.exists():
            onnx.save(_model(net), path)
    return found


@torch.no_grad()
def _model(net: Callable[[Builder, Value], Value]) -> onnx.ModelProto:
    builder = Builder(seed=0)
    output = net(builder, Value("input", torch.from_numpy(images(8, 0))))
    graph = helper.make_graph(
        builder.nodes,
        net.__name__,
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, 224, 224])],
        [helper.make_tensor_value_info(output.name, TensorProto.FLOAT, ["batch", CLASSES])],
        builder.weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


if __name__ == "__main__":
    for name, path in make(Path(sys.argv[1])).items():
        print(name, path)
