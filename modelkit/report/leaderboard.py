"""What a search over models found, as a table for a terminal and as a Markdown page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import RenderableType

from modelkit.report import units
from modelkit.report.markdown import code, escape, table
from modelkit.report.rows import LOWER
from modelkit.report.text import add_row, new_table, notes, pairs, stack, titled

_SHOWN = 12
_WIDE = ("±", "seconds")  # columns that a terminal has no room for
_FRONT = "What else could be had (loss out of fold; the best trial of each family)"
SCHEMA = "modelkit.automl/1"
SCORES = {
    "accuracy": "accuracy",
    "log_loss": "log-loss",
    "balanced_accuracy": "balanced accuracy",
    "f1": "F1",
    "auc": "area under the ROC curve",
    "rmse": "RMSE",
    "r2": "R²",
    "mae": "mean absolute error",
}
_SHARES = ("accuracy", "balanced_accuracy")


def render(report: Mapping[str, Any]) -> RenderableType:
    """Lay the report of a run out for rich."""
    title = f"{report['artifact']['name']}: {what(report)}"
    parts = [titled(title, pairs(facts(report)))]
    if len(report["front"]) > 1:
        head, body = front(report)
        compared = new_table(*head, numbers=(head[1], "size", "latency"))
        for row in body:
            add_row(compared, *row, style="bold" if row[-1].startswith("chosen") else None)
        parts.append(titled(_FRONT, compared))
    head, body = _board(report)
    kept = [place for place, name in enumerate(head) if name not in _WIDE]
    kept = [place for place in kept if head[place] != "fresh" or any(row[place] != "-" for row in body)]
    board = new_table(*(head[place] for place in kept), numbers=("trial", head[2], "fresh", "weight"))
    for row in body:
        add_row(board, *(row[place] for place in kept), style="bold" if row[-2] else None)
    parts.append(titled(_board_title(report), board))
    if report["notes"]:
        parts.append(notes(report["notes"]))
    return stack(parts)


def what(report: Mapping[str, Any]) -> str:
    """What the model does, in a few words."""
    if report["task"] == "regression":
        return f"predicts {report['target']}"
    return f"tells the {len(report['classes'])} classes of {report['target']} apart"


def facts(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The main figures, name and text."""
    rows, found = report["rows"], report["artifact"]
    made = ", ".join(f"{m['weight']:.2f} {m['family']}" for m in report["members"])
    single = len(report["members"]) == 1
    lines = [("model", report["members"][0]["family"] if single else made)]
    old = report["baseline"]
    for name, value in (report["scores"] or {}).items():
        beside = f" ({_name(old)}: {score(name, old['scores'][name])})" if old else ""
        lines.append((SCORES[name], score(name, value) + beside))
    lines.append(("measured on", f"{rows['held out']} rows that took no part in the search"))
    size = f" ({_name(old)}: {units.size(old['file']['bytes'])})" if old else ""
    lines.append(("file size", units.size(found["bytes"]) + size))
    latency = f" ({_name(old)}: {units.milliseconds(old['latency_ms'])})" if old else ""
    lines.append(("latency of one row", units.milliseconds(found["latency_ms"]) + latency))
    checked = report["verified"]
    lines.append(
        ("verified", f"{checked['rows']} rows in onnxruntime, largest difference {checked['largest_difference']:.1g}")
    )
    tried = len(report["leaderboard"])
    lines.append(
        ("searched", f"{tried} trials on {rows['search']} rows, {report['folds']}, {report['seconds']:.1f} s")
    )
    return lines


def _name(baseline: Mapping[str, Any]) -> str:
    return str(baseline["file"]["name"])


def score(name: str, value: float | None) -> str:
    """A figure of quality."""
    if value is None:
        return "-"
    return units.percent(value) if name in _SHARES else f"{value:.4g}"


def front(report: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of what was built for its size and latency."""
    body = [
        [
            each["name"],
            f"{each['loss']:.4g}",
            units.size(each["bytes"]),
            units.milliseconds(each["latency_ms"]),
            standing(each),
        ]
        for each in report["front"]
    ]
    return ["model", loss_name(report), "size", "latency", ""], body


def standing(point: Mapping[str, Any]) -> str:
    """Whether it was chosen, and whether nothing else is at least as good in all figures."""
    words = ["chosen"] if point["chosen"] else []
    return ", ".join([*words, "nothing beats it" if point["unbeaten"] else "beaten in all figures"])


def _board_title(report: Mapping[str, Any]) -> str:
    return f"Leaderboard ({SCORES[report['metric']]} out of fold: what chose, not what is reported above)"


def loss_name(report: Mapping[str, Any]) -> str:
    """What the loss of trials is called."""
    metric = report["metric"]
    return metric if metric in LOWER else f"1 - {metric}"


def _board(report: Mapping[str, Any], shown: int = _SHOWN) -> tuple[list[str], list[list[str]]]:
    """The best trials, those of the model, and the best of each family."""
    board: Sequence[Mapping[str, Any]] = report["leaderboard"]
    seen: set[str] = set()
    kept = []
    for place, entry in enumerate(board):
        first = entry["family"] not in seen and entry["status"] == "done"
        seen |= {entry["family"]} if first else set()
        if entry["weight"] or first or (place < shown // 2 and entry["status"] == "done"):
            kept.append(entry)
    body = [
        [
            str(entry["trial"]),
            entry["family"],
            "-" if entry["loss"] is None else f"{entry['loss']:.4g}",
            "-" if entry["error"] is None else f"{entry['error']:.2g}",
            "-" if entry["fresh_loss"] is None else f"{entry['fresh_loss']:.4g}",
            f"{entry['seconds']:.2f}",
            "" if not entry["weight"] else f"{entry['weight']:.2f}",
            params(entry["params"]),
        ]
        for entry in kept
    ]
    return ["trial", "family", loss_name(report), "±", "fresh", "seconds", "weight", "hyper-parameters"], body


def params(found: Mapping[str, Any]) -> str:
    """Hyper-parameters in one line."""
    return ", ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in found.items())


def markdown(report: Mapping[str, Any]) -> str:
    """The page beside the artifact."""
    lines = [f"# {code(report['artifact']['name'])}: {escape(what(report))}", ""]
    if report["status"] != "done":
        lines += ["**An early artifact**: the search goes on, or was ended before its time.", ""]
    lines += table(["", ""], facts(report))
    lines += _picture(report["picture"]) if report["picture"] else []
    if len(report["front"]) > 1:
        lines += ["", f"## {escape(_FRONT)}", "", *table(*front(report))]
    lines += ["", f"## {escape(_board_title(report))}", ""]
    lines += table(*_board(report, 40), names=0)
    failed = [e for e in report["leaderboard"] if e["reason"]]
    lines += (
        ["", *[f"- trial {e['trial']}, {e['family']}: {escape(e['reason'])}" for e in failed[:20]]] if failed else []
    )
    lines += ["", "## Columns", ""]
    body = [(c["target"], c["action"], c["reason"], units.figures(c["numbers"])) for c in report["columns"]]
    lines += table(["column", "", "why", "figures"], body, names=1)
    lines += ["", *[f"- note: {escape(note)}" for note in report["notes"]]] if report["notes"] else []
    lines += ["", "## Provenance", ""]
    lines += [f"- artifact: {code(report['artifact']['name'])} sha256 {code(report['artifact']['sha256'])}"]
    lines += [f"- data: {code(report['data']['name'])} sha256 {code(report['data']['sha256'])}"]
    lines += [f"- seed: {report['seed']}"]
    lines += [f"- {escape(key.replace('_', ' '))}: {escape(value)}" for key, value in report["machine"].items()]
    return "\n".join(lines) + "\n"


def _picture(picture: Mapping[str, Any]) -> list[str]:
    """Calibration as a table; points beside values are for the page."""
    if picture["kind"] != "confidence":
        return []
    body = [
        (units.percent(each["confidence"], 1), units.percent(each["accuracy"], 1), str(each["rows"]))
        for each in picture["bins"]
    ]
    lines = ["", "## How sure, and how right", "", *table(["mean probability", "right", "rows"], body)]
    return [*lines, "", f"Expected calibration error: {units.percent(picture['error'])}."]
