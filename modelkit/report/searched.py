"""What a search over architectures found, as tables for a terminal and as a Markdown page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import RenderableType

from modelkit.report import units
from modelkit.report.markdown import code, escape, table
from modelkit.report.text import add_row, new_table, notes, pairs, stack, titled

SCHEMA = "modelkit.nas/1"
_SHARES = ("accuracy", "agreement", "top1_agreement", "balanced_accuracy")
_SHOWN = 20


def render(report: Mapping[str, Any]) -> RenderableType:
    """Lay the report of a search out for rich."""
    title = f"{report['artifact']['name']}: the best of {len(report['trials'])} trials"
    head, body, marked = front(report)
    board = new_table(*head, numbers=tuple(head[1:-1]))
    for row, bold in zip(body, marked, strict=True):
        add_row(board, *row, style="bold" if bold else None)
    parts = [titled(title, pairs(facts(report))), titled("The Pareto set", board)]
    if report["notes"]:
        parts.append(notes(report["notes"]))
    return stack(parts)


def quality(report: Mapping[str, Any], value: float | None) -> str:
    """A figure of the quality that was searched for."""
    if value is None:
        return "-"
    return units.percent(value) if report["metric"] in _SHARES else f"{value:.4g}"


def tested(report: Mapping[str, Any], found: Mapping[str, Any]) -> float | None:
    """The metric on the test samples."""
    scores = found["test"]
    value = scores.get(report["metric"], scores.get("top1_agreement"))
    return None if value is None else float(value)


def facts(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The main figures, name and text."""
    best, samples, name = report["best"], report["samples"], report["metric"].replace("_", " ")
    lines = [
        (f"{name} on {samples['test']} test samples", quality(report, tested(report, best))),
        (f"{name} on {samples['validation']} validation samples", quality(report, best["quality"])),
        ("latency", units.milliseconds(best["latency_ms"])),
        ("file size", units.size(best["bytes"])),
        ("multiply-accumulates", units.number(best["macs"])),
        ("parameters", units.number(best["parameters"])),
        ("found by", f"trial {best['trial']}, {best['source']}"),
        ("searched", _searched(report)),
        ("hypervolume", f"{report['hypervolume']:.4g} of the box around all trials"),
    ]
    lines += [("random search", baseline(report))]
    return lines


def _searched(report: Mapping[str, Any]) -> str:
    counts = report["counts"]
    failed = sum(number for status, number in counts.items() if status not in ("done", "running", "new"))
    text = f"{counts.get('done', 0)} trials, {report['epochs']} epochs in all, {report['seconds']:.1f} s"
    return f"{text}; {failed} failed" if failed else text


def baseline(report: Mapping[str, Any]) -> str:
    """What random search reached, in one line."""
    found = report["baseline"]
    if found is None:
        return "not compared"
    said = f"{quality(report, found['quality'])} in {found['trials']} trials"
    if found["strategy_quality"] is None or report["strategy"] == "random":
        return said
    own = f"{report['strategy']}: {quality(report, found['strategy_quality'])} in {found['strategy_trials']}"
    after = "" if found["kind"] == "full" else " after those"
    return f"{said}; {own}{after}"


def front(report: Mapping[str, Any]) -> tuple[list[str], list[list[str]], list[bool]]:
    """Header and rows of the Pareto set, and which row is the best."""
    name = report["metric"].replace("_", " ")
    head = ["file", name, f"{name}, test", "latency", "size", "MACs", "parameters", ""]
    body, marked = [], []
    for each in report["pareto"]:
        words = (["best"] if each["best"] else []) + (["knee"] if each["knee"] else [])
        body.append(
            [
                each["file"],
                quality(report, each["quality"]),
                quality(report, tested(report, each)),
                units.milliseconds(each["latency_ms"]),
                units.size(each["bytes"]),
                units.number(each["macs"]),
                units.number(each["parameters"]),
                ", ".join(words),
            ]
        )
        marked.append(each["best"])
    return head, body, marked


def document(found: Mapping[str, Any], prefix: str = "") -> str:
    """An architecture in one line."""
    parts = []
    for name, value in found.items():
        if isinstance(value, Mapping):
            parts.append(document(value, f"{prefix}{name}."))
        elif isinstance(value, list) and any(isinstance(v, Mapping) for v in value):
            parts += [document(each, f"{prefix}{name}.{number}.") for number, each in enumerate(value)]
        else:
            parts.append(f"{prefix}{name} {value:g}" if isinstance(value, float) else f"{prefix}{name} {value}")
    return ", ".join(part for part in parts if part)


def ranked(report: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """All trials, the Pareto set first, then by quality."""
    kept = {each["trial"] for each in report["pareto"]}
    worst = -float("inf")
    higher = report["metric"] not in ("rmse", "mae", "log_loss")

    def rank(trial: Mapping[str, Any]) -> tuple[bool, bool, float, int]:
        value = trial["quality"]
        figure = worst if value is None else value if higher else -value
        return trial["trial"] not in kept, value is None, -figure, trial["trial"]

    return sorted(report["trials"], key=rank)


def markdown(report: Mapping[str, Any]) -> str:
    """The page beside the model."""
    lines = [f"# {code(report['artifact']['name'])}: the best of {len(report['trials'])} trials", ""]
    if report["status"] != "done":
        lines += ["**The run was ended before its time.**", ""]
    lines += table(["", ""], facts(report))
    head, body, _ = front(report)
    lines += ["", "## The Pareto set", "", *table(head, body, names=1)]
    lines += ["", "## Trials", ""]
    rows = [
        [
            str(each["trial"]),
            each["source"],
            quality(report, each["quality"]),
            units.number(each["macs"]),
            str(each["epochs"]),
            f"{each['seconds']:.2f}",
            each["reason"] or each["status"],
            document(each["document"]),
        ]
        for each in ranked(report)[:_SHOWN]
    ]
    lines += table(
        ["trial", "from", report["metric"], "MACs", "epochs", "seconds", "", "architecture"], rows, names=0
    )
    left = len(report["trials"]) - len(rows)
    lines += ["", f"{left} more are in the JSON report."] if left > 0 else []
    lines += ["", *[f"- note: {escape(note)}" for note in report["notes"]]] if report["notes"] else []
    lines += ["", "## Provenance", ""]
    lines += [f"- artifact: {code(report['artifact']['name'])} sha256 {code(report['artifact']['sha256'])}"]
    for name in ("data", "test", "model"):
        found = report[name]
        if found:
            hashed = f" sha256 {code(found['sha256'])}" if "sha256" in found else ""
            lines.append(f"- {name}: {code(found['name'])}{hashed}")
    lines += [f"- space: hash {code(report['space']['hash'])}, {report['space']['size']} candidates at most"]
    lines += [f"- seed: {report['seed']}"]
    lines += [f"- {escape(key.replace('_', ' '))}: {escape(value)}" for key, value in report["machine"].items()]
    return "\n".join(lines) + "\n"
