"""What onnxruntime's convolutions reach at best on this machine: a stack of nothing but 3x3 ones, on one thread.

It is the yardstick for speed-ups of convolutional networks: with VNNI an instruction does 64 products of bytes where
a float one does 16, so where the float kernels are at their peak nothing gets more than four times as fast.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from modelkit.api import evaluate, quantize

LAYERS, CHANNELS, SIDE = 12, 128, 28


@dataclass(frozen=True)
class Peak:
    """What the stack reached, in billions of multiply-accumulates a second.

    Attributes:
        floats: In float32.
        integers: uint8 activations, int8 weights.
        ratio: How many times faster integers are, measured side by side.
    """

    floats: float
    integers: float
    ratio: float


def measure_peak(seconds: float = 4.0) -> Peak:
    """Quantize the stack and time both."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ("stack.onnx", "stack.int8.onnx")]
        data = Path(folder) / "data.npz"
        onnx.save(_stack(rng), paths[0])
        np.savez(data, x=rng.random((8, CHANNELS, SIDE, SIDE), np.float32))
        quantize(paths[0], output=paths[1], data=data, config={"mode": "static", "activations.range": "minmax"})
        found = evaluate(paths, data=data, config={"measure.seconds": seconds})["models"]
    billions = LAYERS * CHANNELS * CHANNELS * 9 * SIDE * SIDE / 1e9
    floats, integers = (1000 * billions / entry["latency"]["median_ms"] for entry in found)
    return Peak(floats, integers, found[1]["speedup"]["value"])


def _stack(rng: np.random.Generator) -> onnx.ModelProto:
    nodes, weights = [], []
    for index in range(LAYERS):
        numbers = rng.standard_normal((CHANNELS, CHANNELS, 3, 3)) * np.sqrt(2 / (9 * CHANNELS))
        weights.append(numpy_helper.from_array(numbers.astype(np.float32), f"w{index}"))
        source = "x" if index == 0 else f"r{index - 1}"
        nodes.append(helper.make_node("Conv", [source, f"w{index}"], [f"c{index}"], pads=[1] * 4))
        nodes.append(helper.make_node("Relu", [f"c{index}"], [f"r{index}"]))
    shape = [1, CHANNELS, SIDE, SIDE]
    graph = helper.make_graph(
        nodes,
        "stack",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(f"r{LAYERS - 1}", TensorProto.FLOAT, shape)],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


if __name__ == "__main__":
    found = measure_peak()
    print(f"float32 {found.floats:.0f}, uint8 x int8 {found.integers:.0f} GMAC/s: {found.ratio:.2f}x")
