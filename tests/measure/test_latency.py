"""Statistics on simulated time, where the truth is known; tolerant checks on real sessions."""

from __future__ import annotations

import gc

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from modelkit.errors import UsageError
from modelkit.measure.latency import Ratio, compare, compare_fresh, paired_ratio
from modelkit.runtime import make_session


class FakeClock:
    """Time that passes only when a fake runner runs."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return int(self.now)

    def runner(self, cost_ns, rng, noise=0.02):
        def run():
            factor = np.exp(rng.normal() * noise)
            if rng.random() < 0.02:  # another process got the core
                factor *= 1 + rng.exponential(3)
            self.now += cost_ns * factor * (1 + 0.3 * np.sin(self.now / 3e8))  # the clock rate drifts

        return run


def simulated(rng, blocks, rounds, speedup=1.0, session=0.01, drift=0.1, spikes=0.05):
    """Paired times with noise, drift, bursts that hit both, outliers that hit one, and session effects."""
    walk = np.cumsum(rng.normal(0, drift / np.sqrt(blocks * rounds), blocks * rounds)).reshape(blocks, rounds)
    pair = []
    for base in (speedup, 1.0):
        one = np.log(base) + walk + rng.normal(0, session, (blocks, 1)) + rng.normal(0, 0.02, (blocks, rounds))
        pair.append(np.exp(one) * np.where(rng.random((blocks, rounds)) < spikes, 1 + rng.exponential(2), 1))
    return pair


@pytest.mark.parametrize(
    ("blocks", "rounds", "session", "drift", "spikes"),
    [(6, 2, 0.01, 0.1, 0.05), (10, 12, 0.0, 0.3, 0.05), (10, 12, 0.02, 0.1, 0.0), (10, 4, 0.01, 0.5, 0.2)],
)
def test_a_model_against_itself_is_rarely_called_different(blocks, rounds, session, drift, spikes):
    rng = np.random.default_rng(1)
    ratios = [paired_ratio(*simulated(rng, blocks, rounds, 1.0, session, drift, spikes)) for _ in range(200)]
    wrong = sum(ratio.faster or ratio.slower for ratio in ratios)
    assert wrong <= 0.08 * len(ratios)


@pytest.mark.parametrize("truth", [0.9, 1.5])
def test_the_interval_covers_the_true_ratio(truth):
    rng = np.random.default_rng(2)
    ratios = [paired_ratio(*simulated(rng, 10, 10, truth)) for _ in range(200)]
    assert np.mean([ratio.low <= truth <= ratio.high for ratio in ratios]) >= 0.92
    assert all(ratio.low <= ratio.value <= ratio.high for ratio in ratios)


def test_a_difference_of_a_few_percent_is_found():
    rng = np.random.default_rng(3)
    ratios = [paired_ratio(*simulated(rng, 10, 20, 1.05, spikes=0.02)) for _ in range(50)]
    assert sum(ratio.faster for ratio in ratios) >= 45
    assert not any(ratio.slower for ratio in ratios)


def test_ratio_verdicts():
    assert Ratio(2.0, 1.9, 2.1).faster and not Ratio(2.0, 1.9, 2.1).slower
    assert Ratio(0.5, 0.4, 0.6).slower and not Ratio(0.5, 0.4, 0.6).faster
    assert not Ratio(1.0, 0.9, 1.1).faster and not Ratio(1.0, 0.9, 1.1).slower


@pytest.mark.parametrize("cost_ns", [2_000, 300_000, 20_000_000])
def test_fake_runners_of_any_speed_are_measured_and_ranked(cost_ns):
    clock, rng = FakeClock(), np.random.default_rng(0)
    runners = {
        "base": clock.runner(cost_ns, rng),
        "half": clock.runner(cost_ns / 2, rng),
        "double": clock.runner(cost_ns * 2, rng),
        "same": clock.runner(cost_ns, rng),
    }
    found = compare(runners, baseline="base", seconds=0.05, min_runs=15, max_runs=40, clock=clock)
    assert set(found.ratios) == {"half", "double", "same"}
    assert found.ratios["half"].faster and found.ratios["half"].value == pytest.approx(2, rel=0.1)
    assert found.ratios["double"].slower and found.ratios["double"].value == pytest.approx(0.5, rel=0.1)
    assert found.ratios["same"].value == pytest.approx(1, rel=0.1)
    stats = found.stats["base"]
    assert stats.median_ms == pytest.approx(cost_ns / 1e6, rel=0.35)
    assert stats.min_ms <= stats.median_ms <= stats.p95_ms
    assert stats.runs >= found.rounds >= 14


def test_rounds_stay_between_the_bounds_and_the_budget():
    clock, rng = FakeClock(), np.random.default_rng(0)
    slow = {"a": clock.runner(1e9, rng, 0.0), "b": clock.runner(1e9, rng, 0.0)}
    assert compare(slow, baseline="a", seconds=0.1, clock=clock).stats["a"].runs in range(14, 16)
    start = clock.now
    fast = {"a": clock.runner(1e6, rng, 0.0), "b": clock.runner(1e6, rng, 0.0)}
    found = compare(fast, baseline="a", seconds=0.3, max_runs=100, clock=clock)
    assert found.rounds <= 100 and clock.now - start < 2e9


def test_a_clock_that_shows_no_time_gives_even_times():
    found = compare({"a": lambda: None, "b": lambda: None}, baseline="a", max_runs=15, clock=lambda: 0)
    assert found.ratios["b"].value == 1.0


def test_same_seed_same_order():
    def order(seed):
        seen, clock = [], FakeClock()

        def runner(name):
            def run():
                seen.append(name)
                clock.now += 60e6

            return run

        compare(
            {"a": runner("a"), "b": runner("b"), "c": runner("c")},
            baseline="a",
            seconds=0.01,
            max_runs=15,
            seed=seed,
            clock=clock,
        )
        return seen

    assert order(1) == order(1) != order(2)
    last = order(1)[-6:]  # two rounds of the last block
    assert sorted(last[:3]) == sorted(last[3:]) == ["a", "b", "c"]


def test_fresh_runners_are_made_in_every_block_and_let_go():
    clock, rng, made, alive, most = FakeClock(), np.random.default_rng(0), [], set(), 0

    class Runner:
        def __init__(self, name):
            self.name = name
            nonlocal most
            made.append(name)
            alive.add(id(self))
            most = max(most, len(alive))
            self.run = clock.runner(2e6 * np.exp(rng.normal() * 0.1), rng)

        def __call__(self):
            self.run()

        def __del__(self):
            alive.discard(id(self))

    seen = []
    found = compare_fresh(
        {"a": lambda: Runner("a"), "b": lambda: Runner("b")},
        baseline="a",
        seconds=0.2,
        clock=clock,
        progress=lambda stage, done, total: seen.append((stage, done, total)),
    )
    assert found.blocks == 10 and made.count("a") == made.count("b") == 10
    assert made[::2] != ["a"] * 10 and made[::2] != ["b"] * 10
    assert most == 2
    assert seen == [("timing", block, 10) for block in range(1, 11)]
    ratio = found.ratios["b"]
    assert ratio.low < 1 < ratio.high  # sessions differ by 10 %, rounds by 2 %: a blind bootstrap would miss


def test_slow_loading_makes_fewer_blocks():
    clock, rng = FakeClock(), np.random.default_rng(0)

    def make():
        clock.now += 5e9
        return clock.runner(1e6, rng)

    assert compare_fresh({"a": make, "b": make}, baseline="a", clock=clock).blocks == 6


def test_the_collector_rests_while_timing_and_comes_back():
    clock, during = FakeClock(), set()

    def run():
        during.add(gc.isenabled())
        clock.now += 5e6

    gc.enable()
    compare({"a": run, "b": run}, baseline="a", seconds=0.05, clock=clock)
    assert during == {True, False} and gc.isenabled()  # on in the warm-up, off after it
    calls = 0

    def fails():
        nonlocal calls
        calls += 1
        if calls > 20:
            raise RuntimeError("the model broke")
        clock.now += 5e6

    with pytest.raises(RuntimeError):
        compare({"a": fails, "b": run}, baseline="a", seconds=1, clock=clock)
    assert gc.isenabled()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"baseline": "c"}, "the baseline 'c' is not among the runners: a, b"),
        ({"seconds": 0}, "seconds is 0; expected a number above 0"),
        ({"seconds": float("nan")}, "seconds is nan; expected a number above 0"),
        ({"min_runs": 5}, "runs are 5 to 400; expected 12 <= min_runs <= max_runs"),
        ({"max_runs": 14}, "runs are 15 to 14; expected 12 <= min_runs <= max_runs"),
        ({"warmup": 0}, "warmup is 0; expected 1 or more"),
    ],
)
def test_wrong_arguments(change, message):
    arguments = {"baseline": "a"} | change
    for function, runners in (
        (compare, {"a": int, "b": int}),
        (compare_fresh, {"a": lambda: int, "b": lambda: int}),
    ):
        with pytest.raises(UsageError) as caught:
            function(runners, **arguments)
        assert caught.value.message == message


def _factory(layers, feed):
    rng = np.random.default_rng(0)
    names = [f"h{index}" for index in range(layers + 1)]
    weights = [
        numpy_helper.from_array(rng.normal(0, 0.05, (256, 256)).astype(np.float32), f"w{index}")
        for index in range(layers)
    ]
    nodes = [helper.make_node("MatMul", [names[index], f"w{index}"], [names[index + 1]]) for index in range(layers)]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("h0", TensorProto.FLOAT, [8, 256])],
        [helper.make_tensor_value_info(names[-1], TensorProto.FLOAT, [8, 256])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    data = model.SerializeToString()

    def make():
        session = make_session(data)
        return lambda: session.run(None, {"h0": feed})

    return make


def test_real_sessions():
    feed = np.random.default_rng(0).normal(size=(8, 256)).astype(np.float32)
    one, three = _factory(2, feed), _factory(6, feed)
    found = compare_fresh({"one": one, "again": one, "three": three}, baseline="one", seconds=0.4)
    assert found.ratios["three"].slower
    again = found.ratios["again"]
    assert again.low < 1.1 and again.high > 0.9
    assert 0 < found.stats["one"].min_ms <= found.stats["one"].median_ms < found.stats["three"].median_ms
