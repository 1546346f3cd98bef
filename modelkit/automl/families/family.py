"""What a family of models is: a name, a space of hyper-parameters, first guesses, features, and how it is fitted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from modelkit.automl.export.graph import Graph
from modelkit.automl.space import Span
from modelkit.data.frame import Frame

Params = Mapping[str, Any]


class Encoder(Protocol):
    """Turns columns into features.

    Attributes:
        categorical: Features that are codes of categories.
    """

    categorical: tuple[int, ...]

    def fit(self, frame: Frame) -> Encoder:
        """Learn from a table."""

    def transform(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Columns as features, float64 [N, F]."""

    def export(self, graph: Graph, inputs: Mapping[str, str]) -> str:
        """The same as nodes."""


@dataclass(frozen=True)
class Fit:
    """What an estimator is fitted on.

    Attributes:
        x: Features [N, F].
        y: Numbers of classes, or standardised values [N].
        weight: Weights [N], or None.
        params: Hyper-parameters.
        classes: How many classes; 0 for regression.
        seed: Seed.
        categorical: Features that are codes.
        rounds: How many rounds to fit, where that was found before; None to find it.
    """

    x: np.ndarray
    y: np.ndarray
    weight: np.ndarray | None
    params: Params
    classes: int
    seed: int
    categorical: tuple[int, ...] = ()
    rounds: int | None = None


@dataclass(frozen=True)
class Family:
    """A family of models.

    Attributes:
        name: What it is called in configs and tables.
        about: What it is, in a few words.
        estimators: Class names of its estimators, classification first.
        space: Hyper-parameters to search in.
        first: The first guesses, the most promising one first.
        eager: How many of them are tried in the first round: more than one where they are quick.
        encoder: Makes the features for some hyper-parameters.
        fit: Fits; returns the estimator, and how many rounds it took (None where it has none).
        most_rows: Left out on tables with more rows than this.
        least_rows: Left out on tables with fewer.
        takes_weights: Whether rows can have weights.
        has_zeros: Whether it gives probabilities of exactly 0, so that they need smoothing.
        complexity: Rank of simplicity, the simplest is 0.
    """

    name: str
    about: str
    estimators: tuple[str, str]
    space: Mapping[str, Span]
    first: tuple[Params, ...]
    encoder: Callable[[Params], Encoder]
    fit: Callable[[Fit], tuple[Any, int | None]]
    eager: int = 1
    most_rows: int = 10_000_000
    least_rows: int = 0
    takes_weights: bool = True
    has_zeros: bool = False
    complexity: int = 0
