"""Which share of the weights is tried next: halved as long as that holds, then closer between the last two."""

from __future__ import annotations

import math
from collections.abc import Mapping

FIRST = 0.1
"""Share of the weights that is left at first: nine of ten can go from most networks that were trained for it."""

MOST_VALUES, FEWEST_VALUES = 16, 4
"""Values that are shared at first, and at last."""

_CLOSE = 1.2


def next_density(fits: Mapping[float, bool], trials: int) -> float | None:
    """Return the share of weights to leave next; None where there is nothing to be gained.

    Args:
        fits: What was tried, and whether it is inside the budget.
        trials: How many may be tried.
    """
    if not fits:
        return FIRST
    if len(fits) >= trials:
        return None
    good = min((density for density, ok in fits.items() if ok), default=None)
    bad = max((density for density, ok in fits.items() if not ok and (good is None or density < good)), default=None)
    if good is None:
        worst = max(fits)
        return None if worst >= 1 else min(1.0, 2 * worst if worst < 0.5 else 1.0)
    if bad is None:
        return _rounded(good / 2)
    return _rounded(math.sqrt(good * bad)) if good / bad > _CLOSE else None


def _rounded(density: float) -> float:
    """To three digits, so that names of candidates tell them apart."""
    return float(f"{density:.3g}")
