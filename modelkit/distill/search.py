"""The smallest student inside a budget: sizes that cost too much are ruled out untrained, then others learn.

What a student costs is known before it learns: the largest that is small and fast enough is found by bisection. Where
a loss of quality is allowed too, students between that one and none are trained, each halfway (by ratio) between the
smallest that was good enough and the largest that was not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import onnx_ir as ir

from modelkit.algorithm.candidate import Trial
from modelkit.data.dataset import Dataset
from modelkit.distill.config import DistillConfig
from modelkit.distill.student import Source
from modelkit.errors import BudgetError, ModelError
from modelkit.graph.run import session_of
from modelkit.graph.save import saved_bytes
from modelkit.measure.latency import compare
from modelkit.report.units import milliseconds, size
from modelkit.runtime import ready_run

TRIALS = 6
"""Students that are trained at most."""

_SMALLEST = 0.05  # students below this share are not looked for
_HALVINGS = 6  # of what is ruled out untrained
_CLOSE = 1.15  # ratios nearer than this are not told apart
_SHORTER = 0.9  # what a student gets less that was too slow after all
_MARGIN = 1.03  # timings of the search are shorter than the one that counts
_SECONDS = 0.3


@dataclass
class Search:
    """Says which size of student to try next.

    Attributes:
        source: Where students come from.
        config: The resolved options; their budget says what is looked for.
        teacher: The normalised teacher.
        data: Inputs, for timing.
    """

    source: Source
    config: DistillConfig
    teacher: ir.Model
    data: Dataset

    def first(self) -> float:
        """The first ratio to try.

        Raises:
            BudgetError: No student is small or fast enough.
        """
        if self.config.budget.max_drop is None:
            return self._largest if self._largest < 1 else 0.5
        return _between(_SMALLEST, self._largest)

    def next(self, tried: Sequence[tuple[float, Trial]]) -> float | None:
        """The ratio to try next, given what came of others; None where none promises more."""
        if len(tried) >= TRIALS:
            return None
        costly = [ratio for ratio, trial in tried if trial.missed in ("size", "latency")]
        largest = min([self._largest, *(_SHORTER * ratio for ratio in costly)])
        if self.config.budget.max_drop is None:
            return largest if len(costly) == len(tried) else None
        low = max((ratio for ratio, trial in tried if _too_small(trial)), default=_SMALLEST)
        good = [ratio for ratio, trial in tried if trial.status in ("tried", "chosen")]
        high = min(good, default=largest)
        if high / low > _CLOSE:
            return _between(low, high)
        # Nothing was good enough so far, and the largest that is allowed has not been tried.
        return largest if not good and largest > low and largest < 1 else None

    @cached_property
    def _largest(self) -> float:
        """The largest ratio that is small and fast enough; 1 where the teacher itself is."""
        if self._excess(self.teacher) is None:
            return 1.0
        low, high, said = 0.0, 1.0, ""
        for _ in range(_HALVINGS):
            ratio = round((low + high) / 2, 3)
            try:
                excess = self._excess(self.source.make(ratio).model)
            except ModelError:  # that small it cannot be
                break
            if excess is None:
                low = ratio
            else:
                high, said = ratio, f"{self.source.name(ratio)}: {excess}"
        if not low:
            raise BudgetError(
                f"no student that can be derived is inside the budget; the smallest that was tried, {said}",
                "loosen the budget, lower structure.keep_at_least or structure.multiple_of, or give a --student",
            )
        return low

    def _excess(self, model: ir.Model) -> str | None:
        """Why a model is too large or too slow, or None."""
        budget = self.config.budget
        limits = [] if budget.max_size is None else [budget.max_size]
        limits += [] if budget.min_ratio is None else [saved_bytes(self.teacher) / budget.min_ratio]
        if limits and (found := saved_bytes(model)) > min(limits):
            return f"takes {size(found)}, {size(min(limits))} allowed"
        if budget.max_latency is None and budget.min_speedup is None:
            return None
        teacher, own = self._times(model)
        times = [] if budget.max_latency is None else [budget.max_latency]
        times += [] if budget.min_speedup is None else [teacher / budget.min_speedup]
        if own * _MARGIN > min(times):
            return f"takes {milliseconds(own)}, {milliseconds(min(times))} allowed"
        return None

    def _times(self, model: ir.Model) -> tuple[float, float]:
        """Median latency of the teacher and of a student, in milliseconds."""
        measure = self.config.measure
        inputs = next(iter(self.data.batches(measure.batch))).inputs
        sessions = {
            name: session_of(each, threads=measure.threads, providers=[measure.provider])
            for name, each in (("teacher", self.teacher), ("student", model))
        }
        runs = {name: ready_run(session, inputs, name) for name, session in sessions.items()}
        stats = compare(runs, baseline="teacher", seconds=_SECONDS, seed=self.config.seed).stats
        return stats["teacher"].median_ms, stats["student"].median_ms


def _too_small(trial: Trial) -> bool:
    return trial.status == "failed" or trial.missed == "quality"


def _between(low: float, high: float) -> float:
    """Halfway by ratio."""
    return round(math.sqrt(low * high), 3)
