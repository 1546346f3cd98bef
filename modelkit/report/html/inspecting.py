"""The page of an inspection: what is in a model, or in a file of weights alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from modelkit.decision import Decision
from modelkit.report import rows, units
from modelkit.report.html import charts, sections
from modelkit.report.html.parts import Block, Cell, Chart, Column, Page, Section, Table, Tile
from modelkit.version import VERSION

_TIMES = "\N{MULTIPLICATION SIGN}"


def model_page(found: Mapping[str, Any]) -> Page:
    """Lay out what ``modelkit.api.inspect`` said of a model."""
    facts, size = found["facts"], found["size"]
    blockers = [Decision(**entry) for entry in facts["blockers"]]
    stops = [entry for entry in blockers if entry.action == "stops"]
    parts: list[Section | None] = [
        _layers(facts["layers"]) if facts["layers"] else None,
        Section(
            "blockers",
            "What would stop or limit quantization",
            [sections.decisions(blockers, "blockers-table")],
            count=str(len(blockers)),
        )
        if blockers
        else None,
        _operators(facts["op_counts"]),
        Section("ports", "Inputs and outputs", [_ports(facts)]),
        sections.provenance(_provenance(found), {}, None),
    ]
    notes = list(found.get("notes") or ())
    if facts["macs_unknown"]:
        count = len(facts["macs_unknown"])
        notes.append(f"the MACs of {count} layer{' is' if count == 1 else 's are'} unknown")
    return Page(
        command="inspect",
        title=str(found["file"]["name"]),
        subtitle=f"opset {facts['opset']}, {facts['producer'] or 'unknown producer'}",
        verdict=_verdict(facts, stops),
        tiles=[
            Tile("File size", units.size(size["file_bytes"]), "", f"{units.size(size['deflated_bytes'])} deflated"),
            Tile("Parameters", units.number(facts["parameters"]), "", f"in {units.size(facts['parameter_bytes'])}"),
            Tile("MACs", "unknown" if facts["macs"] is None else units.number(facts["macs"]), "", "of one sample"),
            Tile("Layers", str(len(facts["layers"])), "", f"{sum(facts['op_counts'].values())} nodes"),
        ],
        sections=[part for part in parts if part is not None],
        status="inspected",
        notes=notes,
        version=VERSION,
    )


def _verdict(facts: Mapping[str, Any], stops: Sequence[Decision]) -> str:
    scheme = facts["quantized"]["scheme"]
    state = "Nothing is quantized yet" if scheme == "none" else f"It is quantized already ({scheme})"
    if stops:
        return f"{state}; {len(stops)} thing{'' if len(stops) == 1 else 's'} would stop quantization."
    limits = len(facts["blockers"])
    return f"{state}; {f'{limits} things limit it' if limits > 1 else 'nothing stands in the way'}."


def _layers(layers: Sequence[Mapping[str, Any]]) -> Section:
    columns = [
        Column("#", "index", "number", wide=True),
        Column("layer", "name", "name"),
        Column("operator", "op"),
        Column("weights", "shape", wide=True),
        Column("type", "dtype", wide=True),
        Column("parameters", "parameters", "number"),
        Column("bytes", "bytes", "number"),
        Column("MACs", "macs", "number"),
    ]
    body = []
    for index, layer in enumerate(layers):
        shape = max(layer["weight_shapes"], key=math.prod, default=())
        body.append(
            [
                Cell(str(index + 1), tone="dim"),
                Cell(layer["name"]),
                Cell(layer["op"]),
                Cell(_TIMES.join(str(n) for n in shape)),
                Cell(layer["weight_dtype"]),
                Cell(units.number(layer["parameters"]), layer["parameters"]),
                Cell(units.size(layer["bytes"]), layer["bytes"]),
                Cell(units.number(layer["macs"]), layer["macs"] or 0),
            ]
        )
    tips = [("name", "layer"), ("op", "operator"), ("shape", "weights"), ("dtype", "type")]
    tips += [("bytes_text", "bytes"), ("macs_text", "MACs")]
    count = len(layers)
    views = {
        "bytes": charts.bars(count, whole=None, part=("bytes", "bytes of weights"), kind="bytes", tips=tips),
        "bytes, log scale": charts.bars(
            count, whole=None, part=("bytes", "bytes of weights"), kind="bytes", tips=tips, log=True
        ),
        "MACs": charts.bars(count, whole=None, part=("macs", "multiply-accumulates"), kind="count", tips=tips),
    }
    table = Table(columns, body, name="layers", tools=True, facet="op", what="layers", weights="bytes")
    chart = Chart("layer-chart", views, table="layers", label="Bytes and multiply-accumulates of each layer")
    return Section("layers", "Layers", [chart, table], count=str(count))


def _operators(counts: Mapping[str, int]) -> Section:
    body = [[Cell(op), Cell(str(count), count)] for op, count in counts.items()]
    columns = [Column("operator", "op"), Column("nodes", "count", "number")]
    return Section("operators", "Operators", [Table(columns, body, name="operators-table")], count=str(len(body)))


def _ports(facts: Mapping[str, Any]) -> Table:
    body = []
    for kind in ("inputs", "outputs"):
        for port in facts[kind]:
            shape = "?" if port["shape"] is None else f" {_TIMES} ".join(str(d) for d in port["shape"]) or "scalar"
            body.append([Cell(kind[:-1]), Cell(port["name"]), Cell(port["dtype"]), Cell(shape)])
    columns = [Column("", "kind"), Column("name", "name", "name"), Column("type", "dtype"), Column("shape", "shape")]
    return Table(columns, body, name="ports-table")


def _provenance(found: Mapping[str, Any]) -> list[tuple[str, str, bool]]:
    facts = found["facts"]
    domains = ", ".join(f"{name} {version}" for name, version in facts["domains"].items())
    return [
        *sections.file_facts("model", found["file"]),
        ("opset", f"{facts['opset']}{f', {domains}' if domains else ''}", False),
        ("IR version", str(facts["ir_version"]), False),
        ("producer", facts["producer"] or "unknown", False),
    ]


def state_page(found: Mapping[str, Any]) -> Page:
    """Lay out what ``modelkit.api.inspect`` said of weights without an architecture."""
    tensors = found["tensors"]
    columns = [
        Column("#", "index", "number", wide=True),
        Column("tensor", "name", "name"),
        Column("shape", "shape"),
        Column("type", "dtype"),
        Column("bytes", "bytes", "number"),
        Column("zeros", "zeros", "number"),
    ]
    body = [
        [
            Cell(str(index + 1), tone="dim"),
            Cell(each["name"]),
            Cell(_TIMES.join(str(n) for n in each["shape"]) or "scalar"),
            Cell(each["dtype"]),
            Cell(units.size(each["bytes"]), each["bytes"]),
            Cell(units.percent(each["zeros"]), each["zeros"]),
        ]
        for index, each in enumerate(tensors)
    ]
    tips = [
        ("name", "tensor"),
        ("shape", "shape"),
        ("dtype", "type"),
        ("bytes_text", "bytes"),
        ("zeros_text", "zeros"),
    ]
    views = {
        "bytes": charts.bars(len(tensors), whole=None, part=("bytes", "bytes"), kind="bytes", tips=tips),
        "zeros": charts.bars(len(tensors), whole=None, part=("zeros", "share of zeros"), kind="share", tips=tips),
    }
    blocks: list[Block] = [
        Chart("layer-chart", views, table="layers", label="Bytes and zeros of each tensor"),
        Table(columns, body, name="layers", tools=True, facet="dtype", what="tensors", weights="bytes"),
    ]
    notes = ["weights without an architecture: --arch and --input show the graph"]
    if found["others"]:
        notes.append(f"it also holds tensors in {', '.join(found['others'])}")
    if found["contents"]:
        notes.append(f"it also holds {', '.join(found['contents'])}: loading it can run code, and takes --trust")
    facts = sections.file_facts("file", found["file"])
    facts += [(f"metadata {key}", rows.plain(value), False) for key, value in (found.get("metadata") or {}).items()]
    return Page(
        command="inspect",
        title=str(found["file"]["name"]),
        subtitle=found["kind"] + (f", in '{found['state_dict']}'" if found["state_dict"] else ""),
        verdict=f"{len(tensors)} tensors without an architecture.",
        tiles=[
            Tile("File size", units.size(found["file"]["bytes"]), "", ""),
            Tile("Numbers", units.number(found["parameters"]), "", f"in {units.size(found['bytes'])}"),
            Tile("Zeros", units.percent(found["zeros"]), "", ""),
            Tile("Tensors", str(len(tensors)), "", ""),
        ],
        sections=[
            Section("layers", "Tensors", blocks, count=str(len(tensors))),
            sections.provenance(facts, {}, None),
        ],
        status="inspected",
        notes=notes,
        version=VERSION,
    )
