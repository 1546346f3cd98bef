"""Spectra: Fourier transforms, windows and mel filters."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - its usual name

from modelkit.train.ops.dtypes import carrier
from modelkit.train.ops.op import Builder, Kernel, Op, as_list


def _complex(x: Tensor) -> Tensor:
    """The last axis holds a real number, or a real and an imaginary part."""
    return x[..., 0] if x.shape[-1] == 1 else torch.view_as_complex(x.contiguous())


def _forward(x: Tensor, length: int, axis: int, onesided: bool) -> Tensor:
    result = torch.fft.fft(x, length, axis)
    if onesided:
        result = result.narrow(axis, 0, length // 2 + 1)
    return torch.view_as_real(result)


def dft(op: Op) -> Kernel:
    """``DFT``: the axis is an attribute before opset 20, then an input."""
    inverse, onesided = op.flag("inverse"), op.flag("onesided")
    fixed = op.integer("axis", 1) if op.opset < 20 else -2

    def run(x: Tensor, length: Tensor | None = None, axis: Tensor | None = None) -> Tensor:
        along = (fixed if axis is None else int(as_list(axis)[0])) % x.ndim
        count = x.shape[along] if length is None else int(as_list(length)[0])
        if length is None and inverse and onesided:
            count = 2 * (x.shape[along] - 1)
        wave = _complex(x)
        if not inverse:
            return _forward(wave, count, along, onesided)
        if onesided:
            return torch.fft.irfft(wave, count, along).unsqueeze(-1)
        return torch.view_as_real(torch.fft.ifft(wave, count, along))

    return run


def stft(op: Op) -> Kernel:
    """``STFT``: one transform for each frame that fits into the signal."""
    onesided = op.flag("onesided", True)

    def run(x: Tensor, step: Tensor, window: Tensor | None = None, length: Tensor | None = None) -> Tensor:
        size = x.shape[1]
        if length is not None:
            size = int(as_list(length)[0])
        elif window is not None:
            size = window.shape[0]
        wave = _complex(x)
        frames = wave.unfold(1, size, int(as_list(step)[0]))
        if window is not None:
            frames = frames * F.pad(window, [0, size - window.shape[0]])
        return _forward(frames, size, 2, onesided)

    return run


def _window(op: Op, weights: tuple[float, ...]) -> Kernel:
    """A sum of cosines; a periodic window is one element longer, less its last."""
    periodic = op.flag("periodic", True)
    kind = carrier(ir.DataType(op.integer("output_datatype", ir.DataType.FLOAT)), op.widen)

    def run(size: Tensor) -> Tensor:
        count = int(as_list(size)[0])
        angle = torch.arange(count, dtype=torch.float64) * (2 * math.pi / (count if periodic else count - 1))
        return sum(w * torch.cos(i * angle) for i, w in enumerate(weights)).to(kind)  # type: ignore[union-attr]

    return run


def hann(op: Op) -> Kernel:
    """``HannWindow``."""
    return _window(op, (0.5, -0.5))


def hamming(op: Op) -> Kernel:
    """``HammingWindow``, with the specification's 25/46."""
    return _window(op, (25 / 46, -21 / 46))


def blackman(op: Op) -> Kernel:
    """``BlackmanWindow``."""
    return _window(op, (0.42, -0.5, 0.08))


def mel_weight_matrix(op: Op) -> Kernel:
    """``MelWeightMatrix``: triangles [bins of the spectrum, mel bins], each between its neighbours' centres."""
    kind = carrier(ir.DataType(op.integer("output_datatype", ir.DataType.FLOAT)), op.widen)

    def run(*numbers: Tensor) -> Tensor:
        bins, length, rate, low, high = (as_list(n)[0] for n in numbers)
        mels = [2595 * math.log10(1 + edge / 700) for edge in (low, high)]
        edges = mels[0] + np.arange(bins + 2) * (mels[1] - mels[0]) / (bins + 2)
        points = ((length + 1) * 700 * (10 ** (edges / 2595) - 1) // rate).astype(np.int64)
        left, centre, right = points[:-2], points[1:-1], points[2:]
        places = np.arange(length // 2 + 1)[:, None]
        rising = np.where(centre > left, (places - left) / np.maximum(1, centre - left), 1.0)
        falling = np.where(right > centre, (right - places) / np.maximum(1, right - centre), 0.0)
        matrix = np.where((places >= left) & (places <= centre), rising, 0.0)
        matrix = np.where((places >= centre) & (places < right), falling, matrix)
        return torch.from_numpy(matrix).to(kind)

    return run


OPS: dict[str, Builder] = {
    "BlackmanWindow": blackman,
    "DFT": dft,
    "HammingWindow": hamming,
    "HannWindow": hann,
    "MelWeightMatrix": mel_weight_matrix,
    "STFT": stft,
}
