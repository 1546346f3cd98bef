"""The YAML of everything that is trained: the options of the one training loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from modelkit.config.options import Block
from modelkit.config.resolve import Percent, Seconds

if TYPE_CHECKING:
    from modelkit.data.dataset import Dataset

Loss = Literal["auto", "cross_entropy", "mse", "bce", "huber", "distill"]


class TrainOptions(Block):
    """How a model is trained."""

    epochs: int = Field(10, ge=0, le=100_000, description="passes over the training samples")
    batch: int | Literal["auto"] = Field(
        "auto", description="samples in a step, where the model takes any number; auto: 8 to 64, by their number"
    )
    optimizer: Literal["adamw", "sgd"] = Field(
        "adamw", description="adamw, or sgd with Nesterov momentum; neither decays biases and other 1-D weights"
    )
    learning_rate: float | Literal["auto"] = Field(
        "auto", description="highest learning rate; auto finds it by short trials"
    )
    weight_decay: float = Field(0.01, ge=0, le=10, description="decay of weights, decoupled for adamw; 0 is off")
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum of sgd; 0 is off")
    warmup: Percent = Field(
        0.05, ge=0, lt=1, description="share of all steps in which the learning rate rises from 0"
    )
    schedule: Literal["cosine", "constant"] = Field(
        "cosine", description="learning rate after the warm-up: down to 0 along a cosine, or constant"
    )
    clip: float = Field(1.0, ge=0, description="largest norm of the gradient, cut down to it; 0 is off")
    patience: int = Field(
        5, ge=0, le=100_000, description="epochs without a better validation result before it stops; 0 is off"
    )
    validation: Percent = Field(
        0.1, ge=0, le=0.5, description="share of the training samples set apart to choose the best epoch; 0 is off"
    )
    loss: Loss = Field(
        "auto", description="auto: by the labels and the output; distill follows the teacher, labels or not"
    )
    temperature: float = Field(2.0, gt=0, le=100, description="distillation: softens class scores by this divisor")
    alpha: Percent = Field(
        0.5,
        ge=0,
        le=1,
        description="share of the labels in the loss beside a teacher; 1 needs no teacher",
    )
    label_smoothing: Percent = Field(
        0.0, ge=0, lt=1, description="cross-entropy: share of each label spread over all classes"
    )
    mixup: float = Field(
        0.0, ge=0, le=10, description="mix pairs of samples, with shares from Beta(mixup, mixup); 0 is off"
    )
    augment: Literal["none", "shift", "flip", "shift_flip"] = Field(
        "none", description="images: move by up to an eighth, mirror left and right, or both, at random"
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        "auto", description="where torch computes; auto takes a GPU where there is one"
    )
    threads: int = Field(0, ge=0, le=1024, description="threads that torch may use; 0 lets torch choose")
    time_limit: Seconds | None = Field(
        None,
        gt=0,
        description="longest training time, 90s, 10min, 2h: the rate is down by then, the best weights count",
    )

    @model_validator(mode="after")
    def _fits_together(self) -> TrainOptions:
        rate = self.learning_rate
        if rate != "auto" and not 0 < rate <= 100:
            raise ValueError(f"learning_rate must be above 0 and at most 100, not {rate:g}")
        if self.batch != "auto" and not 1 <= self.batch <= 65536:
            raise ValueError(f"batch must be from 1 to 65536, not {self.batch}")
        if self.label_smoothing and self.loss not in ("auto", "cross_entropy"):
            raise ValueError(f"label_smoothing belongs to the loss cross_entropy, not {self.loss}")
        if self.momentum != 0.9 and self.optimizer != "sgd":
            raise ValueError("momentum belongs to the optimizer sgd")
        return self

    def batch_for(self, count: int) -> int:
        """The batch size, "auto" resolved: the largest power of two that makes 32 steps an epoch, from 8 to 64."""
        if self.batch != "auto":
            return self.batch
        size = 64
        while size > 8 and count < 32 * size:
            size //= 2
        return size


class FineTune(TrainOptions):
    """Training that repairs a model after it was changed."""

    epochs: int = Field(0, ge=0, le=100_000, description="passes over the training samples; 0 is no fine-tuning")
    weight_decay: float = Field(0.0001, ge=0, le=10, description="decay of weights, decoupled for adamw; 0 is off")


class QuantizationAware(FineTune):
    """Training with the rounding of a quantized model in it."""

    epochs: int = Field(5, ge=0, le=100_000, description="passes over the training samples")
    ranges: Literal["learned", "observed"] = Field(
        "learned", description="steps of weights and activations are learned, or stay as calibration found them"
    )


def followed_where_unlabelled(options: FineTune, data: Dataset | None) -> FineTune:
    """The options for data that may have no labels: without any the teacher alone is followed."""
    if data is None or data.has_labels or options.loss not in ("auto", "distill"):
        return options
    return options.model_copy(update={"loss": "distill"})
