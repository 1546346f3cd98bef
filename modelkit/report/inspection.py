"""What is in a model file, as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from modelkit.decision import Decision
from modelkit.report import units
from modelkit.report.table import decisions, new_table

SCHEMA = "modelkit.inspection/1"


def render(found: dict[str, Any], *, layers: int) -> RenderableType:
    """Lay the facts of ``modelkit.api.inspect`` out for rich.

    Args:
        found: The facts.
        layers: How many layers to list, largest first; 0 for all in graph order.
    """
    facts = found["facts"]
    parts: list[RenderableType] = [_head(found), Text(""), _ports(facts), Text(""), _operators(facts)]
    parts += [Text(""), _layers(facts["layers"], layers)]
    if facts["macs_unknown"]:
        parts.append(Text(f"note: the MACs of {len(facts['macs_unknown'])} layers are unknown", style="yellow"))
    parts += [Text(""), _quantized(facts["quantized"])]
    if facts["blockers"]:
        parts += [
            Text(""),
            decisions("What would stop or limit quantization", [Decision(**entry) for entry in facts["blockers"]]),
        ]
    return Group(*parts)


def _head(found: dict[str, Any]) -> RenderableType:
    facts, size = found["facts"], found["size"]
    table = new_table(found["file"]["name"])
    table.add_column("")
    table.add_column("")
    others = ", ".join(f"{name} {version}" for name, version in facts["domains"].items())
    rows = [
        ("bytes", f"{units.size(size['file_bytes'])} ({units.size(size['deflated_bytes'])} deflated)"),
        ("parameters", f"{units.number(facts['parameters'])} in {units.size(facts['parameter_bytes'])}"),
        ("MACs of one sample", units.number(facts["macs"]) if facts["macs"] is not None else "unknown"),
        ("opset", f"{facts['opset']}{f' ({others})' if others else ''}, IR version {facts['ir_version']}"),
        ("producer", facts["producer"] or "-"),
        ("sha256", found["file"]["sha256"][:16] + "…"),
    ]
    for row in rows:
        table.add_row(*row)
    return table


def _ports(facts: dict[str, Any]) -> RenderableType:
    table = new_table("Inputs and outputs")
    for name in ("", "name", "type", "shape"):
        table.add_column(name)
    for kind in ("inputs", "outputs"):
        for port in facts[kind]:
            shape = "?" if port["shape"] is None else " x ".join(str(d) for d in port["shape"]) or "scalar"
            table.add_row(kind[:-1], port["name"], port["dtype"], shape)
    return table


def _operators(facts: dict[str, Any]) -> RenderableType:
    counted = ", ".join(f"{op} {count}" for op, count in facts["op_counts"].items())
    return Text(f"Operators: {counted or 'none'}")


def _layers(layers: list[dict[str, Any]], limit: int) -> RenderableType:
    shown: Iterable[dict[str, Any]] = layers
    title = f"All {len(layers)} layers"
    if limit and len(layers) > limit:
        shown = sorted(layers, key=lambda layer: -layer["bytes"])[:limit]
        title = f"The {limit} largest of {len(layers)} layers"
    table = new_table(title)
    table.add_column("layer", overflow="fold")
    table.add_column("operator")
    table.add_column("weights", overflow="fold")
    for name in ("parameters", "bytes", "MACs"):
        table.add_column(name, justify="right")
    for layer in shown:
        shapes = ", ".join("x".join(str(d) for d in shape) for shape in layer["weight_shapes"][:1])
        table.add_row(
            layer["name"],
            layer["op"],
            f"{shapes} {layer['weight_dtype']}".strip(),
            units.number(layer["parameters"]),
            units.size(layer["bytes"]),
            units.number(layer["macs"]),
        )
    return table


def _quantized(state: dict[str, Any]) -> RenderableType:
    if state["scheme"] == "none":
        return Text("Quantized: nothing")
    counted = ", ".join(f"{op} {count}" for op, count in state["counts"].items())
    return Text(f"Quantized: {state['scheme']}, {state['weights']} integer weights ({counted})")
