"""Tables of multiples, and numbers of four bits: the very bits come back, whoever computes them."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from test_packing_encodings import LEVELS

from modelkit.packing.body import DOMAIN
from modelkit.packing.encoding import words_of
from modelkit.packing.fours import KINDS, fours_function, narrowed, widened
from modelkit.packing.steps import STEPS, multiples, steps_function, steps_of

steps = st.floats(2.0**-20, 1024.0, width=32).map(np.float32)
wholes = st.lists(st.integers(-127, 127), min_size=1, max_size=40, unique=True)


def call(name: str, arrays: dict[str, np.ndarray], function: onnx.FunctionProto, kind: int) -> onnx.ModelProto:
    node = helper.make_node(name, list(arrays), ["y"], domain=DOMAIN)
    stored = [numpy_helper.from_array(array, key) for key, array in arrays.items()]
    shape = next(iter(arrays.values())).shape
    graph = helper.make_graph([node], "g", [], [helper.make_tensor_value_info("y", kind, shape)], stored)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid(DOMAIN, 1)]
    return helper.make_model(graph, opset_imports=opsets, functions=[function], ir_version=10)


@settings(max_examples=60, deadline=None)
@given(wholes, steps, st.sampled_from([np.float32, np.float64]))
def test_whole_multiples_are_found(numbers: list[int], step: np.float32, kind: type) -> None:
    table = np.array(numbers, kind) * kind(step)
    found = steps_of(table)
    assert (found is None) == (not table.any())
    if found is not None:
        assert found[0].dtype == np.int8 and multiples(*found).tobytes() == table.tobytes()


@pytest.mark.parametrize(
    "table",
    [
        np.array([1, np.sqrt(2), 3], np.float32),
        np.array([np.inf, 1], np.float32),
        np.array([-0.0, 1], np.float32),
        np.array([1, 2], np.int8),
        np.array([0, 0], np.float32),
    ],
)
def test_other_tables_stay(table: np.ndarray) -> None:
    assert steps_of(table) is None


@settings(max_examples=20, deadline=None)
@given(wholes, steps, st.sampled_from(LEVELS))
def test_onnxruntime_multiplies_alike(
    numbers: list[int], step: np.float32, level: ort.GraphOptimizationLevel
) -> None:
    arrays = {"k": np.array(numbers, np.int8), "s": np.full(1, step)}
    proto = call(STEPS.name, arrays, steps_function(21), onnx.TensorProto.FLOAT)
    onnx.checker.check_model(proto, full_check=True)
    options = ort.SessionOptions()
    options.graph_optimization_level, options.log_severity_level = level, 4
    (found,) = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"]).run(
        None, {}
    )
    expected = multiples(*arrays.values())
    assert words_of(found).tobytes() == words_of(expected).tobytes()
    assert np.asarray(ReferenceEvaluator(proto).run(None, {})[0]).tobytes() == expected.tobytes()


@pytest.mark.parametrize("name", list(KINDS))
@pytest.mark.parametrize("level", LEVELS)
def test_bytes_become_numbers_of_four_bits(name: str, level: ort.GraphOptimizationLevel) -> None:
    kind = KINDS[name]
    numbers = np.arange(16, dtype=np.uint8) if name == "Uint4" else np.arange(-8, 8).astype(np.int8)
    small = narrowed(numbers, kind)
    assert np.array_equal(widened(small, kind), numbers)
    proto = call(name, {"x": numbers}, fours_function(name, 21), kind)
    proto.graph.node.append(helper.make_node("Cast", ["y"], ["z"], to=onnx.TensorProto.FLOAT))
    proto.graph.output[0].CopyFrom(helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, [16]))
    onnx.checker.check_model(proto, full_check=True)
    options = ort.SessionOptions()
    options.graph_optimization_level, options.log_severity_level = level, 4
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    assert np.array_equal(session.run(None, {})[0], numbers.astype(np.float32))


def test_what_has_more_than_four_bits() -> None:
    with pytest.raises(ValueError, match="a number has more than 4 bits"):
        narrowed(np.array([16], np.uint8), onnx.TensorProto.UINT4)
    with pytest.raises(ValueError, match=r"uint8\[2\] are no multiples"):
        multiples(np.zeros(2, np.uint8), np.ones(1, np.float32))
