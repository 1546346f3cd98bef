"""The audit reads from onnxruntime's own graph what runs in integers, and says why the rest does not."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from quantize_nets import FLOAT, Net, static

from modelkit.decision import Decision
from modelkit.errors import ModelError
from modelkit.graph.save import save
from modelkit.quantize.audit import audit
from modelkit.quantize.config import WeightOptions
from modelkit.quantize.weights import quantize_weights


def audited(model, folder, decisions=()):
    save(model, folder / "m.onnx")
    return audit(folder / "m.onnx", decisions)


def mixed(name="n"):
    """Two convolutions, a product of two activations, one with a constant on the left, a transposed convolution."""
    net = Net(13, seed=2)
    net.input("x", ["n", 4, 8, 8])
    a = net.add("Conv", "x", net.weight(8, 4, 3, 3), net.weight(8), pads=[1] * 4, name="first")
    b = net.add("Conv", net.add("Tanh", a), net.weight(8, 8, 1, 1), name="second")
    c = net.add("MatMul", b, net.add("Transpose", a, perm=[0, 1, 3, 2]), name="scores")
    d = net.add("MatMul", net.weight(8, 8), c, name="left")
    net.add("ConvTranspose", d, net.weight(8, 2, 2, 2), name="up", out="y")
    net.output("y", ["n", 2, None, None])
    return net.build()


def test_a_float_model_is_all_float(tmp_path):
    counts = audited(mixed(), tmp_path)
    assert counts["integer"] == counts["conversions"] == 0 and counts["float"] == 5
    reasons = {entry["node"]: entry["reason"] for entry in counts["unfused"]}
    assert reasons["scores"] == "multiplies two activations"
    assert reasons["left"] == "its left operand is the constant"
    assert reasons["up"] == "onnxruntime has no integer kernel for ConvTranspose here"
    assert reasons["first"] == "its weight is unpacked to float when the model loads"


def test_counts_of_a_static_model(tmp_path):
    model = mixed()
    x = np.random.default_rng(0).standard_normal((2, 4, 8, 8)).astype(np.float32)
    plan = static(model, {"x": x}, exclude=["second"])
    counts = audited(model, tmp_path, plan.decisions)
    assert counts["integer"] == 1 and counts["float"] == 4
    assert counts["kernels"]["QLinearConv"] == 1
    reasons = {entry["node"]: (entry["op"], entry["reason"]) for entry in counts["unfused"]}
    # What was decided is said, not guessed.
    assert reasons["second"][1] == "excluded by 'second'"
    assert reasons["left"] == ("MatMul", "its left operand is the constant")
    assert 2 <= counts["conversions"] <= 3


def test_a_decision_explains_before_any_guess(tmp_path):
    counts = audited(mixed(), tmp_path, [Decision("scores", "kept float", "because"), Decision("left", "int8", "no")])
    reasons = {entry["node"]: entry["reason"] for entry in counts["unfused"]}
    assert reasons["scores"] == "because" and reasons["left"] != "no"


@pytest.mark.parametrize("fuse", [False, True])
def test_layers_in_subgraphs_count(fuse, tmp_path):
    net = Net(13, seed=5)
    net.input("x", ["n", 32])
    net.input("c", [], TensorProto.BOOL)
    bodies = {}
    for name in ("then", "else"):
        weight = numpy_helper.from_array(net.rng.standard_normal((32, 32)).astype(np.float32), f"w_{name}")
        node = helper.make_node("MatMul", ["x", weight.name], [f"y_{name}"], name=f"mm_{name}")
        output = helper.make_tensor_value_info(f"y_{name}", FLOAT, ["n", 32])
        bodies[f"{name}_branch"] = helper.make_graph([node], name, [], [output], [weight])
    net.add("If", "c", out="y", **bodies)
    net.output("y", ["n", 32])
    model = net.build()
    decisions = quantize_weights(model, bits=8, options=WeightOptions(), include=[], exclude=[], fuse_matmul=fuse)
    counts = audited(model, tmp_path, decisions)
    assert (counts["integer"], counts["float"]) == ((2, 0) if fuse else (0, 2))
    assert {entry["node"] for entry in counts["unfused"]} == (set() if fuse else {"mm_then", "mm_else"})


def test_a_model_that_does_not_load(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"nonsense")
    with pytest.raises(ModelError):
        audit(tmp_path / "m.onnx")
