"""Gates: what each holds a figure against, and what it says of a miss."""

from __future__ import annotations

import math

import pytest

from modelkit.config.options import Budget
from modelkit.config.resolve import resolve
from modelkit.errors import ConfigError
from modelkit.report.report import Gate
from modelkit.transform import gates


def ratio(value: float, low: float, high: float) -> dict[str, float]:
    return {"value": value, "low": low, "high": high}


@pytest.mark.parametrize(
    ("gate", "said"),
    [
        (
            gates.max_drop(0.005, ("accuracy", 0.012), None),
            "drop in accuracy 1.20 % (asked ≤ 0.50 %, 0.70 % too much)",
        ),
        (gates.max_drop(0.01, None, 0.97), "changed predictions 3.00 % (asked ≤ 1.00 %, 2.00 % too many)"),
        (gates.max_drop(0.01, None, None), "drop in quality not measurable on these outputs (asked ≤ 1.00 %)"),
        (gates.min_agreement(0.99, 0.95), "same predictions 95.00 % (asked ≥ 99.00 %, 4.00 % short)"),
        (gates.min_agreement(0.99, None), "same predictions not measurable on these outputs (asked ≥ 99.00 %)"),
        (gates.min_sqnr(20, {"sqnr_db": 12.5}), "output SQNR 12.5 dB (asked ≥ 20.0 dB, 7.5 dB short)"),
        (gates.min_sqnr(20, {}), "output SQNR not measurable on these outputs (asked ≥ 20.0 dB)"),
        (gates.finite_outputs(3), "broken outputs 3 became infinite or NaN (asked none)"),
        (gates.min_ratio(4, 1000, 285), "smaller by 3.51x (asked ≥ 4.00x, 0.49x short)"),
        (
            gates.max_size_growth(0.05, 1000, 1100),
            "size growth 10.00 % (asked ≤ 5.00 %, 5.00 % too much)",
        ),
        (gates.min_speedup(2, 1.5), "faster by 1.50x (asked ≥ 2.00x, 0.50x short)"),
        (gates.min_speedup(2, None), "faster by not measured (asked ≥ 2.00x)"),
        (
            gates.max_slowdown(0.1, ratio(0.8, 0.78, 0.82)),
            "slowdown 25.00 % [21.95, 28.21] (asked ≤ 10.00 %, at least 11.95 % too slow)",
        ),
        (gates.max_slowdown(0.1, None), "slowdown not measured (asked ≤ 10.00 %)"),
        (gates.max_latency(2, 2.5), "latency 2.50 ms (asked ≤ 2.00 ms, 500 µs too slow)"),
        (gates.max_latency(2, None), "latency not measured (asked ≤ 2.00 ms)"),
    ],
    ids=lambda value: value.option if isinstance(value, Gate) else "",
)
def test_a_miss_says_which_and_by_how_much(gate: Gate, said: str) -> None:
    assert not gate.ok
    assert gates.describe(gate) == said
    assert gates.missed([gate, gate]) == f"{said}; {said}"


@pytest.mark.parametrize(
    "gate",
    [
        gates.max_drop(0.005, ("accuracy", 0.005), None),
        gates.max_drop(0.1, None, 1 - 0.1),  # 1 - 0.9 is a little more than 0.1
        gates.min_agreement(0.9, 1 - 0.1),
        gates.min_sqnr(200, {"exact": True, "sqnr_db": None}),
        gates.finite_outputs(0),
        gates.min_ratio(4, 1000, 250),
        gates.max_size_growth(0.0, 1000, 1000),
        gates.max_size_growth(-0.5, 1000, 400),
        gates.min_speedup(2, 2.0),
        gates.max_latency(2, 2.0),
    ],
    ids=lambda gate: gate.option,
)
def test_the_limit_itself_is_met(gate: Gate) -> None:
    assert gate.ok and not gate.by and gate.verdict == "met"
    assert gates.missed([gate]) == ""


@pytest.mark.parametrize("lost", [math.inf, math.nan])
def test_what_cannot_be_compared_is_a_miss(lost: float) -> None:
    assert not gates.max_drop(0.9, ("rmse", lost), None).ok


def test_noise_fails_no_build() -> None:
    """A slowdown is one only where the whole interval says so."""
    unsure = gates.max_slowdown(0.1, ratio(0.85, 0.6, 1.1))
    assert unsure.ok and unsure.got.endswith("within noise")
    assert gates.max_slowdown(0.1, ratio(1.2, 1.1, 1.3)).got == "-16.67 % [-23.08, -9.09]"
    assert not gates.max_slowdown(0.1, ratio(0.85, 0.84, 0.86)).ok


@pytest.mark.parametrize(("text", "value"), [("3.5x", 3.5), ("3.5", 3.5), (3, 3.0), ("4 x", 4.0)])
def test_factors_may_be_written_with_an_x(text: object, value: float) -> None:
    assert resolve(Budget, flags={"min_ratio": (text, "--min-ratio")}).value.min_ratio == value


@pytest.mark.parametrize("text", ["lots", "3.5%", "x3", "-1x", "0x"])
def test_what_is_no_factor_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"1 problem") as refused:
        resolve(Budget, flags={"min_ratio": (text, "--min-ratio")})
    assert "--min-ratio" in refused.value.problems[0]
