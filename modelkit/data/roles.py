"""Which samples serve for what: calibration, selection among candidates, and the final test."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from modelkit.data.dataset import Dataset
from modelkit.data.split import SPLIT_FROM, split

# Shares of calibration (or training), selection and test: with a test set of its own, without labels, else.
_SHARES = {"test given": (0.5, 0.5, 0.0), "unlabelled": (0.75, 0.25, 0.0), "labelled": (0.25, 0.25, 0.5)}
# Without labels nothing but agreement is compared: of so few samples calibration needs them all.
_SHARED_BELOW = 64
# Training wants as many samples as it can get.
_TRAINING_SHARES = {"test given": (0.9, 0.1, 0.0), "unlabelled": (0.9, 0.1, 0.0), "labelled": (0.7, 0.1, 0.2)}


@dataclass(frozen=True)
class Apart:
    """A part of a dataset that is set apart for testing before anything else is done with it.

    Several steps that each divide what is left among their uses then have the same test samples.

    Attributes:
        share: How much of it, above 0 and below 1.
        seed: Seed of the split.
    """

    share: float
    seed: int

    def divide(self, dataset: Dataset) -> tuple[Dataset, Dataset]:
        """Return what is left, and the part for testing; neither has a sample of the other."""
        parts = split(dataset, parts={"rest": 1 - self.share, "test": self.share}, seed=self.seed)
        return parts["rest"], parts["test"]


def test_share(dataset: Dataset, *, training: bool) -> float:
    """How much of a dataset that has to serve for everything is best kept for testing; 0 where it is too small.

    Args:
        dataset: The dataset.
        training: Whether a model is trained on the rest.
    """
    if dataset.count < SPLIT_FROM:
        return 0.0
    shares = (_TRAINING_SHARES if training else _SHARES)["labelled" if dataset.has_labels else "unlabelled"]
    # Without labels nothing can be tested but agreement, for which the samples that would select are enough.
    return shares[2] or shares[1]


@dataclass
class Roles:
    """Samples by their use. A sample that selects is never one that tests.

    Attributes:
        calibration: For ranges of activations, for repairs and for training; None without data.
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


def assign_roles(
    data: Dataset | None, test: Dataset | None, synthetic: Dataset, *, seed: int, training: bool = False
) -> Roles:
    """Divide what was given among the uses.

    With a test set of its own, data is halved into calibration and selection. Without one, labelled data gives a
    quarter, a quarter and a half for testing; unlabelled data three quarters and a quarter, as nothing can be
    tested (all for both below 64 samples). Splits are deterministic and keep the classes' shares.

    Args:
        data: What the user gave to work with.
        test: What the user set apart for the final figures.
        synthetic: Made-up inputs, for where there is no data.
        seed: Seed of the split.
        training: Whether a model is trained on the calibration part, which then gets most of the data.
    """
    if data is None:
        notes = ["without data, candidates were compared on made-up inputs; --data gives real ones"]
        return Roles(None, synthetic, test, notes)
    alone = test is None and not data.has_labels and not training
    if data.count < (_SHARED_BELOW if alone else SPLIT_FROM):
        return Roles(
            data,
            data,
            test,
            [f"{data.count} samples are too few to split: they calibrated and selected alike"],
        )
    kind = "test given" if test is not None else "labelled" if data.has_labels else "unlabelled"
    shares = (_TRAINING_SHARES if training else _SHARES)[kind]
    names = ("calibration", "selection", "test")
    parts = split(data, parts={name: share for name, share in zip(names, shares, strict=True) if share}, seed=seed)
    return Roles(parts["calibration"], parts["selection"], parts.get("test", test))
