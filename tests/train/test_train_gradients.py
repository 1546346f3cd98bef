"""Gradients of every differentiable operator, against finite differences in double precision."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from train_models import module_of, one_node

from modelkit.train.ops.table import OPS, READ_AS_NUMBERS

RNG = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape)


def positive(*shape: int) -> np.ndarray:
    return RNG.uniform(0.5, 2, size=shape)


def inside(*shape: int) -> np.ndarray:
    """In (-1, 1), away from 0 and from the ends."""
    return RNG.uniform(0.2, 0.8, size=shape) * RNG.choice([-1, 1], size=shape)


def distinct(*shape: int) -> np.ndarray:
    """No two numbers near each other: the largest is the same after a small step."""
    return (RNG.permutation(int(np.prod(shape))) * 0.1 - 1.03).reshape(shape)


def ints(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def index(array: Any) -> np.ndarray:
    return np.array(array, dtype=np.int64)


ELEMENTWISE = {
    inside: ("Abs", "Acos", "Asin", "Atan", "Atanh", "Celu", "Cos", "Cosh", "Elu", "Erf", "Exp", "HardSigmoid"),
    normal: ("Identity", "LogSoftmax", "Mish", "Neg", "Selu", "Sigmoid", "Sin", "Sinh", "Softmax", "Softplus"),
    positive: ("Log", "Reciprocal", "Sqrt", "Relu", "LeakyRelu", "Tan", "Softsign", "HardSwish", "Shrink"),
}
# Operator, inputs, attributes; whole numbers, booleans and what is named in "constants" get no gradient.
CASES: list[tuple[str, list[np.ndarray | None], dict[str, Any]]] = [
    *((op, [make(2, 3)], {}) for make, ops in ELEMENTWISE.items() for op in ops),
    ("Acosh", [positive(3) + 1], {}),
    ("Asinh", [normal(3)], {}),
    ("Tanh", [normal(3)], {}),
    ("Gelu", [normal(3)], {"opset": 20}),
    ("Gelu", [normal(3)], {"opset": 20, "approximate": "tanh"}),
    ("Swish", [normal(3)], {"opset": 24, "alpha": 1.5}),
    ("SwiGLU", [normal(3), normal(3)], {"opset": 28}),
    ("ThresholdedRelu", [positive(3) * 3], {}),
    ("PRelu", [inside(2, 3, 2), normal(3, 1)], {}),
    ("Clip", [inside(4), np.array(-0.5), np.array(0.5)], {"constants": (1, 2)}),
    *((op, [positive(2, 3), positive(3)], {}) for op in ("Add", "Sub", "Mul", "Div", "Pow")),
    ("Pow", [normal(3), np.array(2.0)], {"constants": (1,)}),
    ("Mod", [positive(3) * 2 + 0.1, np.array([0.7, 0.9, 0.8])], {"fmod": 1, "constants": (1,)}),
    *((op, [distinct(2, 3), distinct(2, 3) + 0.04, distinct(2, 3)[::-1] + 0.07], {}) for op in ("Max", "Min")),
    *((op, [normal(2, 3), normal(3)], {}) for op in ("Sum", "Mean")),
    ("Where", [np.array([True, False, True]), normal(2, 3), normal(3)], {}),
    ("Det", [normal(2, 3, 3)], {}),
    ("MatMul", [normal(2, 3, 4), normal(4, 2)], {}),
    ("Gemm", [normal(4, 3), normal(2, 4), normal(3, 1)], {"transA": 1, "transB": 1, "alpha": 0.5, "beta": 2.0}),
    ("Gemm", [normal(3, 4), normal(4, 2), normal(2)], {}),
    ("Einsum", [normal(2, 3, 4), normal(2, 4, 3)], {"equation": "bij, bjk -> bik"}),
    (
        "Conv",
        [normal(1, 4, 4, 3), normal(2, 2, 3, 2), normal(2)],
        {"group": 2, "pads": [1, 0, 1, 1], "strides": [2, 1]},
    ),
    ("Conv", [normal(1, 2, 7), normal(3, 2, 3)], {"auto_pad": "SAME_LOWER", "strides": [2]}),
    ("ConvTranspose", [normal(1, 2, 2, 3), normal(2, 1, 3, 2), normal(2)], {"group": 2, "strides": [2, 2]}),
    ("ConvTranspose", [normal(1, 2, 3), normal(2, 1, 3)], {"output_padding": [1], "strides": [2], "pads": [1, 0]}),
    ("CausalConvWithState", [normal(1, 2, 5), normal(2, 1, 3), normal(2), normal(1, 2, 2)], {"opset": 28}),
    (
        "DeformConv",
        [normal(1, 2, 4, 4), normal(2, 2, 2, 2), inside(1, 8, 3, 3) * 0.4, normal(2), positive(1, 4, 3, 3)],
        {"opset": 19, "kernel_shape": [2, 2]},
    ),
    ("Col2Im", [normal(1, 8, 4), ints(3, 3), ints(2, 2)], {"constants": (1, 2)}),
    ("MaxPool", [distinct(1, 2, 5, 5)], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 2]}),
    ("MaxPool", [distinct(1, 1, 6)], {"kernel_shape": [3], "ceil_mode": 1, "strides": [2], "pads": [0, 1]}),
    ("AveragePool", [normal(1, 2, 5, 5)], {"kernel_shape": [3, 3], "pads": [1, 0, 1, 1], "ceil_mode": 1}),
    ("LpPool", [positive(1, 2, 5)], {"kernel_shape": [2]}),
    *((op, [distinct(1, 2, 3, 2)], {}) for op in ("GlobalAveragePool", "GlobalMaxPool")),
    ("GlobalLpPool", [positive(1, 2, 3, 2)], {}),
    ("MaxUnpool", [normal(1, 1, 2, 2), index([[[[5, 7], [13, 15]]]])], {"kernel_shape": [2, 2], "strides": [2, 2]}),
    ("BatchNormalization", [normal(2, 3, 2), normal(3), normal(3), normal(3), positive(3)], {}),
    ("BatchNormalization", [normal(2, 3, 2), normal(3), normal(3), normal(3), positive(3)], {"constants": (3, 4)}),
    ("LayerNormalization", [normal(2, 3, 4), normal(3, 4), normal(3, 4)], {"axis": 1}),
    ("LayerNormalization", [normal(2, 4), normal(4)], {"outputs": 2}),
    ("RMSNormalization", [normal(2, 4), normal(4)], {"opset": 23}),
    ("GroupNormalization", [normal(2, 4, 3), normal(4), normal(4)], {"num_groups": 2, "opset": 21}),
    ("GroupNormalization", [normal(2, 4, 3), normal(2), normal(2)], {"num_groups": 2, "opset": 18}),
    ("InstanceNormalization", [normal(2, 3, 4), normal(3), normal(3)], {}),
    ("LRN", [normal(1, 5, 2, 2)], {"size": 3, "alpha": 0.5}),
    ("LpNormalization", [normal(2, 3)], {"axis": 1}),
    ("MeanVarianceNormalization", [normal(2, 3, 2, 2)], {}),
    *(
        (f"Reduce{op}", [positive(2, 3, 2)], {"axes": [0, 2], "opset": 12})
        for op in ("L1", "L2", "LogSum", "LogSumExp", "Mean", "Prod", "Sum", "SumSquare")
    ),
    *((f"Reduce{op}", [distinct(2, 3, 2), ints(1)], {"keepdims": 0}) for op in ("Max", "Min")),
    ("CumSum", [normal(2, 3), ints(1)], {"exclusive": 1, "reverse": 1, "constants": (1,)}),
    ("CumProd", [positive(2, 3), ints(1)], {"opset": 26, "constants": (1,)}),
    ("Reshape", [normal(2, 3), ints(-1, 2)], {}),
    ("Flatten", [normal(2, 3, 2)], {}),
    ("Transpose", [normal(2, 3, 2)], {"perm": [1, 2, 0]}),
    ("Squeeze", [normal(2, 1, 3), ints(1)], {}),
    ("Unsqueeze", [normal(2, 3), ints(0, 3)], {}),
    ("Concat", [normal(2, 3), normal(2, 1)], {"axis": 1}),
    ("Split", [normal(2, 5), ints(2, 3)], {"axis": 1, "outputs": 2}),
    ("Slice", [normal(3, 5), ints(4), ints(-6), ints(1), ints(-2)], {}),
    ("Expand", [normal(3, 1), ints(2, 1, 4)], {}),
    ("Tile", [normal(2, 3), ints(2, 1)], {}),
    ("DepthToSpace", [normal(1, 8, 2, 1)], {"blocksize": 2, "mode": "CRD"}),
    ("SpaceToDepth", [normal(1, 2, 4, 2)], {"blocksize": 2}),
    ("Trilu", [normal(3, 3)], {"upper": 0}),
    ("Cast", [normal(3)], {"to": 11}),
    *(("Pad", [normal(2, 3), ints(0, 1, 1, 2)], {"mode": m}) for m in ("constant", "reflect", "edge", "wrap")),
    ("CenterCropPad", [normal(2, 5), ints(3, 3)], {}),
    *(
        ("Resize", [normal(1, 1, 4, 3), None, None, ints(1, 1, 6, 5)], {"mode": m, "antialias": a})
        for m, a in (("linear", 0), ("cubic", 0), ("cubic", 1), ("nearest", 0))
    ),
    ("Upsample", [normal(1, 1, 2, 2), np.array([1, 1, 2, 2], np.float32)], {"mode": "linear", "opset": 9}),
    *(
        ("GridSample", [normal(1, 1, 3, 3), inside(1, 2, 2, 2)], {"mode": m, "opset": 20})
        for m in ("linear", "cubic")
    ),
    ("AffineGrid", [normal(1, 2, 3), ints(1, 1, 2, 3)], {"opset": 20}),
    ("Gather", [normal(4, 3), index([[0, -1], [2, 0]])], {}),
    ("Gather", [normal(2, 4), index(-1)], {"axis": 1}),
    ("GatherElements", [normal(2, 3), index([[0, -1], [2, 0]])], {"axis": 1}),
    ("GatherND", [normal(2, 3, 2), index([[1, -1], [0, 2]])], {}),
    *(
        (
            "ScatterElements",
            [positive(2, 3), index([[0, 2], [1, 0]]), positive(2, 2) + 3],
            {"axis": 1, "reduction": r},
        )
        for r in ("none", "add", "mul", "max")
    ),
    *(
        ("ScatterND", [positive(3, 2), index([[0], [2]]), positive(2, 2) + 3], {"reduction": r})
        for r in ("none", "add", "mul", "max")
    ),
    ("TensorScatter", [normal(2, 4, 2), normal(2, 2, 2), ints(0, 2)], {"opset": 24}),
    ("TopK", [distinct(2, 4), ints(2)], {"outputs": 2}),
    ("Compress", [normal(3, 2), np.array([True, False, True])], {"axis": 0}),
    ("ReverseSequence", [normal(3, 2), ints(2, 3)], {}),
    ("Dropout", [normal(3)], {}),
    ("RNN", [normal(3, 2, 2), normal(1, 3, 2), normal(1, 3, 3), normal(1, 6)], {"hidden_size": 3, "outputs": 2}),
    ("GRU", [normal(3, 2, 2), normal(2, 6, 2), normal(2, 6, 2), normal(2, 12)], {"direction": "bidirectional"}),
    ("GRU", [normal(3, 2, 2), normal(1, 6, 2), normal(1, 6, 2)], {"linear_before_reset": 1, "direction": "reverse"}),
    (
        "LSTM",
        [
            normal(3, 2, 2),
            normal(1, 8, 2),
            normal(1, 8, 2),
            normal(1, 16),
            index([3, 2]).astype(np.int32),
            normal(1, 2, 2),
            normal(1, 2, 2),
            normal(1, 6),
        ],
        {"outputs": 3},
    ),
    ("Attention", [normal(1, 2, 3, 2), normal(1, 1, 4, 2), normal(1, 1, 4, 3)], {"opset": 23, "softcap": 2.0}),
    (
        "Attention",
        [normal(1, 3, 4), normal(1, 3, 4), normal(1, 3, 4)],
        {"opset": 23, "q_num_heads": 2, "kv_num_heads": 2, "is_causal": 1},
    ),
    ("RotaryEmbedding", [normal(1, 2, 3, 4), normal(3, 2), normal(3, 2), index([[0, 1, 2]])], {"opset": 23}),
    (
        "LinearAttention",
        [normal(1, 3, 4), normal(1, 3, 4), normal(1, 3, 4), None, -positive(1, 3, 2), positive(1, 3, 2)],
        {"opset": 28, "q_num_heads": 2, "kv_num_heads": 2},
    ),
    ("DFT", [normal(1, 4, 1), None, ints(1)], {"opset": 20, "onesided": 1, "constants": (2,)}),
    ("DFT", [normal(1, 4, 2), None, ints(1)], {"opset": 20, "inverse": 1, "constants": (2,)}),
    ("STFT", [normal(1, 8, 1), ints(2), positive(4)], {"constants": (1,)}),
    (
        "NegativeLogLikelihoodLoss",
        [normal(3, 4), index([0, 3, 1]), positive(4)],
        {"ignore_index": 1, "constants": (2,)},
    ),
    ("SoftmaxCrossEntropyLoss", [normal(3, 4, 2), index([[0, 3], [1, 1], [2, 0]])], {"outputs": 2}),
]

# Steps, whole numbers, comparisons, and what only makes or reads shapes have no gradient.
NO_GRADIENT = {
    *("And", "ArgMax", "ArgMin", "BitCast", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor"),
    *("BlackmanWindow", "CastLike", "Ceil", "Constant", "ConstantOfShape", "ConvInteger", "DequantizeLinear"),
    *("DynamicQuantizeLinear", "Equal", "EyeLike", "Floor", "Greater", "GreaterOrEqual", "HammingWindow"),
    *("HannWindow", "Hardmax", "IsInf", "IsNaN", "Less", "LessOrEqual", "MatMulInteger", "MelWeightMatrix"),
    *("NonZero", "Not", "OneHot", "Or", "QLinearConv", "QLinearMatMul", "QuantizeLinear", "Range", "Round"),
    *("Scatter", "Shape", "Sign", "Size", "Unique", "Xor"),
}


@pytest.mark.parametrize(("op", "inputs", "options"), CASES, ids=[f"{op}-{i}" for i, (op, _, _) in enumerate(CASES)])
def test_gradient(op: str, inputs: list[np.ndarray | None], options: dict[str, Any]) -> None:
    if op == "ReduceMax" or op == "ReduceMin" or op in ("CenterCropPad", "AffineGrid", "Squeeze", "Unsqueeze"):
        options = {"constants": (1,), **options}
    model, feeds = one_node(op, inputs, **{"opset": 18, **options})
    module = module_of(model)
    assert all(p.dtype is torch.float64 for p in module.parameters())
    tensors = {n: torch.from_numpy(np.array(a)) for n, a in feeds.items()}
    leaves = {n: t.requires_grad_() for n, t in tensors.items() if t.dtype is torch.float64}

    def run(*values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        outputs = module({**tensors, **dict(zip(leaves, values, strict=True))}).values()
        return tuple(y for y in outputs if y.dtype is torch.float64 and y.requires_grad)

    outputs = run(*leaves.values())
    assert outputs and all(t.requires_grad for t in outputs)
    assert torch.autograd.gradcheck(run, tuple(leaves.values()), atol=1e-5, rtol=1e-4, nondet_tol=1e-12)


# The size of the result depends on numbers, which must be read.
DATA_DEPENDENT = {"Compress", "MaxUnpool"}


@pytest.mark.parametrize(("op", "inputs", "options"), CASES, ids=[f"{op}-{i}" for i, (op, _, _) in enumerate(CASES)])
def test_nothing_is_read_from_the_device(op: str, inputs: list[np.ndarray | None], options: dict[str, Any]) -> None:
    """On the meta device no number can be read, and no tensor can meet one of another device."""
    if op in DATA_DEPENDENT:
        return
    fixed = {i for i in READ_AS_NUMBERS.get(op, ()) if i < len(inputs) and inputs[i] is not None}
    options = {"opset": 18, **options, "constants": tuple(fixed | set(options.get("constants", ())))}
    model, feeds = one_node(op, inputs, **options)
    module = module_of(model)
    wanted = module({n: torch.from_numpy(np.array(a)) for n, a in feeds.items()})
    found = module.to("meta")({n: torch.from_numpy(np.array(a)).to("meta") for n, a in feeds.items()})
    for name, tensor in wanted.items():
        assert found[name].device.type == "meta" and found[name].shape == tensor.shape


def test_a_query_without_keys_has_a_finite_gradient() -> None:
    model, feeds = one_node(
        "Attention", [normal(1, 1, 2, 2)] * 3 + [np.array([[True, True], [False, False]])], opset=23
    )
    leaf = torch.from_numpy(feeds["x0"]).requires_grad_()
    output = module_of(model)({n: leaf if n != "x3" else torch.from_numpy(a) for n, a in feeds.items()})["y0"]
    assert not output[0, 0, 1].any()
    output.sum().backward()
    assert leaf.grad is not None and torch.isfinite(leaf.grad).all()


def test_every_operator_is_checked_or_has_no_gradient() -> None:
    checked = {op for op, _, _ in CASES}
    assert not checked & NO_GRADIENT
    assert checked | NO_GRADIENT == set(OPS)
