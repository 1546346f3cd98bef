"""16-bit floats: stored small, computed as before; or computed in 16 bits."""

import numpy as np
import onnx_ir as ir
import pytest
from quantize_nets import Net, closeness, kernels, ops, optimised, run

from modelkit.errors import UsageError
from modelkit.graph.save import save
from modelkit.quantize.float16 import compute_half, store_half
from modelkit.runtime import input_specs, make_session, output_specs

X = np.random.default_rng(3).standard_normal((4, 3, 12, 12)).astype(np.float32)
HALVES = [ir.DataType.FLOAT16, ir.DataType.BFLOAT16]


def cnn(factor=1.0):
    net = Net(13, seed=4)
    net.input("x", ["n", 3, 12, 12])
    x = net.add("Relu", net.add("Conv", "x", net.weight(32, 3, 3, 3, name="kernel"), net.weight(32, name="bias")))
    x = net.add("Flatten", net.add("GlobalAveragePool", x))
    net.const((np.ones((32, 40)) * factor).astype(np.float32), "wide")
    x = net.add("MatMul", x, "wide")
    net.add("Gemm", x, net.weight(40, 10, name="fc"), net.weight(10), out="y")
    net.output("y", ["n", 10])
    return net.build()


@pytest.mark.parametrize(("dtype", "least"), [(ir.DataType.FLOAT16, 60), (ir.DataType.BFLOAT16, 40)])
def test_weights_are_stored_in_half_and_computed_in_full(dtype, least, tmp_path):
    model = cnn()
    save(model, tmp_path / "before.onnx")
    before, plain = run(model, {"x": X}), kernels(optimised(model, tmp_path))
    decisions = store_half(model, dtype, include=[], exclude=[])
    assert closeness(before, run(model, {"x": X})) > least
    assert kernels(optimised(model, tmp_path)) == plain
    done = {d.target: d.numbers for d in decisions if d.action == dtype.name.lower()}
    assert set(done) == {"kernel", "wide", "fc"}
    assert done["fc"]["bytes_before"] == 2 * done["fc"]["bytes_after"] == 1600 and done["fc"]["bits"] == 16
    saved = (tmp_path / "before.onnx").stat().st_size - (tmp_path / "model.onnx").stat().st_size
    assert saved > sum(n["bytes_after"] for n in done.values()) - 3 * 120


@pytest.mark.parametrize("dtype", HALVES)
def test_numbers_beyond_the_largest_are_clipped_and_said(dtype):
    model = cnn(1e6)
    decisions = {d.target: d for d in store_half(model, dtype, include=[], exclude=[])}
    clipped = "; numbers beyond 65504 were clipped" in decisions["wide"].reason
    assert clipped == (dtype == ir.DataType.FLOAT16)
    assert "clipped" not in decisions["fc"].reason
    largest = decisions["wide"].numbers["max_error"]
    assert largest == (1e6 - 65504 if clipped else pytest.approx(0, abs=4000))
    assert np.isfinite(run(model, {"x": X})[0]).all()


@pytest.mark.parametrize("dtype", HALVES)
def test_patterns(dtype):
    done = [d.target for d in store_half(cnn(), dtype, include=["f*", "wide"], exclude=["wide"]) if d.numbers]
    assert done == ["fc"]
    with pytest.raises(UsageError, match="include: the pattern 'nothing' matches no weight or layer"):
        store_half(cnn(), dtype, include=["nothing"], exclude=[])


def test_a_whole_graph_in_16_bits(tmp_path):
    model = cnn()
    before = run(model, {"x": X})
    decisions = compute_half(model)
    assert [d.action for d in decisions] == ["float16"]
    save(model, tmp_path / "half.onnx")
    session = make_session(tmp_path / "half.onnx")
    assert [(s.name, s.dtype) for s in input_specs(session)] == [("x", np.float32)]
    assert [(s.name, s.dtype) for s in output_specs(session)] == [("y", np.float32)]
    assert closeness(before, run(model, {"x": X})) > 45
    assert all(v.dtype != ir.DataType.FLOAT for v in model.graph.initializers.values() if v.const_value.size > 1)
    assert ops(model)["Cast"] == 2
