"""Operators in every opset that changed them, with drawn shapes and attributes, against onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from train_models import module_of, one_node, run_ort, run_torch, same

from modelkit.errors import ModelError
from modelkit.train.ops.op import as_list

FEW = settings(max_examples=40, deadline=None)
OPSETS = st.sampled_from([9, 10, 11, 12, 13, 16, 18, 21])


def numbers(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def ints(values: Any) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def agree(op: str, inputs: list[np.ndarray | None], tolerance: float = 1e-5, **options: Any) -> None:
    """Same as onnxruntime; what onnxruntime refuses to run is no example."""
    model, feeds = one_node(op, inputs, **options)
    try:
        run_ort(model, feeds)
    except Exception:  # its errors have no common base
        assume(False)
    same(model, feeds, tolerance)


shapes = st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple)


@FEW
@given(st.data(), OPSETS, shapes)
def test_slice(data: st.DataObject, opset: int, shape: tuple[int, ...]) -> None:
    axes = data.draw(st.lists(st.integers(0, len(shape) - 1), unique=True, min_size=1))
    bounds = st.sampled_from([-(2**31), -5, -3, -2, -1, 0, 1, 2, 3, 5, 2**31])
    starts, ends = ([data.draw(bounds) for _ in axes] for _ in range(2))
    if opset < 10:
        agree("Slice", [numbers(shape)], opset=opset, axes=axes, starts=starts, ends=ends)
        return
    steps = [data.draw(st.sampled_from([-3, -2, -1, 1, 2])) for _ in axes]
    listed = [a - len(shape) if data.draw(st.booleans()) else a for a in axes]
    agree("Slice", [numbers(shape), ints(starts), ints(ends), ints(listed), ints(steps)], opset=opset)


@FEW
@given(st.data(), OPSETS, shapes)
def test_squeeze_and_unsqueeze(data: st.DataObject, opset: int, shape: tuple[int, ...]) -> None:
    new = data.draw(st.lists(st.integers(0, len(shape)), unique=True, min_size=1, max_size=2))
    ones = [axis for axis, n in enumerate(shape) if n == 1]
    for op, axes in (("Unsqueeze", new), ("Squeeze", ones)):
        if opset < 13:
            agree(op, [numbers(shape)], opset=opset, **({"axes": axes} if axes else {}))
        else:
            agree(op, [numbers(shape), ints(axes) if axes else None], opset=opset)


@FEW
@given(st.data(), OPSETS, shapes)
def test_reductions(data: st.DataObject, opset: int, shape: tuple[int, ...]) -> None:
    names = ["L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare"]
    name = data.draw(st.sampled_from(names))
    axes = data.draw(st.lists(st.integers(-len(shape), len(shape) - 1), unique_by=lambda a: a % len(shape)))
    keep = data.draw(st.integers(0, 1))
    if opset >= (13 if name == "Sum" else 18):
        nothing = data.draw(st.integers(0, 1)) if name == "Sum" else 0
        inputs = [np.abs(numbers(shape)), ints(axes)]
        agree(f"Reduce{name}", inputs, opset=opset, keepdims=keep, noop_with_empty_axes=nothing)
    else:
        options = {"axes": axes} if axes else {}
        agree(f"Reduce{name}", [np.abs(numbers(shape))], opset=opset, keepdims=keep, **options)


@FEW
@given(st.data(), OPSETS, shapes)
def test_softmax_flattens_before_opset_13(data: st.DataObject, opset: int, shape: tuple[int, ...]) -> None:
    axis = data.draw(st.integers(0, len(shape) - 1))
    for op in ("Softmax", "LogSoftmax", "Hardmax"):
        agree(op, [numbers(shape)], opset=opset, axis=axis)
        agree(op, [numbers((2, *shape))], opset=opset)


@FEW
@given(st.data(), OPSETS, shapes)
def test_pad(data: st.DataObject, opset: int, shape: tuple[int, ...]) -> None:
    mode = data.draw(st.sampled_from(["constant", "reflect", "edge"] + (["wrap"] if opset >= 19 else [])))
    least = -1 if mode == "constant" else 0
    most = min(shape) - 1 if mode == "reflect" else 2
    pads = data.draw(st.lists(st.integers(least, most), min_size=2 * len(shape), max_size=2 * len(shape)))
    assume(all(n + pads[i] + pads[i + len(shape)] > 0 for i, n in enumerate(shape)))
    if opset < 11:
        agree("Pad", [numbers(shape)], opset=opset, mode=mode, pads=pads, value=0.5)
    else:
        agree("Pad", [numbers(shape), ints(pads), np.array(0.5, np.float32)], opset=opset, mode=mode)


def test_pad_of_some_axes() -> None:
    x = numbers((2, 3, 4))
    agree("Pad", [x, ints([1, 0, 2, 1]), None, ints([-1, 0])], opset=18)


@FEW
@given(st.data(), OPSETS)
def test_reshape(data: st.DataObject, opset: int) -> None:
    target = data.draw(st.permutations([2, 3, 4]))
    hidden = data.draw(st.sampled_from([None, 0, 1, 2]))
    shape = [2, 3, 4]
    listed = [0 if n == shape[i] and data.draw(st.booleans()) else n for i, n in enumerate(target)]
    if hidden is not None:
        listed[hidden] = -1
    agree("Reshape", [numbers((2, 3, 4)), ints(listed)], opset=opset)


@FEW
@given(st.data(), OPSETS)
def test_clip_dropout_split_and_topk(data: st.DataObject, opset: int) -> None:
    x = numbers((3, 6), data.draw(st.integers(0, 9)))
    low, high = data.draw(st.sampled_from([(-0.5, 0.5), (None, 0.5), (-0.5, None), (None, None)]))
    if opset < 11:
        agree("Clip", [x], opset=opset, **{n: v for n, v in (("min", low), ("max", high)) if v is not None})
    else:
        agree("Clip", [x, *(None if v is None else np.array(v, np.float32) for v in (low, high))], opset=opset)
        agree("Clip", [x, np.array(1, np.float32), np.array(-1, np.float32)], opset=opset)
    # onnxruntime's mask of before opset 12 is none of those that the specification had.
    agree("Dropout", [x], opset=opset, outputs=data.draw(st.integers(1, 2)) if opset >= 12 else 1)
    parts = data.draw(st.sampled_from([[6], [2, 4], [1, 2, 3]]))
    if opset < 13:
        agree("Split", [x], opset=opset, axis=1, split=parts, outputs=len(parts))
    else:
        agree("Split", [x, ints(parts)], opset=opset, axis=1, outputs=len(parts))
    if opset < 10:
        agree("TopK", [x], opset=opset, k=2, outputs=2)
    elif opset > 10:
        largest = data.draw(st.integers(0, 1))
        agree("TopK", [x, ints([2])], opset=opset, largest=largest, axis=0, outputs=2)


def test_split_into_uneven_parts() -> None:
    agree("Split", [numbers((7, 2))], opset=18, num_outputs=3, outputs=3)


@st.composite
def windows(draw: st.DrawFn) -> dict[str, Any]:
    """A kernel, and how it moves, in one to three dimensions."""
    rank = draw(st.integers(1, 3))
    many = lambda low, high: draw(st.lists(st.integers(low, high), min_size=rank, max_size=rank))  # noqa: E731
    options: dict[str, Any] = {"kernel_shape": many(1, 3), "strides": many(1, 3)}
    auto = draw(st.sampled_from(["NOTSET", "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"]))
    if auto == "NOTSET":
        options["pads"] = [
            min(p, k - 1) for p, k in zip(many(0, 2) + many(0, 2), options["kernel_shape"] * 2, strict=True)
        ]
    else:
        options["auto_pad"] = auto
    if draw(st.booleans()) and not auto.startswith("SAME"):
        options["dilations"] = many(1, 2)
    return options


@FEW
@given(windows(), st.integers(0, 9), st.booleans(), st.data())
def test_pools(options: dict[str, Any], seed: int, ceil: bool, data: st.DataObject) -> None:
    rank = len(options["kernel_shape"])
    x = numbers((1, 2, *data.draw(st.lists(st.integers(5, 8), min_size=rank, max_size=rank))), seed)
    options["ceil_mode"] = int(ceil and "auto_pad" not in options)
    agree("MaxPool", [x], opset=13, **options)
    agree("AveragePool", [x], opset=19, count_include_pad=data.draw(st.integers(0, 1)), **options)
    options.pop("dilations", None)
    if not options.pop("ceil_mode"):
        agree("LpPool", [x], opset=13, tolerance=1e-4, **options)
        if rank == 2:
            agree("MaxPool", [x], opset=13, outputs=2, **options)


@FEW
@given(windows(), st.integers(0, 9), st.sampled_from([1, 2]))
def test_convolutions(options: dict[str, Any], seed: int, group: int) -> None:
    kernel = tuple(options["kernel_shape"])
    rank = len(kernel)
    x = numbers((2, 4, *[7, 6, 5][:rank]), seed)
    agree("Conv", [x, numbers((6, 4 // group, *kernel)), numbers((6,))], 1e-4, opset=13, group=group, **options)
    if options.get("auto_pad", "NOTSET") == "NOTSET":
        more = [min(1, s - 1) for s in options["strides"]]
        weight = numbers((4, 3, *kernel))
        agree("ConvTranspose", [x, weight], 1e-4, opset=13, group=group, output_padding=more, **options)


@FEW
@given(st.data())
def test_resize(data: st.DataObject) -> None:
    mode = data.draw(st.sampled_from(["nearest", "linear", "cubic"]))
    options: dict[str, Any] = {
        "mode": mode,
        "coordinate_transformation_mode": data.draw(
            st.sampled_from(["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"])
        ),
    }
    if mode == "nearest":
        rules = ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]
        options["nearest_mode"] = data.draw(st.sampled_from(rules))
    if mode == "cubic":
        options["exclude_outside"] = data.draw(st.integers(0, 1))
    x = numbers((1, 2, data.draw(st.integers(2, 5)), data.draw(st.integers(2, 5))))
    opset = data.draw(st.sampled_from([11, 13, 18]))
    roi = None if opset >= 13 else np.zeros(0, np.float32)
    if data.draw(st.booleans()):
        scales = np.array([1, 1, *(data.draw(st.sampled_from([0.5, 1.5, 2.0, 3.0])) for _ in range(2))], np.float32)
        agree("Resize", [x, roi, scales], 1e-4, opset=opset, **options)
    else:
        sizes = ints([1, 2, *(data.draw(st.integers(1, 8)) for _ in range(2))])
        empty = None if opset >= 13 else np.zeros(0, np.float32)
        agree("Resize", [x, roi, empty, sizes], 1e-4, opset=opset, **options)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_upsample_and_the_first_resize(mode: str) -> None:
    x, scales = numbers((1, 2, 3, 4)), np.array([1, 1, 2, 3], np.float32)
    agree("Upsample", [x, scales], opset=9, mode=mode)
    agree("Resize", [x, scales], opset=10, mode=mode)


@FEW
@given(st.data(), st.sampled_from(["RNN", "GRU", "LSTM"]))
def test_recurrent(data: st.DataObject, op: str) -> None:
    gates, batch, steps, size, hidden = {"RNN": 1, "GRU": 3, "LSTM": 4}[op], 3, 4, 2, 3
    direction = data.draw(st.sampled_from(["forward", "reverse", "bidirectional"]))
    d = 2 if direction == "bidirectional" else 1
    lengths = data.draw(st.none() | st.lists(st.integers(1, steps), min_size=batch, max_size=batch))
    states = data.draw(st.booleans())
    options: dict[str, Any] = {"hidden_size": hidden, "direction": direction}
    if op == "GRU":
        options["linear_before_reset"] = data.draw(st.integers(0, 1))
    if op == "LSTM" and data.draw(st.booleans()):
        options["input_forget"] = 1
    if data.draw(st.booleans()):
        choice = {"RNN": ["Relu"], "GRU": ["HardSigmoid", "Softsign"], "LSTM": ["Sigmoid", "Relu", "Tanh"]}[op]
        options["activations"] = choice * d
        if op == "GRU":
            options["activation_alpha"], options["activation_beta"] = [0.3] * d, [0.4] * d
    first = numbers((d, batch, hidden), 7) if states else None
    inputs: list[np.ndarray | None] = [
        numbers((steps, batch, size), data.draw(st.integers(0, 9))),
        numbers((d, gates * hidden, size), 1),
        numbers((d, gates * hidden, hidden), 2),
        numbers((d, 2 * gates * hidden), 3) if data.draw(st.booleans()) else None,
        None if lengths is None else np.array(lengths, np.int32),
        first,
    ]
    if op == "LSTM":
        inputs += [first, numbers((d, 3 * hidden), 4) if data.draw(st.booleans()) else None]
    agree(op, inputs, 1e-4, opset=14, outputs=3 if op == "LSTM" else 2, **options)


@FEW
@given(st.data(), shapes)
def test_gather_and_scatter(data: st.DataObject, shape: tuple[int, ...]) -> None:
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    n = shape[axis]
    index = np.random.default_rng(data.draw(st.integers(0, 9))).integers(-n, n, size=(2, 2))
    agree("Gather", [numbers(shape), index], opset=13, axis=axis)
    column = [-1 if a == axis % len(shape) else 1 for a in range(len(shape))]
    order = np.random.default_rng(1).permutation(n).reshape(column)
    where = np.array(np.broadcast_to(order, shape), np.int64)  # no position twice
    agree("GatherElements", [numbers(shape), where], opset=13, axis=axis)
    for reduction in ("none", "add", "mul", "max", "min"):
        options = {} if reduction == "none" else {"reduction": reduction}
        agree("ScatterElements", [numbers(shape), where, numbers(shape, 3)], opset=18, axis=axis, **options)


@FEW
@given(st.data(), st.sampled_from([np.int32, np.int64, np.float32]))
def test_division_and_remainder(data: st.DataObject, kind: type) -> None:
    values = st.lists(st.integers(-9, 9), min_size=4, max_size=4)
    a, b = (np.array(data.draw(values)).astype(kind) for _ in range(2))
    b[b == 0] = 3
    agree("Div", [a, b], opset=13)
    agree("Mod", [a, b], opset=13, fmod=int(kind is np.float32))


@pytest.mark.parametrize("interleaved", [0, 1])
def test_rotary_embedding(interleaved: int) -> None:
    inputs = [numbers((2, 3, 8)), numbers((5, 2), 1), numbers((5, 2), 2), ints([[0, 1, 4], [2, 2, 3]])]
    agree("RotaryEmbedding", inputs, opset=23, num_heads=2, interleaved=interleaved)


def test_batch_norm_in_three_opsets() -> None:
    inputs = [numbers((2, 3, 4)), *(numbers((3,), i) for i in (1, 2, 3)), np.abs(numbers((3,), 4)) + 0.1]
    for opset in (9, 14, 15):
        agree("BatchNormalization", inputs, opset=opset)


def test_group_norm_in_both_meanings() -> None:
    x = numbers((2, 4, 3))
    each = [numbers((2,), 1), numbers((2,), 2)]
    old = run_torch(*one_node("GroupNormalization", [x, *each], opset=18, num_groups=2))
    new = run_torch(*one_node("GroupNormalization", [x, *(np.repeat(a, 2) for a in each)], opset=21, num_groups=2))
    np.testing.assert_array_equal(old[0], new[0])
    agree("GroupNormalization", [x, *(np.repeat(a, 2) for a in each)], opset=21, num_groups=2)


def test_errors_name_the_node() -> None:
    model, feeds = one_node("Squeeze", [numbers((2, 3)), ints([0])], opset=13)
    module = module_of(model)
    with pytest.raises(ModelError, match="the Squeeze node 'node' cannot run: axis 0 has length 2"):
        module({n: torch.from_numpy(a) for n, a in feeds.items()})
    assert as_list(torch.tensor(3)) == [3]
