"""What is known of a model's channels before anything is cut: groups, rankings, errors; gathered once, used often."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from modelkit.channels.config import CutOptions
from modelkit.channels.ranking import Observed, Ranking, check_importance, rank
from modelkit.channels.search import Widths, widths_of
from modelkit.channels.tables import Errors, output_errors, weight_errors
from modelkit.data.dataset import Dataset
from modelkit.decision import Decision
from modelkit.errors import ModelError
from modelkit.graph.channels import Group, find_groups
from modelkit.graph.patterns import check_patterns, chosen
from modelkit.measure.machine import channel_block
from modelkit.progress import Progress, silent


class Survey:
    """A model's groups of channels and what they are worth.

    Args:
        model: A normalised model. Sizes that never change become constants in it; it is not changed otherwise, and
            must not be changed while the survey is in use.
        config: Which layers may be cut, and how channels are judged.
        data: Inputs; None where there are none.
        first: Channels that each group had before the first cut, where this is a later round.

    Attributes:
        groups: The groups that may be cut.
        kept: A decision for each that may not.
        widths: The widths that each of ``groups`` may have.

    Raises:
        UsageError: A pattern matches nothing.
        ModelError: No group may be cut; says why for each.
    """

    def __init__(
        self, model: ir.Model, config: CutOptions, data: Dataset | None, first: Mapping[str, int] | None = None
    ) -> None:
        self.model, self.config, self.data = model, config, data
        self.groups, self.kept = prunable_groups(model, config)
        self.widths = [self._widths(group, (first or {}).get(group.name, group.channels)) for group in self.groups]
        self._observed = Observed(model, data, config.calibration.samples, config.structure.ridge)
        self._rankings: dict[str, dict[str, Ranking]] = {}
        self._errors: dict[tuple[str, bool], Errors] = {}

    def check(self, importance: str) -> None:
        """Refuse an importance that has nothing to go by, before any work is done.

        Raises:
            UsageError: It needs data, labels or BatchNormalization, and there is none.
        """
        check_importance(importance, self.groups, self.data)

    def rankings(self, importance: str, progress: Progress = silent) -> dict[str, Ranking]:
        """The order in which channels would go, by the name of the group.

        Raises:
            UsageError: The importance needs data, labels or BatchNormalization, and there is none.
        """
        if importance not in self._rankings:
            self._rankings[importance] = rank(
                self.groups,
                importance,
                self._observed,
                keep_at_least=self.config.structure.keep_at_least,
                seed=self.config.seed,
                taylor=self._taylor() if importance == "taylor" else None,
                progress=progress,
            )
        return self._rankings[importance]

    def errors(self, importance: str, *, repaired: bool, progress: Progress = silent) -> Errors:
        """What each group costs in error at each width; a guess from the weights where there is no data."""
        key = importance, repaired
        if key not in self._errors:
            rankings = self.rankings(importance, progress)
            if self.data is None:
                self._errors[key] = weight_errors(self.groups, self.widths, rankings)
            else:
                self._errors[key] = output_errors(
                    self.model,
                    self.groups,
                    self.widths,
                    rankings,
                    self._observed,
                    self.data,
                    repaired=repaired,
                    progress=progress,
                )
        return self._errors[key]

    def _widths(self, group: Group, first: int) -> Widths:
        """The widths of a group; the fewest are a share of what it had before the first cut."""
        structure = self.config.structure
        multiple = channel_block() if structure.multiple_of == "auto" else structure.multiple_of
        return widths_of(group, multiple, min(structure.keep_at_least * first / group.channels, 1.0))

    def _taylor(self) -> Callable[[Group], np.ndarray | None] | None:
        if self.data is None or not self.data.has_labels:
            return None
        # torch is imported here and only here.
        from modelkit.channels.taylor import Taylor

        return Taylor(self.model, self.groups, self.data, self.config.calibration.samples)


def prunable_groups(model: ir.Model, config: CutOptions) -> tuple[list[Group], list[Decision]]:
    """The groups that may be cut, and a decision for each that may not.

    Raises:
        UsageError: A pattern matches nothing.
        ModelError: No group is left; says why for each.
    """
    groups = find_groups(model)
    made = {group.name: _names(group, reading=False) for group in groups}
    touched = {group.name: _names(group, reading=True) for group in groups}
    check_patterns(config.include, [name for names in made.values() for name in names], "include")
    check_patterns(config.exclude, [name for names in touched.values() for name in names], "exclude")
    found: list[Group] = []
    kept: list[Decision] = []
    for group in groups:
        reason = group.frozen or chosen(made[group.name], config.include, [])
        reason = reason or chosen(touched[group.name], [], config.exclude)
        if reason is None and len(np.unique(group.atoms)) < 2:
            reason = "its channels can only go all together"
        if reason is None:
            found.append(group)
        else:
            kept.append(Decision(group.name, "kept", reason, {"channels": group.channels}))
    if not found:
        raise _nothing_to_cut(kept)
    return found, kept


def _names(group: Group, *, reading: bool) -> list[str]:
    """Names that a pattern may match: of the group, its weights, and the nodes with these weights.

    Args:
        group: The group.
        reading: Whether layers that only read the channels count. To leave a layer alone is to leave all of its
            channels; to cut a layer is to cut what it makes.
    """
    found = dict.fromkeys([group.name])
    for part in group.parts:
        if reading or part.kind != "consumes":
            found[str(part.value.name)] = None
            if part.node.name:
                found[part.node.name] = None
    return list(found)


def _nothing_to_cut(kept: Sequence[Decision]) -> ModelError:
    hint = "--sparsity zeroes single weights of any layer"
    if not kept:
        return ModelError("no channels to take out: no layer has weights that lead to another layer", hint)
    by_reason: dict[str, list[str]] = {}
    for decision in kept:
        by_reason.setdefault(decision.reason, []).append(decision.target)
    text = "; ".join(
        f"{', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}: {reason}"
        for reason, names in by_reason.items()
    )
    return ModelError(f"no channels can be taken out: {text}", hint)
