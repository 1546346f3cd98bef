"""Loading: what a file says is what the model holds."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from graph_builders import as_constants, as_inputs, cnn, if_model, info, init, model, run, write
from onnx import helper, numpy_helper

from modelkit.errors import ModelError
from modelkit.graph.load import load
from modelkit.graph.save import save


@pytest.mark.parametrize("opset", [11, 13, 18, 21])
@pytest.mark.parametrize("twin", [lambda p: p, as_constants, as_inputs])
def test_loads_and_saves_what_runs_the_same(tmp_path: Path, opset: int, twin) -> None:
    path = write(twin(cnn(opset)), tmp_path / "model.onnx")
    loaded = load(path)
    assert loaded.size_bytes == path.stat().st_size
    assert loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert loaded.external == []
    save(loaded.model, tmp_path / "out.onnx")
    x = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)
    np.testing.assert_array_equal(run(path, {"x": x})[0], run(tmp_path / "out.onnx", {"x": x})[0])


def test_the_name_of_the_file_does_not_matter(tmp_path: Path) -> None:
    assert load(write(cnn(), tmp_path / "weights.bin")).model.graph.outputs[0].name == "y"


def test_metadata_survives(tmp_path: Path) -> None:
    loaded = load(write(cnn(), tmp_path / "a.onnx"))
    save(loaded.model, tmp_path / "b.onnx")
    again = onnx.load(tmp_path / "b.onnx")
    assert {p.key: p.value for p in again.metadata_props} == {"owner": "someone", "purpose": "tests"}
    assert (again.doc_string, again.graph.doc_string, again.producer_name) == (
        "the whole",
        "a small net",
        "test",
    )
    assert again.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"


def test_external_data_is_counted_and_mapped(tmp_path: Path) -> None:
    onnx.save_model(cnn(), tmp_path / "m.onnx", save_as_external_data=True, location="m.bin", size_threshold=100)
    loaded = load(tmp_path / "m.onnx")
    assert [p.name for p in loaded.external] == ["m.bin"]
    assert loaded.size_bytes == sum((tmp_path / n).stat().st_size for n in ("m.onnx", "m.bin"))
    expected = numpy_helper.to_array(cnn().graph.initializer[0])
    np.testing.assert_array_equal(loaded.model.graph.initializers["w1"].const_value.numpy(), expected)


def test_external_data_in_attributes_and_subgraphs_is_found(tmp_path: Path) -> None:
    proto = if_model()
    onnx.save_model(
        proto,
        tmp_path / "m.onnx",
        save_as_external_data=True,
        convert_attribute=True,
        size_threshold=0,
        location="sub.bin",
    )
    loaded = load(tmp_path / "m.onnx")
    assert [p.name for p in loaded.external] == ["sub.bin"]
    out = tmp_path / "elsewhere"
    out.mkdir()
    assert save(loaded.model, out / "m.onnx") == [out / "m.onnx"]
    feeds = {"flag": np.array(True), "x": np.ones((1, 3, 6, 6), dtype=np.float32)}
    np.testing.assert_array_equal(run(if_model(), feeds)[0], run(out / "m.onnx", feeds)[0])


def test_functions_are_inlined(tmp_path: Path) -> None:
    body = [
        helper.make_node("Mul", ["a", "a"], ["t"]),
        helper.make_node("Add", ["t", "b"], ["c"]),
    ]
    function = helper.make_function("local", "SquareAdd", ["a", "b"], ["c"], body, [helper.make_opsetid("", 17)])
    nodes = [
        helper.make_node("SquareAdd", ["x", "x"], ["m"], domain="local"),
        helper.make_node("SquareAdd", ["m", "x"], ["y"], domain="local"),
    ]
    proto = model(nodes, [info("x", [3])], [info("y", [3])], domains={"local": 1}, functions=[function], ir_version=9)
    loaded = load(write(proto, tmp_path / "f.onnx"))
    assert [n.op_type for n in loaded.model.graph] == ["Mul", "Add", "Mul", "Add"]
    save(loaded.model, tmp_path / "out.onnx")
    x = np.array([1, 2, 3], dtype=np.float32)
    np.testing.assert_array_equal(run(tmp_path / "out.onnx", {"x": x})[0], (x * x + x) ** 2 + x)


def test_sparse_initializers_and_constants_become_dense(tmp_path: Path) -> None:
    dense = np.zeros((4, 5), dtype=np.float32)
    dense[1, 2], dense[3, 4] = 5, -2
    values = init("w", np.array([5, -2], dtype=np.float32))
    linear = helper.make_sparse_tensor(values, init("i", np.array([7, 19], dtype=np.int64)), [4, 5])
    pairs = helper.make_sparse_tensor(
        init("v", np.array([5, -2], dtype=np.float32)),
        init("i", np.array([[1, 2], [3, 4]], dtype=np.int64)),
        [4, 5],
    )
    nodes = [
        helper.make_node("Constant", [], ["c"], sparse_value=pairs),
        helper.make_node("Add", ["w", "c"], ["s"]),
        helper.make_node("MatMul", ["x", "s"], ["y"]),
    ]
    proto = model(nodes, [info("x", [2, 4])], [info("y", [2, 5])])
    proto.graph.sparse_initializer.append(linear)
    loaded = load(write(proto, tmp_path / "s.onnx"))
    save(loaded.model, tmp_path / "out.onnx")
    x = np.ones((2, 4), dtype=np.float32)
    np.testing.assert_array_equal(run(tmp_path / "out.onnx", {"x": x})[0], x @ (2 * dense))


def test_the_long_name_of_the_standard_set_is_understood(tmp_path: Path) -> None:
    proto = cnn()
    proto.opset_import[0].domain = "ai.onnx"
    assert load(write(proto, tmp_path / "m.onnx")).model.opset_imports == {"": 17}


def test_nodes_out_of_order_are_sorted(tmp_path: Path) -> None:
    nodes = [helper.make_node("Relu", ["m"], ["y"]), helper.make_node("Neg", ["x"], ["m"])]
    loaded = load(write(model(nodes, [info("x", [2])], [info("y", [2])]), tmp_path / "m.onnx"))
    assert [n.op_type for n in loaded.model.graph] == ["Neg", "Relu"]


def test_training_information_is_tolerated(tmp_path: Path) -> None:
    proto = cnn()
    training = proto.training_info.add()
    training.initialization.CopyFrom(
        helper.make_graph([helper.make_node("Constant", [], ["z"], value_float=0.0)], "t", [], [info("z", [])])
    )
    assert load(write(proto, tmp_path / "m.onnx")).model.graph.outputs[0].name == "y"


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([helper.make_node("Relu", ["x"], ["z"])], "the output 'y' in .* is produced by no node"),
        (
            [helper.make_node("Add", ["x", "ghost"], ["y"], name="plus")],
            "'plus' in .* reads 'ghost', which nothing",
        ),
        (
            [
                helper.make_node("Add", ["x", "b"], ["a"]),
                helper.make_node("Add", ["x", "a"], ["b"]),
                helper.make_node("Relu", ["a"], ["y"]),
            ],
            "contains a cycle",
        ),
        (
            [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Neg", ["x"], ["y"])],
            "is not a valid ONNX model: Output 'y' is redeclared",
        ),
    ],
)
def test_graphs_that_contradict_themselves(tmp_path: Path, nodes: list, message: str) -> None:
    path = write(model(nodes, [info("x", [2])], [info("y", [2])]), tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=message):
        load(path)


def test_a_graph_without_outputs(tmp_path: Path) -> None:
    path = write(model([helper.make_node("Relu", ["x"], ["y"])], [info("x", [2])], []), tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="has no outputs"):
        load(path)
