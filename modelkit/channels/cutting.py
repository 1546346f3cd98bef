"""Structured pruning: whole channels are taken out of the graph, and what is left makes up for them.

In each round: find the groups of channels that can only be cut together, rank the channels of each, decide how many
each keeps, check that cutting does what was meant, cut, repair on data, and fine-tune where that is wanted.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from modelkit.channels.config import CutOptions
from modelkit.channels.ranking import Ranking
from modelkit.channels.repair import Repair, Stayed
from modelkit.channels.search import Plan
from modelkit.channels.survey import Survey
from modelkit.channels.targets import Fixed, Target, Way, masks
from modelkit.data.dataset import Dataset
from modelkit.decision import Decision
from modelkit.errors import ModelError
from modelkit.graph.channels import Group, cut, zeroed
from modelkit.graph.facts import ModelFacts, describe
from modelkit.graph.layers import input_vocabulary
from modelkit.graph.save import save
from modelkit.graph.verify import verify_same
from modelkit.progress import Progress, silent

Finetune = Callable[[ir.Model, Progress], list[Decision]]


def ways(config: CutOptions, data: Dataset | None) -> list[Way]:
    """The ways that a config leaves open, the one most likely to be best first."""
    structure = config.structure
    repair = structure.repair
    if repair == "auto" or data is None:
        repair = "least_squares" if data is not None else "none"
    importances = [structure.importance]
    if structure.importance == "auto":
        importances = ["reconstruction", "activation"] if data is not None else ["l2", "geometric_median"]
    rankings = [structure.ranking]
    if structure.ranking == "auto":
        rankings = ["search", "equal"]
    # Of the cross product, the last one was never seen to win.
    return [Way(each, ranking, repair) for ranking in rankings for each in importances][:3]  # type: ignore[arg-type]


def prune_channels(
    model: ir.Model,
    config: CutOptions,
    ratio: float | None,
    data: Dataset | None,
    *,
    way: Way | None = None,
    survey: Survey | None = None,
    finetune: Finetune | None = None,
    progress: Progress = silent,
) -> list[Decision]:
    """Take channels out of a model, in place.

    Args:
        model: A normalised model.
        config: Says how channels are chosen and what may be cut.
        ratio: Share of ``config.structure.target`` to take out, in [0, 1); None to go by
            ``config.structure.threshold``.
        data: Inputs for importance and repair, labels are not needed; None where there are none.
        way: How to do it; the first of ``ways`` by default.
        survey: Of a model with the same weights, where several ways share it; made here by default.
        finetune: Trains the cut model in place, after each round.
        progress: Told how far the work is.

    Returns:
        A decision for the model as a whole, for each group (cut or kept, and why), and for each layer that was
        repaired.

    Raises:
        UsageError: A pattern matches nothing, or the importance needs what is not there.
        ModelError: Nothing can be cut, or not as much as asked for.
    """
    way = way or ways(config, data)[0]
    survey = survey or Survey(model.clone(), config, data)
    return _Cutting(model, survey, Target(survey, ratio), way, finetune, progress).run()


def cut_to(model: ir.Model, survey: Survey, plan: Plan, way: Way, *, progress: Progress = silent) -> list[Decision]:
    """Take channels out of a model, in place, so that each group keeps a given number.

    Args:
        model: A model with the weights that were surveyed.
        survey: What is known of its channels.
        plan: For each group how many channels it keeps.
        way: How channels are chosen, and what is done about the loss.
        progress: Told how far the work is.

    Returns:
        See ``prune_channels``.
    """
    return _Cutting(model, survey, Fixed(plan), way, None, progress).run()


@dataclass
class _Cutting:
    """One run of ``prune_channels``; see there."""

    model: ir.Model
    survey: Survey
    target: Target | Fixed
    way: Way
    finetune: Finetune | None
    progress: Progress
    stayed: Stayed = field(default_factory=Stayed)
    cut: dict[str, Decision] = field(default_factory=dict)
    repaired: dict[str, Decision] = field(default_factory=dict)
    extra: list[Decision] = field(default_factory=list)

    def run(self) -> list[Decision]:
        before = describe(self.model)
        self.original = self.survey.model
        self.first = {group.name: group.channels for group in self.survey.groups}
        kept = self.survey.kept
        rounds = self.survey.config.structure.rounds
        for number in range(1, rounds + 1):
            if number > 1:
                self.survey = Survey(self.model.clone(), self.survey.config, self.survey.data, self.first)
            self._round(number / rounds)
        whole = Decision("model", "pruned", self.way.name, _sizes(before, describe(self.model)))
        return [whole, *self.target.notes, *self.extra, *self.cut.values(), *kept, *self.repaired.values()]

    def _round(self, share: float) -> None:
        """Cut once, to a share of the whole way."""
        survey, config = self.survey, self.survey.config
        rankings = survey.rankings(self.way.importance, self.progress)
        plan = self.target.plan(survey, self.way, share, self.progress)
        keep = masks(survey, rankings, plan)
        for group in survey.groups:
            self._decide(group, keep.get(group.name), rankings[group.name])
        if not keep:
            return
        self.extra.append(verify_cut(survey.model, survey.groups, keep))
        self._note(survey.groups, keep)
        cut(self.model, keep)
        if self.way.repair != "none" and survey.data is not None:
            repair = Repair(
                self.original,
                survey.data,
                config.calibration.samples,
                config.structure.ridge,
                bias_only=self.way.repair == "bias",
            )
            made = repair.apply(self.model, self.stayed, self.progress)
            self.repaired.update({decision.target: decision for decision in made})
        if self.finetune is not None:
            self.extra += self.finetune(self.model, self.progress)

    def _note(self, groups: Sequence[Group], keep: Mapping[str, np.ndarray]) -> None:
        """Remember which of the original's output channels stay in each weight."""
        gone: dict[str, tuple[int, set[int]]] = {}
        for group in groups:
            if group.name not in keep:
                continue
            lost = np.flatnonzero(~keep[group.name])
            for part in group.parts:
                name = str(part.value.name)
                if part.kind == "produces":
                    size = part.value.const_value.shape.numpy()[part.axis]  # type: ignore[union-attr]
                    gone.setdefault(name, (size, set()))[1].update(part.positions(lost).tolist())
                elif part.kind == "consumes":
                    self.stayed.read.add(name)
        for name, (size, positions) in gone.items():
            left = np.setdiff1d(np.arange(size), list(positions))
            before = self.stayed.outputs.get(name)
            self.stayed.outputs[name] = left if before is None else before[left]

    def _decide(self, group: Group, kept: np.ndarray | None, ranking: Ranking) -> None:
        first = self.first[group.name]
        count = group.channels if kept is None else int(kept.sum())
        numbers: dict[str, float | int | str] = {
            "channels_before": first,
            "channels": count,
            "importance": ranking.method,
        }
        if self.way.ranking == "search":
            errors = self.survey.errors(self.way.importance, repaired=self.way.repair == "least_squares")
            numbers["output_error"] = float(f"{errors[group.name].get(count, 0.0):.3g}")
        if count == first:
            self.cut[group.name] = Decision(group.name, "kept", "all its channels stay at this target", numbers)
            return
        reason = f"kept {count} of {first} channels" + ("" if group.exact else f"; {group.inexact}")
        self.cut[group.name] = Decision(group.name, "cut", reason, numbers)


def _sizes(before: ModelFacts, after: ModelFacts) -> dict[str, float | int | str]:
    numbers: dict[str, float | int | str] = {"parameters_before": before.parameters, "parameters": after.parameters}
    if before.macs is not None and after.macs is not None:
        numbers |= {"macs_before": before.macs, "macs": after.macs}
    return numbers


def verify_cut(model: ir.Model, groups: Sequence[Group], keep: Mapping[str, np.ndarray]) -> Decision:
    """Check that cutting channels computes what setting them to zero does, and that onnxruntime runs the result.

    Groups where the two differ by nature (a LayerNormalization over the channels) are cut too, only to see that the
    model runs; the numbers are compared without them.

    Args:
        model: The model before the cut; it stays as it is.
        groups: Its groups.
        keep: What stays of each, as for ``modelkit.graph.channels.cut``.

    Raises:
        ModelError: The cut model is invalid, does not run, or computes something else.
    """
    exact = {group.name: keep[group.name] for group in groups if group.name in keep and group.exact}
    vocabulary = input_vocabulary(model)
    found: Decision | None = None
    with tempfile.TemporaryDirectory(prefix="modelkit-") as folder:
        first, second, whole = (Path(folder) / name for name in ("zeroed.onnx", "exact.onnx", "cut.onnx"))
        if exact:
            save(zeroed(model, exact), first)
            _save_cut(model, exact, second)
            _check(first, second)
            found = verify_same(first, second, vocabulary=vocabulary)
        if len(exact) < len(keep):
            save(model, first)
            _save_cut(model, keep, whole)
            _check(first, whole)
            verify_same(whole, whole, vocabulary=vocabulary)
    if found is None:
        return Decision("model", "verified", "the cut model runs; its normalisation changes what it computes")
    return Decision("model", found.action, "cutting computes what setting the channels to zero does", found.numbers)


def _save_cut(model: ir.Model, keep: Mapping[str, np.ndarray], path: Path) -> None:
    copy = model.clone()
    cut(copy, keep)
    save(copy, path)


def _check(before: Path, after: Path) -> None:
    """Hold a cut model against ONNX's rules, as far as the model kept to them before."""
    try:
        onnx.checker.check_model(str(after))
    except Exception as error:  # the checker's own class, and whatever its C++ code raises
        try:
            onnx.checker.check_model(str(before))
        except Exception:  # a model that never was valid and runs all the same
            return
        raise ModelError(
            f"the cut model is not valid: {' '.join(str(error).split())[:200]}",
            "this is a fault of modelkit's cutting: please report the model",
        ) from error
