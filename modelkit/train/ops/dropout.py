"""Dropout, the one operator that is random on purpose."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - its usual name

from modelkit.train.ops.op import Builder, Moded, Op


def dropout(op: Op) -> Moded:
    """``Dropout``: passes everything on in inference, drops in training.

    Its own ``training_mode`` input (opset 12) is what the exporter said; that the module trains counts.
    """
    fixed = op.number("ratio", 0.5)
    with_mask = op.wanted(1)
    old_mask = op.opset < 10  # then it has the type of the numbers

    def run(training: bool, x: Tensor, ratio: Tensor | None = None, mode: Tensor | None = None) -> object:
        share = float(ratio) if ratio is not None else fixed
        if training and share > 0 and not with_mask:
            return F.dropout(x, share, True)
        keep = torch.ones_like(x, dtype=torch.bool)
        if not training or share == 0:
            return (x, keep.to(x.dtype) if old_mask else keep) if with_mask else x
        keep = torch.rand_like(x) >= share
        return x * keep / (1 - share), keep.to(x.dtype) if old_mask else keep

    return Moded(run)


OPS: dict[str, Builder] = {"Dropout": dropout}
