"""Reading an image at positions that are computed: grids, deformed kernels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - its usual name

from modelkit.train.ops.op import Builder, Kernel, Op, Unsupported, as_list

_MODES = {
    "linear": "bilinear",
    "bilinear": "bilinear",
    "cubic": "bicubic",
    "bicubic": "bicubic",
    "nearest": "nearest",
}


def grid_sample(op: Op) -> Kernel:
    """``GridSample`` in two and three dimensions."""
    mode = _MODES[op.text("mode", "linear")]
    padding, corners = op.text("padding_mode", "zeros"), op.flag("align_corners")

    def run(x: Tensor, grid: Tensor) -> Tensor:
        if x.ndim == 5 and mode == "bicubic":
            raise Unsupported("torch has no cubic sampling in three dimensions")
        return F.grid_sample(x, grid.to(x.dtype), mode, padding, corners)

    return run


def affine_grid(op: Op) -> Kernel:
    """``AffineGrid``."""
    corners = op.flag("align_corners")
    return lambda theta, size: F.affine_grid(theta, as_list(size), corners)


def deform_conv(op: Op) -> Kernel:
    """``DeformConv`` in two dimensions: a convolution whose kernel reads where offsets say, bilinearly."""
    groups, offset_groups = op.integer("group", 1), op.integer("offset_group", 1)
    strides, dilations = op.integers("strides") or [1, 1], op.integers("dilations") or [1, 1]
    pads = op.integers("pads") or [0, 0, 0, 0]

    def run(
        x: Tensor, weight: Tensor, offset: Tensor, bias: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        if x.ndim != 4:
            raise Unsupported("DeformConv is done for images of two axes only")
        n, channels = x.shape[:2]
        kernel = weight.shape[2] * weight.shape[3]
        out = offset.shape[2:]
        moved = offset.reshape(n * offset_groups, kernel, 2, *out)
        axes = []
        for axis in range(2):
            steps = torch.arange(weight.shape[2 + axis], device=x.device) * dilations[axis]
            along = steps.repeat_interleave(weight.shape[3]) if axis == 0 else steps.repeat(weight.shape[2])
            start = torch.arange(out[axis], device=x.device) * strides[axis] - pads[axis]
            place = along.reshape(-1, 1, 1) + (start.reshape(-1, 1) if axis == 0 else start)
            # Positions as grid_sample takes them: -1 and 1 are the centres of the outermost elements.
            axes.append((moved[:, :, axis] + place) * (2 / max(1, x.shape[2 + axis] - 1)) - 1)
        grid = torch.stack(axes[::-1], -1).flatten(2, 3)
        planes = x.reshape(n * offset_groups, channels // offset_groups, *x.shape[2:])
        columns = F.grid_sample(planes, grid, "bilinear", "zeros", True)
        columns = columns.reshape(n, offset_groups, channels // offset_groups, kernel, *out)
        if mask is not None:
            columns = columns * mask.reshape(n, offset_groups, 1, kernel, *out)
        columns = columns.reshape(n, groups, channels // groups * kernel, -1)
        y = torch.matmul(weight.reshape(groups, weight.shape[0] // groups, -1), columns)
        y = y.reshape(n, weight.shape[0], *out)
        return y if bias is None else y + bias.reshape(-1, 1, 1)

    return run


OPS: dict[str, Builder] = {"AffineGrid": affine_grid, "DeformConv": deform_conv, "GridSample": grid_sample}
