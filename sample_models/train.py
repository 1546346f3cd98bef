"""One training loop for all sample models: AdamW, a one-cycle learning rate, bfloat16 where it is faster."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from data import Split
from torch import Tensor, nn
from torch.nn import functional


def seed_everything(seed: int) -> None:
    """Make what follows repeatable on this machine: seeds, one thread, deterministic kernels."""
    torch.manual_seed(seed)
    # Sums depend on how many threads share them; several samples train side by side instead.
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    # Denormal gradients make a step on x64 up to ten times slower.
    torch.set_flush_denormal(True)


def jitter(x: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror half of the images and move each batch by up to one pixel."""
    mirrored = torch.rand(len(x), generator=generator) < 0.5
    x = torch.where(mirrored[:, None, None, None], x.flip(3), x)
    down, right = (int(torch.randint(0, 3, (), generator=generator)) for _ in range(2))
    height, width = x.shape[2:]
    return functional.pad(x, (1, 1, 1, 1))[..., down : down + height, right : right + width]


def fit(
    net: nn.Module,
    epoch_data: Callable[[int], Split],
    *,
    epochs: int,
    batch: int,
    rate: float,
    decay: float = 0.01,
    smoothing: float = 0.0,
    augment: Callable[[Tensor, torch.Generator], Tensor] | None = None,
    half: bool = False,
    log: Callable[[str], None] = lambda line: None,
) -> None:
    """Train `net` in place by cross-entropy.

    Args:
        net: Module from an input batch to logits.
        epoch_data: Gives the samples of an epoch by its number.
        epochs: Passes over the data.
        batch: Samples a step; the rest of an epoch that fills no batch is left out.
        rate: Highest learning rate of the cycle.
        decay: Weight decay of AdamW.
        smoothing: Label smoothing, 0..1.
        augment: Changes an input batch at random.
        half: Compute in bfloat16 (weights stay float32) where the processor does, images with channels last.
        log: Takes one line an epoch.
    """
    first = epoch_data(0)
    steps = len(first.y) // batch
    last, half = half, half and has_bfloat16()
    if last:
        net.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=max(2, steps * epochs))
    generator = torch.Generator().manual_seed(0)
    start = time.monotonic()
    net.train()
    for epoch in range(epochs):
        split = first if epoch == 0 else epoch_data(epoch)
        x, y = torch.from_numpy(split.x), torch.from_numpy(split.y)
        total = 0.0
        for rows in torch.randperm(len(y), generator=generator)[: steps * batch].view(steps, batch):
            inputs = x[rows] if augment is None else augment(x[rows], generator)
            if last and inputs.ndim == 4:
                inputs = inputs.contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                logits = net(inputs)
            loss = functional.cross_entropy(logits.float(), y[rows], label_smoothing=smoothing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        log(f"epoch {epoch + 1}/{epochs}: loss {total / steps:.4f}, {time.monotonic() - start:.0f} s")
    net.eval()
    net.to(memory_format=torch.contiguous_format)


def has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16; where it does not, it takes several times as long as float32."""
    return bool(torch.cpu._is_avx512_bf16_supported()) or bool(torch.cpu._is_amx_tile_supported())


def predictions(net: nn.Module, x: np.ndarray, batch: int = 256) -> np.ndarray:
    """Logits of all rows of `x`."""
    with torch.no_grad():
        return np.concatenate([net(torch.from_numpy(x[i : i + batch])).numpy() for i in range(0, len(x), batch)])
