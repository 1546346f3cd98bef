"""k nearest neighbours whose answer does not hang on rounding: equal distances are equal, the first row wins."""

from __future__ import annotations

import numpy as np

_CHUNK = 512
STEPS = 2.0**26
"""Squared distances are compared in steps of 1/STEPS, far above rounding and far below any real difference."""
NEAREST = 0.01
"""Added to squared distances before they become weights, so that equal rows have finite ones."""


class Neighbors:
    """k nearest neighbours by Euclidean distance.

    Args:
        neighbors: How many.
        by_distance: Whether a neighbour counts by the inverse of its squared distance; else all count alike.
        classes: How many classes; 0 for regression.
    """

    def __init__(self, neighbors: int, by_distance: bool, classes: int) -> None:
        self.neighbors, self.by_distance, self.classes = neighbors, by_distance, classes

    def fit(self, x: np.ndarray, y: np.ndarray) -> Neighbors:
        """Keep the rows [M, F], and what they vote for [M, K]."""
        self.rows = np.asarray(x, float)
        self.votes = np.eye(self.classes)[y] if self.classes else np.asarray(y, float)[:, None]
        self.neighbors = min(self.neighbors, len(self.rows))
        return self

    def predict_proba(self, x: np.ndarray) -> np.ndarray:
        """Mean vote of the neighbours, [N, K]."""
        return np.concatenate([self._mean(x[at : at + _CHUNK]) for at in range(0, max(len(x), 1), _CHUNK)])

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Mean value of the neighbours, [N]."""
        return self.predict_proba(x)[:, 0]

    def _mean(self, x: np.ndarray) -> np.ndarray:
        own = (x * x).sum(axis=1, keepdims=True)
        squared = np.maximum(own + x @ (-2 * self.rows.T) + (self.rows**2).sum(axis=1), 0.0)
        steps = np.rint(squared * STEPS)
        near = np.argsort(steps, axis=1, kind="stable")[:, : self.neighbors]
        votes = self.votes[near]
        if not self.by_distance:
            return np.asarray(votes.mean(axis=1))
        weight = 1 / (np.take_along_axis(steps, near, axis=1) / STEPS + NEAREST)
        return np.asarray((votes * (weight / weight.sum(axis=1, keepdims=True))[:, :, None]).sum(axis=1))
