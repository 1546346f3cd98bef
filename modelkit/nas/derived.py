"""The space around a saved model: width of each channel group, blocks that may go, bits of each layer.

A candidate starts from the model's own weights: blocks are left out, channels that matter least are cut, what is left
makes up for them by least squares, and then it follows the original and the labels for a few epochs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from modelkit.channels.config import Calibration, Structure
from modelkit.channels.costs import Costs
from modelkit.channels.cutting import cut_to
from modelkit.channels.search import widths_of
from modelkit.channels.survey import Survey
from modelkit.channels.targets import Way
from modelkit.config.options import Block
from modelkit.data.dataset import Dataset
from modelkit.errors import ModelError, UsageError
from modelkit.files import sha256
from modelkit.graph.facts import describe
from modelkit.graph.layers import Role, weight_uses
from modelkit.graph.load import load
from modelkit.graph.normalise import normalise
from modelkit.graph.run import session_of
from modelkit.graph.save import save
from modelkit.jobs.protocol import imported
from modelkit.nas.config import Constraints, Derived, NasConfig
from modelkit.nas.feasible import Candidate, over
from modelkit.nas.residual import blocks, without
from modelkit.nas.space import Genome, Space, Variable
from modelkit.nas.written import Parts, written_space
from modelkit.progress import Progress
from modelkit.runtime import TensorSpec, input_specs

if TYPE_CHECKING:
    import onnx_ir as ir

_SAMPLES = 512  # that channels are judged by and repaired on
_WEIGHTS = (Role.CONV_WEIGHT, Role.GEMM_WEIGHT, Role.MATMUL_WEIGHT)


class Cut(Block):
    """How channels are taken out (see ``modelkit.channels.config.CutOptions``)."""

    include: list[str] = Field(default_factory=list, description="patterns of what may be cut")
    exclude: list[str] = Field(default_factory=list, description="patterns of what stays")
    structure: Structure = Field(Structure(), description="how channels are chosen")
    calibration: Calibration = Field(Calibration(), description="inputs that are looked at")
    seed: int = Field(0, description="seed of everything random")


@dataclass(frozen=True)
class _Variant:
    """The model without some blocks."""

    names: frozenset[str]
    macs: Costs | None
    parameters: Costs | None
    fixed: tuple[int, int]


@dataclass
class Around:
    """What is searched around a model (see ``modelkit.nas.feasible.Problem``).

    Attributes:
        model: The normalised model.
        identity: Tells it from others.
        options: What may differ.
        constraints: What a candidate may cost.
        document: A space that is written out, instead of all that the options leave open.
        space: All candidates.
    """

    model: ir.Model
    identity: str
    options: Derived
    constraints: Constraints
    document: Mapping[str, Any] | None = None
    space: Space = field(init=False)
    _variants: dict[frozenset[str], _Variant] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.space = self._space()

    def first(self) -> tuple[Genome, ...]:
        """The models whose groups all keep the same share, from the widest to the narrowest."""
        if not self.options.uniform or self.document is not None:
            return ()
        found = []
        for share in sorted(self.options.widths, reverse=True):
            places = [
                min(range(len(v.values)), key=lambda p: abs(v.values[p] - share * v.values[-1]))
                if v.path[0] == "widths"
                else v.values.index(max(self.options.bits) if v.path[0] == "bits" else False)
                for v in self.space.variables
            ]
            found.append(self.space.settled(places))
        return tuple(dict.fromkeys(found))

    def look(self, genome: Genome) -> Candidate:
        """See `Problem.look`."""
        document = self.space.decode(genome)
        variant = self._variant(frozenset(name for name, gone in document.get("drop", {}).items() if gone))
        plan = {name: count for name, count in document.get("widths", {}).items() if name in variant.names}
        macs, parameters = variant.fixed
        if variant.macs is not None and variant.parameters is not None:
            macs, parameters = round(variant.macs.of(plan)), round(variant.parameters.of(plan))
        return Candidate(document, parameters, macs, over(self.constraints, parameters, macs))

    def _variant(self, gone: frozenset[str]) -> _Variant:
        if gone not in self._variants:
            model = shortened(self.model, gone)
            facts = describe(model)
            try:
                groups = Survey(model, cut_options(self.options), None).groups
            except ModelError:
                self._variants[gone] = _Variant(frozenset(), None, None, (facts.macs or 0, facts.parameters))
            else:
                self._variants[gone] = _Variant(
                    frozenset(group.name for group in groups),
                    Costs(model, groups, "macs"),
                    Costs(model, groups, "parameters"),
                    (0, 0),
                )
        return self._variants[gone]

    def _space(self) -> Space:
        variables: list[Variable] = []
        survey = Survey(self.model.clone(), cut_options(self.options), None)
        droppable = list(blocks(self.model)) if self.options.depth or self.document is not None else []
        inside: dict[str, set[str]] = {name: set() for name in droppable}
        weights = {str(use.value.name) for use in weight_uses(self.model) if use.role in _WEIGHTS}
        for name in droppable:
            left = shortened(self.model, frozenset([name]))
            inside[name] = {group.name for group in survey.groups} - self._variant(frozenset([name])).names
            inside[name] |= weights - {str(use.value.name) for use in weight_uses(left)}
            variables.append(Variable(("drop", name), (False, True), False))
        if self.document is not None:
            groups = {group.name: widths_of(group, 1, 0.0).choices for group in survey.groups}
            return written_space(self.document, Parts(self.identity, droppable, groups, sorted(weights), inside))

        def when(name: str) -> dict[str, tuple[Any, ...]]:
            return {f"drop.{block}": (False,) for block in droppable if name in inside[block]}

        for group, widths in zip(survey.groups, survey.widths, strict=True):
            counts = sorted({widths.nearest(share * group.channels) for share in self.options.widths})
            if len(counts) > 1:
                variables.append(Variable(("widths", group.name), tuple(counts), True, when(group.name)))
        if len(set(self.options.bits)) > 1 or self.options.bits != [32]:
            bits = tuple(sorted(set(self.options.bits)))
            for name in sorted(weights):
                variables.append(Variable(("bits", name), bits, True, when(name)))
        if not variables:
            raise ModelError("there is nothing to search around this model: no group may have another width")
        return Space({"family": "derived", "model": self.identity}, tuple(variables))


def around(
    path: Path, config: NasConfig, scratch: Path, store: str, progress: Progress
) -> tuple[Around, list[TensorSpec], dict[str, Any]]:
    """Make the space around a saved model.

    Args:
        path: An ONNX file.
        config: Options.
        scratch: A folder of this run.
        store: The function that stores weights in fewer bits, as ``"package.module:function"``; "" for none.
        progress: Told how far the work is.

    Returns:
        The problem, the model's inputs, and what tasks are told of it.

    Raises:
        ModelError: Nothing in the model can differ, or it cannot be trained.
        UsageError: Bits are asked for where nothing stores them.
    """
    progress("looking at the model", 0, 1)
    if (config.derived.bits != [32] or (config.space or {}).get("bits")) and not store:
        raise UsageError("weights in fewer bits need a function that stores them", "use modelkit.api.nas")
    model = load(path).model
    normalise(model)
    from modelkit.train.module import to_torch

    to_torch(model)  # refuses what cannot be trained
    options = config.derived
    if config.space is not None:
        options = _as_narrow(model, options, config.space)
    problem = Around(model, sha256(path)[:16], options, config.constraints, config.space)
    base = scratch / "original.onnx"
    save(model, base)
    more = {"reference": base, "derived": options.model_dump(), "store": store}
    return problem, input_specs(session_of(model)), more


def _as_narrow(model: ir.Model, options: Derived, document: Mapping[str, Any]) -> Derived:
    """Options under which channels are ranked down to the fewest that a space which is written out asks for."""
    groups = {group.name: group.channels for group in Survey(model.clone(), cut_options(options), None).groups}
    given = document.get("widths")
    shares = [
        count / groups[name]
        for name, value in (given.items() if isinstance(given, Mapping) else ())
        for count in (value if isinstance(value, list) else [value])
        if name in groups and isinstance(count, int) and 0 < count <= groups[name]
    ]
    narrowest = min([*options.widths, *shares])
    return options.model_copy(update={"widths": sorted({narrowest, *options.widths})})


def cut_options(options: Derived) -> Cut:
    """How channels are cut."""
    narrowest = min(options.widths)
    return Cut(
        structure=Structure(multiple_of=options.multiple_of, keep_at_least=min(narrowest, 0.99)),
        calibration=Calibration(samples=_SAMPLES),
    )


def shortened(model: ir.Model, gone: frozenset[str]) -> ir.Model:
    """A copy of a model without some blocks."""
    copy = model.clone()
    if gone:
        without(copy, gone)
    return copy


def start(payload: Mapping[str, Any], training: Dataset, progress: Progress) -> tuple[ir.Model, dict[str, Any]]:
    """A candidate before it learns: cut, and repaired.

    Args:
        payload: Of the task: ``reference``, ``derived``, ``document``.
        training: Samples to judge channels by and to repair on.
        progress: Told how far the work is.

    Returns:
        The model, and the teacher for its training.
    """
    from modelkit.train.config import TrainOptions
    from modelkit.train.teacher import original_teacher

    document = payload["document"]
    gone = frozenset(name for name, is_gone in document.get("drop", {}).items() if is_gone)
    options = Derived(**payload["derived"])
    survey = _surveyed(payload["reference"], gone, options.model_dump_json(), _Hashed(training))
    model = _base(payload["reference"])
    teacher = original_teacher(model, TrainOptions(**payload["options"]), training)
    cut = shortened(model, gone)
    if survey is not None:
        widths = document.get("widths", {})
        plan = {group.name: widths.get(group.name, group.channels) for group in survey.groups}
        way = Way("reconstruction", "equal", options.repair)
        cut_to(cut, survey, plan, way, progress=progress)
    return cut, {"teacher": teacher}


def finish(payload: Mapping[str, Any], model: ir.Model, training: Dataset, progress: Progress) -> None:
    """Store the weights in the bits that a candidate has."""
    bits = {name: count for name, count in payload["document"].get("bits", {}).items() if count != 32}
    if bits:
        imported(payload["store"])(model, bits)


class _Hashed:
    """A dataset that a cache can tell from others."""

    def __init__(self, data: Dataset) -> None:
        self.data, self._key = data, id(data)

    def __hash__(self) -> int:
        return self._key

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Hashed) and self._key == other._key


@lru_cache(maxsize=2)
def _base(path: Path) -> ir.Model:
    return load(path).model


@lru_cache(maxsize=8)
def _surveyed(path: Path, gone: frozenset[str], options: str, data: _Hashed) -> Survey | None:
    """What is known of the channels of the model without some blocks; None where none may go."""
    try:
        model = shortened(_base(path), gone)
        return Survey(model, cut_options(Derived.model_validate_json(options)), data.data)
    except ModelError:
        return None
