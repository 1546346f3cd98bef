"""The table of benchmarks/automl.py, and what of its bars is met."""

from __future__ import annotations

from typing import Any

import numpy as np
from harness import table, verdict

Results = dict[str, list[dict[str, Any]]]
"""System -> its results, one for each outer fold."""


def section(found: dict[str, Results], is_classes: dict[str, bool], folds: int, seconds: int) -> str:
    """The body of the section: losses on every set, then the bars.

    Args:
        found: Set -> results.
        is_classes: Set -> whether classes are predicted.
        folds: Outer folds.
        seconds: Time of one fit.
    """
    rows, whole = [], {}
    for name, results in found.items():
        mean = {s: float(np.mean([r["loss"] for r in rs])) for s, rs in results.items() if len(rs) == folds}
        if "modelkit" not in mean:
            continue
        whole[name] = mean
        best = min(mean.values())
        cells = [_cell(mean.get(system), best) for system in ("modelkit", "flaml", "autogluon", "linear")]
        mine = results["modelkit"]
        latency = [f"{np.mean([r['latency_ms'] for r in results[s]]):.3g}" if s in mean else "-" for s in _TIMED]
        longest = f"{max(r['seconds'] for r in mine):.1f} s"
        rows.append([name, "log-loss" if is_classes[name] else "RMSE", *cells, *latency, longest])
    head = ["set", "", "modelkit", "FLAML", "AutoGluon", "tuned linear"]
    head += ["one row, ms", "FLAML, ms", "AutoGluon, ms", "longest run"]
    return (
        f"Mean over {folds} outer folds, {seconds} s and one core for each fit (linear models take the time they "
        "take); lower is better, the best is bold. Latency of one row: the artifact in onnxruntime, and what the "
        "others' `predict` takes. The time of modelkit is of the whole run, from the start of the process to its "
        "end.\n\n" + table(head, rows) + "\n\n" + "\n".join(_bars(found, whole, seconds))
    )


_TIMED = ("modelkit", "flaml", "autogluon")


def _cell(value: float | None, best: float) -> str:
    return "-" if value is None else f"**{value:.4f}**" if value == best else f"{value:.4f}"


def _bars(found: dict[str, Results], mean: dict[str, dict[str, float]], seconds: int) -> list[str]:
    lines = []
    for system, called, share, what in (
        ("flaml", "FLAML", 0.7, "Better than FLAML on 70 %"),
        ("autogluon", "AutoGluon", 0.5, "Not worse than AutoGluon on 50 %"),
    ):
        wins = [m["modelkit"] <= m[system] for m in mean.values() if system in m]
        if not wins:
            lines.append(f"- {called} did not run.")
            continue
        lines.append(f"- {what} of the sets: {sum(wins)} of {len(wins)}, {verdict(np.mean(wins) >= share)}.")
    ranked = [m for m in mean.values() if len(m) == max(len(each) for each in mean.values())]
    if ranked:
        names = {"modelkit": "modelkit", "flaml": "FLAML", "autogluon": "AutoGluon", "linear": "tuned linear"}
        ranks = {s: float(np.mean([sorted(m.values()).index(m[s]) + 1 for m in ranked])) for s in ranked[0]}
        listed = ", ".join(f"{names[s]} {rank:.2f}" for s, rank in sorted(ranks.items(), key=lambda item: item[1]))
        lines.append(f"- Mean rank first: {listed}, {verdict(min(ranks, key=lambda s: ranks[s]) == 'modelkit')}.")
    worse = [name for name, m in mean.items() if "linear" in m and _is_worse(found[name])]
    lines.append(
        "- Never worse than the tuned linear model beyond noise (by more than 2 % and on every fold): "
        f"{'worse on ' + ', '.join(worse) if worse else 'on no set'}, {verdict(not worse)}."
    )
    if not mean:
        return lines
    gaps = [r["verified"]["largest_difference"] for name in mean for r in found[name]["modelkit"]]
    rows = sum(r["verified"]["rows"] for name in mean for r in found[name]["modelkit"])
    lines.append(
        f"- onnxruntime and the Python models agree, on {rows} rows (those of the test folds, odd ones and those at "
        f"thresholds included): all labels, predictions to {max(gaps):.1g}, {verdict(max(gaps) <= 1e-6)}."
    )
    slow = [
        float(np.mean([r["latency_ms"] for r in found[n]["flaml"]]))
        / float(np.mean([r["latency_ms"] for r in found[n]["modelkit"]]))
        for n, m in mean.items()
        if "flaml" in m
    ]
    if slow:
        lines.append(
            f"- One row in at most a tenth of FLAML's time: {min(slow):.0f}x to {max(slow):.0f}x faster, "
            f"{verdict(min(slow) >= 10)}."
        )
    longest = max(r["seconds"] for name in mean for r in found[name]["modelkit"])
    lines.append(
        f"- Whole run inside of the limit and 10 %: the longest took {longest:.1f} s, "
        f"{verdict(longest <= 1.1 * seconds)}."
    )
    return lines


def _is_worse(results: Results) -> bool:
    """Whether ours is worse by more than 2 % in the mean and worse on every fold."""
    mine, other = (np.array([r["loss"] for r in results[system]]) for system in ("modelkit", "linear"))
    return bool(mine.mean() > 1.02 * other.mean() and (mine > other).all())
