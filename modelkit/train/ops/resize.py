"""Resizing, padding and cropping."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from modelkit.train.ops.op import Builder, Kernel, Op, Unsupported, as_list, axis_of, is_integer
from modelkit.train.ops.padding import pad_constant


@dataclass(frozen=True)
class _Rule:
    """How an axis is resized; the fields are the attributes of ``Resize``."""

    mode: str
    coordinates: str
    nearest: str
    cubic: float
    exclude_outside: bool
    antialias: bool


@dataclass(frozen=True)
class _Axis:
    """One axis to resize: its length, the length wanted, their ratio, and the region where that counts."""

    length: int
    wanted: int
    scale: float
    region: tuple[float, float]


def _sources(axis: _Axis, coordinates: str) -> np.ndarray:
    """Where each element of the result lies in the input."""
    y = np.arange(axis.wanted, dtype=np.float64)
    n, scale = axis.length, axis.scale
    length = scale * n
    start, end = axis.region
    match coordinates:
        case "half_pixel":
            return (y + 0.5) / scale - 0.5
        case "half_pixel_symmetric":
            return n / 2 * (1 - axis.wanted / length) + (y + 0.5) / scale - 0.5
        case "pytorch_half_pixel":
            return (y + 0.5) / scale - 0.5 if length != 1 else np.full_like(y, -0.5)
        case "align_corners":
            return y * (n - 1) / (length - 1) if length != 1 else np.zeros_like(y)
        case "asymmetric":
            return y / scale
        case "tf_half_pixel_for_nn":
            return (y + 0.5) / scale
        case "tf_crop_and_resize":
            if length == 1:
                return np.full_like(y, (start + end) * (n - 1) / 2)
            return start * (n - 1) + y * (end - start) * (n - 1) / (length - 1)
    raise Unsupported(f"its coordinate_transformation_mode '{coordinates}' is unknown")


@lru_cache(maxsize=256)
def _weights(axis: _Axis, rule: _Rule) -> tuple[np.ndarray, np.ndarray]:
    """The matrix [wanted, length] that resizes an axis, and which results lie outside the input."""
    source = _sources(axis, rule.coordinates)
    outside = (source < 0) | (source > axis.length - 1)
    if rule.mode == "nearest":
        return np.eye(axis.length)[_nearest(source, rule.nearest).clip(0, axis.length - 1)], outside
    reach = 2 if rule.mode == "cubic" else 1
    squeeze = min(axis.scale, 1.0) if rule.antialias else 1.0
    first = int(np.floor(-reach / squeeze)) + 1
    taps = np.ceil(source)[:, None] - 1 + np.arange(first, 2 - first)
    distance = (taps - source[:, None]) * squeeze
    share = _cubic(distance, rule.cubic) if rule.mode == "cubic" else (1 - np.abs(distance)).clip(0, 1)
    if rule.exclude_outside:
        share = np.where((taps < 0) | (taps >= axis.length), 0, share)
    if rule.exclude_outside or rule.antialias:
        share = share / share.sum(1, keepdims=True)
    matrix = np.zeros((axis.wanted, axis.length))
    rows = np.arange(axis.wanted)[:, None].repeat(taps.shape[1], 1)
    np.add.at(matrix, (rows, taps.astype(np.int64).clip(0, axis.length - 1)), share)
    return matrix, outside


def _nearest(source: np.ndarray, rule: str) -> np.ndarray:
    rounded = {
        "round_prefer_floor": np.ceil(source - 0.5),
        "round_prefer_ceil": np.floor(source + 0.5),
        "floor": np.floor(source),
        "ceil": np.ceil(source),
    }
    return rounded[rule].astype(np.int64)


def _cubic(x: np.ndarray, a: float) -> np.ndarray:
    """Keys' cubic kernel."""
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0))


def _resize(x: Tensor, axes: dict[int, _Axis], rule: _Rule, beyond: float | None) -> Tensor:
    """Resize some axes, one after the other; ``beyond`` fills what lies outside the input."""
    y = x.to(torch.float32) if is_integer(x) else x
    gaps: list[tuple[int, np.ndarray]] = []
    for index, axis in axes.items():
        if axis.length == axis.wanted and axis.scale == 1.0 and rule.coordinates != "tf_crop_and_resize":
            continue
        matrix, outside = _weights(axis, rule)
        gaps.append((index, outside))
        if rule.mode == "nearest":
            y = y.index_select(index, torch.from_numpy(matrix.argmax(1)).to(y.device))
        else:
            by = torch.from_numpy(matrix).to(device=y.device, dtype=y.dtype)
            y = torch.tensordot(y, by, dims=([index], [1])).movedim(-1, index)
    if beyond is not None:
        for index, outside in gaps:
            shape = [1] * y.ndim
            shape[index] = -1
            y = torch.where(torch.from_numpy(outside).to(y.device).reshape(shape), beyond, y)
    if is_integer(x):
        kind = torch.iinfo(x.dtype)
        return y.round().clamp(kind.min, kind.max).to(x.dtype)
    return y


def resize(op: Op) -> Kernel:
    """``Resize`` by scales or to sizes, in all its modes; opset 10 knew only two."""
    old = op.opset < 11
    rule = _Rule(
        mode=op.text("mode", "nearest"),
        coordinates=op.text("coordinate_transformation_mode", "asymmetric" if old else "half_pixel"),
        nearest=op.text("nearest_mode", "floor" if old else "round_prefer_floor"),
        cubic=op.number("cubic_coeff_a", -0.75),
        exclude_outside=op.flag("exclude_outside"),
        antialias=op.flag("antialias"),
    )
    cropped = rule.coordinates == "tf_crop_and_resize"
    beyond = op.number("extrapolation_value", 0.0) if cropped else None
    policy, listed = op.text("keep_aspect_ratio_policy", "stretch"), op.integers("axes")

    def run(x: Tensor, *rest: Tensor | None) -> Tensor:
        roi, scales, sizes = (None, rest[0], None) if old else (*rest, None, None, None)[:3]
        axes = [axis_of(a, x.ndim) for a in listed] if listed is not None else list(range(x.ndim))
        lengths = [x.shape[a] for a in axes]
        if sizes is not None and sizes.numel():
            wanted, factors = _from_sizes(lengths, as_list(sizes), policy)
        elif scales is not None and scales.numel():
            factors = as_list(scales)
            wanted = [int(np.floor(np.float32(n) * np.float32(f))) for n, f in zip(lengths, factors, strict=True)]
        else:
            raise ValueError("neither scales nor sizes are given")
        region = (
            as_list(roi) if cropped and roi is not None and roi.numel() else [0.0] * len(axes) + [1.0] * len(axes)
        )
        found = {
            a: _Axis(n, w, f, (region[i], region[i + len(axes)]))
            for i, (a, n, w, f) in enumerate(zip(axes, lengths, wanted, factors, strict=True))
        }
        return _resize(x, found, rule, beyond)

    return run


def _from_sizes(lengths: Sequence[int], sizes: Sequence[int], policy: str) -> tuple[list[int], list[float]]:
    """Lengths and scales for sizes, the aspect ratio kept where the policy says so."""
    scales = [s / n for s, n in zip(sizes, lengths, strict=True)]
    if policy == "stretch":
        return list(sizes), scales
    scale = min(scales) if policy == "not_larger" else max(scales)
    return [int(np.floor(scale * n + 0.5)) for n in lengths], [scale] * len(lengths)


def upsample(op: Op) -> Kernel:
    """``Upsample`` (until opset 9): ``Resize`` as it was first."""
    rule = _Rule(op.text("mode", "nearest"), "asymmetric", "floor", -0.75, False, False)
    fixed = op.numbers("scales")

    def run(x: Tensor, scales: Tensor | None = None) -> Tensor:
        factors = as_list(scales) if scales is not None else fixed or []
        axes = {
            i: _Axis(n, int(np.floor(np.float32(n) * np.float32(f))), f, (0.0, 1.0))
            for i, (n, f) in enumerate(zip(x.shape, factors, strict=True))
        }
        return _resize(x, axes, rule, None)

    return run


def pad(op: Op) -> Kernel:
    """``Pad``: pads are an attribute before opset 11, then an input; negative ones cut off."""
    mode = op.text("mode", "constant")
    fixed, filling = op.integers("pads"), op.number("value", 0.0)

    def run(x: Tensor, pads: Tensor | None = None, value: Tensor | None = None, axes: Tensor | None = None) -> Tensor:
        listed = as_list(pads) if pads is not None else fixed or []
        chosen = [axis_of(a, x.ndim) for a in as_list(axes)] if axes is not None else list(range(x.ndim))
        ends = [(0, 0)] * x.ndim
        for i, axis in enumerate(chosen):
            ends[axis] = (listed[i], listed[i + len(chosen)])
        if mode == "constant":
            number = filling if value is None else as_list(value)[0]
            return pad_constant(x, ends, number)
        return _pad_from_inside(x, ends, mode)

    return run


def _pad_from_inside(x: Tensor, ends: Sequence[tuple[int, int]], mode: str) -> Tensor:
    """Pad with the tensor's own elements: each axis is read in another order."""
    for axis, (before, after) in enumerate(ends):
        if before or after:
            kept = np.arange(x.shape[axis])[max(0, -before) : x.shape[axis] + min(0, after)]
            order = np.pad(kept, (max(0, before), max(0, after)), mode=mode)  # type: ignore[call-overload]
            x = x.index_select(axis, torch.from_numpy(order).to(x.device))
    return x


def center_crop_pad(op: Op) -> Kernel:
    """``CenterCropPad``: each axis cut or padded with zeros around its centre."""
    listed = op.integers("axes")

    def run(x: Tensor, shape: Tensor) -> Tensor:
        axes = [axis_of(a, x.ndim) for a in listed] if listed is not None else list(range(x.ndim))
        ends = [(0, 0)] * x.ndim
        for axis, wanted in zip(axes, as_list(shape), strict=True):
            more = wanted - x.shape[axis]
            before = more // 2 if more > 0 else -(-more // 2)
            ends[axis] = (before, more - before)
        return pad_constant(x, ends)

    return run


OPS: dict[str, Builder] = {
    "CenterCropPad": center_crop_pad,
    "Pad": pad,
    "Resize": resize,
    "Upsample": upsample,
}
