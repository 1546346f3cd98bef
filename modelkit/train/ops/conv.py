"""Convolutions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - its usual name

from modelkit.train.ops.op import Builder, Kernel, Op, Unsupported, as_list
from modelkit.train.ops.padding import Pairs, WindowPads, pad_constant, pairs

_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def conv(op: Op) -> Kernel:
    """``Conv`` in one to three dimensions."""
    groups = op.integer("group", 1)
    strides, dilations = op.integers("strides"), op.integers("dilations")
    window_pads = WindowPads(op)

    def run(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        rank = _rank(x)
        steps, gaps = strides or [1] * rank, dilations or [1] * rank
        pads = window_pads(x.shape[2:], weight.shape[2:], steps, gaps)
        if all(before == after for before, after in pads):
            padding = [before for before, _ in pads]
        else:
            x, padding = pad_constant(x, pads), [0] * rank
        return _CONV[rank](x, weight, bias, steps, padding, gaps, groups)

    return run


def _rank(x: Tensor) -> int:
    rank = x.ndim - 2
    if rank not in _CONV:
        raise Unsupported(f"it convolves over {rank} axes, and torch can do 1 to 3")
    return rank


def conv_transpose(op: Op) -> Kernel:
    """``ConvTranspose``: torch's full result, then cut or padded to what the pads say."""
    groups = op.integer("group", 1)
    strides, dilations = op.integers("strides"), op.integers("dilations")
    extra, wished = op.integers("output_padding"), op.integers("output_shape")
    auto = op.text("auto_pad", "NOTSET")
    given = pairs(op.integers("pads") or []) if auto != "VALID" else []

    def run(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        rank = _rank(x)
        steps, gaps = strides or [1] * rank, dilations or [1] * rank
        more = extra or [0] * rank
        full = [
            (n - 1) * s + (k - 1) * d + 1 + e
            for n, s, k, d, e in zip(x.shape[2:], steps, weight.shape[2:], gaps, more, strict=True)
        ]
        if wished is None and not auto.startswith("SAME"):
            pads = given or [(0, 0)] * rank
        else:
            target = wished[-rank:] if wished else [n * s for n, s in zip(x.shape[2:], steps, strict=True)]
            pads = _surplus(full, target, auto)
        # torch wants its output padding below the stride or the dilation: pad by hand instead.
        if all(b == a >= 0 for b, a in pads) and all(
            e < max(s, d) for e, s, d in zip(more, steps, gaps, strict=True)
        ):
            return _TRANSPOSED[rank](x, weight, bias, steps, [b for b, _ in pads], more, groups, gaps)
        y = _TRANSPOSED[rank](x, weight, None, steps, 0, 0, groups, gaps)
        y = pad_constant(y, [(-b, e - a) for (b, a), e in zip(pads, more, strict=True)])
        return y if bias is None else y + bias.reshape(-1, *[1] * rank)

    return run


def _surplus(full: Sequence[int], target: Sequence[int], auto: str) -> Pairs:
    """What is cut off at both ends of each axis of the full result.

    The specification: SAME_UPPER cuts the odd one off at the end, all else at the start.
    """
    surplus = [length - goal for length, goal in zip(full, target, strict=True)]
    if auto == "SAME_UPPER":
        return [(s // 2, s - s // 2) for s in surplus]
    return [(s - s // 2, s // 2) for s in surplus]


def integer_conv(op: Op) -> Kernel:
    """``ConvInteger``: a convolution of integers less their zero points."""
    float_conv = conv(op)

    def run(x: Tensor, weight: Tensor, x_zero: Tensor | None = None, w_zero: Tensor | None = None) -> Tensor:
        a, b = x.to(torch.float64), weight.to(torch.float64)
        if x_zero is not None:
            a = a - x_zero
        if w_zero is not None:
            b = b - w_zero.reshape(-1, *[1] * (b.ndim - 1))
        return float_conv(a, b).to(torch.int32)

    return run


def causal_conv(op: Op) -> Kernel:
    """``CausalConvWithState``: a depthwise convolution over time that continues an earlier one."""
    activation = op.text("activation", "none")

    def run(
        x: Tensor, weight: Tensor, bias: Tensor | None = None, past: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        kept = weight.shape[2] - 1
        padded = F.pad(x, [kept, 0]) if past is None else torch.cat([past, x], 2)
        y = F.conv1d(padded, weight, bias, groups=x.shape[1])
        return (y if activation == "none" else F.silu(y)), padded[:, :, padded.shape[2] - kept :]

    return run


def col2im(op: Op) -> Kernel:
    """``Col2Im`` in two dimensions."""
    pads = pairs(op.integers("pads") or [0, 0, 0, 0])
    dilations, strides = op.integers("dilations") or [1, 1], op.integers("strides") or [1, 1]

    def run(x: Tensor, image: Tensor, block: Tensor) -> Tensor:
        size, kernel = as_list(image), as_list(block)
        if len(size) != 2:
            raise Unsupported("Col2Im is done for images of two axes only")
        padded = [n + before + after for n, (before, after) in zip(size, pads, strict=True)]
        y = F.fold(x, (padded[0], padded[1]), (kernel[0], kernel[1]), tuple(dilations), 0, tuple(strides))
        return y[..., pads[0][0] : pads[0][0] + size[0], pads[1][0] : pads[1][0] + size[1]]

    return run


OPS: dict[str, Builder] = {
    "CausalConvWithState": causal_conv,
    "Col2Im": col2im,
    "Conv": conv,
    "ConvInteger": integer_conv,
    "ConvTranspose": conv_transpose,
}
