"""LeNet-300-100 and LeNet-5 (Caffe's) on MNIST, trained densely: what compression is usually measured on."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from harness import ROOT, SAMPLES

if TYPE_CHECKING:
    from torch import nn

sys.path.insert(0, str(SAMPLES))


def mnist_folder() -> Path | None:
    """Where mnist_train.npz and mnist_test.npz (arrays x and y) are: in MNIST, data, or ../shared/data; else None."""
    named = os.environ.get("MNIST")
    places = [Path(named)] if named else [ROOT / "data", ROOT.parent / "shared" / "data"]
    return next((place for place in places if (place / "mnist_train.npz").exists()), None)


def mnist(part: str) -> tuple[np.ndarray, np.ndarray]:
    """Images ``float32[N, 1, 28, 28]`` from 0 to 1 and labels ``int64[N]`` of "train" or "test"."""
    folder = mnist_folder()
    if folder is None:
        sys.exit("mnist_train.npz is missing: name the folder of MNIST's npz files with MNIST=")
    found = np.load(folder / f"mnist_{part}.npz")
    return (found["x"].astype(np.float32) / 255).reshape(-1, 1, 28, 28), found["y"].astype(np.int64)


def moved(x: np.ndarray, down: int, right: int) -> np.ndarray:
    """Images ``[N, 1, H, W]`` moved by at most one pixel, with zeros where nothing was."""
    height, width = x.shape[2:]
    wide = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    return wide[:, :, 1 - down : 1 - down + height, 1 - right : 1 - right + width]


def train_lenet_300_100(x: np.ndarray, y: np.ndarray, target: Path) -> None:
    """Train 784-300-100-10 (LeCun et al. 1998), 266,610 numbers, and write it as ONNX."""
    from torch import nn

    def make() -> nn.Module:
        layers = (nn.Flatten(), nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10))
        return nn.Sequential(*layers)

    _train(make, x, y, target, epochs=40)


def train_lenet_5(x: np.ndarray, y: np.ndarray, target: Path) -> None:
    """Train the LeNet-5 of Caffe (Jia et al. 2014), 431,080 numbers, and write it as ONNX."""
    from torch import nn

    def make() -> nn.Module:
        convolutions = (nn.Conv2d(1, 20, 5), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5), nn.MaxPool2d(2))
        layers = (*convolutions, nn.Flatten(), nn.Linear(800, 500), nn.ReLU(), nn.Linear(500, 10))
        return nn.Sequential(*layers)

    _train(make, x, y, target, epochs=14, last=True)


def _train(
    make: Callable[[], nn.Module], x: np.ndarray, y: np.ndarray, target: Path, *, epochs: int, last: bool = False
) -> None:
    """Train on images that move by up to one pixel, and export.

    Args:
        make: Makes the module, once its seed is set.
        x: Images.
        y: Labels.
        target: Where to write.
        epochs: Passes over the images.
        last: Whether the channels lie last while it trains, which is faster for convolutions.
    """
    import data
    import torch
    import train

    def rows(epoch: int) -> data.Split:
        return data.Split(jittered(x, epoch), y)

    train.seed_everything(0)
    net = make()
    if last:
        net.to(memory_format=torch.channels_last)
    train.fit(net, rows, epochs=epochs, batch=128, rate=2e-3, decay=0.05, log=print)
    net.to(memory_format=torch.contiguous_format)
    torch.onnx.export(
        net,
        (torch.from_numpy(x[:1]),),
        str(target),
        input_names=["image"],
        output_names=["logits"],
        dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}},
        dynamo=False,
    )


def made(name: str) -> Path:
    """A dense net of sample_models/made, "lenet_300_100" or "lenet_5", trained where it is not there yet."""
    target = SAMPLES / "made" / f"{name}.onnx"
    if not target.exists():
        target.parent.mkdir(exist_ok=True)
        {"lenet_300_100": train_lenet_300_100, "lenet_5": train_lenet_5}[name](*mnist("train"), target)
    return target


def jittered(x: np.ndarray, seed: int) -> np.ndarray:
    """Images, each moved by up to one pixel in a direction of its own."""
    rng = np.random.default_rng(seed)
    found, which = np.empty_like(x), rng.integers(0, 9, len(x))
    for move in range(9):
        found[which == move] = moved(x[which == move], move // 3 - 1, move % 3 - 1)
    return found
