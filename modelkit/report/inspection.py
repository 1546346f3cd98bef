"""What is in a model file, as tables for a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import RenderableType

from modelkit.decision import Decision
from modelkit.report import units
from modelkit.report.table import decisions
from modelkit.report.text import add_row, new_table, notes, pairs, stack, titled

SCHEMA = "modelkit.inspection/1"


def render(found: dict[str, Any], *, layers: int) -> RenderableType:
    """Lay the facts of ``modelkit.api.inspect`` out for rich.

    Args:
        found: The facts.
        layers: How many layers to list, largest first; 0 for all in graph order.
    """
    facts = found["facts"]
    parts = [_head(found), _ports(facts), _layers(facts["layers"], layers)]
    if facts["blockers"]:
        blockers = [Decision(**entry) for entry in facts["blockers"]]
        parts.append(decisions("What would stop or limit quantization", blockers))
    if facts["macs_unknown"]:
        unknown = len(facts["macs_unknown"])
        parts.append(notes([f"the MACs of {unknown} layer{' is' if unknown == 1 else 's are'} unknown"]))
    if found.get("notes"):
        parts.append(notes(found["notes"]))
    return stack(parts)


def _head(found: dict[str, Any]) -> RenderableType:
    facts, size = found["facts"], found["size"]
    others = ", ".join(f"{name} {version}" for name, version in facts["domains"].items())
    rows: list[tuple[object, object]] = [
        ("file size", f"{units.size(size['file_bytes'])} ({units.size(size['deflated_bytes'])} deflated)"),
        ("parameters", f"{units.number(facts['parameters'])} in {units.size(facts['parameter_bytes'])}"),
        ("MACs of one sample", units.number(facts["macs"]) if facts["macs"] is not None else "unknown"),
        ("opset", f"{facts['opset']}{f' ({others})' if others else ''}, IR version {facts['ir_version']}"),
        ("operators", _counted(facts["op_counts"]) or "none"),
        ("quantized", _quantized(facts["quantized"])),
        ("producer", facts["producer"] or "-"),
        ("sha256", found["file"]["sha256"][:16] + "…"),
    ]
    return titled(found["file"]["name"], pairs(rows))


def _ports(facts: dict[str, Any]) -> RenderableType:
    table = new_table("", "name", "type", "shape")
    for kind in ("inputs", "outputs"):
        for port in facts[kind]:
            shape = "?" if port["shape"] is None else " x ".join(str(d) for d in port["shape"]) or "scalar"
            add_row(table, kind[:-1], port["name"], port["dtype"], shape)
    return titled("Inputs and outputs", table)


def _layers(layers: list[dict[str, Any]], limit: int) -> RenderableType:
    shown = layers
    title = f"All {len(layers)} layers" if len(layers) > 1 else "The layer" if layers else "No layers"
    if limit and len(layers) > limit:
        shown = sorted(layers, key=lambda layer: -layer["bytes"])[:limit]
        title = f"The {f'{limit} ' if limit > 1 else ''}largest of {len(layers)} layers"
    figures = ("parameters", "bytes", "MACs")
    table = new_table("layer", "operator", "weights", *figures, numbers=figures)
    for layer in shown:
        shapes = ", ".join("x".join(str(d) for d in shape) for shape in layer["weight_shapes"][:1])
        add_row(
            table,
            layer["name"],
            layer["op"],
            f"{shapes} {layer['weight_dtype']}".strip(),
            units.number(layer["parameters"]),
            units.size(layer["bytes"]),
            units.number(layer["macs"]),
        )
    return titled(title, table)


def _quantized(state: dict[str, Any]) -> str:
    if state["scheme"] == "none":
        return "nothing"
    counted = _counted(state["counts"])
    weights = f"{state['weights']} integer weight{'' if state['weights'] == 1 else 's'}"
    return f"{state['scheme']}, {weights}{f' ({counted})' if counted else ''}"


def _counted(counts: dict[str, int]) -> str:
    # Without a space no line ends between an operator and its number.
    return ", ".join(f"{op}\N{MULTIPLICATION SIGN}{count}" for op, count in counts.items())
