"""Normalising: the model computes the same, in the one form that the algorithms expect."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from graph_builders import (
    FLOAT,
    as_constants,
    as_inputs,
    cnn,
    if_model,
    info,
    init,
    model,
    norm_inits,
    norm_node,
    qdq_model,
    rng,
    run,
    write,
)
from onnx import helper

from modelkit.decision import Decision
from modelkit.graph.load import load
from modelkit.graph.normalise import normalise
from modelkit.graph.save import save
from modelkit.graph.verify import verify_same


def cleaned(proto: onnx.ModelProto, folder: Path) -> tuple[ir.Model, list[Decision], Path]:
    """Load, normalise and save a model, and check that it computes the same."""
    path = write(proto, folder / "before.onnx")
    loaded = load(path)
    decisions = normalise(loaded.model)
    after = folder / "after.onnx"
    save(loaded.model, after)
    onnx.checker.check_model(after, full_check=True)
    assert verify_same(path, after, tolerance=2e-6).action == "verified"
    return loaded.model, decisions, after


def ops(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph.all_nodes()]


def acted(decisions: list[Decision], action: str) -> set[str]:
    return {d.target for d in decisions if d.action == action}


@pytest.mark.parametrize("opset", [9, 11, 13, 18, 21])
@pytest.mark.parametrize("twin", [lambda p: p, as_constants, as_inputs], ids=["plain", "constants", "inputs"])
@pytest.mark.parametrize("batch", ["N", 3])
def test_awkward_twins_become_one(tmp_path: Path, opset: int, twin, batch: int | str) -> None:
    proto = twin(cnn(opset, batch))
    result, decisions, _ = cleaned(proto, tmp_path)
    assert ops(result) == ["Conv", "Relu", "Conv", "Add", "ReduceMean", "Gemm", "Softmax"]
    assert [v.name for v in result.graph.inputs] == ["x"]
    assert [v.name for v in result.graph.outputs] == ["y"]
    assert list(result.graph.inputs[0].shape) == [ir.SymbolicDim("N") if batch == "N" else 3, 3, 8, 8]
    assert result.opset_imports == {"": opset}
    assert result.metadata_props == {"owner": "someone", "purpose": "tests"}
    assert result.graph.doc_string == "a small net"
    assert {"w1", "w2", "b2", "w3", "b3"} <= set(result.graph.initializers)
    assert acted(decisions, "folded") == {"bn"}
    assert result.graph[0].outputs[0].shape is not None
    if twin is as_inputs:
        assert "w1" in acted(decisions, "made constant")
    if twin is as_constants:
        assert "w1" in acted(decisions, "lifted")


def test_what_is_clean_stays_as_it_is(tmp_path: Path) -> None:
    result, decisions, after = cleaned(qdq_model(), tmp_path)
    assert ops(result) == ["QuantizeLinear", "DequantizeLinear", "DequantizeLinear", "Conv"]
    assert decisions == []
    assert after.stat().st_size <= (tmp_path / "before.onnx").stat().st_size + 64


def test_subgraphs_are_cleaned_too(tmp_path: Path) -> None:
    result, decisions, after = cleaned(if_model(), tmp_path)
    assert ops(result) == ["If", "Conv", "Conv"] or ops(result) == ["Identity", "If", "Conv", "Conv"]
    names = [v.name for g in result.graphs() for v in [*g.initializers.values(), *(o for n in g for o in n.outputs)]]
    assert len(names) == len(set(names))
    assert len(acted(decisions, "renamed")) >= 2
    for flag in (True, False):
        feeds = {"flag": np.array(flag), "x": rng().standard_normal((2, 3, 6, 6)).astype(np.float32)}
        np.testing.assert_allclose(run(after, feeds)[0], run(if_model(), feeds)[0], atol=1e-5)


def test_constants_that_are_outputs_of_a_branch_stay(tmp_path: Path) -> None:
    def branch(value: float) -> onnx.GraphProto:
        node = helper.make_node("Constant", [], ["k"], value=init("k", np.full(3, value, dtype=np.float32)))
        return helper.make_graph([node], "b", [], [info("k", [3])])

    nodes = [helper.make_node("If", ["flag"], ["y"], then_branch=branch(1), else_branch=branch(2))]
    result, _, _ = cleaned(model(nodes, [info("flag", [], onnx.TensorProto.BOOL)], [info("y", [3])]), tmp_path)
    assert ops(result) == ["If", "Constant", "Constant"]


def test_loop_bodies_keep_their_meaning(tmp_path: Path) -> None:
    body = helper.make_graph(
        [
            helper.make_node("Constant", [], ["w"], value=init("w", np.eye(4, dtype=np.float32) * 0.5)),
            helper.make_node("MatMul", ["state", "w"], ["next"]),
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("Identity", ["next"], ["seen"]),
        ],
        "body",
        [info("i", [], onnx.TensorProto.INT64), info("go", [], onnx.TensorProto.BOOL), info("state", [2, 4])],
        [info("go_on", [], onnx.TensorProto.BOOL), info("next", [2, 4]), info("seen", [2, 4])],
    )
    nodes = [helper.make_node("Loop", ["turns", "", "x"], ["last", "y"], body=body)]
    inits = [init("turns", np.array(3, dtype=np.int64))]
    proto = model(nodes, [info("x", [2, 4])], [info("last", [2, 4]), info("y", [3, 2, 4])], inits)
    result, _, after = cleaned(proto, tmp_path)
    assert "Constant" not in ops(result)
    x = np.ones((2, 4), dtype=np.float32)
    assert run(after, {"x": x})[0][0, 0] == 0.125


def test_identity_and_dropout_go_but_names_of_outputs_stay(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Identity", ["x"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Dropout", ["b"], ["c"], name="drop"),
        helper.make_node("Neg", ["c"], ["d"]),
        helper.make_node("Identity", ["d"], ["y"]),
        helper.make_node("Identity", ["x"], ["copy"], name="kept"),
        helper.make_node("Identity", ["y"], ["twin"], name="also kept"),
    ]
    outputs = [info("y", ["N", 3]), info("copy", ["N", 3]), info("twin", ["N", 3])]
    result, decisions, _ = cleaned(model(nodes, [info("x", ["N", 3])], outputs), tmp_path)
    assert ops(result) == ["Relu", "Neg", "Identity", "Identity"]
    assert "drop" in acted(decisions, "removed")


@pytest.mark.parametrize(("training", "left"), [(False, ["Relu"]), (True, ["Dropout", "Relu"])])
def test_dropout_in_training_stays(tmp_path: Path, training: bool, left: list[str]) -> None:
    inits = [init("ratio", np.float32(0.0)), init("mode", np.array(training))]
    nodes = [
        helper.make_node("Dropout", ["x", "ratio", "mode"], ["d"]),
        helper.make_node("Relu", ["d"], ["y"]),
    ]
    result, _, _ = cleaned(model(nodes, [info("x", [4])], [info("y", [4])], inits), tmp_path)
    assert ops(result) == left


def test_dropout_whose_mask_is_used_stays(tmp_path: Path) -> None:
    nodes = [helper.make_node("Dropout", ["x"], ["d", "mask"]), helper.make_node("Relu", ["d"], ["y"])]
    outputs = [info("y", [4]), info("mask", [4], onnx.TensorProto.BOOL)]
    result, _, _ = cleaned(model(nodes, [info("x", [4])], outputs), tmp_path)
    assert ops(result) == ["Dropout", "Relu"]


def test_unused_parts_go(tmp_path: Path) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Mul", ["x", "w"], ["z"], name="dead")]
    inits = [init("w", np.ones(4, dtype=np.float32)), init("w2", np.ones(4, dtype=np.float32))]
    proto = model(nodes, [info("x", [4]), info("unused", [2])], [info("y", [4])], inits)
    result, decisions, _ = cleaned(proto, tmp_path)
    assert ops(result) == ["Relu"]
    assert acted(decisions, "removed") == {"w", "w2", "dead"}
    assert [v.name for v in result.graph.inputs] == ["x", "unused"]


# Folding of constants


def test_chains_of_weights_are_folded(tmp_path: Path) -> None:
    w = rng().standard_normal((3, 20, 4)).astype(np.float32)
    inits = [
        init("w", w),
        init("shape", np.array([20, -1], dtype=np.int64)),
        init("axes", np.array([0], dtype=np.int64)),
    ]
    nodes = [
        helper.make_node("Transpose", ["w"], ["t"], perm=[1, 0, 2], name="t"),
        helper.make_node("Reshape", ["t", "shape"], ["r"], name="r"),
        helper.make_node("Unsqueeze", ["r", "axes"], ["u"], name="u"),
        helper.make_node("Squeeze", ["u", "axes"], ["s"], name="s"),
        helper.make_node("MatMul", ["x", "s"], ["y"]),
    ]
    result, decisions, _ = cleaned(model(nodes, [info("x", ["N", 20])], [info("y", ["N", 12])], inits), tmp_path)
    assert ops(result) == ["MatMul"]
    assert acted(decisions, "folded") == {"t", "r", "u", "s"}
    expected = w.transpose(1, 0, 2).reshape(20, 12)
    np.testing.assert_array_equal(result.graph.initializers["s"].const_value.numpy(), expected)


def test_weight_normalisation_is_computed_once(tmp_path: Path) -> None:
    g = rng()
    inits = [
        init("v", g.standard_normal((16, 32)).astype(np.float32)),
        init("g", np.ones((16, 1), dtype=np.float32)),
    ]
    nodes = [
        helper.make_node("ReduceL2", ["v"], ["n"], axes=[1], keepdims=1),
        helper.make_node("Div", ["g", "n"], ["q"]),
        helper.make_node("Mul", ["v", "q"], ["w"]),
        helper.make_node("Gemm", ["x", "w"], ["y"], transB=1),
    ]
    result, _, _ = cleaned(model(nodes, [info("x", ["N", 32])], [info("y", ["N", 16])], inits), tmp_path)
    assert ops(result) == ["Gemm"]


@pytest.mark.parametrize(
    ("nodes", "inits", "kept"),
    [
        (
            [helper.make_node("ConstantOfShape", ["shape"], ["w"])],
            [init("shape", np.array([64, 64], dtype=np.int64))],
            "ConstantOfShape",
        ),
        (
            [helper.make_node("Expand", ["one", "shape"], ["w"])],
            [
                init("one", np.ones((1, 64), dtype=np.float32)),
                init("shape", np.array([64, 64], dtype=np.int64)),
            ],
            "Expand",
        ),
        (
            [helper.make_node("Tile", ["row", "shape"], ["w"])],
            [
                init("row", np.ones((1, 64), dtype=np.float32)),
                init("shape", np.array([64, 1], dtype=np.int64)),
            ],
            "Tile",
        ),
        (
            [helper.make_node("Cast", ["q"], ["w"], to=FLOAT)],
            [init("q", np.ones((64, 64), dtype=np.int8))],
            "Cast",
        ),
        (
            [helper.make_node("DequantizeLinear", ["q", "s"], ["w"])],
            [init("q", np.ones((64, 64), dtype=np.int8)), init("s", np.float32(0.1))],
            "DequantizeLinear",
        ),
    ],
    ids=["constant of shape", "expand", "tile", "cast", "dequantize"],
)
def test_what_is_small_in_the_file_stays_small(tmp_path: Path, nodes: list, inits: list, kept: str) -> None:
    nodes = [*nodes, helper.make_node("MatMul", ["x", "w"], ["y"])]
    result, _, after = cleaned(model(nodes, [info("x", ["N", 64])], [info("y", ["N", 64])], inits), tmp_path)
    assert ops(result) == [kept, "MatMul"]
    assert after.stat().st_size < 6000


def test_a_shared_weight_is_not_copied_by_folding(tmp_path: Path) -> None:
    table = rng().standard_normal((50, 16)).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["e"]),
        helper.make_node("Transpose", ["table"], ["t"], perm=[1, 0], name="flip"),
        helper.make_node("MatMul", ["e", "t"], ["y"]),
    ]
    inputs = [info("ids", ["N", 5], onnx.TensorProto.INT64)]
    result, decisions, _ = cleaned(model(nodes, inputs, [info("y", ["N", 5, 50])], [init("table", table)]), tmp_path)
    assert ops(result) == ["Gather", "Transpose", "MatMul"]
    assert [d.reason for d in decisions if d.target == "flip"] == [
        "folding this Transpose would make the file larger"
    ]


def test_random_numbers_are_not_folded(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("RandomNormal", [], ["r"], shape=[2]),
        helper.make_node("Mul", ["r", "zero"], ["z"]),
        helper.make_node("Add", ["x", "z"], ["y"]),
    ]
    proto = model(nodes, [info("x", [2])], [info("y", [2])], [init("zero", np.zeros(2, dtype=np.float32))])
    assert ops(cleaned(proto, tmp_path)[0]) == ["RandomNormal", "Mul", "Add"]


# BatchNormalization that cannot be folded, and shared weights


def two_branches(share: str) -> onnx.ModelProto:
    """Two convolutions on the same weight (or result), one of them with a BatchNormalization behind it."""
    g = rng()
    inits = [init("w", g.standard_normal((4, 3, 3, 3)).astype(np.float32)), *norm_inits(4, g)]
    second = (
        helper.make_node("Conv", ["x", "w"], ["c2"])
        if share == "weight"
        else helper.make_node("Relu", ["c1"], ["c2"])
    )
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c1"], name="conv"),
        norm_node("c1", "n"),
        second,
        helper.make_node("Add", ["n", "c2"], ["y"]),
    ]
    return model(nodes, [info("x", ["N", 3, 8, 8])], [info("y", ["N", 4, 6, 6])], inits)


def test_a_shared_weight_is_copied_before_it_is_changed(tmp_path: Path) -> None:
    result, decisions, _ = cleaned(two_branches("weight"), tmp_path)
    assert ops(result) == ["Conv", "Conv", "Add"]
    assert acted(decisions, "folded") == {"bn"}
    np.testing.assert_array_equal(
        result.graph.initializers["w"].const_value.numpy(),
        onnx.numpy_helper.to_array(two_branches("weight").graph.initializer[0]),
    )


def test_a_result_used_twice_is_not_folded(tmp_path: Path) -> None:
    result, decisions, _ = cleaned(two_branches("result"), tmp_path)
    assert "BatchNormalization" in ops(result)
    assert [d.reason for d in decisions if d.target == "bn"] == [
        "the result of the Conv before it is also used elsewhere"
    ]


@pytest.mark.parametrize(
    ("before", "reason"),
    [
        ([helper.make_node("Relu", ["x"], ["c"])], "it follows Relu, which has no weights to fold into"),
        (
            [helper.make_node("Conv", ["x", "dynamic"], ["c"])],
            "the weights of the Conv before it are no constants",
        ),
        ([], "it follows no convolution or matrix product"),
    ],
)
def test_reasons_for_keeping(tmp_path: Path, before: list, reason: str) -> None:
    nodes = [*before, norm_node("c" if before else "x", "y")]
    inputs = [info("x", [1, 4, 5, 5]), info("dynamic", [4, 4, 1, 1])]
    proto = model(nodes, inputs, [info("y", [1, 4, 5, 5])], norm_inits(4, rng()))
    result, decisions, _ = cleaned(proto, tmp_path)
    assert "BatchNormalization" in ops(result)
    assert [d.reason for d in decisions if d.action == "kept"] == [reason]


def test_a_variance_of_zero_keeps_weights_finite(tmp_path: Path) -> None:
    g = rng()
    inits = [init("w", (g.standard_normal((2, 2, 1, 1)) * 1e4).astype(np.float16))]
    inits += [init(f"bn.{n}", np.full(2, v, dtype=np.float16)) for n, v in zip("sbmv", (100, 0, 0, 0), strict=True)]
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), norm_node("c", "y", epsilon=1e-7)]
    kind = onnx.TensorProto.FLOAT16
    proto = model(nodes, [info("x", [1, 2, 2, 2], kind)], [info("y", [1, 2, 2, 2], kind)], inits)
    loaded = load(write(proto, tmp_path / "m.onnx"))
    decisions = normalise(loaded.model)
    assert [d.reason for d in decisions] == ["its scale is too large for float16 weights"]


def test_training_mode_is_left_alone(tmp_path: Path) -> None:
    g = rng()
    inits = [init("w", g.standard_normal((4, 3, 3, 3)).astype(np.float32)), *norm_inits(4, g)]
    names = ["bn.s", "bn.b", "bn.m", "bn.v"]
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("BatchNormalization", ["c", *names], ["y", "rm", "rv"], name="bn", training_mode=1),
    ]
    proto = model(
        nodes, [info("x", [2, 3, 8, 8])], [info("y", [2, 4, 6, 6]), info("rm", [4]), info("rv", [4])], inits
    )
    loaded = load(write(proto, tmp_path / "m.onnx"))
    assert [d.reason for d in normalise(loaded.model) if d.target == "bn"] == ["it is in training mode"]


def test_normalising_twice_changes_nothing(tmp_path: Path) -> None:
    loaded = load(write(as_constants(cnn()), tmp_path / "m.onnx"))
    normalise(loaded.model)
    first = save(loaded.model, tmp_path / "a.onnx")[0].read_bytes()
    again = load(tmp_path / "a.onnx")
    assert normalise(again.model) == []
    assert save(again.model, tmp_path / "b.onnx")[0].read_bytes() == first


def test_gates_that_are_cut_and_joined_are_folded_together(tmp_path: Path) -> None:
    """Exporters reorder the gates of a GRU by slices of one weight: only all of them together save nothing."""
    w = rng().standard_normal((1, 12, 40)).astype(np.float32)
    inits = [init("w", w), init("r", rng(1).standard_normal((1, 12, 4)).astype(np.float32))]
    bounds = {"i0": 0, "i4": 4, "i8": 8, "i12": 12, "axis": 1}
    inits += [init(name, np.array([value], dtype=np.int64)) for name, value in bounds.items()]
    nodes = [
        helper.make_node("Slice", ["w", "i0", "i4", "axis"], ["a"]),
        helper.make_node("Slice", ["w", "i4", "i8", "axis"], ["b"]),
        helper.make_node("Slice", ["w", "i8", "i12", "axis"], ["c"]),
        helper.make_node("Concat", ["b", "a", "c"], ["joined"], axis=1),
        helper.make_node("GRU", ["x", "joined", "r"], ["y"], hidden_size=4),
    ]
    result, decisions, _ = cleaned(
        model(nodes, [info("x", [5, "N", 40])], [info("y", [5, 1, "N", 4])], inits), tmp_path
    )
    assert ops(result) == ["GRU"]
    assert {d.action for d in decisions} == {"folded"}
    expected = np.concatenate([w[:, 4:8], w[:, :4], w[:, 8:]], axis=1)
    np.testing.assert_array_equal(result.graph.initializers["joined"].const_value.numpy(), expected)


def test_shapes_are_constants_only_where_inputs_are_fixed(tmp_path: Path) -> None:
    for batch, left in ((3, ["Relu", "Reshape"]), ("N", ["Relu", "Shape", "Gather", "Concat", "Reshape"])):
        nodes = [
            helper.make_node("Relu", ["x"], ["r"]),
            helper.make_node("Shape", ["r"], ["s"]),
            helper.make_node("Gather", ["s", "zero"], ["n"]),
            helper.make_node("Concat", ["n", "rest"], ["to"], axis=0),
            helper.make_node("Reshape", ["r", "to"], ["y"]),
        ]
        inits = [init("zero", np.array([0], dtype=np.int64)), init("rest", np.array([-1], dtype=np.int64))]
        folder = tmp_path / str(batch)
        folder.mkdir()
        proto = model(nodes, [info("x", [batch, 3, 4])], [info("y", [batch, 12])], inits)
        assert ops(cleaned(proto, folder)[0]) == left


@pytest.mark.parametrize("op", ["Gemm", "MatMul"])
def test_a_shared_weight_is_read_transposed(tmp_path: Path, op: str) -> None:
    w = rng().standard_normal((20, 30)).astype(np.float32)
    first, last = ({"transB": 1}, {"transB": 1}) if op == "Gemm" else ({}, {})
    nodes = [
        helper.make_node("Gemm", ["x", "w"], ["a"], **first),
        helper.make_node("Transpose", ["w"], ["t"], name="flip"),
        helper.make_node(op, ["a", "t"], ["y"], **last),
    ]
    width = 30 if op == "Gemm" else 20
    proto = model(nodes, [info("x", ["N", width])], [info("y", ["N", width])], [init("w", w)])
    result, decisions, _ = cleaned(proto, tmp_path)
    assert ops(result) == ["Gemm", "Gemm"]
    assert [(d.target, d.action, d.reason) for d in decisions] == [
        ("flip", "folded", f"the {op} behind it reads the weight transposed")
    ]
