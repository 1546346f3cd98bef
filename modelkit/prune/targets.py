"""From a share to take out to how many channels each group keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from modelkit.data.dataset import Dataset
from modelkit.graph.channels import Group
from modelkit.progress import Progress
from modelkit.prune.config import PruneConfig
from modelkit.prune.costs import Costs
from modelkit.prune.ranking import Observed, Ranking
from modelkit.prune.search import Plan, Widths, choose, equal, ranked, searched
from modelkit.prune.tables import Errors, output_errors, weight_errors

if TYPE_CHECKING:
    from modelkit.prune.channels import Way


class Target:
    """What has to be reached: a share of the original's costs, or a threshold of importance.

    Args:
        config: Says what is counted.
        original: The model before anything was cut.
        groups: Its groups that can be cut.
        ratio: Share to take out; None for the threshold.
    """

    def __init__(self, config: PruneConfig, original: ir.Model, groups: Sequence[Group], ratio: float | None) -> None:
        self.structure = config.structure
        self.ratio = ratio
        self.kind = config.structure.target
        self.total = Costs(original, groups, "macs" if self.kind == "latency" else self.kind).total

    def limit(self, share: float) -> float:
        """Most that the model may cost after a share of the way."""
        assert self.ratio is not None
        return self.total * (1 - self.ratio) ** share + 1e-6


def plan_for(
    target: Target,
    share: float,
    model: ir.Model,
    groups: Sequence[Group],
    widths: Sequence[Widths],
    rankings: Mapping[str, Ranking],
    observed: Observed,
    way: Way,
    data: Dataset | None,
    progress: Progress,
) -> tuple[Plan, Errors]:
    """Decide how many channels each group keeps.

    Returns:
        The plan, and the errors that each group brings at each of its widths where they were measured.
    """
    if target.ratio is None:
        threshold = target.structure.threshold
        assert threshold is not None
        return {
            group.name: each.nearest(int((_scores(group, rankings) >= threshold).sum()))
            for group, each in zip(groups, widths, strict=True)
        }, {}
    costs = Costs(model, groups, "macs" if target.kind == "latency" else target.kind)
    limit = target.limit(share)
    if way.ranking == "equal":
        return equal(widths, costs, limit), {}
    if way.ranking == "global":
        scores = {group.name: rankings[group.name].of_channels(group) for group in groups}
        return ranked(widths, scores, costs, limit), {}
    if data is None:
        errors = weight_errors(groups, widths, rankings)
    else:
        repaired = way.repair == "least_squares"
        errors = output_errors(model, groups, widths, rankings, observed, data, repaired=repaired, progress=progress)
    return searched(widths, errors, costs, limit), errors


def _scores(group: Group, rankings: Mapping[str, Ranking]) -> np.ndarray:
    scores = rankings[group.name].of_channels(group)
    return scores / max(float(scores.mean()), 1e-30)
