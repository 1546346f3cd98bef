"""The page of a search over models: how right the model is, what else could be had, and how it was found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelkit.report import leaderboard, units
from modelkit.report.html import charts, sections
from modelkit.report.html.front import mark_front
from modelkit.report.html.parts import Block, Cell, Chart, Column, Facts, Page, Section, Table, Tile

_TRIALS = 500  # points of the chart over time


def page(found: Mapping[str, Any]) -> Page:
    """Lay out what ``modelkit automl`` found."""
    pairs = leaderboard.facts(found)
    parts: list[Section | None] = [
        Section("model", "The model", [Facts([(name, text, False) for name, text in pairs])]),
        _picture(found) if found["picture"] else None,
        _front(found) if len(found["front"]) > 1 else None,
        _search(found),
        _columns(found),
        sections.options(found["config"], found["origins"]),
        sections.provenance(_provenance(found), found["machine"], found["seed"]),
    ]
    done = found["status"] == "done"
    return Page(
        command="automl",
        title=str(found["artifact"]["name"]),
        subtitle=leaderboard.what(found),
        verdict=f"{_model(found)}, found among {len(found['leaderboard'])} trials in {found['seconds']:.0f} s.",
        tiles=_tiles(found),
        sections=[part for part in parts if part is not None],
        status="done" if done else "an early artifact",
        tone="" if done else "warn",
        alert="" if done else "The search goes on, or was ended before its time.",
        notes=found["notes"],
        version=str((found["machine"].get("versions") or {}).get("modelkit", "")),
    )


def _model(found: Mapping[str, Any]) -> str:
    members = found["members"]
    return str(members[0]["family"]) if len(members) == 1 else f"An ensemble of {len(members)} models"


def _tiles(found: Mapping[str, Any]) -> list[Tile]:
    rows = f"on {found['rows']['held out']} rows set apart"
    old = found["baseline"]
    tiles = []
    for name, value in list((found["scores"] or {}).items())[:2]:
        beside = f"{old['file']['name']}: {leaderboard.score(name, old['scores'][name])}" if old else ""
        tiles.append(Tile(leaderboard.SCORES[name], leaderboard.score(name, value), "", rows, aside=beside))
    tiles.append(Tile("File size", units.size(found["artifact"]["bytes"])))
    tiles.append(Tile("Latency", units.milliseconds(found["artifact"]["latency_ms"]), "", "of one row"))
    return tiles


def _picture(found: Mapping[str, Any]) -> Section:
    """Confidence beside accuracy, or predictions beside values."""
    picture = found["picture"]
    lead = f"On {found['rows']['held out']} rows that took no part in the search."
    if picture["kind"] == "confidence":
        rows = [
            {
                **each,
                "size": 40 + 600 * each["rows"] / found["rows"]["held out"],
                "share": units.percent(each["accuracy"]),
            }
            for each in picture["bins"]
        ]
        spec = charts.beside(
            ("confidence", "probability of the chosen class"),
            ("accuracy", "share of rows where it is right"),
            (0.0, 1.0),
            "share",
            [("share", "right"), ("rows", "rows")],
        )
        caption = (
            "On the dashed line, probabilities are as large as they should be; above it the model is too modest, "
            f"below it too sure. Expected calibration error: {units.percent(picture['error'])}. Large points are "
            "many "
            "rows."
        )
        chart = Chart("picture", {"calibration": spec}, rows=rows, label="Confidence and accuracy", caption=caption)
        return Section("calibration", "How sure, and how right", [chart], lead)
    points = [{**point, "size": 30} for point in picture["points"]]
    ends = [value for point in picture["points"] for value in point.values()]
    spec = charts.beside(
        ("value", f"{found['target']}"),
        ("prediction", "prediction"),
        (min(ends), max(ends)),
        "number",
        [("value", "value"), ("prediction", "prediction")],
    )
    chart = Chart("picture", {"predictions": spec}, rows=points, label="Predictions beside values")
    return Section("predictions", "Predictions beside values", [chart], f"{lead} On the dashed line they are equal.")


def _front(found: Mapping[str, Any]) -> Section:
    """Loss, size and latency of what was built."""
    loss = leaderboard.loss_name(found)
    points = [
        {
            **each,
            "label": each["name"],
            "status": "chosen" if each["chosen"] else "tried",
            "size_text": units.size(each["bytes"]),
            "latency_text": units.milliseconds(each["latency_ms"]),
            "loss_text": f"{each['loss']:.4g}",
        }
        for each in found["front"]
    ]
    tips = [("label", "model"), ("loss_text", loss), ("size_text", "size"), ("latency_text", "latency")]
    views = {}
    for field, title, kind in (("bytes", "file size", "bytes"), ("latency_ms", "latency of one row", "ms")):
        mark_front(points, field, "loss", lower=True)
        views[title] = charts.pareto((field, title, kind), ("loss", loss, "number"), lower=True, tips=tips)
    columns = [Column("model", "name"), Column(loss, "loss", "number"), Column("size", "bytes", "number")]
    columns += [Column("latency", "latency", "number"), Column("", "unbeaten")]
    body = [
        [
            Cell(each["name"]),
            Cell(f"{each['loss']:.4g}", each["loss"]),
            Cell(units.size(each["bytes"]), each["bytes"]),
            Cell(units.milliseconds(each["latency_ms"]), each["latency_ms"]),
            Cell(leaderboard.standing(each)),
        ]
        for each in found["front"]
    ]
    chosen = frozenset(number for number, each in enumerate(found["front"]) if each["chosen"])
    blocks: list[Block] = [
        Chart("front-chart", views, rows=points, label="Loss beside size and latency"),
        Table(columns, body, name="front", what="models", marked=chosen),
    ]
    lead = "The model and the best trial of each family: loss out of fold, file size, and latency of one row."
    return Section("front", "What else could be had", blocks, lead)


def _search(found: Mapping[str, Any]) -> Section:
    """Every trial, over time and as a table."""
    board = found["leaderboard"]
    loss = leaderboard.loss_name(found)
    columns = [Column("trial", "trial", "number"), Column("family", "family"), Column(loss, "loss", "number")]
    columns += [
        Column("on fresh folds", "fresh", "number"),
        Column("status", "status"),
        Column("from", "source", wide=True),
    ]
    columns += [Column("seconds", "seconds", "number", wide=True), Column("weight", "weight", "number")]
    columns += [Column("hyper-parameters", "params", "prose")]
    body = [
        [
            Cell(str(each["trial"])),
            Cell(each["family"]),
            Cell("-" if each["loss"] is None else f"{each['loss']:.4g}", each["loss"]),
            Cell("-" if each["fresh_loss"] is None else f"{each['fresh_loss']:.4g}", each["fresh_loss"]),
            Cell(each["reason"] or each["status"], tone="" if each["status"] == "done" else "dim"),
            Cell(each["source"]),
            Cell(f"{each['seconds']:.2f}", each["seconds"]),
            Cell("" if not each["weight"] else f"{each['weight']:.2f}", each["weight"] or 0),
            Cell(leaderboard.params(each["params"])),
        ]
        for each in board
    ]
    members = frozenset(number for number, each in enumerate(board) if each["weight"])
    table = Table(
        columns, body, name="board", tools=True, facet="family", what="trials", weights="weight", marked=members
    )
    blocks: list[Block] = [table]
    rows = _course(found)
    if len(rows) > 1:
        tips = [("trial", "trial"), ("family", "family"), ("loss_text", loss), ("params", "hyper-parameters")]
        spec = charts.course(loss, lower=True, tips=tips)
        legend = [("accent", "best so far, and members of the model"), ("point", "other trials")]
        chart = Chart("course", {"loss": spec}, rows=rows, label="The search over time", legend=legend)
        blocks.insert(0, chart)
    lead = "The loss out of fold, which chose; what the model is worth is said above, of other rows."
    return Section("search", "The search", blocks, lead, count=str(len(board)))


def _course(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Trials that went through all folds, in the order in which they ended, with the best loss so far."""
    done = [each for each in found["leaderboard"] if each["status"] == "done" and each["ended"] is not None]
    done.sort(key=lambda each: (each["ended"], each["trial"]))
    rows, best = [], float("inf")
    for each in done:
        best = min(best, each["loss"])
        text = {"loss_text": f"{each['loss']:.4g}", "params": leaderboard.params(each["params"])}
        kept = {name: each[name] for name in ("trial", "family", "ended", "loss")}
        rows.append({**kept, **text, "best": best, "chosen": bool(each["weight"])})
    step = -(-len(rows) // _TRIALS) if rows else 1
    return [row for place, row in enumerate(rows) if row["chosen"] or place % step == 0]


def _columns(found: Mapping[str, Any]) -> Section:
    columns = [Column("column", "target", "name"), Column("", "action"), Column("why", "reason", "prose")]
    columns += [Column("figures", "figures", "prose", wide=True)]
    body = [
        [Cell(c["target"]), Cell(c["action"]), Cell(c["reason"]), Cell(units.figures(c["numbers"]))]
        for c in found["columns"]
    ]
    table = Table(columns, body, name="columns-table", tools=len(body) > 1, facet="action", what="columns")
    return Section("columns", "Columns", [table], count=str(len(body)))


def _provenance(found: Mapping[str, Any]) -> list[tuple[str, str, bool]]:
    facts = [*sections.file_facts("artifact", found["artifact"]), *sections.file_facts("data", found["data"])]
    return facts + (sections.file_facts("test", found["test"]) if found["test"] else [])
