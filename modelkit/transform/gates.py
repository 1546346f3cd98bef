"""The rule of every gate, in one place: what was asked, what was measured, and by how much it is missed.

A gate on speed knows the interval of what was measured where the limit is about a loss (``max_slowdown``): noise must
not fail a build. A limit that a user insists on as a gain (``min_speedup``) is held against the estimate itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from modelkit.report.report import Gate
from modelkit.report.units import decibel, factor, milliseconds, percent, size

# Shares are quotients: what equals the limit must not miss it by a rounding.
_ROUNDING = 1e-12
_UNKNOWN = "not measurable on these outputs"
_UNTIMED = "not measured"


def max_drop(limit: float, loss: tuple[str, float] | None, agreement: float | None) -> Gate:
    """Quality lost: the primary metric, or without labels the share of changed predictions.

    Args:
        limit: Largest loss allowed, as ``modelkit.measure.quality.drop`` counts it.
        loss: Primary metric and how much of it was lost; None without labels.
        agreement: Share of unchanged predictions; None where the outputs are no predictions.
    """
    if loss is not None:
        return _at_most("max_drop", f"drop in {loss[0]}", limit, loss[1], percent, "too much")
    if agreement is not None:
        return _at_most("max_drop", "changed predictions", limit, 1 - agreement, percent, "too many")
    return _unknown("max_drop", "drop in quality", f"≤ {percent(limit)}", _UNKNOWN)


def min_agreement(limit: float, agreement: float | None) -> Gate:
    """Share of predictions that are the reference's."""
    if agreement is None:
        return _unknown("min_agreement", "same predictions", f"≥ {percent(limit)}", _UNKNOWN)
    return _at_least("min_agreement", "same predictions", limit, agreement, percent)


def min_sqnr(limit: float, fidelity: Mapping[str, Any]) -> Gate:
    """Signal-to-noise ratio of the outputs, in dB; outputs that are the same have no noise.

    Args:
        limit: Least ratio wanted.
        fidelity: Of the outputs, as ``modelkit.measure.fidelity`` gives it.
    """
    found = fidelity.get("sqnr_db")
    if fidelity.get("exact"):
        return Gate("output SQNR", f"≥ {decibel(limit)}", "exact", True, "min_sqnr")
    if found is None:
        return _unknown("min_sqnr", "output SQNR", f"≥ {decibel(limit)}", _UNKNOWN)
    return _at_least("min_sqnr", "output SQNR", limit, found, decibel)


def finite_outputs(count: int) -> Gate:
    """No output may become infinite or NaN where the reference's is finite."""
    got = "none" if not count else f"{count} became infinite or NaN"
    return Gate("broken outputs", "none", got, not count, "finite_outputs")


def min_ratio(limit: float, before: float, after: float) -> Gate:
    """How many times smaller the files became, in bytes before and after."""
    return _at_least("min_ratio", "smaller by", limit, before / max(after, 1), factor, rounding=0.0)


def max_size(limit: float, after: float) -> Gate:
    """How large the files are, in bytes."""
    return _at_most("max_size", "file size", limit, after, size, "too large", rounding=0.0)


def max_size_growth(limit: float, before: float, after: float) -> Gate:
    """How much larger the files became, as a share; negative where they became smaller."""
    grown = after / max(before, 1) - 1
    return _at_most("max_size_growth", "size growth", limit, grown, percent, "too much")


def min_speedup(limit: float, value: float | None) -> Gate:
    """How many times faster it runs."""
    if value is None:
        return _unknown("min_speedup", "faster by", f"≥ {factor(limit)}", _UNTIMED)
    return _at_least("min_speedup", "faster by", limit, value, factor, rounding=0.0)


def max_slowdown(limit: float, speedup: Mapping[str, float] | None) -> Gate:
    """How much longer it takes, as a share; missed only where the whole 95 % interval is beyond the limit.

    Args:
        limit: Largest share allowed: 0.1 is a tenth longer.
        speedup: Reference over model: ``value`` with the interval ``low``, ``high``; None where nothing was timed.
    """
    asked = f"≤ {percent(limit)}"
    if speedup is None:
        return _unknown("max_slowdown", "slowdown", asked, _UNTIMED)
    value, least, most = (1 / max(speedup[key], 1e-9) - 1 for key in ("value", "high", "low"))
    got = f"{percent(value)} [{100 * least:.2f}, {100 * most:.2f}]"
    over = least - limit
    if over > _ROUNDING:
        return Gate("slowdown", asked, got, False, "max_slowdown", f"at least {percent(over)} too slow")
    # Said, because a longer measurement could tell.
    return Gate("slowdown", asked, got if value <= limit else f"{got}: within noise", True, "max_slowdown")


def max_latency(limit: float, median: float | None) -> Gate:
    """Median latency of one batch, in milliseconds."""
    if median is None:
        return _unknown("max_latency", "latency", f"≤ {milliseconds(limit)}", _UNTIMED)
    return _at_most("max_latency", "latency", limit, median, milliseconds, "too slow", rounding=0.0)


def missed(gates: Iterable[Gate]) -> str:
    """The gates that were missed and by how much, in one line; empty where all are met."""
    return "; ".join(describe(gate) for gate in gates if not gate.ok)


def describe(gate: Gate) -> str:
    """A gate on one line: ``latency 2.50 ms (asked ≤ 2.00 ms, 500 µs too slow)``."""
    return f"{gate.name} {gate.got} (asked {gate.asked}{f', {gate.by}' if gate.by else ''})"


def _at_most(
    option: str,
    name: str,
    limit: float,
    got: float,
    show: Callable[[float | None], str],
    over: str,
    rounding: float = _ROUNDING,
) -> Gate:
    ok = got <= limit + rounding
    return Gate(name, f"≤ {show(limit)}", show(got), ok, option, "" if ok else f"{show(got - limit)} {over}")


def _at_least(
    option: str,
    name: str,
    limit: float,
    got: float,
    show: Callable[[float | None], str],
    rounding: float = _ROUNDING,
) -> Gate:
    ok = got >= limit - rounding
    return Gate(name, f"≥ {show(limit)}", show(got), ok, option, "" if ok else f"{show(limit - got)} short")


def _unknown(option: str, name: str, asked: str, why: str) -> Gate:
    return Gate(name, asked, why, False, option)
