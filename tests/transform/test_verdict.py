"""Which candidate is good enough, and which is best."""

import math

import pytest

from modelkit.algorithm.candidate import Trial
from modelkit.config.options import Budget
from modelkit.transform import verdict


def trial(name: str = "a", *, size: int = 250, speed=(1.0, 0.98, 1.02), sqnr=40.0, **more) -> Trial:
    latency = {"median_ms": 1.0, "speedup": dict(zip(("value", "low", "high"), speed, strict=True))}
    fidelity = {"sqnr_db": sqnr, "top1_agreement": more.pop("agreement", 1.0), "non_finite": more.pop("bad", 0)}
    return Trial(name, size={"file_bytes": size}, latency=latency, fidelity=fidelity, **more)


def limits(*, safe=True, synthetic=False, quality=None, **budget) -> verdict.Limits:
    return verdict.Limits(Budget(**budget), safe, synthetic, 1000, quality)


ACCURACY = {"accuracy": 0.9}


@pytest.mark.parametrize(
    ("made", "held", "reason"),
    [
        (trial(quality={"accuracy": 0.88}), limits(quality=ACCURACY), "loses 2.00 % of accuracy"),
        (trial(quality={"accuracy": 0.895}), limits(quality=ACCURACY), None),
        (trial(quality={"accuracy": 0.895}), limits(quality=ACCURACY, max_drop=0.001), "0.10 % allowed"),
        (trial(quality={"accuracy": 0.5}), limits(quality=ACCURACY, safe=False), None),
        (trial(quality={"rmse": math.nan}), limits(quality={"rmse": 1.0}), "loses"),
        (trial(quality={"rmse": 1.2}), limits(quality={"rmse": 1.0}, max_drop=0.1), "of rmse"),
        (trial(agreement=0.97), limits(), "changes 3.00 % of the predictions"),
        (trial(agreement=0.97), limits(synthetic=True), None),
        (trial(agreement=0.97, sqnr=12.0), limits(synthetic=True), "output noise at 12.0 dB"),
        (trial(agreement=0.97), limits(synthetic=True, max_drop=0.01), "1.00 % allowed"),
        (trial(bad=3), limits(safe=False), "3 outputs became infinite or NaN"),
    ],
)
def test_outputs_that_change_too_much(made: Trial, held: verdict.Limits, reason: str | None) -> None:
    found = verdict.fidelity_problem(made, held)
    assert found is None if reason is None else reason in str(found)


def test_sizes_and_speeds() -> None:
    assert "not smaller" in str(verdict.size_problem(trial(size=1000), limits()))
    assert verdict.size_problem(trial(size=1000), limits(safe=False)) is None
    assert "3.00x wanted" in str(verdict.size_problem(trial(size=500), limits(min_ratio=3.0)))
    slow = trial(speed=(0.8, 0.78, 0.82))
    assert "slower: 0.80x" in str(verdict.latency_problem(slow, limits(), "balanced"))
    assert verdict.latency_problem(slow, limits(), "size") is None
    assert verdict.latency_problem(slow, limits(safe=False), "balanced") is None
    # A session's memory layout is not the model.
    assert verdict.latency_problem(trial(speed=(0.995, 0.991, 0.998)), limits(), "balanced") is None
    assert "2.00x wanted" in str(verdict.latency_problem(trial(), limits(min_speedup=2.0), "balanced"))
    assert "500 µs allowed" in str(verdict.latency_problem(trial(), limits(max_latency=0.5), "balanced"))


@pytest.mark.parametrize(
    ("objective", "best"), [("size", "small"), ("latency", "fast"), ("balanced", "fast"), ("quality", "exact")]
)
def test_objectives(objective: str, best: str) -> None:
    made = [
        trial("small", size=200),
        trial("fast", size=280, speed=(3.0, 2.9, 3.1), sqnr=30.0),
        trial("exact", size=500, sqnr=90.0),
    ]
    chosen = verdict.pick(made, lambda _: None, lambda t: verdict.score(t, limits(), objective))
    assert chosen is not None and chosen.name == best and chosen.status == "chosen"


def test_noise_decides_no_tie() -> None:
    lucky = trial("lucky", speed=(1.70, 1.68, 1.72), sqnr=26.0)
    faithful = trial("faithful", size=252, speed=(1.68, 1.66, 1.70), sqnr=33.0)
    slower = trial("slower", speed=(1.2, 1.1, 1.3), sqnr=60.0)

    def rate(made: Trial) -> float:
        return verdict.score(made, limits(), "balanced")

    chosen = verdict.pick([lucky, faithful, slower], lambda _: None, rate)
    assert chosen is faithful


def test_models_that_differ_in_numbers_only_are_equally_fast() -> None:
    lucky = trial("lucky", speed=(1.80, 1.79, 1.81), sqnr=9.0, structure="a")
    faithful = trial("faithful", speed=(1.70, 1.69, 1.71), sqnr=33.0, structure="a")
    other = trial("other", speed=(1.70, 1.69, 1.71), sqnr=60.0, structure="b")
    chosen = verdict.pick([lucky, faithful, other], lambda _: None, lambda t: verdict.score(t, limits(), "balanced"))
    assert chosen is faithful


@pytest.mark.parametrize(
    ("right", "agreement", "best"),
    [
        (0.89, 0.98, "better"),  # 20 of 1000 more are right: 40 can differ, chance explains 12
        (0.905, 0.98, "faithful"),  # 5 more: chance
        (0.89, 0.70, "faithful"),  # 20 more of 600 that can differ: chance
    ],
)
def test_labels_come_before_noise_where_they_tell_two_apart(right: float, agreement: float, best: str) -> None:
    better = trial("better", sqnr=26.0, quality={"accuracy": 0.91}, agreement=agreement)
    faithful = trial("faithful", sqnr=33.0, quality={"accuracy": right}, agreement=agreement)
    made = [better, faithful]
    held = limits(quality=ACCURACY)
    chosen = verdict.pick(made, lambda _: None, lambda t: verdict.score(t, held, "balanced"), 1000)
    assert chosen is not None and chosen.name == best
    unlabelled = verdict.pick(made, lambda _: None, lambda t: verdict.score(t, held, "balanced"))
    assert unlabelled is faithful


def test_nothing_good_enough_leaves_nothing_chosen() -> None:
    made = [trial("a"), Trial("b", status="failed", reason="no")]
    assert verdict.pick(made, lambda _: "too bad", lambda _: 0.0) is None
    assert [(t.status, t.reason) for t in made] == [("rejected", "too bad"), ("failed", "no")]


def test_gates_hold_the_final_figures() -> None:
    budget = Budget(max_drop=0.005, min_ratio=3.0, min_speedup=1.5, max_latency=2.0)
    before, after = {"file_bytes": 1000, "median_ms": 4.0}, {"file_bytes": 250, "median_ms": 2.5}
    found = verdict.gates(budget, before=before, after=after, loss=("accuracy", 0.004), agreement=None, speedup=1.6)
    assert [gate.ok for gate in found] == [True, True, True, False]
    unknown = verdict.gates(
        Budget(max_drop=0.01), before=before, after=after, loss=None, agreement=None, speedup=None
    )
    assert [(gate.ok, gate.got) for gate in unknown] == [(False, "not measurable on these outputs")]
    changed = verdict.gates(
        Budget(max_drop=0.01), before=before, after=after, loss=None, agreement=0.98, speedup=None
    )
    assert not changed[0].ok and changed[0].name == "changed predictions"
