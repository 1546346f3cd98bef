"""A student of integers: what is made of the trained one follows the teacher with the rounding in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir

from modelkit.data.dataset import Dataset
from modelkit.decision import Decision
from modelkit.progress import Progress
from modelkit.train.qat import Trainer

Quantize = Callable[[ir.Model, Dataset, Trainer, Progress], list[Decision]]
"""Quantizes a model statically, in place, with a training in the middle: gets the model, inputs to calibrate with,
the training, and what is told how far it is."""


def untrained(model: ir.Model, weights: Mapping[str, np.ndarray], bits: int, progress: Progress) -> list[Decision]:
    """Leave a quantized graph as it is (a `Trainer`)."""
    return []
