"""Checkpoints of a training run: one file, replaced in one step, that a killed run goes on from."""

from __future__ import annotations

import hashlib
import json
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from modelkit.files import Staging
from modelkit.train.history import Epoch

FILE = "training.pt"
EVERY_S = 15.0
"""Seconds between checkpoints; the end of a run writes one too."""

_VERSION = 1


@dataclass
class State:
    """Where a run is, apart from the module and the optimiser.

    Attributes:
        epoch: Number of the epoch that is running, from 1.
        step: Steps of that epoch that are done.
        steps: Steps made in all, also before a restart.
        rate: The highest learning rate; 0 before it is known.
        trials: Loss after a short trial of each rate, (rate, loss).
        restarted: Whether training began again with a tenth of the rate.
        loss_sum: Sum of the losses of the steps that are done.
        spent: Seconds used by earlier processes and epochs.
        prepared: Seconds that had been used when the first step was made.
        first_loss: Loss of the very first step.
        best_epoch: Epoch of the best weights.
        best_score: How good they are, lower is better; empty before there are any.
        stale: Epochs since then.
        epochs: What has been.
        notes: What a reader must know.
        masks: What stays zero.
        stopped: Why it ended; "" while it runs.
    """

    epoch: int = 1
    step: int = 0
    steps: int = 0
    rate: float = 0.0
    trials: list[tuple[float, float]] = field(default_factory=list)
    restarted: bool = False
    loss_sum: float = 0.0
    spent: float = 0.0
    prepared: float = 0.0
    first_loss: float | None = None
    best_epoch: int = 0
    best_score: list[float] = field(default_factory=list)
    stale: int = 0
    epochs: list[Epoch] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    masks: dict[str, np.ndarray] = field(default_factory=dict)
    stopped: str = ""


def run_key(module: nn.Module, facts: Mapping[str, object]) -> str:
    """Tell runs apart by their starting weights and everything that decides what comes of them."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode())
    for name, value in module.state_dict().items():
        plain = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(f"{name}\0{value.dtype}{tuple(value.shape)}\0".encode())
        digest.update(plain.numpy().tobytes())
    return digest.hexdigest()


def copy_weights(module: nn.Module) -> dict[str, Tensor]:
    """Copy a module's weights and buffers to main memory."""
    return {name: value.detach().to("cpu", copy=True) for name, value in module.state_dict().items()}


def save_state(
    folder: Path,
    key: str,
    state: State,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    best: Mapping[str, Tensor],
) -> None:
    """Write a checkpoint; what was there stays valid until the new one is complete.

    Raises:
        ResourceError: The disk is full or refuses.
    """
    plain: dict[str, Any] = {name: value for name, value in vars(state).items() if name not in ("epochs", "masks")}
    plain["epochs"] = [list(vars(epoch).values()) for epoch in state.epochs]
    plain["masks"] = {name: torch.from_numpy(mask) for name, mask in state.masks.items()}
    content = {
        "version": _VERSION,
        "key": key,
        "state": plain,
        "module": copy_weights(module),
        "optimizer": optimizer.state_dict(),
        "best": dict(best),
    }
    with Staging(folder) as stage:
        torch.save(content, stage.path(FILE))
        stage.publish([FILE], force=True)


def load_state(
    folder: Path, key: str, module: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[State | None, dict[str, Tensor], str]:
    """Go on from a checkpoint, if there is one of the same run.

    It is read without unpickling anything but numbers and tensors.

    Args:
        folder: Where checkpoints are.
        key: `run_key` of the run.
        module: Gets the weights.
        optimizer: Gets its state.

    Returns:
        The state, the best weights, and a note where a checkpoint was of no use; None and nothing where a run must
        start anew.
    """
    path = folder / FILE
    if not path.exists():
        return None, {}, ""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        if content["version"] != _VERSION or content["key"] != key:
            return None, {}, "the checkpoint that was there belongs to another run; training began anew"
        plain = dict(content["state"])
        plain["epochs"] = [Epoch(*values) for values in plain["epochs"]]
        plain["masks"] = {name: mask.numpy() for name, mask in plain["masks"].items()}
        state = State(**plain)
        module.load_state_dict(content["module"])
        optimizer.load_state_dict(content["optimizer"])
        return state, dict(content["best"]), ""
    except (
        OSError,
        EOFError,
        LookupError,
        TypeError,
        ValueError,
        RuntimeError,
        AttributeError,
        pickle.UnpicklingError,
        zipfile.BadZipFile,
    ):
        return None, {}, "the checkpoint that was there is damaged; training began anew"
