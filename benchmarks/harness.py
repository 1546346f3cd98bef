"""What every benchmark shares: sections of docs/benchmarks.md, and tables of what was measured.

A benchmark measures side by side in one run and writes its section between two markers, with the command
that makes it again and the machine it ran on. Peers (other tools) are added as functions in tools.py.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from modelkit.measure.machine import machine_facts

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "benchmarks.md"
SAMPLES = ROOT / "sample_models"


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def write_section(name: str, title: str, command: str, body: str) -> None:
    """Replace one section of docs/benchmarks.md, or append it.

    Args:
        name: Short name for the markers.
        title: Heading.
        command: What makes the section again.
        body: Markdown.
    """
    machine = machine_facts()
    features = machine.get("features", [])
    made = (
        f"Made by `{command}` on {datetime.now(UTC):%Y-%m-%d}: {machine.get('cpu')}, {machine.get('cores')} cores "
        f"({', '.join(features) if isinstance(features, list) else features}), "
        f"{_versions(machine)}. One thread unless said."
    )
    text = f"<!-- {name} -->\n## {title}\n\n{made}\n\n{body.strip()}\n<!-- end {name} -->\n"
    page = PAGE.read_text(encoding="utf-8") if PAGE.exists() else "# Benchmarks\n"
    pattern = re.compile(rf"<!-- {name} -->.*?<!-- end {name} -->\n", re.DOTALL)
    page = pattern.sub(lambda _: text, page) if pattern.search(page) else page.rstrip() + "\n\n" + text
    PAGE.write_text(page, encoding="utf-8")
    print(text)


def _versions(machine: dict[str, object]) -> str:
    versions = machine.get("versions", {})
    if isinstance(versions, dict):
        return ", ".join(
            f"{key} {value}" for key, value in versions.items() if key in ("onnxruntime", "onnx", "numpy")
        )
    return ""


def verdict(ok: bool) -> str:
    """Met or missed, so that it can be searched for."""
    return "met" if ok else "**missed**"
