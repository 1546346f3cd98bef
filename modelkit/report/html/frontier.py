"""The page of a search over architectures: the Pareto set, the search over time, every trial."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelkit.report import searched, units
from modelkit.report.html import charts, sections
from modelkit.report.html.front import mark_front
from modelkit.report.html.parts import Block, Cell, Chart, Column, Facts, Page, Section, Table, Tile

_POINTS = 500  # points of a chart


def page(found: Mapping[str, Any]) -> Page:
    """Lay out what ``modelkit nas`` found."""
    done = found["status"] == "done"
    best, samples = found["best"], found["samples"]
    name = found["metric"].replace("_", " ")
    value = searched.quality(found, searched.tested(found, best))
    tiles = [
        Tile(name.capitalize(), value, "", f"on {samples['test']} test samples"),
        Tile("Latency", units.milliseconds(best["latency_ms"]), "", "of one batch"),
        Tile("File size", units.size(best["bytes"])),
        Tile(
            "Multiply-accumulates", units.number(best["macs"]), "", f"{units.number(best['parameters'])} parameters"
        ),
    ]
    return Page(
        command="nas",
        title=str(found["artifact"]["name"]),
        subtitle=f"the best of {len(found['trials'])} trials",
        verdict=f"{len(found['pareto'])} models that nothing else beats; random search: {searched.baseline(found)}.",
        tiles=tiles,
        sections=[
            Section("model", "The model", [Facts([(key, text, False) for key, text in searched.facts(found)])]),
            _front(found),
            _search(found),
            sections.options(found["config"], found["origins"]),
            sections.provenance(_provenance(found), found["machine"], found["seed"]),
        ],
        status="done" if done else "interrupted",
        tone="" if done else "warn",
        alert="" if done else "The run was ended before its time.",
        notes=found["notes"],
        version=str((found["machine"].get("versions") or {}).get("modelkit", "")),
    )


def _front(found: Mapping[str, Any]) -> Section:
    """The Pareto set among all trials, for each cost."""
    name = found["metric"].replace("_", " ")
    lower = found["metric"] in ("rmse", "mae", "log_loss")
    kept = {each["trial"] for each in found["pareto"]}
    measured = [each for each in found["trials"] if each["quality"] is not None and each["latency_ms"] is not None]
    step = -(-len(measured) // _POINTS) if measured else 1
    points = [
        {
            "label": f"trial {each['trial']}",
            "tag": "best" if each["trial"] == found["best"]["trial"] else "",
            "status": "chosen" if each["trial"] == found["best"]["trial"] else "tried",
            **{key: each[key] for key in ("quality", "bytes", "latency_ms", "macs", "parameters")},
            "quality_text": searched.quality(found, each["quality"]),
            "size_text": units.size(each["bytes"]),
            "latency_text": units.milliseconds(each["latency_ms"]),
            "macs_text": units.number(each["macs"]),
            "from": each["source"],
        }
        for place, each in enumerate(measured)
        if each["trial"] in kept or place % step == 0
    ]
    tips = [("label", "trial"), ("quality_text", name), ("macs_text", "MACs"), ("latency_text", "latency")]
    tips += [("size_text", "size"), ("from", "from")]
    views = {}
    fields = [("macs", "multiply-accumulates", "number"), ("latency_ms", "latency of one batch", "ms")]
    fields += [("bytes", "file size", "bytes"), ("parameters", "parameters", "number")]
    for field, title, kind in fields:
        mark_front(points, field, "quality", lower=lower)
        views[title] = charts.pareto((field, title, kind), ("quality", name, "number"), lower=lower, tips=tips)
    head, body, marked = searched.front(found)
    columns = [Column(title, f"c{number}") for number, title in enumerate(head)]
    table = Table(
        columns,
        [[Cell(text) for text in row] for row in body],
        name="pareto",
        what="models",
        marked=frozenset(number for number, is_best in enumerate(marked) if is_best),
    )
    blocks: list[Block] = [table]
    if len(points) > 1:
        blocks.insert(0, Chart("pareto-chart", views, rows=points, label=f"{name} beside what it costs"))
    lead = "What nothing else beats in the objectives; validation samples chose, test samples were looked at once."
    return Section("pareto-set", "The Pareto set", blocks, lead, count=str(len(body)))


def _search(found: Mapping[str, Any]) -> Section:
    """Every trial, over time and as a table."""
    name = found["metric"].replace("_", " ")
    kept = {each["trial"] for each in found["pareto"]}
    ranked = searched.ranked(found)
    columns = [Column("trial", "trial", "number"), Column("from", "source"), Column(name, "quality", "number")]
    columns += [Column("MACs", "macs", "number"), Column("epochs", "epochs", "number")]
    columns += [Column("seconds", "seconds", "number", wide=True), Column("status", "status")]
    columns += [Column("architecture", "architecture", "prose")]
    body = [
        [
            Cell(str(each["trial"]), each["trial"]),
            Cell(each["source"]),
            Cell(searched.quality(found, each["quality"]), each["quality"]),
            Cell(units.number(each["macs"]), each["macs"]),
            Cell(str(each["epochs"]), each["epochs"]),
            Cell(f"{each['seconds']:.2f}", each["seconds"]),
            Cell(each["reason"] or each["status"], tone="" if each["status"] == "done" else "dim"),
            Cell(searched.document(each["document"])),
        ]
        for each in ranked
    ]
    marked = frozenset(number for number, each in enumerate(ranked) if each["trial"] in kept)
    table = Table(
        columns, body, name="trials", tools=True, facet="source", what="trials", weights="quality", marked=marked
    )
    blocks: list[Block] = [table]
    rows = _course(found)
    if len(rows) > 1:
        lower = found["metric"] in ("rmse", "mae", "log_loss")
        tips = [("trial", "trial"), ("family", "from"), ("loss_text", name), ("params", "architecture")]
        spec = charts.course(name, lower=lower, tips=tips)
        legend = [("accent", "best so far, and the Pareto set"), ("point", "other trials")]
        blocks.insert(0, Chart("course", {name: spec}, rows=rows, label="The search over time", legend=legend))
    return Section("search", "The search", blocks, count=str(len(ranked)))


def _course(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Trials in the order in which they ended, with the best so far."""
    kept = {each["trial"] for each in found["pareto"]}
    lower = found["metric"] in ("rmse", "mae", "log_loss")
    done = sorted((t for t in found["trials"] if t["quality"] is not None), key=lambda t: (t["ended"], t["trial"]))
    rows: list[dict[str, Any]] = []
    best: float | None = None
    for each in done:
        value = each["quality"]
        best = value if best is None else min(best, value) if lower else max(best, value)
        rows.append(
            {
                "trial": each["trial"],
                "family": each["source"],
                "ended": each["ended"],
                "loss": value,
                "loss_text": searched.quality(found, value),
                "params": searched.document(each["document"]),
                "best": best,
                "chosen": each["trial"] in kept,
            }
        )
    step = -(-len(rows) // _POINTS) if rows else 1
    return [row for place, row in enumerate(rows) if row["chosen"] or place % step == 0]


def _provenance(found: Mapping[str, Any]) -> list[tuple[str, str, bool]]:
    facts = list(sections.file_facts("artifact", found["artifact"]))
    for name in ("data", "test", "model"):
        if found[name] and "sha256" in found[name]:
            facts += sections.file_facts(name, found[name])
    return facts
