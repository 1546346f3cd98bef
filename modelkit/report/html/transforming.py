"""The page of a transform: before and after, what was tried, layers, kernels, training, config, provenance."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from modelkit.report import beside, rows, steps, units
from modelkit.report.html import charts, headline, layers, sections
from modelkit.report.html.front import mark_front, thinned
from modelkit.report.html.parts import Block, Cell, Chart, Column, Page, Section, Share, Table, Tone
from modelkit.report.report import Report
from modelkit.report.rows import LOWER

_TONES: dict[str, Tone] = {"chosen": "good", "rejected": "warn", "failed": "bad"}
_NOT_DONE = "no artifact was written; the figures are those of the best that was found"


def page(report: Report) -> Page:
    """Lay out the report of a transform."""
    done = report.status == "done"
    by_layer, others = layers.section(report.layers, report.decisions)
    found = [
        _before_after(report),
        _beside(report) if report.beside else None,
        _steps(report) if report.steps else None,
        _tried(report) if report.candidates else None,
        by_layer if report.layers else None,
        _audit(report.audit) if report.audit else None,
        sections.training(report.history) if report.history else None,
        _more("decisions", "Further decisions" if report.layers else "Decisions", others),
        _more("clean-up", "Clean-up before", report.normalisation),
        sections.options(report.config, report.origins),
        sections.provenance(_sources(report), report.machine, report.seed),
    ]
    return Page(
        command=report.command,
        title=str(report.before.file["name"]),
        subtitle=f"{report.method} → {report.after.file['name']}" if done else report.method,
        verdict=headline.verdict(report),
        tiles=headline.tiles(report),
        sections=[section for section in found if section is not None],
        status=report.status,
        tone="good" if done else "bad",
        alert="" if done else f"Budget not met: {_NOT_DONE}.",
        notes=report.notes,
        version=str((report.machine.get("versions") or {}).get("modelkit", "")),
    )


def _before_after(report: Report) -> Section:
    columns = [
        Column("", "what"),
        *(Column(n, n, "number") for n in ("original", "artifact")),
        Column("change", "change"),
    ]
    body = [
        [Cell(what), Cell(old), Cell(new), Cell(_signs(change))]
        for what, old, new, change in rows.before_after(report)
    ]
    blocks: list[Block] = [Table(columns, body, name="before-after")]
    if report.gates:
        gates = [
            [
                Cell(g.name),
                Cell(g.asked),
                Cell(g.got),
                Cell("met" if g.ok else "missed", tone="good" if g.ok else "bad"),
            ]
            for g in report.gates
        ]
        heads = [Column("budget", "name"), Column("asked", "asked", "number"), Column("got", "got", "number")]
        blocks.append(Table([*heads, Column("", "ok", "badge")], gates, name="gates"))
    return Section("before-after", "Before and after", blocks)


def _beside(report: Report) -> Section:
    """The models that the artifact is compared with."""
    head, body = beside.table(report)
    columns = [Column(name, name or "what", "number" if name else "text") for name in head]
    table = Table(columns, [[Cell(text) for text in row] for row in body], name="beside")
    return Section("beside", beside.TITLE, [table], _signs(beside.verdict(report)))


def _steps(report: Report) -> Section:
    """What is there after each step of a recipe."""
    head, body = steps.table(report)
    figures = [Column(name, name, "number") for name in head[2:-1]]
    columns = [*(Column(name, name, "name") for name in head[:2]), *figures, Column(head[-1], head[-1])]
    table = Table(columns, [[Cell(_signs(text)) for text in row] for row in body], name="steps")
    return Section("steps", steps.TITLE, [table])


def _signs(text: str) -> str:
    """The signs of arithmetic instead of letters that look like them."""
    return re.sub(r"(?<=\d)x(?= )", "\N{MULTIPLICATION SIGN}", text).replace("-", "\N{MINUS SIGN}")


def _tried(report: Report) -> Section:
    points = _points(report)
    metric = headline.primary(report)[0] or ""
    y = [("metric", rows.label(metric), _kind(metric))] if metric else []
    y += [("agreement", "agreement", "share"), ("sqnr_db", "output SQNR", "decibel")]
    x = [("bytes", "size", "bytes"), ("latency", "latency", "ms")]
    views, tips, best = {}, _tips(metric), []
    candidates = [point for point in points if point["status"] != "original"]
    known = [axis for axis in y if any(point.get(axis[0]) is not None for point in candidates)][:2]
    across = [axis for axis in x if any(point.get(axis[0]) is not None for point in candidates)]
    for up, along in product(known, across):
        lower = up[0] == "metric" and metric in LOWER
        mark_front(points, along[0], up[0], lower=lower)
        views[f"{up[1]} · {along[1]}"] = charts.pareto(
            along, up, lower=lower, tips=tips, log=charts.wide(p.get(along[0]) for p in points)
        )
        best.append(any(p["status"] == "chosen" and p.get(f"front:{along[0]}:{up[0]}") for p in points))
    blocks: list[Block] = []
    if views and len(candidates) > 1:
        # The view that shows why the chosen one was chosen comes first.
        first = list(views)[best.index(True) if True in best else 0]
        views = {first: views[first], **views}
        legend = [("diamond", "original"), ("dot accent", "chosen"), ("dot point", "tried"), ("ring", "rejected")]
        caption = "Up and to the left is better; the line joins what nothing else beats."
        blocks.append(
            Chart("pareto", views, rows=thinned(points), label="What was tried", caption=caption, legend=legend)
        )
    blocks.append(_candidates(report, metric))
    count = len(report.candidates)
    lead = rows.tried_title(report).partition("(")[2].rstrip(")")
    return Section(
        "tried", "What was tried", blocks, lead[:1].upper() + lead[1:] + "." if lead else "", count=str(count)
    )


def _points(report: Report) -> list[dict[str, Any]]:
    """The original and every candidate that was measured, as points of a chart."""
    metric = headline.primary(report)[0] or ""
    before = report.before
    points = [
        {
            "name": "original",
            "label": "original",
            "status": "original",
            "reason": "",
            **_figures(before.size, before.latency, report.selection_quality, {"top1_agreement": 1.0}, metric),
        }
    ]
    for entry in report.candidates:
        if entry["status"] != "failed":
            figures = _figures(entry["size"], entry["latency"], entry["quality"], entry["fidelity"] or {}, metric)
            named = {key: entry[key] for key in ("name", "status", "reason")}
            label = entry["name"] if entry["status"] == "chosen" else ""
            points.append({**named, "label": label, **figures})
    return points


def _figures(
    size: Mapping[str, Any],
    latency: Mapping[str, Any] | None,
    quality: Mapping[str, Any] | None,
    fidelity: Mapping[str, Any],
    metric: str,
) -> dict[str, Any]:
    found: dict[str, Any] = {
        "bytes": size.get("file_bytes"),
        "latency": (latency or {}).get("median_ms"),
        "agreement": fidelity.get("top1_agreement"),
        "sqnr_db": fidelity.get("sqnr_db"),
    }
    shown = {
        "bytes_text": units.size(found["bytes"]),
        "latency_text": units.milliseconds(found["latency"]),
        "agreement_text": units.percent(found["agreement"]),
        "sqnr_text": units.decibel(found["sqnr_db"], bool(fidelity.get("exact"))),
    }
    if metric:
        found["metric"] = (quality or {}).get(metric)
        shown["metric_text"] = units.metric(metric, found["metric"])
    return {**found, **shown}


def _tips(metric: str) -> list[tuple[str, str]]:
    tips = [("name", "method"), ("status", "verdict"), ("bytes_text", "size"), ("latency_text", "latency")]
    tips += [("metric_text", rows.label(metric))] if metric else []
    return [*tips, ("agreement_text", "same prediction"), ("sqnr_text", "output SQNR"), ("reason", "reason")]


def _kind(metric: str) -> str:
    return "share" if units.metric(metric, 0.5).endswith("%") else "number"


def _candidates(report: Report, metric: str) -> Table:
    quality = [Column(rows.label(metric), "quality", "number")] if metric else []
    columns = [
        Column("method", "name", "text"),
        Column("size", "size", "number"),
        Column("latency", "latency", "number"),
        Column("speed", "speed", "number"),
        *quality,
        Column("same prediction", "agreement", "number", wide=bool(metric)),
        Column("SQNR", "sqnr", "number", wide=True),
        Column("verdict", "status", "badge"),
        Column("reason", "reason", "prose"),
    ]
    body, marked = [], []
    for number, entry in enumerate(report.candidates):
        found = _figures(entry["size"], entry["latency"], entry["quality"], entry["fidelity"] or {}, metric)
        speed = entry["latency"]["speedup"]["value"] if entry["latency"] else None
        marked += [number] if entry["status"] == "chosen" else []
        body.append(
            [
                Cell(str(entry["name"])),
                Cell(found["bytes_text"], found["bytes"]),
                Cell(found["latency_text"], found["latency"]),
                Cell(headline.times(speed) if speed else "-", speed),
                *([Cell(found["metric_text"], found["metric"])] if metric else []),
                Cell(found["agreement_text"], found["agreement"]),
                Cell(found["sqnr_text"], found["sqnr_db"]),
                Cell(str(entry["status"]), tone=_TONES.get(str(entry["status"]), "")),
                Cell(str(entry["reason"])),
            ]
        )
    return Table(columns, body, name="candidates", tools=len(body) > 1, what="candidates", marked=frozenset(marked))


def _audit(audit: Mapping[str, Any]) -> Section:
    parts = [
        ("integer", int(audit["integer"]), "accent"),
        ("float", int(audit["float"]), "point"),
        ("conversions between them", int(audit["conversions"]), "warn"),
    ]
    kernels = [[Cell(op), Cell(str(count), count)] for op, count in audit["kernels"].items()]
    blocks: list[Block] = [Share(parts)]
    if audit["unfused"]:
        columns = [
            Column("layer", "node", "name"),
            Column("operator", "op"),
            Column("why it runs in float", "why", "prose"),
        ]
        unfused = [[Cell(e["node"]), Cell(e["op"]), Cell(e["reason"])] for e in audit["unfused"]]
        blocks.append(Table(columns, unfused, name="unfused", tools=True, what="layers in float"))
    if kernels:
        heads = [Column("kernel", "op"), Column("nodes", "count", "number")]
        blocks.append(Table(heads, kernels, name="kernels", tools=True, what="kernels"))
    return Section("kernels", "Fusion audit", blocks, "How onnxruntime runs the artifact on this machine.")


def _more(name: str, title: str, found: Sequence[Any]) -> Section | None:
    if not found:
        return None
    table = sections.decisions(found, name)
    return Section(name, title, [table], folded=True, count=str(len(found)))


def _sources(report: Report) -> list[tuple[str, str, bool]]:
    found = sections.file_facts("original", report.before.file)
    if report.status == "done":
        found += sections.file_facts("artifact", report.after.file)
    return [*found, *sections.data(report.data)]
