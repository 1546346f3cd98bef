"""Which ways of quantizing are open for a model, a config and the data at hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import onnx_ir as ir

from modelkit.algorithm.candidate import Candidate, Trial
from modelkit.config.options import Objective
from modelkit.data.dataset import Dataset
from modelkit.decision import Decision
from modelkit.errors import ModelError, UsageError
from modelkit.graph.layers import WeightUse
from modelkit.graph.opset import ensure_opset
from modelkit.graph.patterns import names_of, nothing_to_do
from modelkit.graph.quantized import QuantizedState, Scheme, quantized_state
from modelkit.progress import Progress, silent
from modelkit.quantize import dynamic, float16, weights
from modelkit.quantize.audit import audit
from modelkit.quantize.calibrated import StaticMode
from modelkit.quantize.config import QuantizeConfig, WeightOptions, data_rounding
from modelkit.quantize.palettes import palette_candidates
from modelkit.quantize.qat import nothing_to_train, some, trainer_for
from modelkit.quantize.ranges import RangeMethod
from modelkit.quantize.select import check_finite, float_weights
from modelkit.quantize.smooth import can_smooth, smooth
from modelkit.quantize.static import ActivationType
from modelkit.quantize.variant import variant_of
from modelkit.train.qat import Trainer

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

    def candidates(self) -> list[Candidate]:
        """Return what to try first.

        Raises:
            UsageError: Static mode without data, or a pattern that matches nothing.
            ModelError: There is nothing to quantize, or a weight holds infinite values or NaN.
        """
        config = self.config
        check_finite(self.model)
        state = quantized_state(self.model)
        if state.scheme in (Scheme.QDQ, Scheme.INTEGER_OPS):
            raise _already_quantized(state)
        uses, kept = float_weights(self.model, config.include, config.exclude)
        if not uses and state.scheme is not Scheme.NONE:
            raise _already_quantized(state)
        if not uses:
            cannot = "weights computed at run time or passed as inputs cannot be stored in fewer bits"
            raise nothing_to_do("quantize", cannot, kept)
        if config.codebook.values is not None:
            return palette_candidates(config, self.model, self.calibration)
        static = []
        if self._static is not None and config.mode in ("auto", "static") and 1 < config.bits < 16:
            static = self._static.candidates()
        if config.qat.enabled and not static:
            raise nothing_to_train(self.calibration)
        if config.mode == "static" and self.calibration is None:
            raise UsageError(
                "static quantization needs calibration data",
                "give some with --data, or use --mode dynamic or --mode weights",
            )
        if data_rounding(config.weights) and self.calibration is None:
            raise UsageError(
                f"rounding by {config.weights.rounding} needs calibration data",
                "give some with --data, or use weights.rounding nearest with weights.scale mse or hqq",
            )
        if config.bits == 16 or config.mode in ("float16", "bfloat16"):
            return self._sixteen_bits()
        found: list[Candidate] = []
        if config.mode in ("auto", "weights"):
            found += self._weight_only()
        if config.mode in ("auto", "dynamic") and config.bits == 8 and self._reads_weights("MatMul", "Gemm", "LSTM"):
            found += self._dynamic_ways()
        found += static
        if not found:
            raise ModelError(
                f"nothing in this model can be quantized in mode {config.mode}",
                "modelkit inspect tells why for each layer; --mode weights works for any layer",
            )
        return found

    def train_static(self, model: ir.Model, trainer: Trainer, progress: Progress = silent) -> list[Decision]:
        """Quantize a model statically with a training of the caller's in the middle, in place.

        Args:
            model: A copy of the quantizer's model.
            trainer: Trains the quantized graph.
            progress: Told how far it is.

        Raises:
            UsageError: There is no calibration data.
        """
        if self._static is None:
            raise UsageError("static quantization needs calibration data", "give some with --data")
        method: RangeMethod = "mse" if self.config.activations.range == "auto" else self.config.activations.range
        variant = variant_of(self.config, method, trained=True)
        made = replace(self._static, trainer=trainer).apply(model, variant, progress)
        return made + self._leftover(model, progress)

    def _sixteen_bits(self) -> list[Candidate]:
        if self.config.float16.compute:
            include, exclude = self.config.include, self.config.exclude
            return [Candidate("float16 arithmetic", lambda model, _: float16.compute_half(model, include, exclude))]
        modes = {"auto": ("float16", "bfloat16"), "float16": ("float16",), "bfloat16": ("bfloat16",)}
        return [Candidate(mode, self._half(ir.DataType[mode.upper()])) for mode in modes[self.config.mode]]

    def _half(self, dtype: ir.DataType) -> Callable[[ir.Model, Progress], list[Decision]]:
        def apply(model: ir.Model, progress: Progress) -> list[Decision]:
            changes = _raise_opset(model, 13) if dtype == ir.DataType.BFLOAT16 else []
            include, exclude = self.config.include, self.config.exclude
            return changes + float16.store_half(model, dtype, include=include, exclude=exclude, progress=progress)

        return apply

    def _weight_only(self) -> list[Candidate]:
        def apply(options: WeightOptions, fuse: bool) -> Callable[[ir.Model, Progress], list[Decision]]:
            return lambda model, progress: self._store(model, options, fuse, progress)

        given = self.config.weights
        ways = {"weights": given}
        if self.config.bits < 8 and self.config.mode == "auto" and given == WeightOptions():
            # Few bits need more care; where the user said nothing of how, the careful ways are tried too.
            careful = {} if self.config.bits == 1 else {"scale": "mse"}
            centred = {} if self.config.bits == 1 else {"center": "range"}
            if careful:
                ways["weights, mse"] = given.model_copy(update=careful)
            ways["weights, blocks"] = given.model_copy(update={**careful, **centred, "granularity": "block"})
            if self.calibration is not None and self.config.bits > 1:
                ways["weights, blocks, gptq"] = ways["weights, blocks"].model_copy(update={"rounding": "gptq"})
        found = [Candidate(name, apply(options, False)) for name, options in ways.items()]
        if self._reads_weights("MatMul", "Gemm"):
            found += [Candidate(f"{name}, integer MatMul", apply(options, True)) for name, options in ways.items()]
        return found

    def _store(self, model: ir.Model, options: WeightOptions, fuse: bool, progress: Progress) -> list[Decision]:
        """Store weights as integers, to be unpacked at load or (MatMul) read as they are."""
        config = self.config
        changes: list[Decision] = []
        packed = config.packing != "off"
        if (config.bits <= 4 and not packed) or (fuse and options.granularity == "block"):
            changes = _raise_opset(model, 21)
        elif fuse:
            changes = _raise_opset(model, 13)
        return changes + weights.quantize_weights(
            model,
            bits=config.bits,
            options=options,
            include=config.include,
            exclude=config.exclude,
            fuse_matmul=fuse,
            packed=packed,
            data=self.calibration,
            progress=progress,
        )

    def _reads_weights(self, *ops: str) -> bool:
        """Whether a node of these types multiplies by a constant."""
        return any(
            node.op_type in ops and node.inputs[1] is not None and node.inputs[1].is_initializer()
            for node in self.model.graph.all_nodes()
        )

    def _dynamic_ways(self) -> list[Candidate]:
        """As it is, and with data also with the outliers of activations moved into weights."""
        plain = Candidate("dynamic", self._dynamic)
        if self.calibration is None or not can_smooth(self.model):
            return [plain]
        smoothed = Candidate("dynamic, smoothed", self._dynamic_smoothed)
        return [smoothed] if self.config.smooth else [plain, smoothed]

    def _dynamic_smoothed(self, model: ir.Model, progress: Progress) -> list[Decision]:
        assert self.calibration is not None
        return smooth(model, self.calibration, self._weight_bits, progress) + self._dynamic(model, progress)

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
        # A pattern whose layers all went to integers has nothing left to match, and is no error here.
        include = [pattern for pattern in self.config.include if _matches(uses, pattern)]
        if not uses or (self.config.include and not include):
            return []
        options = self.config.weights.model_copy(update={"granularity": "channel", "center": "zero"})
        made = weights.quantize_weights(
            model,
            bits=8,
            options=options,
            include=include,
            exclude=[pattern for pattern in self.config.exclude if _matches(uses, pattern)],
            fuse_matmul=False,
            progress=progress,
        )
        # What stays float here was decided, or made, by the step before: saying it again would only confuse.
        return [decision for decision in made if decision.action != "kept"]

    @cached_property
    def _static(self) -> StaticMode | None:
        if self.calibration is None:
            return None
        trainer = trainer_for(self.model, self.config, self.calibration)
        data = self.calibration
        if trainer is not None:
            data = some(data, self.config.qat.calibration, self.config.seed)
        return StaticMode(self.model, self.config, data, self._activation_type, self._leftover, trainer)

    @cached_property
    def _activation_type(self) -> ActivationType:
        wanted = self.config.activations.type
        signed = self.processor == "arm_dot" if wanted == "auto" else wanted == "int8"
        return ActivationType(signed=signed, weight_bits=min(self._weight_bits, self.config.bits))

    @cached_property
    def _weight_bits(self) -> int:
        reduce = self.config.activations.reduce_range
        if reduce == "auto":
            # u8 x s8 products of neighbours are summed in 16 bits without VNNI: 8-bit weights can saturate.
            reduce = self.processor == "avx2"
        return 7 if reduce else 8

    @property
    def objective(self) -> Objective:
        """What is preferred among candidates inside the budget."""
        return self.config.objective

    def audit(self, path: Path, decisions: Sequence[Decision]) -> dict[str, Any]:
        """Say how onnxruntime runs the artifact."""
        return audit(path, decisions, providers=[self.config.measure.provider])

    def refine(self, trials: list[Trial], progress: Progress) -> list[Candidate]:
        """Return what to try next, given what came of the candidates so far."""
        return [] if self._static is None else self._static.refine(trials, progress)


def _matches(uses: Sequence[WeightUse], pattern: str) -> bool:
    return any(fnmatchcase(name, pattern) for use in uses for name in names_of(use))


def _raise_opset(model: ir.Model, version: int) -> list[Decision]:
    change = ensure_opset(model, version)
    return [] if change is None else [change]


def _already_quantized(state: QuantizedState) -> ModelError:
    return ModelError(
        f"the model is already quantized ({state.scheme.value}, {state.weights} integer weights)",
        "quantize the float original; a second time would only lose accuracy",
    )
