"""Raising the opset keeps what a model computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from graph_builders import FLOAT, as_constants, as_inputs, cnn, if_model, info, init, model, rng, run, write
from onnx import TensorProto, helper

from modelkit.errors import ModelError
from modelkit.graph.load import load
from modelkit.graph.normalise import normalise
from modelkit.graph.opset import ensure_opset
from modelkit.graph.save import save
from modelkit.graph.verify import verify_same
from modelkit.runtime import make_session

INT64 = TensorProto.INT64


def raised(proto: onnx.ModelProto, version: int, folder: Path, *, clean: bool = False) -> ir.Model:
    path = write(proto, folder / "before.onnx")
    loaded = load(path)
    if clean:
        normalise(loaded.model)
    decision = ensure_opset(loaded.model, version)
    assert decision is not None
    assert decision.numbers == {"from": proto.opset_import[0].version, "to": version}
    save(loaded.model, folder / "after.onnx")
    onnx.checker.check_model(folder / "after.onnx", full_check=True)
    assert verify_same(path, folder / "after.onnx", tolerance=1e-6).action == "verified"
    return loaded.model


@pytest.mark.parametrize("clean", [False, True])
@pytest.mark.parametrize("version", [13, 18, 21])
@pytest.mark.parametrize("twin", [lambda p: p, as_constants, as_inputs], ids=["plain", "constants", "inputs"])
def test_a_small_net(tmp_path: Path, twin, version: int, clean: bool) -> None:
    result = raised(twin(cnn(11)), version, tmp_path, clean=clean)
    assert result.opset_imports == {"": version}
    assert result.metadata_props == {"owner": "someone", "purpose": "tests"}
    assert result.graph.doc_string == "a small net"
    assert [v.name for v in result.graph.outputs] == ["y"]
    assert str(result.graph.inputs[0].shape[0]) == "N"
    assert not [n for n in result.graph if n.op_type == "Constant"]


def test_new_enough_is_left_alone(tmp_path: Path) -> None:
    loaded = load(write(cnn(18), tmp_path / "m.onnx"))
    graph = loaded.model.graph
    assert ensure_opset(loaded.model, 13) is None
    assert ensure_opset(loaded.model, 18) is None
    assert loaded.model.graph is graph
    assert loaded.model.opset_imports == {"": 18}


def test_subgraphs_are_raised_with_the_rest(tmp_path: Path) -> None:
    def branch(name: str) -> onnx.GraphProto:
        nodes = [
            helper.make_node("Unsqueeze", ["x"], ["u"], axes=[0]),
            helper.make_node("ReduceSum", ["u"], ["s"], axes=[2]),
            helper.make_node("Squeeze", ["s"], [name], axes=[0]),
        ]
        return helper.make_graph(nodes, name, [], [info(name, [4, 1])])

    nodes = [helper.make_node("If", ["flag"], ["y"], then_branch=branch("a"), else_branch=branch("b"))]
    inputs = [info("flag", [], TensorProto.BOOL), info("x", [4, 5])]
    raised(model(nodes, inputs, [info("y", [4, 1])], opset=11), 13, tmp_path)


def test_weights_of_branches_come_back(tmp_path: Path) -> None:
    proto = if_model(11)
    raised(proto, 21, tmp_path)
    feeds = {"flag": np.array(True), "x": rng().standard_normal((1, 3, 6, 6)).astype(np.float32)}
    np.testing.assert_allclose(run(tmp_path / "after.onnx", feeds)[0], run(proto, feeds)[0], rtol=1e-5)


def _resize(opset: int) -> list[onnx.NodeProto]:
    inputs = ["x", "scales"] if opset < 11 else ["x", "roi", "scales"]
    return [helper.make_node("Resize", inputs, ["y"], mode="nearest")]


@pytest.mark.parametrize(
    ("opset", "nodes", "shape"),
    [
        (10, _resize(10), [1, 2, 4, 4]),
        (11, _resize(11), [1, 2, 4, 4]),
        (9, [helper.make_node("Upsample", ["x", "scales"], ["y"], mode="nearest")], [1, 2, 4, 4]),
        (10, [helper.make_node("Pad", ["x"], ["y"], pads=[0, 0, 1, 2, 0, 0, 0, 1], value=0.5)], [1, 2, 4, 4]),
        (11, [helper.make_node("Softmax", ["x"], ["y"])], [2, 3, 4]),
        (11, [helper.make_node("LogSoftmax", ["x"], ["y"], axis=0)], [2, 3, 4]),
        (11, [helper.make_node("Hardmax", ["x"], ["y"], axis=2)], [2, 3, 4]),
        (11, [helper.make_node("ReduceSum", ["x"], ["y"], axes=[1], keepdims=0)], [2, 3, 4]),
        (11, [helper.make_node("ReduceMax", ["x"], ["y"], axes=[-1])], [2, 3, 4]),
        (10, [helper.make_node("Clip", ["x"], ["y"], min=-0.5, max=0.25)], [2, 3]),
        (9, [helper.make_node("Slice", ["x"], ["y"], starts=[1], ends=[3], axes=[1])], [2, 4]),
        (11, [helper.make_node("Dropout", ["x"], ["y"], ratio=0.3)], [2, 4]),
        (9, [helper.make_node("TopK", ["x"], ["y", "i"], k=2)], [2, 4]),
        (11, [helper.make_node("Split", ["x"], ["y", "z"], axis=1, split=[1, 3])], [2, 4]),
        (12, [helper.make_node("Split", ["x"], ["y", "z"], axis=1)], [2, 4]),
        (
            11,
            [helper.make_node("AveragePool", ["x"], ["y"], kernel_shape=[2, 2], pads=[1, 1, 1, 1])],
            [1, 2, 5, 5],
        ),
        (11, [helper.make_node("GRU", ["x", "w", "r"], ["y", "h"], hidden_size=4)], [3, 2, 5]),
        (11, [helper.make_node("LSTM", ["x", "w4", "r4"], ["y"], hidden_size=4)], [3, 2, 5]),
    ],
    ids=lambda v: v[0].op_type if isinstance(v, list) and isinstance(v[0], onnx.NodeProto) else None,
)
@pytest.mark.parametrize("version", [13, 18, 21])
def test_operators_that_changed(
    tmp_path: Path, opset: int, nodes: list[onnx.NodeProto], shape: list[int], version: int
) -> None:
    g = rng()
    sizes = {"w": (1, 12, 5), "r": (1, 12, 4), "w4": (1, 16, 5), "r4": (1, 16, 4)}
    used = {name for node in nodes for name in node.input}
    inits = [init(n, g.standard_normal(s).astype(np.float32)) for n, s in sizes.items() if n in used]
    if "scales" in used:
        inits.append(init("scales", np.array([1, 1, 2, 2], dtype=np.float32)))
    if "roi" in used:
        inits.append(init("roi", np.zeros(0, dtype=np.float32)))
    proto = model(nodes, [info("x", shape)], [info("y", None)], inits, opset=opset)
    del proto.graph.output[:]
    inferred = onnx.shape_inference.infer_shapes(
        model(nodes, [info("x", shape)], [onnx.ValueInfoProto(name="y")], inits, opset=opset)
    )
    proto.graph.output.append(inferred.graph.output[0])
    if not proto.graph.output[0].type.tensor_type.elem_type:
        proto.graph.output[0].type.tensor_type.elem_type = FLOAT
    raised(proto, version, tmp_path)


def test_metadata_of_nodes_and_large_weights_survive(tmp_path: Path) -> None:
    proto = cnn(13)
    entry = proto.graph.node[0].metadata_props.add()
    entry.key, entry.value = "layer", "first"
    big = np.arange(40 * 10 * 10, dtype=np.float32).reshape(40, 10, 10)
    loaded = load(write(proto, tmp_path / "m.onnx"))
    tensor = ir.Tensor(big, name="big")
    value = ir.Value(name="big", shape=ir.Shape(big.shape), type=ir.TensorType(ir.DataType.FLOAT), const_value=tensor)
    loaded.model.graph.register_initializer(value)
    ensure_opset(loaded.model, 18)
    assert loaded.model.graph[0].metadata_props == {"layer": "first"}
    assert loaded.model.graph.initializers["big"].const_value is tensor


def test_domains_of_others_are_kept(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Gelu", ["x"], ["g"], domain="com.microsoft"),
        helper.make_node("Softmax", ["g"], ["y"]),
    ]
    proto = model(nodes, [info("x", [2, 3, 4])], [info("y", [2, 3, 4])], opset=11, domains={"com.microsoft": 1})
    path = write(proto, tmp_path / "m.onnx")
    loaded = load(path)
    ensure_opset(loaded.model, 13)
    save(loaded.model, tmp_path / "o.onnx")
    assert loaded.model.opset_imports == {"": 13, "com.microsoft": 1}
    assert verify_same(path, tmp_path / "o.onnx").action == "verified"


def test_what_has_no_way_up(tmp_path: Path) -> None:
    nodes = [helper.make_node("Hardmax", ["x"], ["y"], axis=0, name="hard")]
    loaded = load(write(model(nodes, [info("x", [2, 3])], [info("y", [2, 3])], opset=11), tmp_path / "m.onnx"))
    with pytest.raises(ModelError, match="the Hardmax node 'hard' means something else from opset 13 on") as caught:
        ensure_opset(loaded.model, 13)
    assert caught.value.hint == "export the model with opset 13 or newer"
    nodes = [helper.make_node("NoSuchOperator", ["x"], ["y"])]
    loaded = load(write(model(nodes, [info("x", [2])], [info("y", [2])], opset=11), tmp_path / "m.onnx"))
    with pytest.raises(ModelError, match=r"the model cannot be raised from opset 11 to 13: .*NoSuchOperator"):
        ensure_opset(loaded.model, 13)
    assert loaded.model.opset_imports == {"": 11}


def test_slopes_of_old_prelus_keep_their_channels(tmp_path: Path) -> None:
    values = rng(3).normal(size=4).astype(np.float32)
    x = rng(4).normal(size=(2, 4, 5, 5)).astype(np.float32)
    node = helper.make_node("PRelu", ["x", "slope"], ["y"])
    shape = ["N", 4, 5, 5]
    proto = model([node], [info("x", shape)], [info("y", shape)], [init("slope", values)], opset=6)
    loaded = load(write(proto, tmp_path / "old.onnx"))
    ensure_opset(loaded.model, 13)
    save(loaded.model, tmp_path / "new.onnx")
    found = make_session(tmp_path / "new.onnx").run(None, {"x": x})[0]
    np.testing.assert_array_equal(found, np.where(x < 0, x * values[:, None, None], x))
