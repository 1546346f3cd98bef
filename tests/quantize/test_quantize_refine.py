"""What auto tries when static loses too much: layers ranked by measured sensitivity stay float."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from quantize_nets import Net, closeness, run

from modelkit.algorithm.candidate import Trial
from modelkit.api import quantize
from modelkit.config.resolve import resolve
from modelkit.data.arrays import from_arrays
from modelkit.decision import Decision
from modelkit.errors import BudgetError, ModelError, UsageError
from modelkit.graph.save import save
from modelkit.progress import silent
from modelkit.quantize.auto import Quantizer
from modelkit.quantize.calibrated import StaticMode
from modelkit.quantize.config import QuantizeConfig
from modelkit.quantize.mixed import Bisection
from modelkit.quantize.static import ActivationType
from modelkit.quantize.variant import Variant
from modelkit.runtime import TensorSpec


def fragile_net() -> Net:
    """Three convolutions; the middle one reads an activation whose outlier, which it ignores, takes all 256 steps."""
    net = Net()
    net.input("x", ["n", 4, 8, 8])
    net.output("y")
    scales = np.ones((1, 8, 1, 1), dtype=np.float32)
    scales[0, 0] = 3000
    # Abs has no integer kernel, so that no other layer quantizes what the fragile one reads.
    wide = net.add("Mul", net.add("Abs", net.conv("x", 4, 8)), net.const(scales))
    narrow = net.rng.standard_normal((8, 8, 1, 1)).astype(np.float32)
    narrow[:, 0] = 0
    b = net.add("Conv", wide, net.const(narrow), name="fragile")
    net.add("Conv", net.add("Relu", b), net.weight(4, 8, 3, 3), out="y", pads=[1] * 4, name="last")
    return net


@pytest.fixture(scope="module")
def data():
    x = np.random.default_rng(5).standard_normal((24, 4, 8, 8)).astype(np.float32)
    return from_arrays({"x": x}, [TensorSpec("x", np.dtype(np.float32), ("n", 4, 8, 8))])


def mode(data, **options) -> StaticMode:
    config = resolve(QuantizeConfig, flags={key: (value, key) for key, value in options.items()}).value
    return StaticMode(fragile_net().build(), config, data, ActivationType(False, 8), lambda model, progress: [])


def rejected(name: str, sqnr: float) -> Trial:
    return Trial(name, status="rejected", missed="quality", fidelity={"sqnr_db": sqnr})


def test_ranking_finds_the_fragile_layer_and_the_variants_without_it_are_better(data) -> None:
    static = mode(data)
    first = [candidate.name for candidate in static.candidates()]
    assert first[:2] == ["static minmax", "static mse"]
    stages: list[str] = []
    trials = [rejected(name, 5.0) for name in first]
    careful = static.refine(trials)
    assert [each.name.split(", ")[-1] for each in careful] == ["equalised", "adaround"]
    trials += [rejected(each.name, 5.0) for each in careful]
    (made,) = static.refine(trials, lambda stage, done, total: stages.append(stage))
    assert "ranking layers by sensitivity" in stages
    assert made.name.endswith("1 layer float")
    chosen = static._variants[made.name]
    ranked = [d for d in made.apply(static.model.clone(), silent) if d.action == "ranked"]
    assert ranked[0].target == "fragile" and [d.numbers["rank"] for d in ranked] == list(range(1, len(ranked) + 1))
    assert all(a.numbers["sqnr_db"] <= b.numbers["sqnr_db"] for a, b in pairwise(ranked))
    assert chosen.keep_float == {"fragile"}
    feeds = next(iter(data.batches(8))).inputs
    expected = run(static.model, feeds)
    quality = {}
    for variant in (Variant("minmax"), Variant("minmax", keep_float=chosen.keep_float)):
        model = static.model.clone()
        decisions = static.apply(model, variant)
        quality[variant] = closeness(expected, run(model, feeds))
    assert quality[Variant("minmax", keep_float=chosen.keep_float)] > quality[Variant("minmax")] + 10
    assert any(d.target == "fragile" and "too sensitive" in d.reason for d in decisions)


def test_refining_happens_once_and_only_when_nothing_was_good_enough(data) -> None:
    static = mode(data)
    names = [candidate.name for candidate in static.candidates()]
    timed = rejected(names[0], 30.0)
    timed.latency = {"median_ms": 1.0, "speedup": {"value": 2.0, "low": 1.9, "high": 2.1}}
    assert static.refine([timed]) == []
    assert static.refine([rejected("weights", 30.0)]) == []
    trials = [rejected(name, 3.0) for name in names]
    while made := static.refine(trials):
        trials += [rejected(candidate.name, 3.0) for candidate in made]
    tried = [trial.name for trial in trials]
    assert len(tried) == len(set(tried)) and static.refine(trials) == []


def test_a_named_mode_tries_one_way_and_the_others_when_that_fails(data) -> None:
    static = mode(data, mode="static")
    (first,) = static.candidates()
    assert first.name == "static mse"
    names = [candidate.name for candidate in static.refine([rejected(first.name, 3.0)])]
    assert names == ["static minmax", "static mse, equalised", "static mse, adaround"]


@given(st.integers(1, 200), st.data())
def test_bisection_finds_the_least_number_in_few_steps(most, data) -> None:
    needed = data.draw(st.integers(1, most + 1))
    search, steps = Bisection(most), 0
    while (number := search.next()) is not None:
        assert 1 <= number <= most
        search.told(number, number >= needed)
        steps += 1
    assert search.good == (needed if needed <= most else None)
    assert steps <= 2 * most.bit_length() + 1


def test_bisection_without_layers_to_spare_tries_nothing() -> None:
    assert Bisection(0).next() is None


@pytest.mark.parametrize(
    "options", [{}, {"correct_bias": False}, {"equalize": True}, {"activations.range": "entropy"}]
)
def test_every_option_gives_a_model_that_runs(data, options) -> None:
    static = mode(data, **options)
    feeds = next(iter(data.batches(8))).inputs
    for candidate in static.candidates():
        model = static.model.clone()
        assert all(isinstance(d, Decision) for d in candidate.apply(model, silent))
        assert np.isfinite(run(model, feeds)[0]).all()
        assert ("equalised" in candidate.name) == bool(options.get("equalize"))


def quantizer(net: Net, data=None, **options) -> Quantizer:
    config = resolve(QuantizeConfig, flags={key: (value, key) for key, value in options.items()}).value
    return Quantizer(net.build(), config, data, "vnni")


def two_layers() -> Net:
    net = Net()
    net.input("x", ["n", 4, 8, 8])
    net.output("y")
    flat = net.add("Flatten", net.conv("x", 4, 8))
    net.add("Gemm", flat, net.weight(512, 32, name="head.w"), out="y", name="head")
    return net


@pytest.mark.parametrize(
    ("options", "stored"),
    [
        ({"include": ["head*"]}, {"head.w": True, "conv": False}),
        ({"exclude": ["head*"]}, {"head.w": False, "conv": True}),
        ({}, {"head.w": True, "conv": True}),
    ],
)
def test_patterns_hold_for_what_is_stored_after_dynamic(options, stored) -> None:
    made = quantizer(two_layers(), mode="dynamic", **options)
    candidate = made.candidates()[0]
    model = made.model.clone()
    candidate.apply(model, silent)
    floats = [
        value.const_value.shape.numpy()
        for value in model.graph.initializers.values()
        if value.const_value.dtype.name == "FLOAT"
    ]
    assert ((512, 32) not in floats) is stored["head.w"]
    assert ((8, 4, 3, 3) not in floats) is stored["conv"]


def test_float16_arithmetic_keeps_excluded_layers_in_32_bits() -> None:
    made = quantizer(two_layers(), mode="float16", exclude=["head*"], **{"float16.compute": True})
    model = made.model.clone()
    made.candidates()[0].apply(model, silent)
    kinds = {tuple(v.const_value.shape.numpy()): v.const_value.dtype.name for v in model.graph.initializers.values()}
    assert kinds[512, 32] == "FLOAT" and kinds[8, 4, 3, 3] == "FLOAT16"


def test_static_without_data_and_models_without_weights_are_refused() -> None:
    with pytest.raises(UsageError, match="static quantization needs calibration data"):
        quantizer(two_layers(), mode="static").candidates()
    net = Net()
    net.input("x", ["n", 4])
    net.output("y")
    net.add("Relu", "x", out="y")
    with pytest.raises(ModelError, match="nothing to quantize"):
        quantizer(net).candidates()


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy", "mse"])
@pytest.mark.parametrize(("count", "number"), [(1, None), (3, 0.0), (3, 1.5), (3, -2.0)])
def test_one_sample_or_constant_samples_are_enough_to_calibrate(method, count, number) -> None:
    x = np.random.default_rng(8).standard_normal((count, 4, 8, 8)).astype(np.float32)
    if number is not None:
        x[:] = number
    data = from_arrays({"x": x}, [TensorSpec("x", np.dtype(np.float32), ("n", 4, 8, 8))])
    static = mode(data, mode="static", **{"activations.range": method})
    (candidate,) = static.candidates()
    model = static.model.clone()
    candidate.apply(model, silent)
    assert np.isfinite(run(model, {"x": x})[0]).all()


def test_a_budget_that_nothing_meets_names_the_layer_in_the_way(tmp_path) -> None:
    save(fragile_net().build(), tmp_path / "m.onnx")
    x = np.random.default_rng(5).standard_normal((24, 4, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "x.npz", x=x)
    config = {"mode": "static", "budget.max_drop": 0.0, "measure.seconds": 0.05, "bits": 2}
    with pytest.raises(BudgetError, match="nothing that was tried is inside the budget") as caught:
        quantize(tmp_path / "m.onnx", output=tmp_path / "q.onnx", data=tmp_path / "x.npz", config=config)
    assert "what costs most is 'fragile'" in caught.value.hint
    assert not (tmp_path / "q.onnx").exists() and (tmp_path / "q.report.json").exists()
