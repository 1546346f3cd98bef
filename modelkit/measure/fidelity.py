"""Fidelity: how far a candidate's outputs are from the original's, batch by batch in constant memory."""

from __future__ import annotations

import math

import numpy as np

from modelkit.errors import DataError, ModelError
from modelkit.measure import scores

_SMALLEST = float(np.finfo(np.float32).eps)


class FidelityMeter:
    """Adds up the differences between two models' outputs; no labels needed.

    Args:
        names: Names of the outputs, in the order in which they are given to `update`.
        classes: Whether the first output is class scores. None takes float outputs with an axis of 2 or
            more classes for such; False for regression, where an argmax means nothing.
        axis: Axis of the classes in the first output, where labels told it; None to go by the shape.
    """

    def __init__(self, names: list[str], *, classes: bool | None = None, axis: int | None = None) -> None:
        self.names = names
        self.rows = 0
        self._outputs = [_Output(classes, axis), *(_Output(None, None) for _ in names[1:])]

    def update(
        self,
        reference: list[np.ndarray],
        candidate: list[np.ndarray],
        valid: int,
        rows: int | None = None,
    ) -> None:
        """Add a batch.

        Args:
            reference: The original's outputs, in the order of the names.
            candidate: The candidate's, same order and shapes.
            valid: Rows from the start that count; the rest is padding.
            rows: Rows in the batch with padding; by default, those of the first output. Outputs with another
                first dimension have no padding to cut and count whole.

        Raises:
            ModelError: The candidate's outputs have other shapes.
        """
        if rows is None:
            rows = reference[0].shape[0] if reference[0].ndim else valid
        self.rows += valid
        for name, output, old, new in zip(self.names, self._outputs, reference, candidate, strict=True):
            if old.shape != new.shape:
                raise ModelError(
                    f"the output '{name}' has the shape {list(new.shape)}; the original's is {list(old.shape)}"
                )
            if old.ndim and old.shape[0] == rows:
                old, new = old[:valid], new[:valid]
            output.add(old, new)

    def result(self) -> dict[str, float | None]:
        """Figures so far, the worst over all outputs.

        Returns:
            ``top1_agreement``: share of predictions of the first output that agree (argmax of class scores,
            side of the threshold of single scores, equality of ids); not for regression. ``sqnr_db``:
            10·log10(sum ref² / sum err²), lowest of all outputs; None where nothing differs. ``exact``:
            whether nothing differs. ``max_error`` and ``mean_error``: absolute, highest of all outputs.
            ``kl``: mean Kullback-Leibler divergence in nats of the first output's classes, original against
            candidate; not for regression. ``non_finite``: numbers that are NaN or infinite where the
            original's are finite; a candidate with any must be rejected. They are left out of the other
            figures, but their rows do not agree. ``finite_share``: share of the original's numbers that are
            finite and could be compared; where it is 0, nothing is known and ``exact`` is False.

        Raises:
            DataError: Nothing was added.
        """
        if self.rows == 0:
            raise DataError("no rows to compare outputs on")
        parts = [output.result() for output in self._outputs]
        found: dict[str, float | None] = {}
        if "top1_agreement" in parts[0]:
            found["top1_agreement"] = parts[0]["top1_agreement"]
        found["sqnr_db"] = min(_given(parts, "sqnr_db"), default=None)
        found["exact"] = min(_given(parts, "exact")) == 1
        for key in ("max_error", "mean_error"):
            found[key] = max(_given(parts, key), default=0.0)
        if "kl" in parts[0]:
            found["kl"] = parts[0]["kl"]
        found["non_finite"] = sum(_given(parts, "non_finite"))
        found["finite_share"] = min(_given(parts, "finite_share"), default=1.0)
        return found

    def per_output(self) -> dict[str, dict[str, float | None]]:
        """The figures of `result` for each output by itself, by name."""
        return {name: output.result() for name, output in zip(self.names, self._outputs, strict=True)}


def _given(parts: list[dict[str, float | None]], key: str) -> list[float]:
    return [value for part in parts if (value := part.get(key)) is not None]


class _Output:
    """Sums over one output."""

    def __init__(self, classes: bool | None, axis: int | None) -> None:
        self._classes = classes
        self._axis = axis
        self._numbers = self._finite = self._total = 0
        self._signal = self._noise = self._absolute = self._largest = 0.0
        self._differs = False
        self._non_finite = 0
        self._numeric = True
        self._predictions = self._agreed = 0
        self._single = _SingleScores()
        self._divergence = _Divergence()

    def add(self, old: np.ndarray, new: np.ndarray) -> None:
        if not scores.is_float(old):
            self._add_ids(old, new)
            return
        a, b = old.astype(np.float64), new.astype(np.float64)
        finite = np.isfinite(a)
        both = finite & np.isfinite(b)
        self._total += a.size
        self._finite += int(finite.sum())
        self._non_finite += int(finite.sum() - both.sum())
        self._differs = self._differs or not np.array_equal(a, b, equal_nan=True)
        self._numbers += int(both.sum())
        signal = np.where(both, a, 0.0)
        error = np.abs(np.where(both, b, 0.0) - signal)
        self._signal += float(np.vdot(signal, signal))
        self._noise += float(np.vdot(error, error))
        self._absolute += float(error.sum())
        self._largest = max(self._largest, float(error.max(initial=0.0)))
        if self._classes is not False:
            self._add_predictions(a, b)

    def _add_ids(self, old: np.ndarray, new: np.ndarray) -> None:
        """Add an output of integers, booleans or strings, such as class ids."""
        same = int((old == new).sum())
        self._predictions += old.size
        self._agreed += same
        self._differs = self._differs or same < old.size
        self._numeric = False

    def _add_predictions(self, a: np.ndarray, b: np.ndarray) -> None:
        axis = self._axis if self._axis is not None else scores.class_axis(a.shape)
        if axis is None:
            if a.ndim >= 1 and a.size == a.shape[0]:
                self._single.add(a.reshape(-1), b.reshape(-1))
            return
        old, new = scores.as_rows(a, axis), scores.as_rows(b, axis)
        known = ~scores.unusable(old)
        old, new = old[known], new[known]
        usable = ~scores.unusable(new)
        self._predictions += len(old)
        old, new = old[usable], new[usable]
        self._agreed += int((old.argmax(axis=1) == new.argmax(axis=1)).sum())
        self._divergence.add(old, new)

    def result(self) -> dict[str, float | None]:
        found: dict[str, float | None] = {}
        if self._predictions:
            found["top1_agreement"] = self._agreed / self._predictions
        elif self._classes is True and self._single.count:
            found["top1_agreement"] = self._single.agreement()
        if self._numeric:
            found["sqnr_db"] = self._sqnr()
        found["exact"] = not self._differs and (self._finite > 0 or self._total == 0)
        if self._numeric:
            found["max_error"] = self._largest
            found["mean_error"] = self._absolute / self._numbers if self._numbers else 0.0
        if self._divergence.count:
            found["kl"] = self._divergence.mean()
        found["non_finite"] = self._non_finite
        if self._total:
            found["finite_share"] = self._finite / self._total
        return found

    def _sqnr(self) -> float | None:
        if self._noise == 0.0:
            return None
        # An original that is all zeros has no signal; -999 dB keeps it comparable and finite.
        return 10 * math.log10(self._signal / self._noise) if self._signal > 0 else -999.0


class _SingleScores:
    """Agreement of single scores: above 0.5 for probabilities, above 0 for logits, as all batches tell."""

    def __init__(self) -> None:
        self.count = self._at_half = self._at_zero = 0
        self._probabilities = True

    def add(self, old: np.ndarray, new: np.ndarray) -> None:
        self.count += old.size
        ok = ~np.isnan(new)
        self._probabilities = self._probabilities and bool(((old >= 0) & (old <= 1)).all())
        self._at_half += int((((old > 0.5) == (new > 0.5)) & ok).sum())
        self._at_zero += int((((old > 0) == (new > 0)) & ok).sum())

    def agreement(self) -> float:
        return (self._at_half if self._probabilities else self._at_zero) / self.count


class _Divergence:
    """Mean KL divergence over rows, of probabilities as they are or of scores after a softmax."""

    def __init__(self) -> None:
        self.count = 0
        self._probabilities = True
        self._of_probabilities = self._of_scores = 0.0

    def add(self, old: np.ndarray, new: np.ndarray) -> None:
        self.count += len(old)
        self._probabilities = self._probabilities and scores.are_probabilities(old)
        if self._probabilities:
            a, b = np.maximum(old, 0.0), np.maximum(new, _SMALLEST)
            self._of_probabilities += float((a * np.log(np.maximum(a, _SMALLEST) / b)).sum())
        a, b = scores.log_softmax(old), scores.log_softmax(new)
        # A class that both mask with -inf adds nothing; one that only the candidate masks is capped.
        gap = np.where(np.isneginf(a), 0.0, a - np.maximum(b, -1e3))
        self._of_scores += float((np.exp(a) * gap).sum())

    def mean(self) -> float:
        total = self._of_probabilities if self._probabilities else self._of_scores
        return max(total / self.count, 0.0)
