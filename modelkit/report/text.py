"""Text from models and files made fit for a terminal: nothing in it is markup, and no line is cut."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from modelkit.files import shown

# A name longer than this is an attack on the reader, not a name.
_LONGEST = 600


def safe(value: object) -> str:
    """Text on one line; control characters, which could steer a terminal, are spelled out."""
    text = str(value)
    if len(text) > _LONGEST:
        text = f"{text[:_LONGEST]}… ({len(text)} characters)"
    return shown(text)


def cell(value: object, style: str = "") -> Text:
    """Text for a table: as it is, so that ``[red]`` in a name is not taken for a colour; long words are folded."""
    return Text(safe(value), style=style, overflow="fold")


def new_table(*columns: str, numbers: Sequence[str] = (), whole: Sequence[str] = ()) -> Table:
    """An empty table in the style of all of them.

    Args:
        columns: Headers.
        numbers: Those of the columns that hold numbers: right-aligned, never broken.
        whole: Those of the others that are never broken.
    """
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    for name in columns:
        table.add_column(
            cell(name),
            justify="right" if name in numbers else "left",
            no_wrap=name in numbers or name in whole,
            overflow="fold",
        )
    return table


def add_row(table: Table, *cells: object, style: str | None = None) -> None:
    """Add a row of any values to a table."""
    table.add_row(*[cell(value) for value in cells], style=style)


def titled(title: str, body: RenderableType) -> RenderableType:
    """A table under its title, which may be wider than the table."""
    return Group(cell(title, style="bold"), Text(""), body)


def pairs(rows: Iterable[tuple[object, object]], *, indent: int = 0, style: str = "") -> Table:
    """Names and texts side by side; a long text is one paragraph with a hanging indent.

    Args:
        rows: Name and text.
        indent: Spaces before the names.
        style: Style of all of it.
    """
    grid = Table.grid(padding=(0, 2, 0, 0), pad_edge=False)
    grid.add_column(overflow="fold")
    grid.add_column(overflow="fold")
    for name, text in rows:
        grid.add_row(cell(f"{' ' * indent}{safe(name)}", style), cell(text, style))
    return grid


def notes(texts: Iterable[object]) -> RenderableType:
    """What a reader must know, each a paragraph with a hanging indent."""
    grid = Table.grid(padding=(0, 1, 0, 0), pad_edge=False)
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for text in texts:
        grid.add_row(Text("note:", "yellow"), cell(text, "yellow"))
    return grid


def stack(parts: Iterable[RenderableType]) -> RenderableType:
    """Parts below each other with an empty line between."""
    found: list[RenderableType] = []
    for part in parts:
        found += [Text(""), part] if found else [part]
    return Group(*found)
