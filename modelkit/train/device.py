"""Where torch computes and how: the device, threads, and kernels that repeat their results."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from modelkit.errors import ModelError, UsageError
from modelkit.train.config import TrainOptions


def pick_device(wish: str) -> torch.device:
    """Return the device that is asked for.

    Raises:
        UsageError: This machine or this torch does not have it.
    """
    have = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if wish == "auto":
        return torch.device(next(name for name in ("cuda", "mps", "cpu") if have[name]))
    if not have[wish]:
        raise UsageError(f"torch finds no device '{wish}' here", "use --device auto or cpu")
    return torch.device(wish)


@contextmanager
def settings(options: TrainOptions) -> Iterator[torch.device]:
    """Make torch repeatable and set its threads, as they were before when it ends.

    Yields:
        The device to compute on.

    Raises:
        UsageError: The device is not there.
    """
    device = pick_device(options.device)
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    lenient = torch.is_deterministic_algorithms_warn_only_enabled()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*deterministic.*")
        if options.threads:
            torch.set_num_threads(options.threads)
        torch.use_deterministic_algorithms(True, warn_only=True)
        # Denormal numbers, which gradients of almost dead units are, make a step on x64 up to ten times slower.
        torch.set_flush_denormal(True)
        try:
            yield device
        finally:
            torch.set_flush_denormal(False)
            torch.use_deterministic_algorithms(strict, warn_only=lenient)
            torch.set_num_threads(threads)


def tensor(array: np.ndarray, device: torch.device) -> Tensor:
    """Bring an array to the device.

    Raises:
        ModelError: torch has no such type (text).
    """
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(np.ascontiguousarray(array).view(np.int16)).view(torch.bfloat16).to(device)
    if device.type == "mps" and array.dtype == np.float64:  # it has no doubles
        array = array.astype(np.float32)
    try:
        return torch.from_numpy(np.require(array, requirements=["C", "W"])).to(device)
    except TypeError as error:
        raise ModelError(f"inputs of type {array.dtype} cannot be trained with") from error
