"""Small models and data for the tests of the command line, and one way to run it."""

from __future__ import annotations

import hashlib
import itertools
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from modelkit.cli.app import run

QUICK = ("--set", "measure.seconds=0.001")


class Ran(NamedTuple):
    """What one command line did."""

    code: int
    out: str
    err: str


def cli(capsys: pytest.CaptureFixture[str], *argv: object) -> Ran:
    """Run modelkit in this process."""
    capsys.readouterr()
    code = run([str(part) for part in argv])
    return Ran(code, *capsys.readouterr())


def quantize(capsys: pytest.CaptureFixture[str], *argv: object) -> Ran:
    """Run `modelkit quantize` with timing so short that nothing may hang on it: the smallest result wins."""
    return cli(capsys, "quantize", "--set", "objective=size", *argv, *QUICK)


def mlp(
    path: Path | str = "m.onnx",
    *,
    sizes: Sequence[int] = (16, 64, 10),
    batch: int | str = "N",
    node: str = "fc{}",
    weight: str = "w{}",
    inputs: str = "x",
    outputs: str = "y",
    dtype: int = TensorProto.FLOAT,
    opset: int = 17,
    extra: Sequence[onnx.NodeProto] = (),
) -> Path:
    """Write a multilayer perceptron with known names."""
    random = np.random.default_rng(0)
    kind = helper.tensor_dtype_to_np_dtype(dtype)
    nodes, constants, value = [], [], inputs
    last = len(sizes) - 2
    for index, (read, written) in enumerate(itertools.pairwise(sizes)):
        matrix = (random.standard_normal((read, written)) / read**0.5).astype(kind)
        constants += [
            numpy_helper.from_array(matrix, weight.format(index)),
            numpy_helper.from_array(np.zeros(written, kind), f"b{index}"),
        ]
        name = outputs if index == last else f"h{index}"
        nodes.append(
            helper.make_node("Gemm", [value, weight.format(index), f"b{index}"], [name], name=node.format(index))
        )
        if index != last:
            nodes.append(helper.make_node("Relu", [name], [f"r{index}"], name=f"relu{index}"))
            value = f"r{index}"
    graph = helper.make_graph(
        [*nodes, *extra],
        "g",
        [helper.make_tensor_value_info(inputs, dtype, [batch, sizes[0]])],
        [helper.make_tensor_value_info(outputs, dtype, [batch, sizes[-1]])],
        constants,
    )
    opsets = [helper.make_opsetid("", opset)]
    if any(each.domain for each in extra):
        opsets.append(helper.make_opsetid("com.example", 1))
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), str(path))
    return Path(path)


def conv(path: Path | str = "conv.onnx", *, node: str = "conv{}") -> Path:
    """Write a small convolutional net: Conv, Relu, Conv, pool, Gemm."""
    random = np.random.default_rng(1)

    def constant(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array((random.standard_normal(shape) / np.prod(shape[1:]) ** 0.5).astype("f4"), name)

    nodes = [
        helper.make_node("Conv", ["image", "k0"], ["c0"], name=node.format(0), pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c0"], ["r0"], name="relu"),
        helper.make_node("Conv", ["r0", "k1"], ["c1"], name=node.format(1), pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["c1"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["f"], name="flatten"),
        helper.make_node("Gemm", ["f", "w"], ["scores"], name="head"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 12, 12])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 10])],
        [constant("k0", 16, 3, 3, 3), constant("k1", 32, 16, 3, 3), constant("w", 32, 10)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))
    return Path(path)


def samples(path: Path | str = "d.npz", *, rows: int = 64, labels: bool = True, **arrays: np.ndarray) -> Path:
    """Write inputs for `mlp`, with labels that the model itself would give (so that it is right about all)."""
    random = np.random.default_rng(2)
    given = dict(arrays) or {"x": random.standard_normal((rows, 16)).astype("f4")}
    if labels:
        given["labels"] = random.integers(0, 10, rows)
    np.savez(path, **given)
    return Path(path)


def listing(folder: Path) -> dict[str, str]:
    """Every file below a folder with the hash of its content, links and folders too: what a run may not change."""
    found = {}
    for root, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            path = Path(root) / name
            mode = path.lstat().st_mode
            content = hashlib.sha256(path.read_bytes()).hexdigest() if stat.S_ISREG(mode) else str(mode)
            found[str(path.relative_to(folder))] = content
    return found


def widest(text: str) -> int:
    """Columns that the widest line takes."""
    from rich.cells import cell_len

    return max((cell_len(line) for line in text.splitlines()), default=0)
