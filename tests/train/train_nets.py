"""Small modules with the interface of a trainable graph, and data for them."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from modelkit.data.arrays import from_arrays
from modelkit.data.dataset import Dataset
from modelkit.data.open import open_dataset
from modelkit.runtime import TensorSpec, input_specs, make_session

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"


class Mlp(nn.Module):
    """Linear layers with ReLU between, from one input to one output."""

    def __init__(self, *sizes: int, seed: int = 0, output: str = "logits", last: nn.Module | None = None) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.initializers = {}
        self.count = len(sizes) - 1
        for i, (fan_in, fan_out) in enumerate(pairwise(sizes)):
            weight = torch.randn(fan_out, fan_in, generator=generator) * fan_in**-0.5
            self.initializers[f"w{i}"] = nn.Parameter(weight)
            self.initializers[f"b{i}"] = nn.Parameter(torch.zeros(fan_out))
        for name, weight in self.initializers.items():
            self.register_parameter(name, weight)
        self.output, self.last = output, last

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        x = next(iter(inputs.values()))
        for i in range(self.count):
            x = nn.functional.linear(x, self.initializers[f"w{i}"], self.initializers[f"b{i}"])
            x = x.relu() if i < self.count - 1 else x
        return {self.output: x if self.last is None else self.last(x)}


def digits(part: str = "calib") -> Dataset:
    specs = input_specs(make_session(SAMPLES / "digits_mlp.onnx"))
    return open_dataset(SAMPLES / f"digits_mlp.{part}.npz", specs, classes=10)


def digits_net() -> Mlp:
    """The sample's network with its trained weights."""
    arrays = [onnx.numpy_helper.to_array(t) for t in onnx.load(SAMPLES / "digits_mlp.onnx").graph.initializer]
    weights = [a for a in arrays if a.ndim == 2]
    biases = [a for a in arrays if a.ndim == 1]
    sizes = [weights[0].shape[1], *(len(w) for w in weights)]
    net = Mlp(*sizes)
    with torch.no_grad():
        for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            net.initializers[f"w{i}"].copy_(torch.from_numpy(weight.copy()))
            net.initializers[f"b{i}"].copy_(torch.from_numpy(bias.copy()))
    return net


def perturb(net: nn.Module, amount: float, seed: int = 0) -> None:
    """Add noise to all weights, in proportion to their spread."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in net.parameters():
            if weight.ndim > 1:
                weight += amount * weight.std() * torch.randn(weight.shape, generator=generator)


def dataset(inputs: np.ndarray, labels: np.ndarray | None = None, batch: int | str = "batch") -> Dataset:
    spec = TensorSpec("x", inputs.dtype, (batch, *inputs.shape[1:]))
    return from_arrays({"x": inputs}, [spec], labels=labels)


def accuracy(net: nn.Module, data: Dataset) -> float:
    right = 0
    with torch.no_grad():
        for batch in data.batches(256):
            outputs = net({name: torch.from_numpy(array) for name, array in batch.inputs.items()})
            scores = next(iter(outputs.values())).numpy()[: batch.valid]
            right += int((scores.argmax(axis=1) == batch.labels).sum())
    return right / data.count
