"""Which of the tried candidates is good enough, and which of those is best."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from modelkit.algorithm.candidate import Trial
from modelkit.config.options import Budget, Objective
from modelkit.measure.quality import Task, drop, primary
from modelkit.report.report import Gate
from modelkit.report.units import decibel, factor, milliseconds, percent, size
from modelkit.transform import gates as rule

# What "safe" means where the user set no budget.
SAFE_DROP = 0.01  # accuracy lost
SAFE_CHANGED = 0.02  # predictions that change, on real inputs without labels
SAFE_SQNR_DB = 20.0  # noise in the outputs, on made-up inputs
_CHI_SQUARE = 3.84  # 95 % quantile, one degree of freedom
SLOWER_BY = 0.01  # less than this is the memory layout of a session, not the model


@dataclass(frozen=True)
class Limits:
    """The limits that candidates are held to.

    Attributes:
        budget: What the user asked for.
        safe: Whether the limits above hold where the budget says nothing (auto modes).
        synthetic: Whether the selection data is made up.
        original_bytes: Size of the original.
        original_quality: Its metrics on the selection data; None without labels.
        rows: Samples of the selection data; 0 where their number does not matter.
    """

    budget: Budget
    safe: bool
    synthetic: bool
    original_bytes: int
    original_quality: dict[str, Any] | None
    rows: int = 0


def quality_loss(before: dict[str, Any] | None, after: dict[str, Any] | None) -> tuple[str, float] | None:
    """Return the primary metric and how much of it was lost, as ``modelkit.measure.quality.drop`` counts it."""
    if not before or not after:
        return None
    name = next(iter(before))
    task = Task.classification if primary(Task.classification)[0] == name else Task.regression
    return name, drop(before, after, task)


def fidelity_problem(trial: Trial, limits: Limits) -> str | None:
    """Return why a candidate changes the outputs too much, or None."""
    found = trial.fidelity or {}
    if found.get("non_finite"):
        return f"{found['non_finite']} outputs became infinite or NaN"
    loss = quality_loss(limits.original_quality, trial.quality)
    allowed = limits.budget.max_drop
    if loss is not None:
        limit = allowed if allowed is not None else (SAFE_DROP if limits.safe else None)
        if limit is not None and not rule.max_drop(limit, loss, None).ok:
            return f"loses {percent(loss[1])} of {loss[0]} on the selection data, {percent(limit)} allowed"
        return None
    agreement = found.get("top1_agreement")
    if agreement is not None and not (limits.synthetic and allowed is None):
        limit = allowed if allowed is not None else (SAFE_CHANGED if limits.safe else None)
        if limit is not None and not rule.max_drop(limit, None, agreement).ok:
            return f"changes {percent(1 - agreement)} of the predictions, {percent(limit)} allowed"
        return None
    sqnr = found.get("sqnr_db")
    if limits.safe and allowed is None and sqnr is not None and not rule.min_sqnr(SAFE_SQNR_DB, found).ok:
        return f"output noise at {decibel(sqnr)}, at least {decibel(SAFE_SQNR_DB)} wanted"
    return None


def size_problem(trial: Trial, limits: Limits) -> str | None:
    """Return why a candidate is too large, or None."""
    bytes_now = int(trial.size["file_bytes"])
    if limits.safe and bytes_now >= limits.original_bytes:
        return f"not smaller: {size(bytes_now)} against {size(limits.original_bytes)}"
    ratio = limits.original_bytes / max(bytes_now, 1)
    wanted = limits.budget.min_ratio
    if wanted is not None and not rule.min_ratio(wanted, limits.original_bytes, bytes_now).ok:
        return f"only {factor(ratio)} smaller, {factor(wanted)} wanted"
    most = limits.budget.max_size
    if most is not None and not rule.max_size(most, bytes_now).ok:
        return f"takes {size(bytes_now)}, {size(most)} allowed"
    return None


def latency_problem(trial: Trial, limits: Limits, objective: Objective) -> str | None:
    """Return why a candidate is too slow, or None."""
    if trial.latency is None:
        return None
    ratio, median = trial.latency["speedup"], trial.latency["median_ms"]
    budget = limits.budget
    if budget.max_latency is not None and not rule.max_latency(budget.max_latency, median).ok:
        return f"takes {milliseconds(median)}, {milliseconds(budget.max_latency)} allowed"
    if budget.min_speedup is not None:
        if not rule.min_speedup(budget.min_speedup, ratio["value"]).ok:
            return f"{factor(ratio['value'])} as fast, {factor(budget.min_speedup)} wanted"
        return None
    if limits.safe and objective != "size" and ratio["high"] < 1 - SLOWER_BY:
        return f"slower: {factor(ratio['value'])} as fast [{ratio['low']:.2f}, {ratio['high']:.2f}]"
    return None


def score(trial: Trial, limits: Limits, objective: Objective) -> float:
    """Rate a candidate, lower is better.

    ``balanced`` multiplies the size ratio by the latency ratio, so that halving either counts the same; a speed-up
    whose interval contains 1 counts as none. What is left equal is decided by the noise in the outputs.
    """
    size_ratio = float(trial.size["file_bytes"]) / max(limits.original_bytes, 1)
    latency_ratio = 1.0
    if trial.latency is not None:
        ratio = trial.latency["speedup"]
        if not ratio["low"] <= 1 <= ratio["high"]:
            latency_ratio = 1 / max(ratio["value"], 1e-9)
    if objective == "size":
        return size_ratio + _noise(trial) * 1e-6
    if objective == "latency":
        return latency_ratio + 1e-3 * size_ratio
    if objective == "quality":
        loss = quality_loss(limits.original_quality, trial.quality)
        return (_certain(loss[1], trial, limits) * 1e4 if loss else 0.0) + _noise(trial) * 1e-2
    return size_ratio * latency_ratio + _noise(trial) * 1e-6


def _certain(loss: float, trial: Trial, limits: Limits) -> float:
    """A loss of accuracy in steps of two standard errors: less than that is luck with the samples.

    Of the predictions that changed, half would turn right and half wrong by chance, each worth 1 / rows.
    """
    agreement = (trial.fidelity or {}).get("top1_agreement")
    if agreement is None or not limits.rows:
        return loss
    step = 2 * math.sqrt(max(1 - agreement, 1 / limits.rows) / limits.rows)
    return math.floor(max(loss, 0.0) / step) * step


def _noise(trial: Trial) -> float:
    """Noise in the outputs in decibels below the signal, negated: lower is better. Exact outputs have -200."""
    return -float((trial.fidelity or {}).get("sqnr_db") or 200.0)


def pick(
    trials: Sequence[Trial],
    problem: Callable[[Trial], str | None],
    rate: Callable[[Trial], float],
    samples: int = 0,
) -> Trial | None:
    """Mark every trial "chosen", "rejected" (with the reason) or "tried"; return the chosen one.

    What failed, or is only compared, stays as it is.

    Among candidates of the same size whose speed-ups cannot be told apart, those that the labels show to be worse
    than another, beyond chance, are left out; of the rest the one with the least noise wins.

    Args:
        trials: What was tried.
        problem: Says why a trial is outside the budget, or None.
        rate: Rates a trial, lower is better.
        samples: Labelled samples behind each trial's accuracy; 0 where there are none.
    """
    good: list[Trial] = []
    for trial in trials:
        if trial.status in ("failed", "compared"):
            continue
        reason = problem(trial)
        trial.status, trial.reason = ("tried", "") if reason is None else ("rejected", reason)
        if reason is None:
            good.append(trial)
    if not good:
        return None
    best = min(good, key=rate)
    equals = [trial for trial in good if _is_tie(best, trial)]
    equals = [trial for trial in equals if not any(_worse(trial, other, samples) for other in equals)]
    best = min(equals, key=lambda trial: (_noise(trial), rate(trial)))
    best.status = "chosen"
    return best


def _is_tie(best: Trial, other: Trial) -> bool:
    """Whether two trials differ by no more than noise: then the more faithful one is better, not the luckier one."""
    if best is other:
        return True
    small, large = sorted(float(trial.size["file_bytes"]) for trial in (best, other))
    if large > 1.02 * small:
        return False
    if best.structure and best.structure == other.structure:
        return True  # the same kernels: what the clock says of them is luck
    if best.latency is None or other.latency is None:
        return False
    one, two = best.latency["speedup"], other.latency["speedup"]
    return bool(one["low"] <= two["high"] and two["low"] <= one["high"])


def _worse(trial: Trial, other: Trial, samples: int) -> bool:
    """Whether a trial's accuracy is below another's by more than chance explains (McNemar's test, two-sided 5 %).

    Only samples on which the two differ tell them apart; they can be no more than those on which either differs from
    the original.
    """
    one, two = ((t.quality or {}).get("accuracy") for t in (trial, other))
    agreements = [(t.fidelity or {}).get("top1_agreement") for t in (trial, other)]
    if samples < 1 or one is None or two is None or any(a is None for a in agreements):
        return False
    differing = samples * sum(1 - a for a in agreements if a is not None)
    gap = samples * (two - one)
    return bool(gap > 0 and gap**2 > _CHI_SQUARE * differing)


def gates(
    budget: Budget,
    *,
    before: dict[str, Any],
    after: dict[str, Any],
    loss: tuple[str, float] | None,
    agreement: float | None,
    speedup: float | None,
) -> list[Gate]:
    """Hold the final figures against the budget, one gate for each limit that was set.

    Args:
        budget: What the user asked for.
        before: Size and latency of the original: file_bytes, median_ms.
        after: The same of the artifact.
        loss: Primary metric and how much of it was lost, on the test data.
        agreement: Share of unchanged predictions, where there are no labels.
        speedup: Original latency over the artifact's.
    """
    found: list[Gate] = []
    if budget.max_drop is not None:
        found.append(rule.max_drop(budget.max_drop, loss, agreement))
    if budget.min_ratio is not None:
        found.append(rule.min_ratio(budget.min_ratio, before["file_bytes"], after["file_bytes"]))
    if budget.max_size is not None:
        found.append(rule.max_size(budget.max_size, after["file_bytes"]))
    if budget.min_speedup is not None:
        found.append(rule.min_speedup(budget.min_speedup, speedup))
    if budget.max_latency is not None:
        found.append(rule.max_latency(budget.max_latency, after.get("median_ms")))
    return found
