"""Calibration data that ranges should not rest on: outliers are clipped and told, constants are told."""

import json

import numpy as np
import onnx_ir as ir
import pytest
from quantize_nets import Net, closeness, run

from modelkit.api import quantize
from modelkit.data.arrays import from_arrays
from modelkit.graph.save import save
from modelkit.quantize.suspect import Clipped, find_outliers
from modelkit.runtime import TensorSpec

RNG = np.random.default_rng(4)
SPECS = [TensorSpec("x", np.dtype(np.float32), ("n", 3, 8, 8))]


def net(overflows=False):
    made = Net(17, seed=1)
    made.input("x", ["n", 3, 8, 8])
    inner = made.add("Relu", made.conv("x", 3, 8))
    if overflows:
        inner = made.add("Mul", inner, inner)
    made.add("Conv", inner, made.weight(4, 8, 3, 3), out="y")
    made.output("y")
    return made.build()


def samples(outlier=None, count=40):
    x = RNG.standard_normal((count, 3, 8, 8)).astype(np.float32)
    if outlier is not None:
        x[5, 1, 2, 3] = outlier
    return x


@pytest.mark.parametrize("overflows", [False, True])
@pytest.mark.parametrize("outlier", [1e30, -1e5])
def test_a_single_outlier_costs_nothing(tmp_path, outlier, overflows):
    model = net(overflows)
    save(model, tmp_path / "m.onnx")
    np.savez(tmp_path / "calib.npz", x=samples(outlier, 8))  # too few to split: all calibrate
    np.savez(tmp_path / "test.npz", x=samples())
    options = {"data": tmp_path / "calib.npz", "test": tmp_path / "test.npz", "output": tmp_path / "q.onnx"}
    report = quantize(tmp_path / "m.onnx", config={"mode": "static", "measure.seconds": 0.05}, **options)
    [warning] = [each for each in report.decisions if each.action == "warned"]
    assert warning.target == "x" and warning.numbers["largest"] == pytest.approx(abs(outlier), rel=1e-3)
    assert 2 < warning.numbers["clipped_to"] < 10
    assert any("it was clipped to that" in note for note in report.notes)
    assert report.fidelity["sqnr_db"] > 15
    told = json.loads((tmp_path / "q.report.json").read_text())
    assert any("reaches" in note for note in told["notes"])


def test_constant_data_is_told(tmp_path):
    save(net(), tmp_path / "m.onnx")
    np.savez(tmp_path / "calib.npz", x=np.full((20, 3, 8, 8), 0.5, np.float32))
    options = {"data": tmp_path / "calib.npz", "output": tmp_path / "q.onnx"}
    report = quantize(tmp_path / "m.onnx", config={"mode": "static", "measure.seconds": 0.05}, **options)
    assert "input 'x' is 0.5 throughout the calibration data: ranges hold for nothing else" in report.notes


def test_one_sample_is_told(tmp_path):
    save(net(), tmp_path / "m.onnx")
    np.savez(tmp_path / "calib.npz", x=samples()[:1])
    options = {"data": tmp_path / "calib.npz", "output": tmp_path / "q.onnx"}
    report = quantize(tmp_path / "m.onnx", config={"mode": "static", "measure.seconds": 0.05}, **options)
    assert any(note.startswith("1 sample") for note in report.notes), report.notes


def test_heavy_tails_are_no_outliers():
    x = (RNG.standard_t(2, (40, 3, 8, 8)) ** 3).astype(np.float32)
    assert find_outliers(from_arrays({"x": np.clip(x, -900, 900)}, SPECS))[0] == {}


def test_what_is_clipped_and_what_is_not():
    x = samples(1e30)
    data = from_arrays({"x": x}, SPECS)
    reach, _ = find_outliers(data)
    clipped = Clipped(data, reach)
    found = np.concatenate([batch.inputs["x"] for batch in clipped.batches(16)])
    assert np.array_equal(found, np.clip(x, -reach["x"], reach["x"])) and clipped.count == 40
    assert clipped.fingerprint() == data.fingerprint()


def test_means_come_back_where_earlier_layers_shift_them(tmp_path):
    model, test = net(), {"x": samples()}
    save(model, tmp_path / "m.onnx")
    np.savez(tmp_path / "calib.npz", x=samples())
    gap = {}
    for how in (True, "full"):
        options = {"data": tmp_path / "calib.npz", "output": tmp_path / f"{how}.onnx"}
        config = {"mode": "static", "measure.seconds": 0.05, "correct_bias": how, "bits": 3}
        report = quantize(tmp_path / "m.onnx", config=config, **options)
        exact, found = run(model, test)[0], run(ir.load(tmp_path / f"{how}.onnx"), test)[0]
        gap[how] = np.abs((exact - found).mean(axis=(0, 2, 3))).max() / exact.std()
        assert closeness([exact], [found]) > 5
        corrected = [each for each in report.decisions if each.action == "corrected"]
        assert len(corrected) == (how == "full")
    assert gap["full"] < 0.02 and gap["full"] <= gap[True]


@pytest.mark.parametrize("rounding", ["squant", "adaround"])
def test_a_weight_that_two_layers_read_in_two_ways_has_scales_for_both(tmp_path, rounding):
    made = Net(17, seed=6)
    made.input("x", ["n", 12])
    weight = made.weight(12, 12, name="shared")
    made.add("MatMul", made.add("Gemm", "x", weight, transB=1), weight, out="y")
    made.output("y", ["n", 12])
    save(made.build(), tmp_path / "m.onnx")
    np.savez(tmp_path / "x.npz", x=RNG.standard_normal((40, 12)).astype(np.float32))
    config = {"mode": "static", "measure.seconds": 0.05, "weights.rounding": rounding}
    report = quantize(tmp_path / "m.onnx", data=tmp_path / "x.npz", output=tmp_path / "q.onnx", config=config)
    assert report.fidelity["sqnr_db"] > 25
