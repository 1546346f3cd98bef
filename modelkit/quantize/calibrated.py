"""Static candidates: what calibration data makes possible, and what to try when they lose too much."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import onnx_ir as ir

from modelkit.algorithm.candidate import Candidate, Trial
from modelkit.data.dataset import Dataset
from modelkit.decision import Decision
from modelkit.graph.edit import Namer
from modelkit.graph.opset import ensure_opset
from modelkit.progress import Progress, silent
from modelkit.quantize.affine import dequantize
from modelkit.quantize.align import align_channels
from modelkit.quantize.bias import ChannelMeans, shift_of, subtract_from_bias
from modelkit.quantize.calibrate import Histogram, observe
from modelkit.quantize.canonical import canonicalise
from modelkit.quantize.config import QuantizeConfig
from modelkit.quantize.equalize import equalize
from modelkit.quantize.islands import find_islands, slow_islands
from modelkit.quantize.plan import WEIGHTED, Plan, make_plan
from modelkit.quantize.ranges import RangeMethod, choose_range
from modelkit.quantize.sensitivity import rank_layers
from modelkit.quantize.static import ActivationType, apply_static, quantize_weight
from modelkit.quantize.through import move_integers

Finish = Callable[[ir.Model, Progress], list[Decision]]


@dataclass(frozen=True)
class Variant:
    """One way of static quantization.

    Attributes:
        method: How ranges are cut.
        arithmetic: Whether sums, products and pools compute with integers too.
        equalized: Whether channel ranges are evened out first.
        keep_float: Names of layers that stay float because they are sensitive.
        slow: Names of layers that stay float because they are faster so.
    """

    method: RangeMethod
    arithmetic: bool = True
    equalized: bool = False
    keep_float: frozenset[str] = frozenset()
    slow: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """The variant in a table."""
        parts = [f"static {self.method}"]
        if not self.arithmetic:
            parts.append("layers")
        if self.equalized:
            parts.append("equalised")
        if self.keep_float:
            count = len(self.keep_float)
            parts.append(f"{count} layer{'s' if count > 1 else ''} float")
        if self.slow:
            parts.append(f"without {len(self.slow)} that cost")
        return ", ".join(parts)


@dataclass
class StaticMode:
    """Makes static candidates; calibration runs once for all of them.

    Attributes:
        model: The normalised model.
        config: The resolved options.
        data: Calibration data.
        kind: Integer types for this processor.
        finish: Stores what is left in float in fewer bits.
    """

    model: ir.Model
    config: QuantizeConfig
    data: Dataset
    kind: ActivationType
    finish: Finish
    _seen: dict[bool, _Seen] = field(default_factory=dict)
    _variants: dict[str, Variant] = field(default_factory=dict)
    _refined: bool = False
    _thinned: bool = False

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
        variants = [Variant(method, equalized=self.config.equalize) for method in methods]
        if len(all_nodes) > len(layer_nodes):
            variants.append(Variant(methods[-1], arithmetic=False, equalized=self.config.equalize))
        return [self.candidate(variant) for variant in variants]

    def refine(self, trials: Sequence[Trial], progress: Progress = silent) -> list[Candidate]:
        """Return what to try after the first variants; each of the two once.

        Where every one of them lost too much: variants that keep more accuracy. Else the fastest, without the layers
        whose conversions cost more than they gain.
        """
        tried = [trial for trial in trials if trial.name in self._variants and trial.status != "failed"]
        if not tried:
            return []
        # A trial that was never timed was rejected for its outputs or its size.
        timed = [trial for trial in tried if trial.latency is not None]
        if timed:
            if self._thinned:
                return []
            self._thinned = True
            fastest = max(timed, key=lambda trial: float((trial.latency or {})["speedup"]["value"]))
            return self._without_slow(self._variants[fastest.name], progress)
        if self._refined:
            return []
        self._refined = True
        best = self._variants[max(tried, key=lambda t: float((t.fidelity or {}).get("sqnr_db") or 0)).name]
        ranked = self._ranked(progress)
        found = []
        if not best.equalized:
            found.append(Variant(best.method, best.arithmetic, True))
        count = 1
        while count <= max(1, len(ranked) // 2) and count < len(ranked):
            found.append(Variant(best.method, best.arithmetic, best.equalized, frozenset(ranked[:count])))
            count *= 2
        return [self.candidate(variant) for variant in found]

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
            return self.apply(model, variant, progress) + self.finish(model, progress)

        return Candidate(variant.name, apply)

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
        seen = self._observed(variant, plan, progress)
        ranges = {
            str(value.name): choose_range(
                seen.histograms[str(value.name)], variant.method, percentile=self.config.activations.percentile
            )
            for value in plan.activations
        }
        if self.config.correct_bias:
            self._correct_biases(model, plan, seen.means)
        apply_static(model, plan, ranges, self.kind, self.config.weights)
        # Measured for unsigned activations on x64; ARM has other kernels, and x64 takes signed ones apart again.
        tuned = [] if self.kind.signed else [*move_integers(plan), *align_channels(model, plan)]
        return changes + plan.decisions + tuned

    @staticmethod
    def _ready(model: ir.Model, variant: Variant) -> list[Decision]:
        """Bring a model to the form that is calibrated and quantized; outputs stay the same."""
        raised = ensure_opset(model, 13)
        changes = [] if raised is None else [raised]
        changes += canonicalise(model)
        return changes + (equalize(model) if variant.equalized else [])

    def _correct_biases(self, model: ir.Model, plan: Plan, means: ChannelMeans) -> None:
        namer = Namer(model)
        for node in plan.nodes:
            if node.op_type not in ("Conv", "Gemm"):
                continue
            mean = means.get(str(node.inputs[0].name))  # type: ignore[union-attr]
            weight = node.inputs[1].const_value.numpy()  # type: ignore[union-attr]
            if mean is None:
                continue
            error = dequantize(quantize_weight(node, weight, self.kind, self.config.weights)) - weight
            shift = shift_of(node, error, mean)
            if shift is not None:
                subtract_from_bias(node, shift, namer)

    def _observed(self, variant: Variant, plan: Plan, progress: Progress) -> _Seen:
        """Calibrate, unless an earlier variant saw the same tensors."""
        names = [str(value.name) for value in plan.activations]
        seen = self._seen.get(variant.equalized)
        if seen is None or any(name not in seen.histograms for name in names):
            model = self.model.clone()
            self._ready(model, variant)
            means = ChannelMeans(plan)
            histograms = observe(
                model,
                names,
                lambda: self.data.batches(8),
                count=self.data.count,
                also=means.add,
                progress=progress,
            )
            seen = self._seen[variant.equalized] = _Seen(histograms, means)
        return seen

    def _ranked(self, progress: Progress) -> list[str]:
        """Layers, the most sensitive first."""
        plain = Variant("mse")
        model = self.model.clone()
        self._ready(model, plain)
        plan = self.plan(model, plain)
        layers = [str(node.name or node.outputs[0].name) for node in plan.nodes if node.op_type in WEIGHTED]

        def quantize_only(model: ir.Model, keep: frozenset[str]) -> None:
            self.apply(model, Variant("mse", arithmetic=False, keep_float=keep))

        return rank_layers(self.model, layers, quantize_only, self.data, progress=progress)


@dataclass(frozen=True)
class _Seen:
    """What calibration saw of one form of the model."""

    histograms: dict[str, Histogram]
    means: ChannelMeans
