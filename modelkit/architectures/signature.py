"""What a network is to read and to give: its input, its output, and how the input's numbers spread."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from modelkit.errors import ModelError


@dataclass(frozen=True)
class Signature:
    """The outside of a network with one input and one output.

    Attributes:
        shape: Shape of one sample, without the batch.
        outputs: How many numbers it gives: classes, or values.
        input: Name of the input.
        output: Name of the output.
        tokens: Whether the input holds whole numbers that stand for tokens, int64.
        vocabulary: How many tokens there are; of no matter otherwise.
        mean: Mean of each channel (images) or feature, to be taken off; empty for none.
        scale: What to multiply by afterwards, as many.
        vector: Whether the output has one number for each sample and no axis for them, [batch].
    """

    shape: tuple[int, ...]
    outputs: int
    input: str = "input"
    output: str = "output"
    tokens: bool = False
    vocabulary: int = 0
    mean: tuple[float, ...] = field(default=())
    scale: tuple[float, ...] = field(default=())
    vector: bool = False

    @property
    def size(self) -> int:
        """Numbers in a sample."""
        return math.prod(self.shape)


def image_shape(signature: Signature, image: Sequence[int] | None, family: str) -> tuple[int, int, int]:
    """The channels, height and width of samples, as a network of images sees them.

    Raises:
        ModelError: The samples are no images.
    """
    shape = signature.shape
    if signature.tokens:
        raise ModelError(f"a {family} reads images, and '{signature.input}' holds tokens", "use family: transformer")
    if image is not None:
        if math.prod(image) != signature.size:
            raise ModelError(
                f"image {list(image)} has {math.prod(image)} numbers, and a sample of '{signature.input}' "
                f"has {signature.size}",
                "give channels, height and width whose product that is",
            )
        return image[0], image[1], image[2]
    if len(shape) == 3:
        return shape[0], shape[1], shape[2]
    if len(shape) == 2:
        return 1, shape[0], shape[1]
    raise ModelError(
        f"a {family} reads images [channels, height, width], and a sample of '{signature.input}' is "
        f"{'x'.join(map(str, shape)) or 'one number'}",
        "say how to see it as one with image: [channels, height, width], or use family: mlp",
    )


def spread(rows: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and inverse deviation of samples: of each channel of images, of each feature of anything else.

    Args:
        rows: Samples [N, ...].
    """
    wide = rows.astype(np.float64)
    axes = (0, *range(2, rows.ndim)) if rows.ndim == 4 else (0,)
    mean, deviation = wide.mean(axis=axes).reshape(-1), wide.std(axis=axes).reshape(-1)
    if rows.ndim != 4:  # pixels at the edge that hardly change must not be blown up
        deviation = np.maximum(deviation, 0.1 * max(float(wide.std()), 1e-12) if rows.ndim > 2 else 1e-12)
    scale = np.where(deviation > 1e-9, 1.0 / np.maximum(deviation, 1e-9), 1.0)
    return tuple(float(v) for v in mean.astype(np.float32)), tuple(float(v) for v in scale.astype(np.float32))
