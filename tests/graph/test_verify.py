"""Verifying: equal models pass, changed ones are named, with the output that changed."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from graph_builders import cnn, info, init, model
from onnx import helper

from modelkit.errors import ModelError
from modelkit.graph.verify import random_feeds, verify_same
from modelkit.runtime import TensorSpec


def content(proto: onnx.ModelProto) -> bytes:
    return proto.SerializeToString()


def scaled(factor: float) -> bytes:
    inits = [init("w", np.full((4, 2), factor, dtype=np.float32))]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    return content(model(nodes, [info("x", ["N", 4])], [info("y", ["N", 2])], inits))


def test_the_same_model() -> None:
    decision = verify_same(content(cnn()), content(cnn()))
    assert (decision.action, decision.numbers["largest_difference"], decision.numbers["runs"]) == (
        "verified",
        0.0,
        3,
    )


def test_a_change_within_the_tolerance_and_beyond() -> None:
    assert verify_same(scaled(1), scaled(1.001), tolerance=0.01).numbers["largest_difference"] == pytest.approx(
        1e-3, rel=1e-2
    )
    with pytest.raises(ModelError, match=r"the output 'y' changed by 0\.001 of its size, more than 1e-05") as caught:
        verify_same(scaled(1), scaled(1.001), tolerance=1e-5)
    assert "report the model" in (caught.value.hint or "")


@pytest.mark.parametrize(("side", "match"), [("input", "the inputs changed"), ("output", "the outputs changed")])
def test_renamed_ends(side: str, match: str) -> None:
    x, y = ("z", "y") if side == "input" else ("x", "z")
    other = model([helper.make_node("Relu", [x], [y])], [info(x, [2])], [info(y, [2])])
    same = model([helper.make_node("Relu", ["x"], ["y"])], [info("x", [2])], [info("y", [2])])
    with pytest.raises(ModelError, match=match):
        verify_same(content(same), content(other))


def test_a_model_that_no_longer_runs() -> None:
    def reshape(*shape: int) -> bytes:
        inits = [init("s", np.array(shape, dtype=np.int64))]
        nodes = [helper.make_node("Reshape", ["x", "s"], ["y"])]
        return content(model(nodes, [info("x", ["N", 6])], [info("y", ["a", "b"])], inits))

    with pytest.raises(ModelError, match="the cleaned model fails where the original runs"):
        verify_same(reshape(-1, 3), reshape(-1, 5))
    decision = verify_same(reshape(-1, 5), reshape(-1, 5))
    assert decision.action == "not verified"
    assert "does not run on random inputs" in decision.reason


def test_sizes_are_searched_for_symbolic_dimensions() -> None:
    """A net of three poolings by four runs on 64 x 64 and not on 16 x 16."""
    nodes = [
        helper.make_node("MaxPool", ["x"], ["a"], kernel_shape=[8, 8], strides=[4, 4]),
        helper.make_node("MaxPool", ["a"], ["y"], kernel_shape=[8, 8], strides=[4, 4]),
    ]
    proto = content(model(nodes, [info("x", ["N", 1, "H", "W"])], [info("y", ["N", 1, "h", "w"])]))
    assert verify_same(proto, proto).action == "verified"


def test_infinite_and_undefined_results_must_agree() -> None:
    def log(factor: float) -> bytes:
        inits = [init("f", np.float32(factor))]
        nodes = [helper.make_node("Mul", ["x", "f"], ["m"]), helper.make_node("Log", ["m"], ["y"])]
        return content(model(nodes, [info("x", [50])], [info("y", [50])], inits))

    assert verify_same(log(1), log(1)).action == "verified"
    with pytest.raises(ModelError, match="the output 'y' changed by inf"):
        verify_same(log(1), log(-1))


def test_feeds_follow_types_names_and_vocabulary() -> None:
    specs = [
        TensorSpec("ids", np.dtype(np.int64), ("batch", "length")),
        TensorSpec("mask", np.dtype(np.bool_), ("batch", "length")),
        TensorSpec("image", np.dtype(np.float32), ("batch", 3, "?", "?")),
        TensorSpec("text", np.dtype(object), (2,)),
    ]
    feeds = list(random_feeds(specs, {"ids": 1000}, seed=7))
    first = feeds[0]
    assert first["ids"].shape == first["mask"].shape == (2, 16)
    assert 500 < first["ids"].max() < 1000
    assert (first["image"].dtype, first["image"].shape) == (np.float32, (2, 3, 16, 16))
    assert first["text"].tolist() == ["a", "a"]
    np.testing.assert_array_equal(first["image"], next(random_feeds(specs, {"ids": 1000}, seed=7))["image"])
    assert not np.array_equal(first["image"], next(random_feeds(specs, {}, seed=8))["image"])
    fixed = [TensorSpec("x", np.dtype(np.float32), (1, 4))]
    assert len(list(random_feeds(fixed, {}, seed=0))) == 3
