"""Padding of windows: explicit pads, and those that ``auto_pad`` means."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - its usual name

from modelkit.train.ops.op import Op

# One pair, before and after, for each spatial axis.
Pairs = list[tuple[int, int]]


def pairs(pads: Sequence[int]) -> Pairs:
    """ONNX lists all starts, then all ends."""
    half = len(pads) // 2
    return list(zip(pads[:half], pads[half:], strict=True))


def same_pads(size: int, kernel: int, stride: int, dilation: int, lower: bool) -> tuple[int, int]:
    """Pads that make an axis ceil(size / stride) long; the odd one goes to the end, or to the start."""
    out = -(-size // stride)
    needed = max(0, (out - 1) * stride + (kernel - 1) * dilation + 1 - size)
    less, more = needed // 2, needed - needed // 2
    return (more, less) if lower else (less, more)


class WindowPads:
    """The pads of a convolution or pool.

    Args:
        op: The node.
    """

    def __init__(self, op: Op) -> None:
        self.auto = op.text("auto_pad", "NOTSET")
        given = op.integers("pads")
        self._given = None if given is None or self.auto == "VALID" else pairs(given)

    def __call__(
        self, sizes: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
    ) -> Pairs:
        """Return the pads for an input of these sizes."""
        if self.auto in ("SAME_UPPER", "SAME_LOWER"):
            axes = zip(sizes, kernel, strides, dilations, strict=True)
            return [same_pads(n, k, s, d, self.auto == "SAME_LOWER") for n, k, s, d in axes]
        return self._given or [(0, 0)] * len(kernel)


def pad_constant(x: Tensor, pads: Pairs, value: float = 0.0) -> Tensor:
    """Pad the last axes with one number; negative pads cut off."""
    # torch lists the last axis first.
    return F.pad(x, [n for pair in reversed(pads) for n in pair], value=value) if any(map(any, pads)) else x
