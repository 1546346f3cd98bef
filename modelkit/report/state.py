"""What is in a file of weights, as tables for a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import RenderableType

from modelkit.report import units
from modelkit.report.text import add_row, new_table, notes, pairs, stack, titled

SCHEMA = "modelkit.state/1"


def render(found: dict[str, Any], *, layers: int) -> RenderableType:
    """Lay the weights that ``modelkit.api.inspect`` found without an architecture out for rich.

    Args:
        found: What it returned.
        layers: How many tensors to list, largest first; 0 for all in the file's order.
    """
    rows: list[tuple[object, object]] = [
        ("file size", units.size(found["file"]["bytes"])),
        ("kind", found["kind"] + (f", in '{found['state_dict']}'" if found["state_dict"] else "")),
        ("tensors", str(len(found["tensors"]))),
        ("numbers", f"{units.number(found['parameters'])} in {units.size(found['bytes'])}"),
        ("zeros", units.percent(found["zeros"])),
        ("sha256", found["file"]["sha256"][:16] + "…"),
    ]
    parts = [titled(found["file"]["name"], pairs(rows)), _tensors(found["tensors"], layers)]
    said = []
    if found["others"]:
        said.append(f"it also holds tensors in {', '.join(found['others'])}")
    if found["contents"]:
        said.append(f"it also holds {', '.join(found['contents'])}: loading it can run code, and takes --trust")
    said.append("weights without an architecture: --arch and --input show the graph")
    return stack([*parts, notes(said)])


def _tensors(tensors: list[dict[str, Any]], limit: int) -> RenderableType:
    shown, title = tensors, f"All {len(tensors)} tensors" if len(tensors) > 1 else "The tensor"
    if limit and len(tensors) > limit:
        shown = sorted(tensors, key=lambda entry: -entry["bytes"])[:limit]
        title = f"The {f'{limit} ' if limit > 1 else ''}largest of {len(tensors)} tensors"
    table = new_table("tensor", "shape", "type", "bytes", "zeros", numbers=("bytes", "zeros"))
    for entry in shown:
        shape = "x".join(str(n) for n in entry["shape"]) or "scalar"
        add_row(
            table, entry["name"], shape, entry["dtype"], units.size(entry["bytes"]), units.percent(entry["zeros"])
        )
    return titled(title, table)
