"""Training samples varied at random: images moved and mirrored, pairs of samples mixed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from modelkit.errors import DataError
from modelkit.measure.scores import is_float
from modelkit.train.config import TrainOptions

_CHANNELS = (1, 3, 4)


class Augmenter:
    """Varies the inputs of batches; the same seed, epoch and step give the same variation.

    Args:
        inputs: Arrays of one batch, to see what there is to vary.
        axes: For each input the axis of the samples; None where it is shared.
        options: `augment` and `mixup` are read.
        seed: Seed of the run.

    Raises:
        DataError: There is nothing to which the options apply.
    """

    def __init__(
        self, inputs: Mapping[str, np.ndarray], axes: Mapping[str, int | None], options: TrainOptions, seed: int
    ) -> None:
        self._axes, self._options, self._seed = axes, options, seed
        self.changes = options.augment != "none" or options.mixup > 0
        self._images = {name: layout for name, array in inputs.items() if (layout := _layout(array))}
        if options.augment != "none" and not self._images:
            listed = ", ".join(f"{name} {list(array.shape)}" for name, array in inputs.items())
            raise DataError(
                f"augment {options.augment} is for images, and no input is one ({listed})",
                hint="an image input has four dimensions with 1, 3 or 4 channels; use augment none",
            )
        batched = [array for name, array in inputs.items() if axes.get(name) is not None]
        if options.mixup > 0 and not all(is_float(array) for array in batched):
            raise DataError("mixup needs inputs of floats: others cannot be mixed", hint="use mixup 0")

    def apply(
        self, inputs: Mapping[str, np.ndarray], epoch: int, step: int
    ) -> tuple[dict[str, np.ndarray], np.ndarray | None, float]:
        """Vary a batch.

        Args:
            inputs: Its arrays; not changed.
            epoch: Number of the epoch.
            step: Number of the step in the epoch.

        Returns:
            The inputs; the number of the sample that each was mixed with, or None; the share of the first.
        """
        if not self.changes:
            return dict(inputs), None, 1.0
        random = np.random.default_rng([self._seed, epoch, step, 1])
        varied = dict(inputs)
        for name, layout in self._images.items():
            varied[name] = _vary(varied[name], layout, self._options.augment, random)
        if not self._options.mixup:
            return varied, None, 1.0
        share = float(random.beta(self._options.mixup, self._options.mixup))
        batched = {name: axis for name in varied if (axis := self._axes.get(name)) is not None}
        count = min(varied[name].shape[axis] for name, axis in batched.items())
        partners = random.permutation(count)
        for name, axis in batched.items():
            array = varied[name]
            varied[name] = (share * array + (1 - share) * np.take(array, partners, axis)).astype(array.dtype)
        return varied, partners, share


def _layout(array: np.ndarray) -> str:
    """Return "nchw" or "nhwc" for images, "" for anything else."""
    if array.ndim != 4 or not (is_float(array) or array.dtype == np.uint8):
        return ""
    if array.shape[1] in _CHANNELS and min(array.shape[2:]) > 4:
        return "nchw"
    return "nhwc" if array.shape[3] in _CHANNELS and min(array.shape[1:3]) > 4 else ""


def _vary(images: np.ndarray, layout: str, how: str, random: np.random.Generator) -> np.ndarray:
    moved = images if layout == "nchw" else np.moveaxis(images, 3, 1)
    count, channels, height, width = moved.shape
    rows, columns = np.arange(height)[None], np.arange(width)[None]
    if "shift" in how:
        # The edge is repeated into the gap: which value stands for "nothing" is not known.
        down, right = (random.integers(-size // 8, size // 8 + 1, (count, 1)) for size in (height, width))
        rows, columns = np.clip(rows + down, 0, height - 1), np.clip(columns + right, 0, width - 1)
    if "flip" in how:
        columns = np.where(random.random((count, 1)) < 0.5, columns[:, ::-1], columns)
    picked = moved[
        np.arange(count)[:, None, None, None],
        np.arange(channels)[None, :, None, None],
        rows[:, None, :, None],
        columns[:, None, None, :],
    ]
    return np.ascontiguousarray(picked if layout == "nchw" else np.moveaxis(picked, 1, 3))
