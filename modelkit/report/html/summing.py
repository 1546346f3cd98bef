"""The page of a folder of models: totals, and a table that leads to the page of each."""

from __future__ import annotations

import statistics
from typing import Any
from urllib.parse import quote

from modelkit.report import summary, units
from modelkit.report.html import sections
from modelkit.report.html.headline import times
from modelkit.report.html.parts import Cell, Column, Page, Section, Table, Tile, Tone
from modelkit.report.summary import DONE, MISSED, Row, Summary

_KEYS = {
    "size": "bytes",
    "original": "before_bytes",
    "artifact": "after_bytes",
    "latency": "latency_ms",
    "MACs": "macs",
}


def page(found: Summary) -> Page:
    """Lay out what came of a folder of models."""
    failed = sum(row.failed for row in found.models)
    missed = found.counts.get(MISSED, 0)
    tone: Tone = "bad" if failed else "warn" if missed else "good"
    return Page(
        command=found.command,
        title=f"{len(found.models)} model{'' if len(found.models) == 1 else 's'}",
        subtitle="a folder of models",
        verdict=_verdict(found, failed, missed),
        tiles=_tiles(found, failed),
        sections=[
            Section("models", "Models", [_table(found)], count=str(len(found.models))),
            *([sections.options(found.config, {})] if found.config else []),
        ],
        status="done" if not failed and not missed else f"{failed + missed} not done",
        tone=tone,
        notes=found.notes,
        version=found.version,
    )


def _verdict(found: Summary, failed: int, missed: int) -> str:
    said = [f"{found.counts.get(DONE, 0)} done"]
    said += [f"{missed} outside the budget"] if missed else []
    said += [f"{failed} failed"] if failed else []
    before, after = _totals(found)
    if before and after:
        ratio = before / after
        words = f"{times(ratio)} smaller" if ratio >= 1 else f"{times(1 / ratio)} larger"
        return f"{', '.join(said)}; together {words}, {units.size(before)} → {units.size(after)}."
    return f"{', '.join(said)}."


def _totals(found: Summary) -> tuple[int, int]:
    """Bytes of all models that are done, before and after."""
    done = [row.figures for row in found.models if row.status == DONE and "before_bytes" in row.figures]
    return sum(each["before_bytes"] for each in done), sum(each["after_bytes"] for each in done)


def _tiles(found: Summary, failed: int) -> list[Tile]:
    count = found.counts.get(DONE, 0)
    tiles = [Tile("Done", str(count), f"of {len(found.models)}", f"{failed} failed" if failed else "none failed")]
    before, after = _totals(found)
    if before and after:
        tone: Tone = "good" if after < before else "warn"
        detail = f"{units.size(before)} → {units.size(after)}"
        tiles.append(Tile("Size of all", times(before / after), "smaller", detail, tone, after / before))
    speeds = [row.figures["speedup"]["value"] for row in found.models if row.figures.get("speedup")]
    if speeds:
        detail = f"{times(min(speeds))} to {times(max(speeds))}"
        tiles.append(Tile("Speed, median", times(statistics.median(speeds)), "", detail))
    total = sum(row.figures.get("bytes") or 0 for row in found.models)
    if total:
        tiles.append(Tile("Size of all", units.size(total), "", ""))
    return [*tiles, Tile("Time", f"{found.seconds:.1f} s", "", "for the whole run")]


def _table(found: Summary) -> Table:
    shown = [_cells(row) for row in found.models]
    names = list(dict.fromkeys(name for each in shown for name in each))
    prose = {"method", "quantized"}
    columns = [
        Column("model", "name", "name"),
        *(Column(name, f"figure-{n}", "text" if name in prose else "number") for n, name in enumerate(names)),
        Column("status", "status", "badge"),
        Column("time", "seconds", "number", wide=True),
        Column("reason", "reason", "prose"),
    ]
    body = [_row(row, each, names) for row, each in zip(found.models, shown, strict=True)]
    return Table(columns, body, name="models-table", tools=True, facet="status", what="models")


def _row(row: Row, shown: dict[str, str], names: list[str]) -> list[Cell]:
    tone: Tone = "good" if row.status == DONE else "warn" if row.status == MISSED else "bad"
    href = _href(row.page) if row.page else ""
    return [
        Cell(row.model, href=href),
        *(Cell(shown.get(name, "-"), _value(name, row.figures)) for name in names),
        Cell(row.status, tone=tone),
        Cell(f"{row.seconds:.1f} s", row.seconds, "dim" if row.resumed else ""),
        Cell(row.reason),
    ]


def _href(path: str) -> str:
    """A relative URL; "./" keeps "javascript:x.onnx" from being taken for more than a file's name."""
    try:
        raw = path.encode("utf-8", "surrogateescape")  # bytes of a name that are no UTF-8
    except UnicodeEncodeError:
        raw = path.encode("utf-8", "surrogatepass")
    return f"./{quote(raw)}"


def _cells(row: Row) -> dict[str, str]:
    """The figures of a row, by column; of a transform more than a terminal has room for."""
    found, figures = summary.cells(row), row.figures
    if "before_bytes" not in figures:
        return found
    before, after = figures["before_bytes"], figures["after_bytes"]
    return {
        "original": units.size(before),
        "artifact": units.size(after),
        "smaller": times(before / after) if after else "-",
        "speed": found["speed"].replace("x", "\N{MULTIPLICATION SIGN}"),
        "quality": found["quality"],
        "method": str(figures["method"]),
    }


def _value(name: str, figures: dict[str, Any]) -> float | int | None:
    """What a figure is sorted by."""
    if name == "smaller":
        before, after = figures.get("before_bytes"), figures.get("after_bytes")
        return float(before / after) if before and after else None
    if name == "speed":
        return (figures.get("speedup") or {}).get("value")
    if name == "quality":
        value = figures.get("quality_after", figures.get("quality"))
        return value if value is not None else figures.get("agreement")
    value = figures.get(_KEYS.get(name, name))
    return value if isinstance(value, int | float) else None
