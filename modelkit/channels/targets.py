"""From a share to take out to how many channels each group keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir as ir

from modelkit.channels.costs import Costs
from modelkit.channels.search import Plan, choose, equal, ranked, searched
from modelkit.channels.survey import Survey
from modelkit.decision import Decision
from modelkit.errors import ModelError
from modelkit.graph.channels import cut
from modelkit.graph.layers import input_vocabulary
from modelkit.graph.run import session_of
from modelkit.graph.verify import random_feeds
from modelkit.measure.latency import compare
from modelkit.progress import Progress
from modelkit.runtime import input_specs, ready_run

_TIMINGS = 5  # cut models that are timed to find the MACs at which the latency is reached
_SECONDS = 0.3


@dataclass(frozen=True)
class Way:
    """One way of choosing channels and making up for them.

    Attributes:
        importance: A method of importance, not "auto".
        ranking: How many channels each group loses: the same share of all, those that matter least of all groups
            together, or what a search over the groups' errors finds.
        repair: What is done about the loss.
    """

    importance: str
    ranking: Literal["equal", "global", "search"]
    repair: Literal["least_squares", "bias", "none"]

    @property
    def name(self) -> str:
        """What a table of candidates calls it."""
        repair = {"least_squares": ", repaired", "bias": ", bias repaired", "none": ""}[self.repair]
        return f"channels by {self.importance}, {self.ranking}{repair}"


class Target:
    """What has to be reached: a share of the original's costs, or a threshold of importance.

    Args:
        survey: What is known of the model before the first cut.
        ratio: Share of ``structure.target`` to take out, in [0, 1); None to go by ``structure.threshold``.

    Attributes:
        notes: Decisions about how the target was reached.
    """

    def __init__(self, survey: Survey, ratio: float | None) -> None:
        self._structure = survey.config.structure
        self._ratio = ratio
        self._kind: Literal["channels", "parameters", "macs", "bytes"] = (
            "macs" if self._structure.target == "latency" else self._structure.target
        )
        self._total = Costs(survey.model, survey.groups, self._kind).total
        self._timed = self._structure.target == "latency"
        self._original = survey.model.clone() if self._timed else None
        self.notes: list[Decision] = []

    def plan(self, survey: Survey, way: Way, share: float, progress: Progress) -> Plan:
        """Decide how many channels each group keeps.

        Args:
            survey: What is known of the model as it is now.
            way: How channels are chosen.
            share: Share of the whole way to go, in (0, 1]; less than 1 in all rounds but the last.
            progress: Told how far the work is.

        Raises:
            ModelError: That much cannot be taken out.
        """
        if self._ratio is None:
            return self._by_threshold(survey, way, progress)
        ratio = 1 - (1 - self._ratio) ** share
        if self._original is not None:
            return self._by_latency(survey, way, ratio, self._original, progress)
        return self._by_cost(survey, way, ratio, progress)

    def _by_threshold(self, survey: Survey, way: Way, progress: Progress) -> Plan:
        threshold = self._structure.threshold
        assert threshold is not None
        rankings = survey.rankings(way.importance, progress)
        plan = {}
        for group, widths in zip(survey.groups, survey.widths, strict=True):
            scores = rankings[group.name].of_channels(group)
            plan[group.name] = widths.nearest(int((scores >= threshold * scores.mean()).sum()))
        return plan

    def _by_cost(self, survey: Survey, way: Way, ratio: float, progress: Progress) -> Plan:
        costs = Costs(survey.model, survey.groups, self._kind)
        limit = self._total * (1 - ratio) + 1e-6
        if way.ranking == "equal":
            return equal(survey.widths, costs, limit)
        if way.ranking == "global":
            rankings = survey.rankings(way.importance, progress)
            scores = {group.name: rankings[group.name].of_channels(group) for group in survey.groups}
            return ranked(survey.widths, scores, costs, limit)
        errors = survey.errors(way.importance, repaired=way.repair == "least_squares", progress=progress)
        return searched(survey.widths, errors, costs, limit)

    def _by_latency(self, survey: Survey, way: Way, ratio: float, original: ir.Model, progress: Progress) -> Plan:
        """Find the fewest MACs to take out that make the model that much faster, by timing cut models."""
        rankings = survey.rankings(way.importance, progress)
        feeds = _feeds(survey)
        low, high, wanted = 0.0, 1.0, ratio
        best: tuple[float, float, Plan] | None = None
        reached = 0.0
        for number in range(_TIMINGS):
            progress("timing cuts", number, _TIMINGS)
            try:
                plan = self._by_cost(survey, way, wanted, progress)
            except ModelError:
                high = wanted
                wanted = (low + high) / 2
                continue
            model = survey.model.clone()
            cut(model, masks(survey, rankings, plan))
            saved = 1 - 1 / _speedup(original, model, feeds)
            reached = max(reached, saved)
            if saved >= ratio:
                high, best = wanted, (wanted, saved, plan)
            else:
                low = wanted
            # Latency goes nearly with the MACs: aim a little beyond what the last timing says.
            guess = wanted * ratio / max(saved, 0.05) + 0.01
            wanted = guess if low < guess < high else (low + high) / 2
            if high - low < 0.03:
                break
        if best is None:
            raise ModelError(
                f"that much faster was not reached by taking out channels: {reached:.1%} less time at best",
                "ask for less, or lower structure.keep_at_least",
            )
        numbers: dict[str, float | int | str] = {"macs_removed": round(best[0], 4), "time_removed": round(best[1], 4)}
        self.notes.append(Decision("model", "timed", "latency is measured on cut models, at batch 1", numbers))
        return best[2]


class Fixed:
    """Numbers of channels that were decided elsewhere.

    Args:
        plan: For each group how many channels it keeps.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = dict(plan)
        self.notes: list[Decision] = []

    def plan(self, survey: Survey, way: Way, share: float, progress: Progress) -> Plan:
        """The plan that was given; see ``Target.plan``."""
        return self._plan


def masks(survey: Survey, rankings: dict, plan: Plan) -> dict[str, np.ndarray]:
    """What stays of each group that loses channels, as ``modelkit.graph.channels.cut`` takes it."""
    found = {
        group.name: choose(group, rankings[group.name].order, plan[group.name])
        for group in survey.groups
        if plan[group.name] < group.channels
    }
    return {name: kept for name, kept in found.items() if not kept.all()}


def _feeds(survey: Survey) -> dict[str, np.ndarray]:
    """Inputs of one sample."""
    if survey.data is not None:
        return next(iter(survey.data.batches(1))).inputs
    specs = input_specs(session_of(survey.model))
    feeds = list(random_feeds(specs, input_vocabulary(survey.model), survey.config.seed))
    return {name: array[:1] if array.ndim else array for name, array in feeds[0].items()}


def _speedup(original: ir.Model, model: ir.Model, feeds: dict[str, np.ndarray]) -> float:
    runners = {
        name: ready_run(session_of(each), feeds, name) for name, each in (("original", original), ("cut", model))
    }
    return compare(runners, baseline="original", seconds=_SECONDS).ratios["cut"].value
