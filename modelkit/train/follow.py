"""How a teacher is followed: which loss for classes and for numbers, and which tensors inside count too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Classes = Literal["kl", "dist", "dkd"]
Values = Literal["auto", "mse", "huber", "cosine"]


@dataclass(frozen=True)
class Hint:
    """A tensor inside that follows one inside the teacher.

    Attributes:
        output: Name of the module's output that it is.
        teacher: Name of the teacher's output.
        kind: "features" are numbers, met by their squared error; "attention" is what a softmax over keys gave.
    """

    output: str
    teacher: str
    kind: Literal["features", "attention"] = "features"


@dataclass(frozen=True)
class Follow:
    """How a teacher is followed; see `modelkit.train.distillation` for the losses.

    Attributes:
        classes: Loss of class scores: softened divergence, relations (DIST) or decoupled (DKD).
        values: Loss of other numbers: squared or Huber error, or the angle of embeddings. Where it is not "auto",
            outputs that might be class scores, and nothing says so, are such numbers.
        weights: Weights of the two parts of ``dist`` (between classes, within a class) or of ``dkd`` (the target, the
            others).
        hints: Tensors inside that count too.
        hint_weight: Weight of their mean loss beside all else.
    """

    classes: Classes = "kl"
    values: Values = "auto"
    weights: tuple[float, float] = (1.0, 1.0)
    hints: tuple[Hint, ...] = ()
    hint_weight: float = 1.0
