"""A report as one HTML file: no network, every text escaped, the same bytes for the same report."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from modelkit.report import comparison, inspection, leaderboard, searched, state
from modelkit.report.html import comparing, frontier, inspecting, runtime, searching, summing, transforming
from modelkit.report.html.parts import Block, Cell, Chart, Column, Facts, Page, Table
from modelkit.report.report import Report, finite
from modelkit.report.summary import Summary
from modelkit.report.text import safe

if TYPE_CHECKING:
    from jinja2 import Template

# A page stays below 1.5 MB, of which the runtime takes 0.9 MB; the rest of this is for what filters offer.
_MOST_BYTES = 1_460_000
_SURELY_FITS = 100_000  # rows of this size fit beside the most that a page can hold otherwise
_NOTES, _FACTS = 30, 100
_TIP = 100  # characters of a text in a chart

_MAKERS = {
    inspection.SCHEMA: inspecting.model_page,
    state.SCHEMA: inspecting.state_page,
    comparison.SCHEMA: comparing.page,
    leaderboard.SCHEMA: searching.page,
    searched.SCHEMA: frontier.page,
}


def render(found: Report | Summary | Mapping[str, Any]) -> bytes:
    """Return the page of a report.

    Args:
        found: The report of a transform, the summary of a folder, or what ``inspect``, ``evaluate`` or ``automl``
            returned.
    """
    page = _page_of(found)
    _shorten(page)
    _fit(page)
    # Names of files may hold bytes that are no UTF-8; they are spelled out.
    return _html(page).encode("utf-8", "backslashreplace")


def _html(page: Page) -> str:
    style, code = _asset("page.css"), _asset("page.js")
    vega = runtime.script() if any(isinstance(block, Chart) for block in _blocks(page)) else ""
    return _template().render(
        page=page,
        style=style,
        runtime=vega,
        code=code,
        charts=_json(_charts(page)),
        hashes=[_hash(script) for script in (vega, code) if script],
    )


def _page_of(found: Report | Summary | Mapping[str, Any]) -> Page:
    if isinstance(found, Report):
        return transforming.page(found)
    if isinstance(found, Summary):
        return summing.page(found)
    return _MAKERS[str(found["schema"])](found)


def _blocks(page: Page) -> Iterator[Block]:
    for section in page.sections:
        yield from section.blocks


def _shorten(page: Page) -> None:
    """Leave out what nobody reads to its end."""
    if len(page.notes) > _NOTES:
        page.notes = [*page.notes[:_NOTES], f"{len(page.notes) - _NOTES} more notes are in the JSON report"]
    for block in _blocks(page):
        if isinstance(block, Facts) and len(block.rows) > _FACTS:
            block.rows = [
                *block.rows[:_FACTS],
                ("", f"{len(block.rows) - _FACTS} more are in the JSON report", False),
            ]


def _fit(page: Page) -> None:
    """Leave out rows that would make the page too large: of each table those that weigh least."""
    tables = [block for block in _blocks(page) if isinstance(block, Table)]
    sizes = {id(table): [_row_bytes(table, row) for row in table.rows] for table in tables}
    if sum(map(sum, sizes.values())) < _SURELY_FITS:
        return
    rows = [table.rows for table in tables]
    for table in tables:
        table.rows = []
    left = _MOST_BYTES - len(_html(page).encode("utf-8", "backslashreplace"))
    for table, mine in zip(tables, rows, strict=True):
        table.rows = mine
    # Small tables are whole; what they leave is shared by the large ones.
    ordered = sorted(tables, key=lambda table: sum(sizes[id(table)]))
    for index, table in enumerate(ordered):
        left -= _keep(table, sizes[id(table)], left // (len(ordered) - index))


def _keep(table: Table, sizes: list[int], allowed: int) -> int:
    """Cut one table; returns the bytes of what stays."""
    if sum(sizes) <= allowed:
        return sum(sizes)
    index = next((i for i, column in enumerate(table.columns) if column.key == table.weights), None)

    def rank(row: int) -> tuple[bool, float, int]:
        weight = _number(table.rows[row][index].value) if index is not None else 0.0
        return row not in table.marked, -weight, row

    order = sorted(range(len(table.rows)), key=rank)
    kept, used = [], 0
    for row in order:
        if used + sizes[row] > allowed:
            break
        kept.append(row)
        used += sizes[row]
    kept.sort()
    table.left_out = len(table.rows) - len(kept)
    table.marked = frozenset(new for new, row in enumerate(kept) if row in table.marked)
    table.rows = [table.rows[row] for row in kept]
    return used


def _row_bytes(table: Table, row: list[Cell]) -> int:
    """How large a row is on the page."""
    return len("<tr class=marked>..\n") + sum(map(_cell_bytes, row, table.columns))


def _cell_bytes(cell: Cell, column: Column) -> int:
    from markupsafe import escape

    size = len(escape(safe(cell.text)).encode("utf-8", "backslashreplace")) + len("<td>")
    size += len(f' class="{column.look} {cell.tone}"')
    size += len(f' data-v="{_figure(cell.value)}"') if cell.value is not None else 0
    size += len('<b class="badge "></b>') if column.kind == "badge" else 0
    size += len("<div></div>") if column.kind == "prose" else 0
    return size + (len(f'<a href="{escape(cell.href)}"></a>') if cell.href else 0)


def _figure(value: float | int | str) -> str:
    """What a cell is sorted by, in few characters."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _charts(page: Page) -> dict[str, Any]:
    """What the page's script needs to draw: specifications and rows that no table holds."""
    return {
        block.name: {
            "views": {safe(key): spec for key, spec in block.views.items()},
            "table": block.table,
            "rows": _shown(list(block.rows)),
        }
        for block in _blocks(page)
        if isinstance(block, Chart)
    }


def _shown(value: Any) -> Any:
    """Texts of rows made fit to be read."""
    if isinstance(value, str):
        text = safe(value)
        return text if len(text) <= _TIP else f"{text[:_TIP]}…"
    if isinstance(value, list):
        return [_shown(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _shown(item) for key, item in value.items()}
    return value


def _json(value: Any) -> str:
    """JSON that cannot end the element that holds it, nor begin another."""
    text = json.dumps(finite(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def _hash(script: str) -> str:
    """What a content security policy calls a script by; no other may run."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


@cache
def _asset(name: str) -> str:
    return (resources.files("modelkit.report.html") / "assets" / name).read_text(encoding="utf-8")


@cache
def _template() -> Template:
    from jinja2 import BaseLoader, Environment, StrictUndefined

    environment = Environment(
        loader=BaseLoader(), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["safe_text"] = safe
    environment.filters["figure"] = _figure
    return environment.from_string(_asset("page.html"))
