"""Sparse additive rules: each adds a weight to the score of one class, or to the predicted number.

Boxes are added one at a time, the one that lowers the loss most (second-order gain, as in gradient boosting;
Friedman 2001, Chen & Guestrin 2016), and after each step all weights are fitted again (fully corrective boosting;
Shalev-Shwartz et al. 2010, and for rules Boley et al. 2021). Then every rule in turn is taken out and the best box
given all others put in its place, until that changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from modelkit.rules.learn import compose
from modelkit.rules.learn.atoms import Atoms
from modelkit.rules.learn.beam import Beam, Box, best_boxes
from modelkit.rules.learn.problem import Problem
from modelkit.rules.model import RuleSet

_NEWTON = 12
_PASSES = 2


@dataclass(frozen=True)
class Ensemble:
    """Weighted boxes.

    Attributes:
        boxes: Comparisons of each rule.
        classes: The score that each adds to; 0 for numbers.
        weights: float64 [R].
        base: float64 [K].
        loss: Penalised loss over the rows, the price of the comparisons included.
    """

    boxes: tuple[tuple[int, ...], ...]
    classes: tuple[int, ...]
    weights: np.ndarray
    base: np.ndarray
    loss: float

    def without(self, index: int) -> Ensemble:
        """The same less one rule; weights are as they were."""
        keep = [i for i in range(len(self.boxes)) if i != index]
        return replace(
            self,
            boxes=tuple(self.boxes[i] for i in keep),
            classes=tuple(self.classes[i] for i in keep),
            weights=self.weights[keep],
        )

    def plus(self, box: tuple[int, ...], class_: int) -> Ensemble:
        """The same with one rule more, of weight 0."""
        return replace(
            self,
            boxes=(*self.boxes, box),
            classes=(*self.classes, class_),
            weights=np.append(self.weights, 0.0),
        )


@dataclass(frozen=True)
class AdditiveSettings:
    """How additive rules are fitted.

    Attributes:
        ridge: Penalty of squared weights.
        beam: How boxes are searched; its price is in units of the loss.
    """

    ridge: float = 1.0
    beam: Beam = field(default_factory=lambda: Beam(price=0.5))


class AdditiveFit:
    """Fits additive rules to a problem.

    Args:
        problem: The rows; numbers should be of variance near 1, since ridge and price are absolute.
        atoms: The comparisons.
        settings: How.
    """

    def __init__(self, problem: Problem, atoms: Atoms, settings: AdditiveSettings) -> None:
        self._problem, self._atoms, self._settings = problem, atoms, settings
        self._target = problem.target
        self._binary = len(problem.classes) == 2

    def start(self) -> Ensemble:
        """No rule yet."""
        return self.refit(Ensemble((), (), np.zeros(0), np.zeros(self._target.shape[1]), np.inf))

    def grow(self, ensemble: Ensemble) -> Ensemble | None:
        """Add the box that lowers the loss most; None where none lowers it."""
        best: Ensemble | None = None
        for box in self._search(ensemble)[:3]:
            trial = self.refit(ensemble.plus(box.atoms, self._class_of(ensemble, box)))
            if trial.loss < ensemble.loss - 1e-9 and (best is None or trial.loss < best.loss):
                best = trial
        return best

    def improve(self, ensemble: Ensemble, passes: int = _PASSES) -> Ensemble:
        """Exchange each rule in turn for a better one."""
        for _ in range(passes):
            before = ensemble.loss
            # New rules come last; the oldest was chosen with the least knowledge of the others.
            for _ in range(len(ensemble.boxes)):
                rest = self.refit(ensemble.without(0))
                again = self.grow(rest)
                old = self.refit(rest.plus(ensemble.boxes[0], ensemble.classes[0]))
                ensemble = again if again is not None and again.loss < old.loss - 1e-6 else old
            if ensemble.loss > before - 1e-4 * abs(before):
                break
        return ensemble

    def refit(self, ensemble: Ensemble) -> Ensemble:
        """All weights at their optimum."""
        columns, classes = self._design(ensemble)
        ridge = np.full(len(classes), float(self._settings.ridge))
        ridge[len(ensemble.boxes) :] = 1e-3
        start = np.concatenate([ensemble.weights, ensemble.base])
        solve = _least_squares if self._problem.is_numeric else _newton
        found, loss = solve(columns, classes, self._target, ridge, start)
        price = self._settings.beam.price * sum(map(len, ensemble.boxes))
        count = len(ensemble.boxes)
        return replace(ensemble, weights=found[:count], base=found[count:], loss=loss + price)

    def rules(self, ensemble: Ensemble, name: str = "rules") -> RuleSet:
        """The ensemble as a rule set."""
        boxes = [tuple(self._atoms.literals[i] for i in box) for box in ensemble.boxes]
        if self._problem.is_numeric:
            return compose.additive(self._problem, boxes, ensemble.weights, float(ensemble.base[0]), name)
        return compose.votes(self._problem, boxes, ensemble.classes, ensemble.weights, ensemble.base, name)

    def _design(self, ensemble: Ensemble) -> tuple[np.ndarray, np.ndarray]:
        """A column for each weight and for the base of each class, and the score each adds to."""
        rows, width = self._target.shape
        fired = [self._atoms.box(box) for box in ensemble.boxes]
        columns = np.column_stack([*fired, np.ones((rows, width))]).astype(np.float64)
        return columns, np.array([*ensemble.classes, *range(width)])

    def _scores(self, ensemble: Ensemble) -> np.ndarray:
        columns, classes = self._design(ensemble)
        return scores(columns, classes, np.concatenate([ensemble.weights, ensemble.base]), self._target.shape[1])

    def _statistics(self, ensemble: Ensemble) -> tuple[np.ndarray, np.ndarray]:
        """Negative gradient and curvature of the loss in each score: float64 [N, K] each."""
        now = self._scores(ensemble)
        if self._problem.is_numeric:
            return self._target - now, np.ones_like(now)
        share = softmax(now)
        slope, curve = self._target - share, share * (1 - share)
        # The scores of two classes mirror each other: a step in one is all that is needed.
        return (slope[:, 1:], curve[:, 1:]) if self._binary else (slope, curve)

    def _search(self, ensemble: Ensemble) -> list[Box]:
        slope, curve = self._statistics(ensemble)
        width, ridge = slope.shape[1], self._settings.ridge

        def score(sums: np.ndarray, _: np.ndarray) -> np.ndarray:
            found: np.ndarray = (0.5 * sums[:, :width] ** 2 / (np.maximum(sums[:, width:], 0) + ridge)).max(axis=1)
            return found

        found = best_boxes(self._atoms, np.hstack([slope, curve]), score, self._settings.beam)
        return [box for box in found if box.atoms not in ensemble.boxes or width > 1]

    def _class_of(self, ensemble: Ensemble, box: Box) -> int:
        """The score in which a box lowers the loss most."""
        slope, curve = self._statistics(ensemble)
        inside = self._atoms.box(box.atoms)
        gain = slope[inside].sum(axis=0) ** 2 / (curve[inside].sum(axis=0) + self._settings.ridge)
        return int(gain.argmax()) + (1 if self._binary else 0)


def scores(columns: np.ndarray, classes: np.ndarray, values: np.ndarray, width: int) -> np.ndarray:
    """Sum of the weighted columns of each class: float64 [N, K]."""
    spread = np.zeros((len(values), width))
    spread[np.arange(len(values)), classes] = values
    found: np.ndarray = columns @ spread
    return found


def softmax(values: np.ndarray) -> np.ndarray:
    """Probabilities of scores [N, K]."""
    shifted = np.exp(values - values.max(axis=1, keepdims=True))
    found: np.ndarray = shifted / shifted.sum(axis=1, keepdims=True)
    return found


def _least_squares(
    columns: np.ndarray, classes: np.ndarray, target: np.ndarray, ridge: np.ndarray, start: np.ndarray
) -> tuple[np.ndarray, float]:
    gram = columns.T @ columns + np.diag(ridge)
    found = np.linalg.solve(gram, columns.T @ target[:, 0])
    rest = target[:, 0] - columns @ found
    return found, float(0.5 * rest @ rest + 0.5 * ridge @ found**2)


def _newton(
    columns: np.ndarray, classes: np.ndarray, target: np.ndarray, ridge: np.ndarray, start: np.ndarray
) -> tuple[np.ndarray, float]:
    """Softmax regression with a ridge, by Newton steps that are halved until the loss falls."""
    width = target.shape[1]

    def loss(values: np.ndarray) -> tuple[float, np.ndarray]:
        now = scores(columns, classes, values, width)
        top = now.max(axis=1)
        total = np.log(np.exp(now - top[:, None]).sum(axis=1)) + top - (target * now).sum(axis=1)
        return float(total.sum() + 0.5 * ridge @ values**2), now

    same = classes[:, None] == classes[None, :]
    values = start.copy()
    best, now = loss(values)
    for _ in range(_NEWTON):
        share = softmax(now)
        slope = (columns * (target - share)[:, classes]).sum(axis=0) - ridge * values
        spread = columns * share[:, classes]
        curve = np.where(same, columns.T @ spread, 0.0) - spread.T @ spread + np.diag(ridge)
        step = np.linalg.solve(curve, slope)
        factor = 1.0
        for _ in range(10):
            trial, scored = loss(values + factor * step)
            if trial < best:
                break
            factor /= 2
        else:
            break
        gained = best - trial
        values, best, now = values + factor * step, trial, scored
        if gained < 1e-7 * (1 + abs(best)):
            break
    return values, best


def additive_path(
    problem: Problem,
    atoms: Atoms,
    sizes: Sequence[int],
    settings: AdditiveSettings,
    report: Callable[[int], None] = lambda _: None,
) -> dict[int, RuleSet]:
    """Additive rule sets of several sizes.

    Args:
        problem: The rows.
        atoms: The comparisons.
        sizes: Numbers of rules, ascending.
        settings: How.
        report: Told each size that is done.

    Returns:
        A rule set for each size that could be reached.
    """
    fit = AdditiveFit(problem, atoms, settings)
    ensemble = fit.start()
    found: dict[int, RuleSet] = {}
    for size in sizes:
        while len(ensemble.boxes) < size:
            grown = fit.grow(ensemble)
            if grown is None:
                return found
            ensemble = grown
        ensemble = fit.improve(ensemble)
        found[size] = fit.rules(ensemble)
        report(size)
    return found
