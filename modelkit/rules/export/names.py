"""Names of columns as plain identifiers."""

from __future__ import annotations

import re
from collections.abc import Sequence


def variables(names: Sequence[str], taken: frozenset[str]) -> dict[str, str]:
    """An identifier of its own for each name, as near to it as may be: lower case letters, digits and underscores.

    Args:
        names: The names.
        taken: Identifiers that mean something else.
    """
    found: dict[str, str] = {}
    used = set(taken)
    for name in names:
        plain = re.sub(r"[^A-Za-z0-9_]+", "_", name).strip("_")[:60].lower() or "column"
        plain = f"column_{plain}" if plain[0].isdigit() or plain in taken else plain
        unique, number = plain, 2
        while unique in used:
            unique, number = f"{plain}_{number}", number + 1
        used.add(unique)
        found[name] = unique
    return found
