"""Which samples serve for what: calibration, selection among candidates, and the final test."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from modelkit.data.dataset import Dataset
from modelkit.data.split import split

# Fewer samples than this are not split: each part would be too small to say anything.
_SPLIT_FROM = 16


@dataclass
class Roles:
    """Samples by their use. A sample that selects is never one that tests.

    Attributes:
        calibration: For ranges of activations and for repairs; None without data.
        selection: Compares the candidates; made up where there is no data.
        test: Judges only the chosen one; None where there is nothing left to test on.
        notes: What a reader of the figures must know.
    """

    calibration: Dataset | None
    selection: Dataset
    test: Dataset | None
    notes: list[str] = field(default_factory=list)

    def describe(self) -> dict[str, Any]:
        """Return what was used, for the report."""
        found: dict[str, Any] = {}
        for role in ("calibration", "selection", "test"):
            dataset = getattr(self, role)
            if dataset is not None:
                found[role] = dataset.describe()
        return found


def assign_roles(data: Dataset | None, test: Dataset | None, synthetic: Dataset, *, seed: int) -> Roles:
    """Divide what was given among the uses.

    With a test set of its own, data is halved into calibration and selection. Without one, labelled data gives a
    quarter, a quarter and a half for testing; unlabelled data three quarters and a quarter, as nothing can be
    tested. Splits are deterministic and keep the classes' shares.

    Args:
        data: What the user gave to work with.
        test: What the user set apart for the final figures.
        synthetic: Made-up inputs, for where there is no data.
        seed: Seed of the split.
    """
    if data is None:
        notes = ["without data, candidates were compared on made-up inputs; --data gives real ones"]
        return Roles(None, synthetic, test, notes)
    if data.count < _SPLIT_FROM:
        return Roles(
            data,
            data,
            test,
            [f"{data.count} samples are too few to split: they calibrated and selected alike"],
        )
    if test is not None:
        parts = split(data, parts={"calibration": 0.5, "selection": 0.5}, seed=seed)
        return Roles(parts["calibration"], parts["selection"], test)
    if not data.has_labels:
        parts = split(data, parts={"calibration": 0.75, "selection": 0.25}, seed=seed)
        return Roles(parts["calibration"], parts["selection"], None)
    parts = split(data, parts={"calibration": 0.25, "selection": 0.25, "test": 0.5}, seed=seed)
    return Roles(parts["calibration"], parts["selection"], parts["test"])
