"""The report as a Markdown page, for pull requests and for the file beside the artifact."""

from __future__ import annotations

from collections.abc import Sequence

from modelkit.decision import Decision
from modelkit.report import rows
from modelkit.report.report import Report


def render(report: Report) -> str:
    """Return the page; names from the model are escaped."""
    lines = [f"# {report.before.file['name']}: {report.command}, {report.method}", ""]
    if report.status != "done":
        lines += [
            f"**{report.status}**: no artifact was written; the figures are those of the best found.",
            "",
        ]
    lines += _table(["", "original", "artifact", "change"], rows.before_after(report))
    lines += ["", "## What was tried", ""]
    lines += _table(["method", "size", "speed", "agreement", "quality", "verdict"], rows.tried(report))
    reasons = [f"- {e['name']}: {e['reason']}" for e in report.candidates if e["reason"]]
    lines += ["", *reasons] if reasons else []
    if report.gates:
        gates = [(g.name, g.asked, g.got, "met" if g.ok else "**missed**") for g in report.gates]
        lines += ["", "## Budget", "", *_table(["what", "asked", "got", ""], gates)]
    if report.audit:
        lines += [
            "",
            "## Kernels",
            "",
            f"{report.audit['integer']} integer, {report.audit['float']} float, "
            f"{report.audit['conversions']} conversions between them.",
        ]
        unfused = [(e["node"], e["op"], e["reason"]) for e in report.audit["unfused"]]
        if unfused:
            lines += ["", *_table(["node", "operator", "why it runs in float"], unfused)]
    lines += ["", "## Data", ""]
    lines += [f"- {key}: {_data(value)}" for key, value in report.data.items()]
    lines += ["", *[f"- note: {note}" for note in report.notes]] if report.notes else []
    lines += ["", "## Decisions", ""]
    lines += _table(["target", "action", "reason", "numbers"], _decisions(report.decisions))
    if report.normalisation:
        lines += ["", "## Clean-up before", ""]
        lines += _table(["target", "action", "reason", "numbers"], _decisions(report.normalisation))
    lines += ["", "## Provenance", ""]
    lines += [f"- original: `{report.before.file['name']}` sha256 `{report.before.file['sha256']}`"]
    lines += [f"- artifact: `{report.after.file['name']}` sha256 `{report.after.file['sha256']}`"]
    lines += [f"- seed: {report.seed}"]
    lines += [f"- {key.replace('_', ' ')}: {_plain(value)}" for key, value in report.machine.items()]
    lines += [
        f"- option {key}: {_plain(value)} ({report.origins.get(key, 'default')})"
        for key, value in _flat(report.config)
    ]
    return "\n".join(lines) + "\n"


def escape(text: object) -> str:
    """Make any text safe inside a Markdown table cell."""
    cleaned = "".join(c if c.isprintable() else " " for c in str(text))
    for mark in ("\\", "|", "<", "`", "*", "_", "["):
        cleaned = cleaned.replace(mark, f"\\{mark}")
    return cleaned


def _table(head: Sequence[str], body: Sequence[Sequence[object]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    return lines + ["| " + " | ".join(escape(cell) for cell in row) + " |" for row in body]


def _decisions(decisions: Sequence[Decision]) -> list[tuple[str, str, str, str]]:
    return [
        (d.target, d.action, d.reason, ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in d.numbers.items()))
        for d in decisions
    ]


def _data(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items() if item not in (None, False))
    return str(value)


def _plain(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return str(value)


def _flat(config: dict[str, object], prefix: str = "") -> list[tuple[str, object]]:
    found: list[tuple[str, object]] = []
    for key, value in config.items():
        if isinstance(value, dict) and value:
            found += _flat(value, f"{prefix}{key}.")
        else:
            found.append((f"{prefix}{key}", value))
    return found
