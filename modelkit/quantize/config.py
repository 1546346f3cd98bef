"""The YAML of `modelkit quantize`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from modelkit.algorithm.config import Effort, PackableConfig
from modelkit.config.options import Block
from modelkit.config.resolve import Percent, Seconds
from modelkit.train.config import QuantizationAware

DataRounding = Literal["gptq", "adaround"]
Mode = Literal["auto", "weights", "dynamic", "static", "float16", "bfloat16"]


class WeightOptions(Block):
    """How weights become integers."""

    granularity: Literal["channel", "tensor", "block"] = Field(
        "channel", description="one scale per output channel, per tensor, or per block of inputs to a channel"
    )
    block_size: int = Field(32, description="numbers that share a scale when granularity is block: 16 to 256")
    center: Literal["zero", "range", "mean"] = Field(
        "zero", description="zero is symmetric; range centres on (min+max)/2; mean centres on the mean"
    )
    scale: Literal["minmax", "mse", "hqq"] = Field(
        "minmax",
        description="scale from the largest value, searched for the least squared error, or by half-quadratic steps",
    )
    rounding: Literal["squant", "nearest", "floor"] | DataRounding = Field(
        "squant",
        description="squant: to nearest, and in the kernels of convolutions so that errors cancel; nearest; "
        "floor(x*S + B) as in the classic description; by calibration data (modes weights and static) gptq, where "
        "each weight makes up for the rounding of those before it, or adaround: up or down by the outputs' error",
    )

    @field_validator("block_size")
    @classmethod
    def _power_of_two(cls, value: int) -> int:
        if value not in (16, 32, 64, 128, 256):
            raise ValueError(f"must be 16, 32, 64, 128 or 256, not {value}")
        return value


def plain_rounding(options: WeightOptions) -> Literal["squant", "nearest", "floor"]:
    """How weights are rounded before, or where, no data is looked at."""
    rounding = options.rounding
    return "nearest" if rounding == "gptq" or rounding == "adaround" else rounding


def data_rounding(options: WeightOptions) -> DataRounding | None:
    """How weights are rounded by data; None for without."""
    rounding = options.rounding
    return rounding if rounding == "gptq" or rounding == "adaround" else None


class ActivationOptions(Block):
    """How the ranges of activations are found and stored (static mode)."""

    range: Literal["minmax", "percentile", "entropy", "mse"] | Literal["auto"] = Field(
        "auto", description="how a range is cut from what calibration saw; auto tries minmax and mse"
    )
    percentile: float = Field(99.99, gt=50, le=100, description="share of values kept inside the range, in percent")
    type: Literal["auto", "uint8", "int8"] = Field(
        "auto", description="auto: uint8 where the processor has VNNI or AVX2, int8 on ARM"
    )
    reduce_range: bool | Literal["auto"] = Field(
        "auto", description="7-bit weights, against saturation on processors with AVX2 but without VNNI"
    )


class Float16Options(Block):
    """What 16-bit floats are used for."""

    compute: bool = Field(
        False,
        description="false stores the weights in 16 bits and computes in 32 (fast everywhere); "
        "true converts the whole graph (for processors with 16-bit arithmetic)",
    )


class Qat(QuantizationAware):
    """Training with the rounding in it, after static quantization (--qat)."""

    enabled: bool = Field(False, description="whether to train; --qat says true")
    alpha: Percent = Field(
        0.0,
        ge=0,
        le=1,
        description="share of the labels in the loss beside the original's outputs; 1 leaves those out",
    )
    calibration: int = Field(
        512, ge=1, description="at most this many samples of the data calibrate, before training"
    )


class Codebook(Block):
    """Weights that share a few values (--codebook)."""

    values: int | None = Field(
        None, ge=2, le=256, description="how many values the weights of a layer may take, 2 to 256; null is any"
    )
    group: int = Field(0, ge=0, description="outputs of a layer that share their values; 0 is all of them")
    biases: Literal["float32", "float16"] = Field(
        "float32", description="how biases of 64 numbers and more are stored: as they are, or in 16 bits"
    )
    importance: Literal["auto", "none"] = Field(
        "auto", description="auto: with data, weights also count by what they are multiplied with; none: all alike"
    )
    samples: int = Field(512, ge=1, description="at most this many samples of the data tell how weights count")


class QuantizeConfig(PackableConfig):
    """Options of `modelkit quantize`: fewer bits per number."""

    mode: Mode = Field("auto", description="auto tries every mode that the inputs allow and keeps the best")
    bits: int = Field(8, description="bits per weight: 1 to 8, or 16 for 16-bit floats")
    codebook: Codebook = Field(default_factory=Codebook)
    pack: Literal["off"] | Effort | None = Field(  # type: ignore[assignment] # here it follows from the bits
        None,
        description="store the weights in fewer bytes still, without changing them: size is the smallest file, load "
        "the one that is loaded soonest, auto adds half a second at most to the time that loading takes; null is "
        "off, or auto with a codebook and where bits is 1, 2, 3, 5, 6 or 7, which no type of ONNX has",
    )
    time: Seconds | None = Field(
        None, gt=0, description="begin no other way after this long, such as 2min: the best so far is written"
    )
    weights: WeightOptions = Field(default_factory=WeightOptions)
    activations: ActivationOptions = Field(default_factory=ActivationOptions)
    float16: Float16Options = Field(default_factory=Float16Options)
    correct_bias: bool | Literal["full"] = Field(
        True,
        description="static: shift biases so that the mean of each channel survives the rounding of weights; full: "
        "layer by layer on the quantized model, so that it survives all rounding",
    )
    equalize: bool = Field(False, description="static: even out channel ranges across consecutive layers first")
    smooth: bool = Field(
        False,
        description="static, dynamic with data: move outliers of activations into the weights that read them first",
    )
    qat: Qat = Field(default_factory=Qat)

    @property
    def trying_time(self) -> float | None:
        """Seconds after which no other candidate is begun."""
        return self.time

    @property
    def packing(self) -> Literal["off"] | Effort:
        """How the result is packed."""
        if self.pack is not None:
            return self.pack
        return "auto" if self.codebook.values is not None or self.bits in (1, 2, 3, 5, 6, 7) else "off"

    @field_validator("bits")
    @classmethod
    def _known_bits(cls, value: int) -> int:
        if not (1 <= value <= 8 or value == 16):
            raise ValueError(f"must be 1 to 8, or 16, not {value}")
        return value

    @model_validator(mode="after")
    def _bits_fit_mode(self) -> QuantizeConfig:
        if self.mode == "dynamic" and self.bits != 8:
            raise ValueError(f"mode dynamic computes with 8-bit integers: bits must be 8, not {self.bits}")
        if self.mode == "static" and self.bits in (1, 16):
            raise ValueError(f"mode static computes with integers: bits must be 2 to 8, not {self.bits}")
        if self.codebook.values is not None:
            return self._codebook_alone()
        if self.codebook != Codebook():
            raise ValueError("codebook is about shared values: say how many with codebook.values")
        if self.bits == 1 and self.weights != WeightOptions(granularity=self.weights.granularity):
            raise ValueError("1 bit is the sign of a weight: weights takes a granularity and nothing else")
        if self.qat.enabled and (self.mode not in ("auto", "static") or self.bits in (1, 16)):
            chosen = f"mode {self.mode}" if self.mode not in ("auto", "static") else f"bits {self.bits}"
            raise ValueError(f"quantization-aware training needs mode static or auto and 2 to 8 bits, not {chosen}")
        by_data = data_rounding(self.weights)
        if by_data and self.mode not in ("auto", "weights", "static"):
            raise ValueError(f"weights.rounding {by_data} needs mode weights, static or auto, not {self.mode}")
        if self.mode in ("float16", "bfloat16") and "bits" in self.model_fields_set and self.bits != 16:
            raise ValueError(f"mode {self.mode} means bits 16, not {self.bits}")
        if self.mode == "weights" and self.bits == 16:
            raise ValueError("mode weights takes 1 to 8 bits; for 16 use mode float16 or bfloat16")
        if self.float16.compute and not (self.mode == "float16" or (self.mode == "auto" and self.bits == 16)):
            raise ValueError(f"float16.compute needs bits 16 or mode float16, not {self.bits} and {self.mode}")
        return self

    def _codebook_alone(self) -> QuantizeConfig:
        if self.mode not in ("auto", "weights"):
            raise ValueError(f"codebook.values is for weights alone: mode must be auto or weights, not {self.mode}")
        if "bits" in self.model_fields_set and self.bits != 8:
            raise ValueError("codebook.values and bits both say how few bits a weight takes: give one")
        if self.weights != WeightOptions():
            raise ValueError("weights says how integers are made, and a codebook has none: leave it out")
        if self.codebook.group and self.qat.enabled:
            raise ValueError("shared values are trained for whole layers: leave out codebook.group, or do not train")
        return self
