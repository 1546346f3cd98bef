"""Static candidates: what calibration data makes possible, and what to try when they lose too much."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import onnx_ir as ir

from modelkit.algorithm.activations import fitting_rows
from modelkit.algorithm.candidate import Candidate, Trial
from modelkit.data.dataset import Dataset
from modelkit.decision import Decision
from modelkit.errors import DataError
from modelkit.graph.edit import Namer
from modelkit.graph.layers import weight_uses
from modelkit.graph.opset import ensure_opset
from modelkit.progress import Progress, silent
from modelkit.quantize.affine import Quantized, dequantize
from modelkit.quantize.align import align_channels
from modelkit.quantize.bias import ChannelMeans, shift_of, subtract_from_bias
from modelkit.quantize.bias_full import correct_biases
from modelkit.quantize.by_data import observe_layers, round_layer
from modelkit.quantize.calibrate import Histogram, observe
from modelkit.quantize.canonical import canonicalise
from modelkit.quantize.config import DataRounding, QuantizeConfig, WeightOptions
from modelkit.quantize.equalize import equalize
from modelkit.quantize.four_bits import OPSET as FOUR_BITS
from modelkit.quantize.four_bits import pack_four_bits
from modelkit.quantize.hard import useful_range
from modelkit.quantize.islands import find_islands, slow_islands
from modelkit.quantize.mixed import Bisection
from modelkit.quantize.plan import WEIGHTED, Plan, make_plan
from modelkit.quantize.ranges import RangeMethod, choose_range
from modelkit.quantize.sensitivity import rank_layers
from modelkit.quantize.smooth import can_smooth, smooth
from modelkit.quantize.static import LAYERS, ActivationType, WeightKey, apply_static, quantize_weight, weight_key
from modelkit.quantize.suspect import Clipped, constant_warning, find_outliers, looks_far
from modelkit.quantize.through import move_integers
from modelkit.quantize.variant import Form, Variant, variant_of
from modelkit.train.qat import Trainer

# Scales per channel came with 13, HardSwish with 14.
_OPSET = 14
Finish = Callable[[ir.Model, Progress], list[Decision]]


@dataclass
class StaticMode:
    """Makes static candidates; calibration runs once for all of them.

    Attributes:
        model: The normalised model.
        config: The resolved options.
        data: Calibration data.
        kind: Integer types for this processor.
        finish: Stores what is left in float in fewer bits.
        trainer: Trains what was quantized; None for no training.
    """

    model: ir.Model
    config: QuantizeConfig
    data: Dataset
    kind: ActivationType
    finish: Finish
    trainer: Trainer | None = None
    _seen: dict[Form, _Seen] = field(default_factory=dict)
    _variants: dict[str, Variant] = field(default_factory=dict)
    _others: list[Variant] = field(default_factory=list)
    _refined: bool = False
    _base: Variant = field(default_factory=lambda: Variant("mse"))
    _bisection: Bisection | None = None
    _sensitivity: dict[str, float] = field(default_factory=dict)
    _thinned: bool = False
    _warnings: list[Decision] = field(default_factory=list)
    _trained: bool = False

    def candidates(self) -> list[Candidate]:
        """Return the variants to try first; none where no layer can compute with integers."""
        methods: tuple[RangeMethod, ...] = ("minmax", "mse")
        if self.config.activations.range != "auto":
            methods = (self.config.activations.range,)
        whole, layers = Variant(methods[0]), Variant(methods[0], arithmetic=False)
        model = self.model.clone()
        self._ready(model, whole)
        all_nodes, layer_nodes = self.plan(model, whole).nodes, self.plan(model, layers).nodes
        if not layer_nodes:
            return []
        variants = [variant_of(self.config, method) for method in methods]
        if len(all_nodes) > len(layer_nodes):
            variants.append(variant_of(self.config, methods[-1], arithmetic=False))
        if self.config.mode == "static" and self.trainer is None:
            # Who names the mode wants it done: least squares is the best guess, the others follow if it fails.
            first = next(variant for variant in variants if variant.method == methods[-1])
            self._others = [variant for variant in variants if variant is not first]
            variants = [first]
        return [self.candidate(variant) for variant in variants]

    def refine(self, trials: Sequence[Trial], progress: Progress = silent) -> list[Candidate]:
        """Return what to try after the first variants; each of these once.

        Where every one of them lost too much: variants that keep more accuracy. Else the fastest, without the layers
        whose conversions cost more than they gain. With training: the best so far, trained; what came of it decides
        whether variants that keep more accuracy are wanted.
        """
        tried = [trial for trial in trials if trial.name in self._variants and trial.status != "failed"]
        if not tried:
            return []
        # A trial that was never timed was rejected for its outputs or its size.
        timed = [trial for trial in tried if trial.latency is not None]
        if timed and not self._thinned:
            self._thinned = True
            thinner = self._without_slow(self._variants[_fastest(timed).name], progress)
            if thinner:
                return thinner
        if self.trainer is not None and not self._trained:
            self._trained = True
            shown = _fastest(timed) if timed else _closest(tried)
            return [self.candidate(replace(self._variants[shown.name], trained=True))]
        if self._bisection is not None:
            return self._bisect(tried)
        if timed:
            return []
        best = self._variants[_closest(tried).name]
        if not self._refined:
            self._refined = True
            found = self._careful(best)
            if found:
                return found
        self._start(best, progress)
        return self._bisect(tried)

    def _careful(self, best: Variant) -> list[Candidate]:
        """Variants that keep every layer in integers: what was put off, and channel ranges evened out."""
        found = list(self._others)
        if not best.equalized:
            found.append(replace(best, equalized=True))
        if not best.smoothed and can_smooth(self.model):
            found.append(replace(best, smoothed=True))
        if best.rounding is None:
            found.append(replace(best, rounding="adaround"))
        return [self.candidate(replace(variant, trained=False)) for variant in found]

    def _start(self, best: Variant, progress: Progress) -> None:
        """Rank the layers; ever more of the most sensitive will be left in float."""
        self._sensitivity = self._ranked(progress)
        self._base = replace(best, keep_float=frozenset(), trained=False)
        self._bisection = Bisection(len(self._sensitivity) - 1)

    def _bisect(self, tried: Sequence[Trial]) -> list[Candidate]:
        """The next number of layers in float, given what came of the last."""
        search = self._bisection
        assert search is not None
        for trial in tried:
            left = len(self._variants[trial.name].keep_float)
            if left:
                search.told(left, trial.missed != "quality")
        count = search.next()
        if count is None:
            return []
        keep = frozenset(list(self._sensitivity)[:count])
        return [self.candidate(replace(self._base, keep_float=keep))]

    def _without_slow(self, variant: Variant, progress: Progress) -> list[Candidate]:
        """The variant with the islands in float that cost more than they gain, if there are any."""
        model = self.model.clone()
        self._ready(model, variant)
        islands = find_islands(self.plan(model, variant))

        def make(keep: frozenset[str]) -> ir.Model:
            quantized = self.model.clone()
            self.apply(quantized, replace(variant, slow=keep))
            self.finish(quantized, silent)
            return quantized

        inputs = next(iter(self.data.batches(self.config.measure.batch))).inputs
        slow = slow_islands(islands, make, inputs, self.config.measure, seed=self.config.seed, progress=progress)
        if not slow or len(slow) == sum(len(island) for island in islands):
            return []
        return [self.candidate(replace(variant, slow=slow))]

    def candidate(self, variant: Variant) -> Candidate:
        """Make a candidate of a variant."""
        self._variants[variant.name] = variant

        def apply(model: ir.Model, progress: Progress) -> list[Decision]:
            return self.apply(model, variant, progress) + self.finish(model, progress) + self._measured(variant)

        return Candidate(variant.name, apply)

    def _measured(self, variant: Variant) -> list[Decision]:
        """How sensitive each layer was found to be, where that decided."""
        if not variant.keep_float:
            return []
        return [
            Decision(
                name,
                "ranked",
                f"sensitivity {rank} of {len(self._sensitivity)}: outputs at {decibels:.1f} dB with it in integers",
                {"rank": rank, "sqnr_db": decibels},
            )
            for rank, (name, decibels) in enumerate(self._sensitivity.items(), start=1)
        ]

    def plan(self, model: ir.Model, variant: Variant) -> Plan:
        """Decide which nodes of a model compute with integers."""
        return make_plan(
            model,
            include=self.config.include,
            exclude=self.config.exclude,
            arithmetic=variant.arithmetic,
            keep_float=variant.keep_float,
            slow=variant.slow,
        )

    def apply(self, model: ir.Model, variant: Variant, progress: Progress = silent) -> list[Decision]:
        """Quantize a model in place."""
        changes = self._ready(model, variant)
        plan = self.plan(model, variant)
        seen = self._observed(model, variant, plan, progress)
        ranges = {
            str(value.name): self._range(value, seen.histograms[str(value.name)], variant.method)
            for value in plan.activations
        }
        full = self.config.correct_bias == "full"
        original, names = (model.clone() if full else None), {each: str(each.outputs[0].name) for each in plan.nodes}
        rounded = self._rounded(model, plan, variant.rounding, progress)
        if self.config.correct_bias:
            self._correct_biases(model, plan, seen.means, rounded)
        applied = apply_static(model, plan, ranges, self.kind, self.weights, rounded)
        trained = []
        if original is not None:
            trained += correct_biases(model, original, names, self.data, progress)
        if variant.trained and self.trainer is not None:
            trained += self.trainer(model, applied.weights, self.kind.weight_bits, progress)
        # Measured for unsigned activations on x64; ARM has other kernels, and x64 takes signed ones apart again.
        tuned = [] if self.kind.signed else [*move_integers(plan), *align_channels(model, plan)]
        # What packs the weights anyhow finds their few values by itself.
        four = self.kind.weight_bits <= 4 and self.config.packing == "off"
        packed = pack_four_bits(model) if four else []
        return self._warnings + changes + plan.decisions + trained + tuned + packed

    def _range(self, value: ir.Value, histogram: Histogram, method: RangeMethod) -> tuple[float, float]:
        """The range of an activation: known where an operator gives it, else cut from what was seen."""
        maker = value.producer()
        if maker is not None and not maker.domain and maker.op_type in ("Sigmoid", "Softmax"):
            return 0.0, 1.0
        percentile = self.config.activations.percentile
        return choose_range(histogram, method, percentile=percentile, within=useful_range(value))

    @property
    def weights(self) -> WeightOptions:
        """How weights become integers: with few bits their scales are searched, where nobody said how."""
        given = self.config.weights
        searched = self.kind.weight_bits < 7 and given == WeightOptions()
        return given.model_copy(update={"scale": "mse"}) if searched else given

    def _ready(self, model: ir.Model, variant: Variant) -> list[Decision]:
        """Bring a model to the form that is calibrated and quantized; outputs stay the same."""
        four = self.kind.weight_bits <= 4 and self.config.packing == "off"
        raised = ensure_opset(model, FOUR_BITS if four else _OPSET)
        changes = [] if raised is None else [raised]
        changes += canonicalise(model)
        if variant.equalized:
            changes += equalize(model)
        if variant.smoothed:
            # What is smoothed must not change once ranges were seen.
            self._clip()
            changes += smooth(model, self.data, self.kind.weight_bits)
        return changes

    def _rounded(
        self, model: ir.Model, plan: Plan, rounding: DataRounding | None, progress: Progress
    ) -> dict[WeightKey, Quantized]:
        """The layers' weights as integers; by data where that is wanted and the layer can be observed."""
        layers = {weight_key(node): node for node in plan.nodes if node.op_type in LAYERS}
        found = {
            key: quantize_weight(node, node.inputs[1].const_value.numpy(), self.kind, self.weights)  # type: ignore[union-attr]
            for key, node in layers.items()
        }
        if rounding is None:
            return found
        names = {name for name, _ in layers}
        uses = [use for use in weight_uses(model) if str(use.value.name) in names]
        nearest = self.weights.model_copy(update={"rounding": "nearest"})
        for layer, gram in observe_layers(model, uses, self.data, progress):
            axis = layer.use.channel_axis
            if axis is None or (layer.name, axis) not in layers:
                continue
            node = layers[layer.name, axis]
            plain = quantize_weight(node, layer.array(), self.kind, nearest)
            # Where a bias makes up for the mean of the error, only what varies counts.
            centered = self.config.correct_bias and node.op_type != "MatMul"
            found[layer.name, axis] = round_layer(rounding, plain, layer, gram, centered=centered)
        return found

    def _correct_biases(
        self, model: ir.Model, plan: Plan, means: ChannelMeans, rounded: Mapping[WeightKey, Quantized]
    ) -> None:
        namer = Namer(model)
        for node in plan.nodes:
            if node.op_type not in ("Conv", "Gemm"):
                continue
            mean = means.get(str(node.inputs[0].name))  # type: ignore[union-attr]
            weight = node.inputs[1].const_value.numpy()  # type: ignore[union-attr]
            if mean is None:
                continue
            error = dequantize(rounded[weight_key(node)]) - weight
            shift = shift_of(node, error, mean)
            if shift is not None:
                subtract_from_bias(node, shift, namer)

    def _observed(self, model: ir.Model, variant: Variant, plan: Plan, progress: Progress) -> _Seen:
        """Calibrate, unless an earlier variant saw the same tensors."""
        names = [str(value.name) for value in plan.activations]
        seen = self._seen.get(variant.form)
        if seen is None or any(name not in seen.histograms for name in names):
            histograms, means = self._trusted(model, plan, names, progress)
            seen = self._seen[variant.form] = _Seen(histograms, means)
        return seen

    def _trusted(
        self, model: ir.Model, plan: Plan, names: list[str], progress: Progress
    ) -> tuple[dict[str, Histogram], ChannelMeans]:
        """Calibrate; where single numbers of an input lie far beyond all others, without them."""
        inputs = [str(value.name) for value in model.graph.inputs]
        try:
            found = self._observe(model, plan, names, progress)
            far = any(looks_far(found[0][name]) for name in inputs if name in found[0])
        except DataError:
            if not self._clip():
                raise
            found = self._observe(model, plan, names, progress)
        else:
            if far and self._clip():
                found = self._observe(model, plan, names, progress)
        if not self._warnings:
            constant = [constant_warning(name, found[0][name]) for name in inputs if name in found[0]]
            self._warnings = [warning for warning in constant if warning is not None]
        return found

    def _clip(self) -> bool:
        """Cut outliers off the calibration data; whether there were any."""
        reach, warnings = find_outliers(self.data)
        if reach:
            self.data, self._warnings = Clipped(self.data, reach), warnings
        return bool(reach)

    def _observe(
        self, model: ir.Model, plan: Plan, names: list[str], progress: Progress
    ) -> tuple[dict[str, Histogram], ChannelMeans]:
        means, rows = ChannelMeans(plan), fitting_rows(model, names, self.data, most=8)
        histograms = observe(
            model,
            names,
            lambda: self.data.batches(rows),
            count=self.data.count,
            also=means.add,
            progress=progress,
        )
        return histograms, means

    def _ranked(self, progress: Progress) -> dict[str, float]:
        """Layers, the most sensitive first, with the signal to noise of the outputs where they alone are integers."""
        plain = Variant("mse")
        model = self.model.clone()
        self._ready(model, plain)
        plan = self.plan(model, plain)
        layers = [str(node.name or node.outputs[0].name) for node in plan.nodes if node.op_type in WEIGHTED]

        def quantize_only(model: ir.Model, keep: frozenset[str]) -> None:
            self.apply(model, Variant("mse", arithmetic=False, keep_float=keep))

        return rank_layers(self.model, layers, quantize_only, self.data, progress=progress)


def _fastest(timed: Sequence[Trial]) -> Trial:
    return max(timed, key=lambda trial: float((trial.latency or {})["speedup"]["value"]))


def _closest(tried: Sequence[Trial]) -> Trial:
    return max(tried, key=lambda trial: float((trial.fidelity or {}).get("sqnr_db") or 0))


@dataclass(frozen=True)
class _Seen:
    """What calibration saw of one form of the model."""

    histograms: dict[str, Histogram]
    means: ChannelMeans
