"""Which ways of quantizing are open for a model, a config and the data at hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import onnx_ir as ir

from modelkit.candidate import Candidate, Trial
from modelkit.data.dataset import Dataset
from modelkit.decision import Decision
from modelkit.errors import ModelError, UsageError
from modelkit.graph.layers import WeightUse
from modelkit.graph.opset import ensure_opset
from modelkit.progress import Progress
from modelkit.quantize import dynamic, float16, weights
from modelkit.quantize.audit import audit
from modelkit.quantize.calibrate import Histogram, observe
from modelkit.quantize.config import QuantizeConfig
from modelkit.quantize.plan import Plan, make_plan
from modelkit.quantize.ranges import RangeMethod, choose_range
from modelkit.quantize.select import float_weights, names_of
from modelkit.quantize.static import ActivationType, apply_static

Int8Kind = Literal["vnni", "avx2", "arm_dot", "other"]


@dataclass
class Quantizer:
    """Makes the candidates, and keeps what they share (calibration runs once).

    Attributes:
        model: The normalised model.
        config: The resolved options.
        calibration: Data for static mode; None where there is none.
        processor: What integer arithmetic the processor has.
    """

    model: ir.Model
    config: QuantizeConfig
    calibration: Dataset | None
    processor: Int8Kind
    _histograms: dict[str, Histogram] = field(default_factory=dict)

    def candidates(self) -> list[Candidate]:
        """Return what to try first.

        Raises:
            UsageError: Static mode without data, or a pattern that matches nothing.
            ModelError: There is nothing to quantize.
        """
        config = self.config
        uses, kept = float_weights(self.model, config.include, config.exclude)
        if not uses:
            raise _nothing_to_do(kept)
        if config.mode == "static" and self.calibration is None:
            raise UsageError(
                "static quantization needs calibration data",
                "give some with --data, or use --mode dynamic or --mode weights",
            )
        if config.bits == 16 or config.mode in ("float16", "bfloat16"):
            return self._sixteen_bits()
        found: list[Candidate] = []
        if config.mode in ("auto", "weights"):
            found += self._weight_only()
        if config.mode in ("auto", "dynamic") and config.bits == 8 and self._has_dynamic():
            found.append(Candidate("dynamic", self._dynamic))
        if config.mode == "static" or (config.mode == "auto" and config.bits == 8 and self.calibration):
            found += self._static()
        if not found:
            raise ModelError(
                f"nothing in this model can be quantized in mode {config.mode}",
                "modelkit inspect tells why for each layer; --mode weights works for any layer",
            )
        return found

    def _sixteen_bits(self) -> list[Candidate]:
        modes = {"auto": ("float16", "bfloat16"), "float16": ("float16",), "bfloat16": ("bfloat16",)}
        return [Candidate(mode, self._half(ir.DataType[mode.upper()])) for mode in modes[self.config.mode]]

    def _half(self, dtype: ir.DataType) -> Callable[[ir.Model, Progress], list[Decision]]:
        def apply(model: ir.Model, progress: Progress) -> list[Decision]:
            changes = _raise_opset(model, 13) if dtype == ir.DataType.BFLOAT16 else []
            include, exclude = self.config.include, self.config.exclude
            return changes + float16.store_half(model, dtype, include=include, exclude=exclude, progress=progress)

        return apply

    def _weight_only(self) -> list[Candidate]:
        def apply(fuse: bool) -> Callable[[ir.Model, Progress], list[Decision]]:
            def run(model: ir.Model, progress: Progress) -> list[Decision]:
                return self._rest(model, progress, fuse)

            return run

        found = [Candidate("weights", apply(False))]
        if any(
            node.op_type in ("MatMul", "Gemm") and node.inputs[1] is not None and node.inputs[1].is_initializer()
            for node in self.model.graph.all_nodes()
        ):
            found.append(Candidate("weights, integer MatMul", apply(True)))
        return found

    def _rest(self, model: ir.Model, progress: Progress, fuse: bool) -> list[Decision]:
        """Store as integers what is still float, to be unpacked at load or (MatMul) read as it is."""
        config = self.config
        blocked = fuse and config.weights.granularity == "block"
        changes: list[Decision] = []
        if config.bits <= 4 or blocked:
            changes = _raise_opset(model, 21)
        elif fuse:
            changes = _raise_opset(model, 13)
        return changes + weights.quantize_weights(
            model,
            bits=config.bits,
            options=config.weights,
            include=config.include,
            exclude=config.exclude,
            fuse_matmul=fuse,
            progress=progress,
        )

    def _has_dynamic(self) -> bool:
        return any(
            node.op_type in ("MatMul", "Gemm", "LSTM")
            and node.inputs[1] is not None
            and node.inputs[1].is_initializer()
            for node in self.model.graph.all_nodes()
        )

    def _dynamic(self, model: ir.Model, progress: Progress) -> list[Decision]:
        changes = _raise_opset(model, 13)
        made = dynamic.quantize_dynamic(
            model,
            weight_bits=self._weight_bits,
            options=self.config.weights,
            include=self.config.include,
            exclude=self.config.exclude,
            progress=progress,
        )
        return changes + made + self._leftover(model, progress)

    def _leftover(self, model: ir.Model, progress: Progress) -> list[Decision]:
        """After layers went to integers: shrink the float weights that are left. Patterns were checked before."""
        uses, _ = float_weights(model, [], [])
        if not uses:
            return []
        options = self.config.weights.model_copy(update={"granularity": "channel", "center": "zero"})
        made = weights.quantize_weights(
            model,
            bits=8,
            options=options,
            include=[],
            exclude=[p for p in self.config.exclude if _matches(uses, p)],
            fuse_matmul=False,
            progress=progress,
        )
        # What stays float here was decided, or made, by the step before: saying it again would only confuse.
        return [decision for decision in made if decision.action != "kept"]

    def _static(self) -> list[Candidate]:
        methods: tuple[RangeMethod, ...] = ("minmax", "mse")
        if self.config.activations.range != "auto":
            methods = (self.config.activations.range,)
        found = [Candidate(f"static {method}", self.static_apply(method, arithmetic=True)) for method in methods]
        whole, layers = self._plan(True), self._plan(False)
        if not layers.nodes:
            return []
        if len(whole.nodes) > len(layers.nodes):
            found.append(Candidate(f"static {methods[-1]}, layers", self.static_apply(methods[-1], arithmetic=False)))
        return found

    def _plan(self, arithmetic: bool, keep_float: frozenset[str] = frozenset()) -> Plan:
        return make_plan(
            self.model,
            include=self.config.include,
            exclude=self.config.exclude,
            arithmetic=arithmetic,
            keep_float=keep_float,
        )

    def static_apply(
        self, method: RangeMethod, *, arithmetic: bool, keep_float: frozenset[str] = frozenset()
    ) -> Callable[[ir.Model, Progress], list[Decision]]:
        """Return a transform to static int8.

        Args:
            method: How ranges are cut.
            arithmetic: Whether pools and sums compute with integers too.
            keep_float: Names of nodes that stay float.
        """

        def apply(model: ir.Model, progress: Progress) -> list[Decision]:
            changes = _raise_opset(model, 13)
            plan = make_plan(
                model,
                include=self.config.include,
                exclude=self.config.exclude,
                arithmetic=arithmetic,
                keep_float=keep_float,
            )
            histograms = self._observed([str(value.name) for value in plan.activations], progress)
            ranges = {
                name: choose_range(histogram, method, percentile=self.config.activations.percentile)
                for name, histogram in histograms.items()
            }
            apply_static(model, plan, ranges, self._activation_type, self.config.weights)
            return changes + plan.decisions + self._leftover(model, progress)

        return apply

    def _observed(self, names: Sequence[str], progress: Progress) -> dict[str, Histogram]:
        missing = [name for name in names if name not in self._histograms]
        if missing:
            assert self.calibration is not None
            data = self.calibration
            self._histograms.update(
                observe(self.model, missing, lambda: data.batches(8), count=data.count, progress=progress)
            )
        return {name: self._histograms[name] for name in names}

    @cached_property
    def _activation_type(self) -> ActivationType:
        wanted = self.config.activations.type
        signed = self.processor == "arm_dot" if wanted == "auto" else wanted == "int8"
        return ActivationType(signed=signed, weight_bits=self._weight_bits)

    @cached_property
    def _weight_bits(self) -> int:
        reduce = self.config.activations.reduce_range
        if reduce == "auto":
            # u8 x s8 products of neighbours are summed in 16 bits without VNNI: 8-bit weights can saturate.
            reduce = self.processor == "avx2"
        return 7 if reduce else 8

    def audit(self, path: Path, decisions: Sequence[Decision]) -> dict[str, Any]:
        """Say how onnxruntime runs the artifact."""
        return audit(path, decisions, providers=[self.config.measure.provider])

    def refine(self, trials: list[Trial]) -> list[Candidate]:
        """Return what to try next, given what came of the first candidates (nothing yet)."""
        return []


def _matches(uses: Sequence[WeightUse], pattern: str) -> bool:
    return any(fnmatchcase(name, pattern) for use in uses for name in names_of(use))


def _raise_opset(model: ir.Model, version: int) -> list[Decision]:
    change = ensure_opset(model, version)
    return [] if change is None else [change]


def _nothing_to_do(kept: list[Decision]) -> ModelError:
    if not kept:
        return ModelError(
            "nothing to quantize: the model has no constant float weights",
            "weights computed at run time or passed as inputs cannot be stored in fewer bits",
        )
    reasons = sorted({decision.reason for decision in kept})
    return ModelError(
        f"nothing to quantize: none of the {len(kept)} constant tensors qualifies ({'; '.join(reasons[:3])})",
        "modelkit inspect lists every tensor",
    )
