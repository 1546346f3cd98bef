"""Structured pruning: whole channels are taken out of the graph, and what is left makes up for them.

In each round: find the groups of channels that can only be cut together, rank the channels of each, decide how many
each keeps, cut, check, repair on data, and fine-tune where that is wanted.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import onnx_ir as ir

from modelkit.data.dataset import Dataset
from modelkit.decision import Decision
from modelkit.errors import ModelError
from modelkit.graph.channels import Group, cut, find_groups, zeroed
from modelkit.graph.facts import describe
from modelkit.graph.layers import input_vocabulary
from modelkit.graph.patterns import check_patterns, chosen
from modelkit.graph.save import save
from modelkit.graph.shapes import infer_shapes
from modelkit.graph.verify import verify_same
from modelkit.progress import Progress, silent
from modelkit.prune.config import PruneConfig
from modelkit.prune.ranking import Observed, Ranking, rank
from modelkit.prune.repair import Repair, Stayed
from modelkit.prune.targets import Target, plan_for
from modelkit.prune.search import Widths, choose, widths_of

Finetune = Callable[[ir.Model, Progress], list[Decision]]


@dataclass(frozen=True)
class Way:
    """One way of choosing channels and making up for them.

    Attributes:
        importance: A method of importance, not "auto".
        ranking: How many channels each group loses.
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


def ways(config: PruneConfig, data: Dataset | None) -> list[Way]:
    """The ways that a config leaves open, the one most likely to be best first."""
    structure = config.structure
    repair = structure.repair
    if repair == "auto":
        repair = "least_squares" if data is not None else "none"
    importances = [structure.importance]
    if structure.importance == "auto":
        importances = ["reconstruction", "activation"] if data is not None else ["l2", "geometric_median"]
    rankings = [structure.ranking]
    if structure.ranking == "auto":
        rankings = ["search", "equal"]
    found = [Way(each, ranking, repair) for ranking in rankings for each in importances]  # type: ignore[arg-type]
    # Of the cross product, the last combination has never been seen to win.
    return found[:3]


def prune_channels(
    model: ir.Model,
    config: PruneConfig,
    ratio: float | None,
    data: Dataset | None,
    *,
    way: Way | None = None,
    finetune: Finetune | None = None,
    progress: Progress = silent,
) -> list[Decision]:
    """Take channels out of a model, in place.

    Args:
        model: A normalised model.
        config: Says how channels are chosen and what may be cut.
        ratio: Share of ``config.structure.target`` to take out, in [0, 1); None to go by
            ``config.structure.threshold``.
        data: Inputs for importance and repair; None where there are none.
        way: How to do it; the first of ``ways`` by default.
        finetune: Trains the cut model in place, after each round.
        progress: Told how far the work is.

    Returns:
        A decision for each group (cut or kept, and why), each layer that was repaired, and one for the model.

    Raises:
        UsageError: A pattern matches nothing, or the importance needs what is not there.
        ModelError: Nothing can be cut, or not as much as asked for.
    """
    way = way or ways(config, data)[0]
    return _Cutting(model, config, ratio, data, way, finetune, progress).run()


def prunable_groups(model: ir.Model, config: PruneConfig) -> tuple[list[Group], list[Decision]]:
    """The groups that may be cut, and a decision for each that may not.

    Raises:
        UsageError: A pattern matches nothing.
        ModelError: No group is left; says why for each.
    """
    groups = find_groups(model)
    names = {group.name: names_of(group) for group in groups}
    for patterns, option in ((config.include, "include"), (config.exclude, "exclude")):
        check_patterns(patterns, [name for each in names.values() for name in each], option)
    open_groups: list[Group] = []
    kept: list[Decision] = []
    for group in groups:
        reason = group.frozen or chosen(names[group.name], config.include, config.exclude)
        if reason is None and len(np.unique(group.atoms)) < 2:
            reason = "its channels can only go all together"
        if reason is None:
            open_groups.append(group)
        else:
            kept.append(Decision(group.name, "kept", reason, {"channels": group.channels}))
    if not open_groups:
        raise _nothing_to_cut(kept)
    return open_groups, kept


def names_of(group: Group) -> list[str]:
    """Names that a pattern may match: the group's, and those of its weights and of the nodes that read them."""
    found = dict.fromkeys([group.name])
    for part in group.parts:
        found[str(part.value.name)] = None
        if part.node.name:
            found[part.node.name] = None
    return list(found)


@dataclass
class _Cutting:
    """One run of ``prune_channels``; see there."""

    model: ir.Model
    config: PruneConfig
    ratio: float | None
    data: Dataset | None
    way: Way
    finetune: Finetune | None
    progress: Progress
    stayed: Stayed = field(default_factory=Stayed)
    decisions: dict[str, Decision] = field(default_factory=dict)
    repaired: dict[str, Decision] = field(default_factory=dict)

    def run(self) -> list[Decision]:
        self.original = self.model.clone()
        before = describe(self.model)
        groups, kept = prunable_groups(self.model, self.config)
        self.first = {group.name: group for group in groups}
        self.target = Target(self.config, self.original, groups, self.ratio)
        extra: list[Decision] = []
        for number in range(self.config.structure.rounds):
            extra += self._round((number + 1) / self.config.structure.rounds)
        after = describe(self.model)
        numbers: dict[str, float | int | str] = {
            "parameters_before": before.parameters,
            "parameters": after.parameters,
        }
        if before.macs is not None and after.macs is not None:
            numbers |= {"macs_before": before.macs, "macs": after.macs}
        whole = Decision("model", "pruned", f"{self.way.name}, {self.config.structure.target} counted", numbers)
        return [whole, *self.decisions.values(), *kept, *self.repaired.values(), *extra]

    def _round(self, share: float) -> list[Decision]:
        """Cut once, to a share of the whole way."""
        structure, limit = self.config.structure, self.config.calibration.samples
        groups = [group for group in find_groups(self.model) if group.name in self.first and group.frozen is None]
        observed = Observed(self.model, self.data, limit, structure.ridge)
        rankings = rank(
            groups,
            self.way.importance,
            observed,
            keep_at_least=structure.keep_at_least,
            seed=self.config.seed,
            progress=self.progress,
        )
        widths = [self._widths(group) for group in groups]
        plan, errors = plan_for(
            self.target, share, self.model, groups, widths, rankings, observed, self.way, self.data, self.progress
        )
        keep = {group.name: choose(group, rankings[group.name].order, plan[group.name]) for group in groups}
        keep = {name: kept for name, kept in keep.items() if not kept.all()}
        for group in groups:
            self._decide(group, keep.get(group.name), rankings[group.name], errors.get(group.name, {}))
        if not keep:
            return []
        checked = verify_cut(self.model, groups, keep)
        self._note(groups, keep)
        cut(self.model, keep)
        infer_shapes(self.model)
        if self.way.repair != "none" and self.data is not None:
            repair = Repair(
                self.original, self.data, limit, structure.ridge, bias_only=self.way.repair == "bias"
            )
            made = repair.apply(self.model, self.stayed, self.progress)
            self.repaired.update({decision.target: decision for decision in made})
        return [checked, *(self.finetune(self.model, self.progress) if self.finetune is not None else [])]

    def _widths(self, group: Group) -> Widths:
        """The widths that a group may have now; the fewest are counted from what it had at first."""
        first = self.first[group.name].channels
        least = min(self.config.structure.keep_at_least * first / group.channels, 1.0)
        return widths_of(group, self.config.structure.multiple_of, least)

    def _note(self, groups: Sequence[Group], keep: Mapping[str, np.ndarray]) -> None:
        """Remember which of the original's positions stay in each weight."""
        gone: dict[tuple[str, int], set[int]] = {}
        sizes: dict[str, tuple[int, ...]] = {}
        for group in groups:
            if group.name not in keep:
                continue
            lost = np.flatnonzero(~keep[group.name])
            for part in group.parts:
                name = str(part.value.name)
                sizes[name] = tuple(part.value.const_value.shape.numpy())  # type: ignore[union-attr]
                if part.kind == "produces":
                    gone.setdefault((name, part.axis), set()).update(part.positions(lost).tolist())
                elif part.kind == "consumes":
                    self.stayed.read.add(name)
        for (name, axis), positions in gone.items():
            left = np.setdiff1d(np.arange(sizes[name][axis]), list(positions))
            before = self.stayed.outputs.get(name)
            self.stayed.outputs[name] = left if before is None else before[left]

    def _decide(
        self, group: Group, kept: np.ndarray | None, ranking: Ranking, errors: Mapping[int, float]
    ) -> None:
        first = self.first[group.name].channels
        count = group.channels if kept is None else int(kept.sum())
        numbers: dict[str, float | int | str] = {
            "channels_before": first,
            "channels": count,
            "importance": ranking.method,
        }
        if count in errors:
            numbers["output_error"] = float(f"{errors[count]:.3g}")
        if count == first:
            reason = "its channels are worth more than those of other layers" if self.way.ranking != "equal" else (
                "too few channels for a step this small"
            )
            self.decisions[group.name] = Decision(group.name, "kept", reason, numbers)
            return
        reason = f"kept {count} of {first} channels" + ("" if group.exact else f"; {group.inexact}")
        self.decisions[group.name] = Decision(group.name, "cut", reason, numbers)


def verify_cut(model: ir.Model, groups: Sequence[Group], keep: Mapping[str, np.ndarray]) -> Decision:
    """Check that cutting channels computes what setting them to zero does, and that onnxruntime runs the result.

    Groups where the two differ by nature (a LayerNormalization over the channels) are cut too, only to see that the
    model runs; the numbers are compared without them.

    Raises:
        ModelError: The cut model is invalid, does not run, or computes something else.
    """
    exact = {group.name: keep[group.name] for group in groups if group.name in keep and group.exact}
    vocabulary = input_vocabulary(model)
    with tempfile.TemporaryDirectory(prefix="modelkit-") as folder:
        paths = [Path(folder) / name for name in ("zeroed.onnx", "exact.onnx", "cut.onnx")]
        parts = {paths[0]: zeroed(model, exact), paths[1]: _cut_copy(model, exact), paths[2]: _cut_copy(model, keep)}
        for path, part in parts.items():
            save(part, path)
        found = verify_same(paths[0], paths[1], vocabulary=vocabulary)
        if len(exact) < len(keep):
            verify_same(paths[2], paths[2], vocabulary=vocabulary)
    if not exact:
        return Decision("model", "verified", "the cut model runs; its normalisation changes what it computes")
    return Decision("model", found.action, "cutting computes what setting the channels to zero does", found.numbers)


def _cut_copy(model: ir.Model, keep: Mapping[str, np.ndarray]) -> ir.Model:
    copy = model.clone()
    if keep:
        cut(copy, keep)
        infer_shapes(copy)
    return copy


def _nothing_to_cut(kept: Sequence[Decision]) -> ModelError:
    if not kept:
        return ModelError(
            "no channels to take out: the model has no layers with weights that lead to other layers",
            "--sparsity zeroes single weights of any layer",
        )
    by_reason: dict[str, list[str]] = {}
    for decision in kept:
        by_reason.setdefault(decision.reason, []).append(decision.target)
    text = "; ".join(
        f"{', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}: {reason}"
        for reason, names in by_reason.items()
    )
    return ModelError(f"no channels can be taken out: {text}", "--sparsity zeroes single weights of any layer")
