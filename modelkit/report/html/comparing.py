"""The page of a comparison: models side by side, the first as the reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from modelkit.report import rows, units
from modelkit.report.html import charts, sections
from modelkit.report.html.front import mark_front, thinned
from modelkit.report.html.headline import times
from modelkit.report.html.parts import Block, Cell, Chart, Column, Page, Section, Table, Tile, Tone
from modelkit.report.rows import LOWER


def page(found: Mapping[str, Any]) -> Page:
    """Lay out what ``modelkit.api.evaluate`` returned."""
    models = found["models"]
    reference = models[0]
    metric = next(iter(reference["quality"] or {}), "")
    blocks: list[Block] = []
    if len(models) > 1:
        blocks.append(_chart(models, metric))
    blocks.append(_table(models))
    gates = [(model["name"], gate) for model in models for gate in model.get("gates") or ()]
    missed = sum(not gate["ok"] for _, gate in gates)
    blocks += [_gates(gates)] if gates else []
    files = [fact for model in models for fact in sections.file_facts("model", model["file"])]
    data = found["data"]
    count = len(models)
    return Page(
        command="evaluate",
        title=str(reference["name"]),
        subtitle="" if count == 1 else f"against {_others(models[1:])}",
        verdict=_verdict(models, metric, data),
        tiles=_tiles(reference, metric, data) if count == 1 else [_tile(model, metric) for model in models[1:5]],
        sections=[
            Section(
                "comparison", "Comparison" if count > 1 else "Figures", blocks, count=str(count) if count > 1 else ""
            ),
            sections.options(found.get("config", {}), found.get("origins", {})),
            sections.provenance([*files, *sections.data({"evaluation": data})], found["machine"], found["seed"]),
        ],
        status="budget not met" if missed else f"{count} models" if count > 1 else "measured",
        tone="bad" if missed else "",
        alert=f"{missed} of {len(gates)} gates missed." if missed else "",
        notes=found["notes"],
        version=str((found["machine"].get("versions") or {}).get("modelkit", "")),
    )


def _gates(gates: Sequence[tuple[str, Mapping[str, Any]]]) -> Table:
    columns = [Column("model", "name", "name"), Column("gate", "gate")]
    columns += [Column("asked", "asked", "number"), Column("got", "got", "number"), Column("", "ok", "badge")]
    body = [
        [
            Cell(str(name)),
            Cell(str(gate["name"])),
            Cell(str(gate["asked"])),
            Cell(str(gate["got"])),
            Cell("met" if gate["ok"] else "missed", tone="good" if gate["ok"] else "bad"),
        ]
        for name, gate in gates
    ]
    return Table(columns, body, name="gates", what="gates")


def _others(models: Sequence[Mapping[str, Any]]) -> str:
    names = [str(model["name"]) for model in models]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _verdict(models: Sequence[Mapping[str, Any]], metric: str, data: Mapping[str, Any]) -> str:
    samples = f"{data['count']} {'made-up inputs' if data.get('synthetic') else 'samples'}"
    if len(models) == 1:
        return f"Measured on {samples} by itself."
    fastest = max(models[1:], key=lambda model: model["speedup"]["value"])
    smallest = min(models, key=lambda model: model["size"]["file_bytes"])
    said = [f"{smallest['name']} is the smallest with {units.size(smallest['size']['file_bytes'])}"]
    if fastest["speedup"]["low"] > 1:
        said.append(f"{fastest['name']} the fastest, {times(fastest['speedup']['value'])} the speed of the reference")
    else:
        said.append("none is faster than the reference")
    return f"On {samples} {', '.join(said)}."


def _tiles(model: Mapping[str, Any], metric: str, data: Mapping[str, Any]) -> list[Tile]:
    size, latency = model["size"], model["latency"]
    tiles = [
        Tile("File size", units.size(size["file_bytes"]), "", f"{units.size(size['deflated_bytes'])} deflated"),
        Tile(
            "Latency, median",
            units.milliseconds(latency["median_ms"]),
            "",
            f"p95 {units.milliseconds(latency['p95_ms'])}",
        ),
    ]
    if metric:
        label = rows.label(metric)
        value = units.metric(metric, model["quality"][metric])
        tiles.append(Tile(label[:1].upper() + label[1:], value, "", f"on {data['count']} samples"))
    return [*tiles, Tile("Parameters", units.number(size["parameters"]), "", "")]


def _tile(model: Mapping[str, Any], metric: str) -> Tile:
    """One model against the reference."""
    speed = model["speedup"]
    same = speed["low"] <= 1 <= speed["high"]
    tone: Tone = "" if same else "good" if speed["low"] > 1 else "warn"
    value, unit = ("Same", "speed") if same else (times(speed["value"]), "the speed")
    quality = f"{rows.label(metric)} {units.metric(metric, (model['quality'] or {}).get(metric))}" if metric else ""
    agreement = dict(rows.fidelity(model["fidelity"]))
    aside = quality or next((f"{name} {text}" for name, text in agreement.items()), "")
    return Tile(str(model["name"]), value, unit, units.size(model["size"]["file_bytes"]), tone, aside=aside)


def _chart(models: Sequence[Mapping[str, Any]], metric: str) -> Chart:
    points = [_point(model, metric, first=number == 0) for number, model in enumerate(models)]
    y = (
        [("metric", rows.label(metric), "share" if units.metric(metric, 0.5).endswith("%") else "number")]
        if metric
        else []
    )
    y += [("agreement", "agreement", "share"), ("sqnr_db", "output SQNR", "decibel")]
    known = [axis for axis in y if any(point.get(axis[0]) is not None for point in points[1:])][:2]
    tips = [("name", "model"), ("bytes_text", "size"), ("latency_text", "latency")]
    tips += [("metric_text", rows.label(metric))] if metric else []
    tips += [("agreement_text", "same prediction"), ("sqnr_text", "output SQNR")]
    views = {}
    for up, along in product(known, [("bytes", "size", "bytes"), ("latency", "latency", "ms")]):
        lower = up[0] == "metric" and metric in LOWER
        mark_front(points, along[0], up[0], lower=lower)
        views[f"{up[1]} · {along[1]}"] = charts.pareto(
            along, up, lower=lower, tips=tips, log=charts.wide(p.get(along[0]) for p in points)
        )
    return Chart(
        "models",
        views,
        rows=thinned(points),
        label="Quality against size and latency",
        caption="Up and to the left is better; the line joins what nothing else beats.",
        legend=[("diamond", "reference"), ("dot accent", "others")],
    )


def _point(model: Mapping[str, Any], metric: str, *, first: bool) -> dict[str, Any]:
    fidelity = model["fidelity"] or ({"top1_agreement": 1.0} if first else {})
    found = {
        "name": model["name"],
        "label": model["name"],
        "status": "original" if first else "chosen",
        "bytes": model["size"]["file_bytes"],
        "bytes_text": units.size(model["size"]["file_bytes"]),
        "latency": model["latency"]["median_ms"],
        "latency_text": units.milliseconds(model["latency"]["median_ms"]),
        "agreement": fidelity.get("top1_agreement"),
        "agreement_text": units.percent(fidelity.get("top1_agreement")),
        "sqnr_db": fidelity.get("sqnr_db"),
        "sqnr_text": units.decibel(fidelity.get("sqnr_db"), bool(fidelity.get("exact"))),
    }
    if metric:
        found["metric"] = (model["quality"] or {}).get(metric)
        found["metric_text"] = units.metric(metric, found["metric"])
    return found


def _table(models: Sequence[Mapping[str, Any]]) -> Table:
    metrics = list(models[0]["quality"] or {})
    many = len(models) > 1
    columns = [
        Column("model", "name", "name"),
        Column("size", "size", "number"),
        Column("deflated", "deflated", "number", wide=True),
        Column("parameters", "parameters", "number", wide=True),
        Column("non-zero", "nonzero", "number", wide=True),
        *(Column(rows.label(name), f"metric-{name}", "number") for name in metrics),
        *([Column("same prediction", "agreement", "number"), Column("SQNR", "sqnr", "number")] if many else []),
        Column("latency", "latency", "number"),
        Column("p95", "p95", "number", wide=True),
        *(
            [Column("speed", "speed", "number"), Column("95 % interval", "interval", "number", wide=True)]
            if many
            else []
        ),
    ]
    body = [_row(model, metrics, many=many) for model in models]
    return Table(columns, body, name="models-table", tools=many, what="models", marked=frozenset({0} if many else ()))


def _row(model: Mapping[str, Any], metrics: Sequence[str], *, many: bool) -> list[Cell]:
    size, latency, quality = model["size"], model["latency"], model["quality"] or {}
    fidelity, speed = model["fidelity"] or {}, model["speedup"]
    noise = units.decibel(fidelity.get("sqnr_db"), bool(fidelity.get("exact")))
    agreement = fidelity.get("top1_agreement")
    return [
        Cell(str(model["name"])),
        Cell(units.size(size["file_bytes"]), size["file_bytes"]),
        Cell(units.size(size["deflated_bytes"]), size["deflated_bytes"]),
        Cell(units.number(size["parameters"]), size["parameters"]),
        Cell(units.number(size["nonzero_parameters"]), size["nonzero_parameters"]),
        *(Cell(units.metric(name, quality.get(name)), quality.get(name)) for name in metrics),
        *([Cell(units.percent(agreement), agreement), Cell(noise, fidelity.get("sqnr_db"))] if many else []),
        Cell(units.milliseconds(latency["median_ms"]), latency["median_ms"]),
        Cell(units.milliseconds(latency["p95_ms"]), latency["p95_ms"]),
        *(_speed(speed) if many else []),
    ]


def _speed(speed: Mapping[str, float] | None) -> list[Cell]:
    if speed is None:
        return [Cell("reference", 1.0, "dim"), Cell("")]
    tone: Tone = "good" if speed["low"] > 1 else "warn" if speed["high"] < 1 else "dim"
    return [
        Cell(times(speed["value"]), speed["value"], tone),
        Cell(f"{speed['low']:.2f} to {speed['high']:.2f}", speed["low"]),
    ]
