"""The final model: a weighted mean of members, sharpened or softened, and the choice of a class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from modelkit.automl.export.graph import Graph
from modelkit.automl.member import Member

_SMALLEST = 1e-15
_STEPS = 1e9  # scores are compared in steps of this part of 1, so that equal ones stay equal in any arithmetic


@dataclass(frozen=True)
class Blend:
    """What is written as one file.

    Attributes:
        members: The fitted models.
        weights: Their weights, which sum to 1.
        temperature: Probabilities are raised to 1 / temperature: above 1 is softer (Guo et al., 2017).
        favour: Factor on each class's probability [K] where a class is chosen; None for all alike.
    """

    members: tuple[Member, ...]
    weights: tuple[float, ...]
    temperature: float = 1.0
    favour: tuple[float, ...] | None = None

    def predict(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Probabilities [N, K], or predictions [N, 1]."""
        total = sum(w * m.predict(columns) for w, m in zip(self.weights, self.members, strict=True))
        assert isinstance(total, np.ndarray)
        return soften(total, self.temperature)

    def export(self, graph: Graph, inputs: Mapping[str, str]) -> str:
        """The nodes of ``predict``."""
        total = ""
        for weight, member in zip(self.weights, self.members, strict=True):
            made = member.export(graph, inputs)
            made = made if weight == 1 else graph.node("Mul", made, graph.constant(weight))
            total = graph.node("Add", total, made) if total else made
        if self.temperature == 1:
            return total
        logs = graph.node("Log", graph.node("Max", total, graph.constant(_SMALLEST)))
        return graph.node("Softmax", graph.node("Mul", logs, graph.constant(1 / self.temperature)), axis=1)

    def choose(self, probabilities: np.ndarray) -> np.ndarray:
        """Numbers of the chosen classes [N]."""
        return choose(probabilities, self.favour)

    def export_choice(self, graph: Graph, probabilities: str) -> str:
        """The nodes of ``choose``."""
        factor = _STEPS if self.favour is None else _STEPS * np.asarray(self.favour)
        steps = graph.node("Round", graph.node("Mul", probabilities, graph.constant(factor)))
        return graph.node("ArgMax", steps, axis=1, keepdims=0)


def soften(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities [N, K] raised to 1 / temperature and normalised."""
    if temperature == 1:
        return probabilities
    logs = np.log(np.maximum(probabilities, _SMALLEST)) * (1 / temperature)
    powers = np.exp(logs - logs.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def choose(probabilities: np.ndarray, favour: tuple[float, ...] | None) -> np.ndarray:
    """Numbers of the classes with the highest score; of equal ones the first."""
    factor = _STEPS if favour is None else _STEPS * np.asarray(favour)
    return np.asarray(np.rint(probabilities * factor).argmax(axis=1))
