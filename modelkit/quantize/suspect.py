"""Calibration data that ranges should not rest on: single numbers far beyond all others, or always the same one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from modelkit.data.dataset import Dataset, Rows
from modelkit.decision import Decision
from modelkit.quantize.calibrate import BINS, Histogram

# How many times the magnitude that all but a thousandth stay below is an outlier.
_FAR, _SHARE = 1000.0, 0.999
# Numbers of an input that tell that magnitude.
_LOOKED_AT = 200_000


class Clipped(Dataset):
    """A data set whose floats are cut to a reach.

    Args:
        parent: The data.
        reach: Largest magnitude, by name of the input.
    """

    def __init__(self, parent: Dataset, reach: Mapping[str, float]) -> None:
        self.parent, self.reach = parent, dict(reach)
        self.name, self.path, self.format, self.count = parent.name, parent.path, parent.format, parent.count
        self.labels, self.synthetic, self.notes, self.plan = (
            parent.labels,
            parent.synthetic,
            parent.notes,
            parent.plan,
        )

    def rows(self, size: int, indices: np.ndarray | None = None) -> Iterator[Rows]:
        """Stream samples (see `Dataset.rows`)."""
        for rows in self.parent.rows(size, indices):
            cut = {
                name: np.clip(array, -self.reach[name], self.reach[name]) if name in self.reach else array
                for name, array in rows.batched.items()
            }
            yield replace(rows, batched=cut)

    def fingerprint(self) -> str:
        """Return the SHA-256 (hex) of the data as it is."""
        return self.parent.fingerprint()


def looks_far(histogram: Histogram) -> bool:
    """Whether nearly all of an input lies next to zero, seen from its largest magnitude: outliers, perhaps."""
    half, near = BINS // 2, max(1, round(BINS / 2 / _FAR))
    inner = int(histogram.counts[half - near : half + near].sum())
    total = int(histogram.counts.sum())
    return total > 0 and 0 < total - inner <= (1 - _SHARE) * total


def find_outliers(data: Dataset) -> tuple[dict[str, float], list[Decision]]:
    """Find floats of inputs that are a thousand times what all but a thousandth of the input stay below.

    Returns:
        The magnitude to cut each such input to, and a warning for each.
    """
    magnitudes: dict[str, list[np.ndarray]] = {}
    largest: dict[str, float] = {}
    taken = 0
    for batch in data.batches(64):
        for name in batch.inputs:
            values = batch.real(name)
            if values.dtype.kind != "f":
                continue
            size = np.abs(values[np.isfinite(values)]).reshape(-1)
            largest[name] = max(largest.get(name, 0.0), float(size.max(initial=0.0)))
            share = _LOOKED_AT * batch.valid // data.count + 1
            magnitudes.setdefault(name, []).append(size[:: max(1, size.size // share)])
        taken += batch.valid
    reach: dict[str, float] = {}
    for name, parts in magnitudes.items():
        sizes = np.concatenate(parts)
        sizes = sizes[sizes > 0]
        usual = float(np.quantile(sizes, _SHARE, method="lower")) if sizes.size else 0.0
        if usual > 0 and largest[name] > _FAR * usual:
            reach[name] = usual
    return reach, [_warning(name, largest[name], cut) for name, cut in reach.items()]


def _warning(name: str, largest: float, cut: float) -> Decision:
    reason = (
        f"the calibration data of input '{name}' reaches {largest:.3g} where nearly all of it stays below {cut:.3g}: "
        "it was clipped to that"
    )
    return Decision(name, "warned", reason, {"largest": largest, "clipped_to": cut})


def constant_warning(name: str, histogram: Histogram) -> Decision | None:
    """Warn of an input that was the same number in all samples; None for others."""
    if histogram.low != histogram.high:
        return None
    reason = f"input '{name}' is {histogram.low:.3g} throughout the calibration data: ranges hold for nothing else"
    return Decision(name, "warned", reason)
