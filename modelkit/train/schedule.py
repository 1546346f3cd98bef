"""Learning rate over time: a linear warm-up, then a cosine or a constant."""

from __future__ import annotations

import math

from modelkit.train.config import TrainOptions


def rate_at(step: int, total: int, options: TrainOptions, peak: float) -> float:
    """Learning rate of a step.

    The cosine is that of Loshchilov and Hutter, "SGDR" (2017), equation 5, without restarts and down to 0.

    Args:
        step: Number of the step, from 0 to total - 1.
        total: Steps in all.
        options: `warmup` and `schedule` are read.
        peak: The highest rate.

    Returns:
        A rate above 0 and at most the highest.
    """
    warm = math.ceil(options.warmup * total)
    if step < warm:
        return peak * (step + 1) / (warm + 1)
    if options.schedule == "constant":
        return peak
    # Counted so that the last step still moves.
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, total - warm)))
