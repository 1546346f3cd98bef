"""What a page is made of, whichever report it shows; the template knows how each part looks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

_FACET = 60  # characters of a value that is offered as a filter

Tone = Literal["", "good", "warn", "bad", "dim"]


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: What is read.
        value: What is sorted by and drawn, where that is not the text.
        tone: How it is coloured.
        href: Where it leads, a relative URL; "" for nowhere.
    """

    text: str
    value: float | int | str | None = None
    tone: Tone = ""
    href: str = ""


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        label: Its header.
        key: What charts and filters call it.
        kind: "number" is set right, "name" as code, "badge" as a coloured word, "prose" may be long.
        wide: Whether it is left out on a narrow screen.
    """

    label: str
    key: str
    kind: Literal["text", "number", "name", "badge", "prose"] = "text"
    wide: bool = False

    @property
    def look(self) -> str:
        """Classes of its cells; short ones, since there are thousands of them."""
        kind = {"number": "n", "name": "c", "prose": "p"}.get(self.kind, "")
        return f"{kind}{' w' if self.wide else ''}".strip()


@dataclass
class Table:
    """A table.

    Attributes:
        columns: Its columns.
        rows: For each row a cell for each column.
        name: Identifies it within the page.
        tools: Whether it can be sorted and filtered.
        facet: Key of the column whose values are offered as a filter; "" for none.
        what: What its rows are called: "layers".
        weights: What decides which rows stay where there are too many: the key of a number column, most first.
        left_out: How many rows did not fit the page.
        marked: Numbers of rows that stand out.
    """

    kind: ClassVar[str] = "table"
    columns: Sequence[Column]
    rows: list[list[Cell]]
    name: str = ""
    tools: bool = False
    facet: str = ""
    what: str = "rows"
    weights: str = ""
    left_out: int = 0
    marked: frozenset[int] = frozenset()

    @property
    def facets(self) -> list[str]:
        """The values of the facet's column that are short, most frequent first."""
        index = next((i for i, column in enumerate(self.columns) if column.key == self.facet), None)
        if index is None:
            return []
        counts: dict[str, int] = {}
        for row in self.rows:
            if len(row[index].text) <= _FACET:
                counts[row[index].text] = counts.get(row[index].text, 0) + 1
        return sorted(counts, key=lambda text: (-counts[text], text))


@dataclass
class Chart:
    """A chart of a table's rows, or of its own.

    Attributes:
        name: Identifies it within the page.
        views: For each choice that the reader has, its label and its Vega-Lite specification.
        table: Name of the table whose rows it draws; "" where it has its own.
        rows: Further rows, or all of them.
        label: What it shows, for those who cannot see it.
        caption: How to read it.
        legend: Colours (names of classes) and what they stand for.
        half: Whether it may stand beside another.
    """

    kind: ClassVar[str] = "chart"
    name: str
    views: Mapping[str, Mapping[str, Any]]
    table: str = ""
    rows: Sequence[Mapping[str, Any]] = ()
    label: str = ""
    caption: str = ""
    legend: Sequence[tuple[str, str]] = ()
    half: bool = False


@dataclass
class Facts:
    """Names and values, one under the other.

    Attributes:
        rows: Name, value, and whether the value is code.
    """

    kind: ClassVar[str] = "facts"
    rows: list[tuple[str, str, bool]]


@dataclass
class Notes:
    """What a reader must know."""

    kind: ClassVar[str] = "notes"
    texts: Sequence[str]


@dataclass
class Share:
    """A whole in parts: a bar with a legend.

    Attributes:
        parts: Name, count and the class of its colour.
    """

    kind: ClassVar[str] = "share"
    parts: Sequence[tuple[str, int, str]]


Block = Table | Chart | Facts | Notes | Share


@dataclass
class Tile:
    """A headline figure.

    Attributes:
        label: What it is.
        value: The figure.
        unit: What stands behind it, smaller.
        detail: A line below.
        tone: Whether it is good news.
        bar: What is left of the original, from 0 to 1 and more; None for no bar.
        aside: A second line below.
    """

    label: str
    value: str
    unit: str = ""
    detail: str = ""
    tone: Tone = ""
    bar: float | None = None
    aside: str = ""


@dataclass
class Section:
    """A part of a page with a title.

    Attributes:
        name: Its anchor.
        title: Its title.
        blocks: What is in it.
        lead: A sentence below the title.
        folded: Whether it is closed at first.
        count: A number beside the title.
    """

    name: str
    title: str
    blocks: list[Block]
    lead: str = ""
    folded: bool = False
    count: str = ""


@dataclass
class Page:
    """A whole page.

    Attributes:
        command: The command that made the report.
        title: The model.
        subtitle: What became of it.
        verdict: What was gained and lost, in a sentence.
        tiles: The headline figures.
        sections: The rest.
        status: A word beside the command.
        tone: The word's colour.
        alert: What is wrong with the whole; "" where nothing is.
        notes: What a reader of the figures must know.
        version: Version of modelkit.
    """

    command: str
    title: str
    subtitle: str
    verdict: str
    tiles: list[Tile]
    sections: list[Section]
    status: str = ""
    tone: Tone = ""
    alert: str = ""
    notes: Sequence[str] = field(default_factory=list)
    version: str = ""
