"""The layers of a transformed model as a table and a chart: bytes, sensitivity, what was done and why."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from modelkit.decision import Decision
from modelkit.report import units
from modelkit.report.html import charts
from modelkit.report.html.headline import times
from modelkit.report.html.parts import Cell, Chart, Column, Section, Table

# Figures of decisions that tell how much a layer suffers, and what they are called.
_SENSITIVITY = {
    "output_error": ("output error", "number"),
    "sqnr_db": ("weight SQNR", "decibel"),
    "error": ("error after repair", "number"),
}
_NAME = ("name", "layer")
_WHY = (("did", "decision"), ("why", "reason"))


def section(layers: Sequence[Mapping[str, Any]], decisions: Sequence[Decision]) -> tuple[Section, list[Decision]]:
    """Return the section, and the decisions that are about no layer."""
    mine, others = _shared_out(layers, decisions)
    sensitivity = _known([d for each in mine for d in each])
    zeros = any("zeros" in d.numbers for each in mine for d in each)
    body = [_row(i, layer, mine[i], sensitivity, zeros) for i, layer in enumerate(layers)]
    columns = [
        Column("#", "index", "number", wide=True),
        Column("layer", "name", "name"),
        Column("operator", "op", wide=True),
        Column("weights", "shape", wide=True),
        Column("type", "dtype", wide=True),
        Column("before", "before", "number"),
        Column("after", "after", "number"),
        Column("smaller", "ratio", "number"),
        *([Column("zeros", "zeros", "number")] if zeros else []),
        *([Column(_SENSITIVITY[sensitivity][0], "sensitivity", "number")] if sensitivity else []),
        Column("decision", "did", "badge"),
        Column("reason", "why", "prose"),
    ]
    table = Table(columns, body, name="layers", tools=True, facet="did", what="layers", weights="before")
    legend = [("pale", "original"), ("accent", "artifact")]
    chart = Chart(
        "layer-chart",
        _views(len(layers), sensitivity, zeros),
        table="layers",
        label="Bytes of each layer before and after",
        legend=legend,
    )
    lead = "Point at a bar to see what was done and why; the filter below applies to the chart too."
    return Section("layers", "Layers", [chart, table], lead, count=str(len(layers))), others


def _shared_out(
    layers: Sequence[Mapping[str, Any]], decisions: Sequence[Decision]
) -> tuple[list[list[Decision]], list[Decision]]:
    """Give each layer the decisions about it or its weights; the others come back apart."""
    owners: dict[str, list[int]] = defaultdict(list)
    for index, layer in enumerate(layers):
        for name in dict.fromkeys([layer["name"], *layer["weights"]]):
            owners[name].append(index)
    mine: list[list[Decision]] = [[] for _ in layers]
    others = []
    for decision in decisions:
        for index in owners.get(decision.target, ()):
            mine[index].append(decision)
        if decision.target not in owners:
            others.append(decision)
    return mine, others


def _known(decisions: Sequence[Decision]) -> str:
    """The figure of sensitivity that most decisions have; "" where there is none."""
    counts = Counter(key for d in decisions for key in _SENSITIVITY if isinstance(d.numbers.get(key), int | float))
    return max(counts, key=lambda key: counts[key], default="")


def _row(
    index: int, layer: Mapping[str, Any], decisions: Sequence[Decision], sensitivity: str, zeros: bool
) -> list[Cell]:
    before, after = layer["before"] or {}, layer["after"] or {}
    old, new = before.get("bytes"), after.get("bytes")
    either = before or after
    types = dict.fromkeys(side["dtype"] for side in (before, after) if side.get("dtype"))
    ratio = old / new if old and new else None
    # What was left as it is says least, and a bias less than its weight.
    ordered = sorted(decisions, key=lambda d: (d.action.startswith("kept"), "bias" in d.reason))
    actions = list(dict.fromkeys(d.action for d in ordered))
    did = actions[0] if actions else "unchanged"
    return [
        Cell(str(index + 1), tone="dim"),
        Cell(layer["name"]),
        Cell(layer["op"]),
        Cell("\N{MULTIPLICATION SIGN}".join(str(n) for n in either.get("shape", ()))),
        Cell(" → ".join(types)),
        Cell(units.size(old or None), old or 0),
        Cell(units.size(new or None), new or 0),
        Cell(
            times(ratio) if ratio else "-", ratio or 0, "dim" if ratio is not None and abs(ratio - 1) < 0.005 else ""
        ),
        *([_figure(decisions, "zeros")] if zeros else []),
        *([_figure(decisions, sensitivity)] if sensitivity else []),
        Cell(did, tone="dim" if did.startswith("kept") or did == "unchanged" else ""),
        Cell("; ".join(dict.fromkeys(_said(d, did) for d in ordered))),
    ]


def _said(decision: Decision, did: str) -> str:
    return decision.reason if decision.action == did else f"{decision.action}: {decision.reason}"


def _figure(decisions: Sequence[Decision], key: str) -> Cell:
    """A figure of the first decision that has it."""
    for decision in decisions:
        value = decision.numbers.get(key)
        if isinstance(value, int | float):
            if key == "zeros":
                return Cell(units.percent(value, 1), value)
            return Cell(units.decibel(value) if key == "sqnr_db" else f"{value:.3g}", value)
    return Cell("-")


def _views(count: int, sensitivity: str, zeros: bool) -> dict[str, dict[str, Any]]:
    tips = [_NAME, ("op", "operator"), ("before_text", "before"), ("after_text", "after")]
    tips += [("zeros_text", "zeros")] if zeros else []
    title, kind = _SENSITIVITY.get(sensitivity, ("", ""))
    tips += [("sensitivity_text", title)] if sensitivity else []
    tips += _WHY
    whole, part = ("before", "bytes of weights"), ("after", "bytes of weights")
    views = {
        "bytes": charts.bars(count, whole=whole, part=part, kind="bytes", tips=tips),
        "bytes, log scale": charts.bars(count, whole=whole, part=part, kind="bytes", log=True, tips=tips),
    }
    if sensitivity:
        views[title] = charts.bars(count, whole=None, part=("sensitivity", title), kind=kind, tips=tips)
    if zeros:
        views["zeros"] = charts.bars(count, whole=None, part=("zeros", "share of zeros"), kind="share", tips=tips)
    return views
