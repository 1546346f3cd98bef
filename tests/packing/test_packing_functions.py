"""Every encoding in front of a layer: onnxruntime rebuilds the weight once, and its function is small."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from test_packing_encodings import weight

from modelkit.pack.proven import unfolded
from modelkit.packing import catalog
from modelkit.packing.body import DOMAIN
from modelkit.packing.catalog import by_name
from modelkit.packing.encoding import TABLE, Encoding, Words, functions
from modelkit.runtime import make_session

CODES = [*map(str, range(1, 9)), "p1to8", "p1to12", "p4to12"]
NAMES = [
    *(f"Dense_{code}" for code in CODES),
    *(f"Block_{code}" for code in [*CODES, "raw"]),
    *(f"Mask_{code}" for code in [*CODES, "raw"]),
    *(f"Pair_{code}" for code in CODES),
    *(f"Gap_{gaps}_{code}" for gaps in CODES for code in [*CODES, "raw"]),
]


@pytest.mark.parametrize("name", NAMES)
def test_functions_are_small(name: str) -> None:
    encoding = by_name(name)
    assert encoding is not None
    size = sum(each.ByteSize() for each in functions(encoding, 18))
    assert size < 3600


def offered() -> dict[str, tuple[Encoding, np.ndarray]]:
    """Encodings with a weight that each is offered for."""
    found: dict[str, tuple[Encoding, np.ndarray]] = {}
    for values in (2, 3, 5, 9, 16, 33, 65, 120, 1000):
        for sparsity in (0.0, 0.3, 0.9, 0.99):
            array = weight(values, (40, 30), "float32", values, sparsity)
            array[~np.isfinite(array)] = 0
            if sparsity == 0.9:  # in blocks
                array = np.repeat(array[:, :15], 2, axis=1)
            for encoding, _ in catalog.offers(Words.of(array)):
                # All pairs of codes would take long; each is there on either side.
                if {"Block", "Dense", "Mask", "Pair", "4", "raw"} & set(encoding.name.split("_")):
                    found.setdefault(encoding.name, (encoding, array))
    return found


def test_no_encoding_is_left_to_run(tmp_path: Path) -> None:
    """One model with a product for each encoding."""
    nodes, constants, protos = [], [], {}
    every = offered()
    assert {name.split("_")[0] for name in every} == {"Block", "Dense", "Mask", "Gap", "Pair"} and len(every) > 50
    total = np.zeros((2, 30))
    x = np.random.default_rng(0).integers(-3, 4, (2, 40)).astype(np.float32)
    for number, (name, (encoding, array)) in enumerate(every.items()):
        streams = encoding.encode(Words.of(array))
        for each, part in streams.arrays.items():
            own = part.view(np.float32) if each == TABLE else part
            constants.append(numpy_helper.from_array(own, f"w{number}.{each}"))
        inputs = [f"w{number}.{each}" for each in encoding.inputs]
        counts = {each: [count] for each, count in streams.attributes.items()}
        nodes.append(helper.make_node(name, inputs, [f"w{number}"], domain=DOMAIN, shape=[40, 30], **counts))
        nodes.append(helper.make_node("MatMul", ["x", f"w{number}"], [f"y{number}"]))
        protos.update({each.name: each for each in functions(encoding, 18)})
        total += x @ array
    nodes.append(helper.make_node("Sum", [f"y{number}" for number in range(len(every))], ["y"]))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [2, 40])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [2, 30])],
        constants,
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(DOMAIN, 1)]
    proto = helper.make_model(graph, opset_imports=opsets, functions=list(protos.values()), ir_version=9)
    onnx.checker.check_model(proto, full_check=True)
    path, seen = tmp_path / "m.onnx", tmp_path / "seen.onnx"
    onnx.save(proto, path)
    assert unfolded(path, [f"w{number}" for number in range(len(every))]) == []
    session = make_session(path, optimized_path=seen)
    kinds = {node.op_type for node in onnx.load(seen).graph.node}
    assert kinds <= {"MatMul", "FusedMatMul", "Sum", "Gemm"}
    np.testing.assert_allclose(session.run(None, {"x": x})[0], total, rtol=1e-4, atol=1e-2)
