"""What came of many models: a row for each, as a line, a table, JSON and Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import RenderableType

from modelkit.report import rows, units
from modelkit.report.markdown import code, escape, table
from modelkit.report.report import finite
from modelkit.report.text import add_row, new_table, notes, pairs, stack, titled

SCHEMA = "modelkit.summary/1"
DONE, MISSED = "done", "budget not met"


@dataclass
class Row:
    """What came of one model.

    Attributes:
        model: Its path below the folder of models, with forward slashes.
        status: "done", "budget not met", "failed", "crashed", "timed out" or "out of memory".
        output: The artifact's path below the folder of results; None where none was written.
        figures: What was measured (see ``figures_of``); empty where nothing was.
        reason: Why it is not done.
        hint: What to do about it.
        exit_code: What a single run of this model would have ended with.
        seconds: How long it took.
        resumed: Whether an earlier run did it.
        page: The path of its page for the browser below the folder of results; None where there is none.
        document: The whole result, where it was not written to a file.
    """

    model: str
    status: str
    output: str | None = None
    figures: dict[str, Any] = field(default_factory=dict)
    reason: str = ""
    hint: str | None = None
    exit_code: int = 0
    seconds: float = 0.0
    resumed: bool = False
    page: str | None = None
    document: dict[str, Any] | None = field(default=None, repr=False)

    @property
    def failed(self) -> bool:
        """Whether it is neither done nor outside the budget."""
        return self.status not in (DONE, MISSED)

    @property
    def style(self) -> str:
        """In which colour a terminal shows it; empty for the usual one."""
        return "red" if self.failed else "yellow" if self.status == MISSED else ""

    def to_dict(self, *, document: bool = False) -> dict[str, Any]:
        """Return plain values for JSON.

        Args:
            document: Whether to put the whole result in, where the row has it.
        """
        found: dict[str, Any] = {**vars(self), "seconds": round(self.seconds, 3)}
        if not document or self.document is None:
            del found["document"]
        plain = finite(found)
        assert isinstance(plain, dict)
        return plain


@dataclass
class Summary:
    """What came of a folder of models.

    Attributes:
        command: Name of the command.
        models: A row for each model, sorted.
        notes: What a reader must know.
        config: The resolved options.
        seconds: How long the run took.
        version: Version of modelkit.
    """

    command: str
    models: list[Row]
    notes: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    version: str = ""

    @property
    def counts(self) -> dict[str, int]:
        """How many models ended in which way."""
        return dict(sorted(Counter(row.status for row in self.models).items()))

    @property
    def exit_code(self) -> int:
        """3 where a model failed, else 1 where one is outside its budget, else 0."""
        if any(row.failed for row in self.models):
            return 3
        return 1 if any(row.status == MISSED for row in self.models) else 0

    def to_dict(self, *, rows: bool = True) -> dict[str, Any]:
        """Return plain values for JSON.

        Args:
            rows: Whether to put the models in.
        """
        plain = {
            "schema": SCHEMA,
            "command": self.command,
            "counts": self.counts,
            "exit_code": self.exit_code,
            **({"models": [row.to_dict() for row in self.models]} if rows else {}),
            "notes": self.notes,
            "config": self.config,
            "seconds": round(self.seconds, 3),
            "version": self.version,
        }
        result = finite(plain)
        assert isinstance(result, dict)
        return result


def subject_of(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part about the model itself, of the JSON of a report, of a comparison or of an inspection."""
    if "before" in document:
        found: Mapping[str, Any] = document["before"]
        return found
    return document["models"][0] if "models" in document else document


def figures_of(document: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of a row, from the JSON of a report, a comparison or an inspection.

    Returns:
        Of a report: ``before_bytes``, ``after_bytes``, ``method``, ``speedup``, ``metric``, ``quality_before``,
        ``quality_after``, ``agreement``, ``sqnr_db``, ``exact``. Of a comparison: ``bytes``, ``latency_ms``,
        ``metric``, ``quality``. Of an inspection: ``bytes``, ``parameters``, ``macs``, ``opset``, ``quantized``.
    """
    schema = str(document["schema"]).partition("/")[0]
    if schema == "modelkit.report":
        before, after, fidelity = document["before"], document["after"], document["fidelity"] or {}
        metric = next(iter(before["quality"] or {}), None)
        return {
            "before_bytes": before["size"]["file_bytes"],
            "after_bytes": after["size"]["file_bytes"],
            "method": document["method"],
            "speedup": document["speedup"],
            "metric": metric,
            "quality_before": before["quality"][metric] if metric else None,
            "quality_after": (after["quality"] or {}).get(metric),
            "agreement": fidelity.get("top1_agreement"),
            "sqnr_db": fidelity.get("sqnr_db"),
            "exact": bool(fidelity.get("exact")),
        }
    if schema == "modelkit.comparison":
        model = document["models"][0]
        metric = next(iter(model["quality"] or {}), None)
        return {
            "bytes": model["size"]["file_bytes"],
            "latency_ms": model["latency"]["median_ms"],
            "metric": metric,
            "quality": model["quality"][metric] if metric else None,
        }
    if schema == "modelkit.state":
        found = {"bytes": document["file"]["bytes"], "parameters": document["parameters"]}
        return {**found, "macs": None, "opset": None, "quantized": None}
    facts = document["facts"]
    return {
        "bytes": document["size"]["file_bytes"],
        "parameters": facts["parameters"],
        "macs": facts["macs"],
        "opset": facts["opset"],
        "quantized": facts["quantized"]["scheme"],
    }


def cells(row: Row) -> dict[str, str]:
    """What a table shows of a row, by column."""
    figures = row.figures
    if "before_bytes" in figures:
        speed = figures["speedup"]
        return {
            "size": f"{units.size(figures['before_bytes'])} → {units.size(figures['after_bytes'])}",
            "speed": units.factor(speed["value"]) if speed else "-",
            "quality": _quality(figures),
        }
    if "latency_ms" in figures:
        metric = figures["metric"]
        return {
            "size": units.size(figures["bytes"]),
            "latency": units.milliseconds(figures["latency_ms"]),
            "quality": f"{rows.label(metric)} {units.metric(metric, figures['quality'])}" if metric else "-",
        }
    if "parameters" in figures:
        return {
            "size": units.size(figures["bytes"]),
            "parameters": units.number(figures["parameters"]),
            "MACs": units.number(figures["macs"]),
            "opset": str(figures["opset"] or "-"),
            "quantized": "no" if figures["quantized"] == "none" else str(figures["quantized"] or "-"),
        }
    return {}


def _quality(figures: Mapping[str, Any]) -> str:
    metric = figures["metric"]
    if metric:
        before = units.metric(metric, figures["quality_before"])
        return f"{before.removesuffix(' %')} → {units.metric(metric, figures['quality_after'])}"
    if figures["agreement"] is not None:
        return f"{units.percent(figures['agreement'])} same"
    return units.decibel(figures["sqnr_db"], figures["exact"])


def line(row: Row) -> str:
    """A row on one line, for logs."""
    shown = ", ".join(_named(name, text) for name, text in cells(row).items())
    status = f"{row.status} before" if row.resumed else row.status
    took = "" if row.resumed else f", {row.seconds:.1f} s"
    return f"{row.model}: {status}{f', {shown}' if shown else ''}{took}{f': {row.reason}' if row.reason else ''}"


def _named(column: str, text: str) -> str:
    """A cell that has no header above it."""
    if column in ("parameters", "MACs"):
        return f"{text} {column}"
    return f"{column} {text}" if column in ("opset", "quantized") else text


def counted(summary: Summary) -> str:
    """How many models ended in which way, in words: ``12 models: 10 done, 2 failed``."""
    parts = ", ".join(f"{count} {status}" for status, count in summary.counts.items())
    count = len(summary.models)
    return f"{count} model{'' if count == 1 else 's'}: {parts}"


def render(summary: Summary) -> RenderableType:
    """Lay a summary out for rich: a row for each model, then the reasons of those that are not done."""
    head, body = _table(summary)
    grid = new_table(*head, numbers=head[1:-1], whole=head[-1:])
    for row, texts in zip(summary.models, body, strict=True):
        add_row(grid, *texts, style=row.style)
    parts: list[RenderableType] = [titled(counted(summary), grid)]
    reasons = [(row.model, row.reason) for row in summary.models if row.reason]
    if reasons:
        parts.append(titled("Why", pairs(reasons)))
    if summary.notes:
        parts.append(notes(summary.notes))
    return stack(parts)


def markdown(summary: Summary) -> str:
    """Return a summary as a Markdown page."""
    head, body = _table(summary)
    lines = [f"# {summary.command}: {escape(counted(summary))}", ""]
    lines += table(head, body, names=1)
    reasons = [f"- {code(row.model)}: {escape(row.reason)}" for row in summary.models if row.reason]
    lines += ["", "## Why", "", *reasons] if reasons else []
    lines += ["", *[f"- note: {escape(note)}" for note in summary.notes]] if summary.notes else []
    return "\n".join([*lines, "", f"modelkit {summary.version}"]) + "\n"


def _table(summary: Summary) -> tuple[list[str], list[list[str]]]:
    """Headers and the texts of each row; columns that no model has are left out."""
    shown: Sequence[dict[str, str]] = [cells(row) for row in summary.models]
    columns = list(dict.fromkeys(name for each in shown for name in each))
    body = [
        [row.model, *[each.get(name, "-") for name in columns], row.status]
        for row, each in zip(summary.models, shown, strict=True)
    ]
    return ["model", *columns, "status"], body
