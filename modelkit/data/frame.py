"""A typed table in memory: named columns of numbers, categories, booleans or dates, values missing or not.

Every value is one of two things. A *category* or *text* is a string, and missing is the empty string. Everything
else is a double, and missing is NaN:

========  ===============================================
number    as it is
boolean   0.0 or 1.0
date      whole days since 1970-01-01
datetime  seconds since 1970-01-01T00:00:00 UTC
========  ===============================================
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np


class Kind(StrEnum):
    """What a column holds."""

    number = "number"
    category = "category"
    boolean = "boolean"
    date = "date"
    datetime = "datetime"
    text = "text"

    @property
    def is_string(self) -> bool:
        """Whether values are strings; otherwise they are doubles."""
        return self in (Kind.category, Kind.text)


@dataclass(frozen=True)
class Field:
    """A column.

    Attributes:
        name: Its name.
        kind: What it holds.
        values: Its values [N], objects (strings) or float64.
        whole: Of numbers, whether all are whole.
    """

    name: str
    kind: Kind
    values: np.ndarray
    whole: bool = False

    @property
    def missing(self) -> np.ndarray:
        """Where it has no value, [N]."""
        return np.asarray(self.values == "", bool) if self.kind.is_string else np.isnan(self.values)

    def distinct(self) -> np.ndarray:
        """Its different values without missing ones, sorted."""
        return np.unique(self.values[~self.missing].astype(str if self.kind.is_string else float))


@dataclass(frozen=True)
class Frame:
    """A table.

    Attributes:
        name: What to call it in messages.
        fields: Its columns by name, in their order.
        rows: How many rows.
        notes: What a reader should know about how it was read.
    """

    name: str
    fields: Mapping[str, Field]
    rows: int
    notes: tuple[str, ...] = ()

    def take(self, rows: np.ndarray) -> Frame:
        """Some rows, by number or by a mask."""
        fields = {name: replace(field, values=field.values[rows]) for name, field in self.fields.items()}
        count = int(rows.sum()) if rows.dtype == bool else len(rows)
        return replace(self, fields=fields, rows=count)

    def only(self, names: Iterable[str]) -> Frame:
        """Some columns, in the order given."""
        return replace(self, fields={name: self.fields[name] for name in names})

    def columns(self) -> dict[str, np.ndarray]:
        """The values by column."""
        return {name: field.values for name, field in self.fields.items()}
