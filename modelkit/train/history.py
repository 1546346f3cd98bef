"""What a training run went through, epoch by epoch."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from modelkit.decision import Decision

if TYPE_CHECKING:
    import onnx_ir as ir

_HISTORY = "modelkit.history"


@dataclass(frozen=True)
class Epoch:
    """One pass over the training samples.

    Attributes:
        number: From 1; 0 is the model before training.
        rate: Learning rate of the last step.
        train_loss: Mean loss of the steps; None for epoch 0.
        loss: Loss on the validation samples; None without any.
        quality: Metric on the validation samples; None without any.
        seconds: Time that it took, validation included.
    """

    number: int
    rate: float
    train_loss: float | None
    loss: float | None
    quality: float | None
    seconds: float


@dataclass
class History:
    """A training run.

    Attributes:
        epochs: What each epoch came to; epoch 0 is the model before training.
        best: Number of the epoch whose weights the module has now.
        rate: The highest learning rate.
        trials: Loss after a short trial of each learning rate, [rate, loss]; empty where the rate was given.
        batch: Samples in a step.
        steps: Optimiser steps made, resumed ones included.
        task: "classification", "binary", "regression" or "none" (without labels).
        metric: Name of the quality: "accuracy", "rmse" or "agreement"; "" without validation samples.
        loss: What was minimised, for a reader.
        stopped: Why it ended: "finished", "early stopping", "time limit" or "diverged".
        device: Where torch computed.
        samples: Training and validation samples.
        notes: What a reader must know.
    """

    epochs: list[Epoch] = field(default_factory=list)
    best: int = 0
    rate: float = 0.0
    trials: list[tuple[float, float]] = field(default_factory=list)
    batch: int = 0
    steps: int = 0
    task: str = "none"
    metric: str = ""
    loss: str = ""
    stopped: str = "finished"
    device: str = "cpu"
    samples: tuple[int, int] = (0, 0)
    notes: list[str] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Time spent in all epochs."""
        return sum(epoch.seconds for epoch in self.epochs)


def note(model: ir.Model, history: History) -> None:
    """Keep with a model in memory what a training of it went through; its file does not hold it."""
    model.meta.setdefault(_HISTORY, []).append(asdict(history))


def noted(model: ir.Model) -> list[dict[str, Any]]:
    """The trainings of a model in memory as plain values, in order."""
    return list(model.meta.get(_HISTORY, ()))


def summary(history: History, action: str) -> Decision:
    """What a training came to, in one decision for the model, under the given action."""
    best = next(epoch for epoch in history.epochs if epoch.number == history.best)
    start = history.epochs[0]
    numbers: dict[str, float | int | str] = {
        "epochs": history.epochs[-1].number,
        "best_epoch": history.best,
        "learning_rate": history.rate,
        "batch": history.batch,
        "samples": history.samples[0],
        "seconds": round(history.seconds, 1),
    }
    for name, value in (("before", start.quality), ("after", best.quality)):
        if value is not None:
            numbers[f"validation_{history.metric}_{name}"] = round(value, 4)
    return Decision("model", action, "; ".join([f"by {history.loss}", history.stopped, *history.notes]), numbers)
