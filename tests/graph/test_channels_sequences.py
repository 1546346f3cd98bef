"""Attention as exporters write it, and recurrent layers: heads, widths, hidden units."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from channel_checks import check_cut, clean, cut_everything
from graph_builders import info, init, model, rng
from test_channels_traps import groups_of, ints, node, weights

from modelkit.graph.channels import find_groups

D, HEADS, WIDTH, T = 12, 3, 4, 5


def attention(way: str, time: int | str = T) -> onnx.ModelProto:
    """One attention layer with 3 heads of 4, its query, key and value made in different ways."""
    fused = way in ("split", "gather", "slice")
    if fused:
        nodes = [node("MatMul", "x wqkv", "qkv0"), node("Add", "bqkv qkv0", "qkv")]
        inits = weights(wqkv=(D, 3 * D), bqkv=(3 * D,))
    else:
        nodes = [n for k in "qkv" for n in (node("MatMul", f"x w{k}", f"{k}m"), node("Add", f"{k}m b{k}", f"{k}0"))]
        inits = [t for k in "qkv" for t in weights(**{f"w{k}": (D, D), f"b{k}": (D,)})]
    inits += ints(view=[0, 0, HEADS, WIDTH], five=[0, 0, 3, HEADS, WIDTH], joined=[0, 0, D], zero=0, one=1, two=2)
    match way:
        case "split":
            nodes.append(node("Split", "qkv", "q0 k0 v0", axis=-1))
        case "slice":
            for i, k in enumerate("qkv"):
                inits += (
                    ints(**{f"s{k}": [i * D], f"e{k}": [(i + 1) * D], "last": [-1]})
                    if k == "q"
                    else ints(**{f"s{k}": [i * D], f"e{k}": [(i + 1) * D]})
                )
                nodes.append(node("Slice", f"qkv s{k} e{k} last", f"{k}0"))
        case "gather":
            nodes += [
                node("Reshape", "qkv five", "five0"),
                node("Transpose", "five0", "turned", perm=[2, 0, 3, 1, 4]),
            ]
            nodes += [
                node("Gather", f"turned {n}", k, axis=0) for k, n in zip("qkv", ("zero", "one", "two"), strict=True)
            ]
    if way != "gather":
        nodes += [node("Reshape", f"{k}0 view", f"{k}1") for k in "qkv"]
        nodes += [node("Transpose", f"{k}1", k, perm=[0, 2, 1, 3]) for k in "qkv"]
    nodes += [node("Transpose", "k", "kt", perm=[0, 1, 3, 2])]
    source = ["q", "kt", "v"]
    if way == "batched":
        # Heads become samples of the batch for the products.
        inits += ints(flat=[-1, T, WIDTH], flatk=[-1, WIDTH, T], back=[-1, HEADS, T, WIDTH])
        nodes += [
            node("Reshape", "q flat", "qb"),
            node("Reshape", "kt flatk", "ktb"),
            node("Reshape", "v flat", "vb"),
        ]
        source = ["qb", "ktb", "vb"]
    inits += [
        init("scale", np.array(0.5, np.float32)),
        *weights(wo=(D, D), bo=(D,), head=(D, 2), perhead=(HEADS, 1, 1)),
    ]
    nodes += [
        node("MatMul", f"{source[0]} {source[1]}", "scores"),
        node("Mul", "scores scale", "scaled"),
        node("Softmax", "scaled", "p", axis=-1),
        node("MatMul", f"p {source[2]}", "context0"),
        node("Reshape", "context0 back", "context")
        if way == "batched"
        else node("Mul", "context0 perhead", "context"),
        node("Transpose", "context", "ct", perm=[0, 2, 1, 3]),
        node("Reshape", "ct joined", "cj"),
        node("MatMul", "cj wo", "om"),
        node("Add", "om bo", "o"),
        node("Add", "o x", "res"),
        node("ReduceMean", "res", "mean", axes=[1], keepdims=0),
        node("MatMul", "mean head", "y"),
    ]
    return model(nodes, [info("x", ["batch", time, D])], [info("y", ["batch", 2])], inits, opset=17)


@pytest.mark.parametrize("way", ["plain", "split", "slice", "gather", "batched"])
def test_heads(tmp_path: Path, way: str) -> None:
    cleaned = clean(attention(way))
    (group,) = (g for g in find_groups(cleaned) if g.frozen is None)
    assert group.exact
    assert group.channels == 2 * D  # query and key make one set, value another
    heads, sizes = np.unique(group.atoms, return_counts=True)
    assert list(sizes) == [2 * WIDTH] * HEADS
    for kept in ([0], [1, 2], [0, 2]):
        check_cut(cleaned, {group.name: np.flatnonzero(np.isin(group.atoms, heads[kept]))}, tmp_path, made_only=True)
    assert group.problem(np.arange(group.channels) > 0) == "channels that belong together would be separated"


@pytest.mark.parametrize("way", ["plain", "split", "gather"])
def test_heads_of_texts_of_any_length(tmp_path: Path, way: str) -> None:
    groups = cut_everything(clean(attention(way, "time")), tmp_path, made_only=True)
    assert [len(np.unique(g.atoms)) for g in groups if g.frozen is None] == [HEADS]


def recurrent(op: str, directions: int, *, state: str = "none") -> ir.Model:
    gates = {"RNN": 1, "GRU": 3, "LSTM": 4}[op]
    hidden = 6
    inits = weights(
        embed=(11, 5), w=(directions, gates * hidden, 5), r=(directions, gates * hidden, hidden),
        b=(directions, 2 * gates * hidden), head=(2, directions * hidden), h0=(directions, 1, hidden),
    )  # fmt: skip
    inits += ints(joined=[0, 0, -1], first=0, last=[0])
    attributes = {"hidden_size": hidden, "direction": "bidirectional" if directions == 2 else "forward"}
    h0 = {"none": "_", "weight": "h0e", "input": "start"}[state]
    outputs = "out h c" if op == "LSTM" else "out h"
    nodes = [
        node("Transpose", "tokens", "tt", perm=[1, 0]),
        node("Gather", "embed tt", "e", axis=0),
        node("Shape", "tokens", "sh"),
        node("Gather", "sh last", "n"),
        node("Concat", "dn n hn", "target", axis=0),
        node("Expand", "h0 target", "h0e"),
        node(op, f"e w r b _ {h0}", outputs, **attributes),
        node("Transpose", "out", "turned", perm=[2, 0, 1, 3]),
        node("Reshape", "turned joined", "flat"),
        node("ReduceMax", "flat", "top", axes=[1], keepdims=0),
        node("Gemm", "top head", "y", transB=1),
    ]
    inits += ints(dn=[directions], hn=[hidden])
    inputs = [info("tokens", ["batch", 7], onnx.TensorProto.INT64)]
    if state == "input":
        inputs.append(info("start", [directions, "batch", hidden]))
    return clean(model(nodes, inputs, [info("y", ["batch", 2])], inits, opset=17))


@pytest.mark.parametrize("op", ["RNN", "GRU", "LSTM"])
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("state", ["none", "weight"])
def test_hidden_units(tmp_path: Path, op: str, directions: int, state: str) -> None:
    cleaned = recurrent(op, directions, state=state)
    found = groups_of(cut_everything(cleaned, tmp_path))
    assert found["out"].channels == 6
    assert found["out"].frozen is None
    assert found["out"].exact
    assert found["e"].channels == 5
    kinds = {(p.value.name, p.axis): p.kind for p in found["out"].parts}
    assert kinds["r", 1] == "produces"
    assert kinds["r", 2] == "consumes"
    assert kinds["head", 1] == "consumes"


def test_state_from_outside_is_frozen() -> None:
    found = groups_of(find_groups(recurrent("GRU", 1, state="input")))
    assert found["out"].frozen == "GRU 'out' combines it with something that cannot shrink"


def test_rotary_positions(tmp_path: Path) -> None:
    """Halves of each head are turned into each other: the angle tables stay, heads go."""
    random = rng(3)
    inits = [t for k in "qkv" for t in weights(**{f"w{k}": (D, D)})] + weights(wo=(D, 2))
    inits += ints(view=[0, 0, HEADS, WIDTH], joined=[0, 0, D], a=[0], b=[WIDTH // 2], c=[WIDTH], last=[-1])
    inits += [init(n, random.standard_normal((T, WIDTH)).astype(np.float32)) for n in ("cos", "sin")]
    nodes = [node("MatMul", f"x w{k}", f"{k}0") for k in "qkv"]
    nodes += [node("Reshape", f"{k}0 view", f"{k}1") for k in "qkv"]
    nodes += [node("Transpose", f"{k}1", f"{k}2", perm=[0, 2, 1, 3]) for k in "qkv"]
    for k in "qk":
        nodes += [
            node("Slice", f"{k}2 a b last", f"{k}low"),
            node("Slice", f"{k}2 b c last", f"{k}high"),
            node("Neg", f"{k}high", f"{k}neg"),
            node("Concat", f"{k}neg {k}low", f"{k}turned", axis=-1),
            node("Mul", f"{k}2 cos", f"{k}c"),
            node("Mul", f"{k}turned sin", f"{k}s"),
            node("Add", f"{k}c {k}s", k),
        ]
    nodes += [
        node("Transpose", "k", "kt", perm=[0, 1, 3, 2]),
        node("MatMul", "q kt", "scores"),
        node("Softmax", "scores", "p", axis=-1),
        node("MatMul", "p v2", "context"),
        node("Transpose", "context", "ct", perm=[0, 2, 1, 3]),
        node("Reshape", "ct joined", "cj"),
        node("MatMul", "cj wo", "o"),
        node("ReduceMean", "o", "y", axes=[1], keepdims=0),
    ]
    proto = model(nodes, [info("x", ["batch", T, D])], [info("y", ["batch", 2])], inits, opset=17)
    groups = cut_everything(clean(proto), tmp_path, made_only=True)
    assert [len(np.unique(g.atoms)) for g in groups if g.frozen is None] == [HEADS]


def test_mixer_over_time(tmp_path: Path) -> None:
    """Products along the time axis: its width is fixed by the input, the hidden width is not."""
    nodes = [
        node("Transpose", "x", "xt", perm=[0, 2, 1]),
        node("MatMul", "xt up", "u"),
        node("Relu", "u", "r"),
        node("MatMul", "r down", "d"),
        node("Transpose", "d", "dt", perm=[0, 2, 1]),
        node("Add", "dt x", "s"),
        node("ReduceMean", "s", "m", axes=[1], keepdims=0),
        node("MatMul", "m head", "y"),
    ]
    proto = model(
        nodes, [info("x", ["batch", T, D])], [info("y", ["batch", 2])], weights(up=(T, 9), down=(9, T), head=(D, 2))
    )
    found = groups_of(cut_everything(clean(proto), tmp_path, made_only=True))
    assert found["u"].frozen is None
    assert found["d"].frozen
