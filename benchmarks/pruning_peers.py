"""Torch-Pruning's one-shot channel pruning on a sample network, written as ONNX to stand beside ours."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import torch
from harness import SAMPLES
from onnx import numpy_helper
from torch import nn

sys.path.insert(0, str(SAMPLES))
import nets


def fashion_cnn() -> nn.Module:
    """The residual sample network with its BatchNorm, its numbers read from the unfolded twin."""
    net = nets.FashionCnn()
    model = onnx.load(str(SAMPLES / "twins" / "fashion_cnn_batchnorm.onnx"))
    arrays = {
        tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).copy()) for tensor in model.graph.initializer
    }
    wanted = {name: value for name, value in net.state_dict().items() if not name.endswith("num_batches_tracked")}
    net.load_state_dict({name: arrays[name] for name in wanted}, strict=False)
    return net.eval()


def prune_half(net: nn.Module, example: torch.Tensor, share: float, spread: bool) -> float:
    """Cut channels of the least L2 norm until a share of the MACs is gone; returns the share that was cut.

    Args:
        net: Changed in place.
        example: One input.
        share: Share of MACs to remove.
        spread: Whether all layers are ranked together (Torch-Pruning's global pruning).
    """
    import torch_pruning as tp

    base, _ = tp.utils.count_ops_and_params(net, example)
    last = [module for module in net.modules() if isinstance(module, nn.Linear)][-1]

    def cut(target: nn.Module, ratio: float, ignored: nn.Module) -> float:
        pruner = tp.pruner.BasePruner(
            target,
            example,
            importance=tp.importance.GroupMagnitudeImportance(p=2),
            pruning_ratio=ratio,
            global_pruning=spread,
            ignored_layers=[ignored],
            round_to=8,
        )
        pruner.step()
        return 1 - tp.utils.count_ops_and_params(target, example)[0] / base

    # The tool takes a share of channels: find the one that removes as many MACs as ours.
    low, high = 0.0, 0.95
    for _ in range(12):
        middle = (low + high) / 2
        trial = copy.deepcopy(net)
        head = [module for module in trial.modules() if isinstance(module, nn.Linear)][-1]
        if cut(trial, middle, head) < share:
            low = middle
        else:
            high = middle
    return cut(net, high, last)


def reestimate_batchnorm(net: nn.Module, images: np.ndarray) -> None:
    """Take the statistics of BatchNorm anew from some inputs: the usual repair without training."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    net.train()
    with torch.no_grad():
        for start in range(0, len(images), 64):
            net(torch.from_numpy(images[start : start + 64]))
    net.eval()


def export(net: nn.Module, example: torch.Tensor, target: Path, name: str) -> None:
    """Write a module as ONNX with an open batch."""
    torch.onnx.export(
        net.eval(),
        (example,),
        str(target),
        input_names=[name],
        output_names=["logits"],
        dynamic_axes={name: {0: "batch"}, "logits": {0: "batch"}},
        dynamo=False,
    )


def torch_pruning(share: float, images: np.ndarray, folder: Path) -> list[tuple[str, Path, float]]:
    """All variants of the peer: name, ONNX file and the share of MACs that was cut."""
    example = torch.from_numpy(images[:1])
    made: list[tuple[str, Path, float]] = []
    ways = [("magnitude, per layer", False), ("magnitude, global", True)]
    repairs: list[tuple[str, Callable[[nn.Module], None]]] = [
        ("", lambda net: None),
        (", BatchNorm re-estimated", lambda net: reestimate_batchnorm(net, images)),
    ]
    for label, spread in ways:
        for suffix, repair in repairs:
            net = fashion_cnn()
            cut = prune_half(net, example, share, spread)
            repair(net)
            path = folder / f"peer-{len(made)}.onnx"
            export(net, example, path, "image")
            made.append((f"Torch-Pruning 1.6.1, {label}{suffix}", path, cut))
    return made
