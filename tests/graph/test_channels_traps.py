"""Forms of graphs that have led other tools to cut the wrong channels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from channel_checks import as_bytes, check_cut, clean, cut_everything
from graph_builders import info, init, model, rng
from onnx import TensorProto, helper

from modelkit.errors import ModelError
from modelkit.graph.channels import Group, cut, find_groups

X = info("x", ["batch", 3, 4, 4])


def weights(**shapes: tuple[int, ...]) -> list[onnx.TensorProto]:
    random = rng(7)
    return [
        init(name, (random.standard_normal(shape) / np.sqrt(max(1, np.prod(shape[1:])))).astype(np.float32))
        for name, shape in shapes.items()
    ]


def ints(**values: list[int] | int) -> list[onnx.TensorProto]:
    return [init(name, np.array(value, dtype=np.int64)) for name, value in values.items()]


def node(op: str, inputs: str, outputs: str, **attributes: object) -> onnx.NodeProto:
    first = outputs.split()[0]
    return helper.make_node(
        op, [i if i != "_" else "" for i in inputs.split()], outputs.split(), name=first, **attributes
    )


def net(
    nodes: list[onnx.NodeProto],
    inits: list[onnx.TensorProto],
    *,
    x: onnx.ValueInfoProto = X,
    y: list[int | str] | None = None,
    opset: int = 17,
    more: list[onnx.ValueInfoProto] | None = None,
) -> ir.Model:
    return clean(model(nodes, [x, *(more or [])], [info("y", y or ["batch", 2])], inits, opset=opset))


def tail(source: str, channels: int) -> list[onnx.NodeProto]:
    return [
        node("GlobalAveragePool", source, "pooled"),
        node("Flatten", "pooled", "flat"),
        node("Gemm", "flat head.w head.b", "y", transB=1),
    ]


def head(channels: int) -> list[onnx.TensorProto]:
    return weights(**{"head.w": (2, channels), "head.b": (2,)})


def groups_of(found: list[Group]) -> dict[str, Group]:
    return {group.name: group for group in found}


def test_same_tensor_twice(tmp_path: Path) -> None:
    nodes = [
        node("Conv", "x a", "c"),
        node("Relu", "c", "r"),
        node("Concat", "r r", "t", axis=1),
        node("Conv", "t b", "d"),
        *tail("d", 5),
    ]
    found = groups_of(cut_everything(net(nodes, [*weights(a=(6, 3, 1, 1), b=(5, 12, 1, 1)), *head(5)]), tmp_path))
    part = next(p for p in found["c"].parts if p.value.name == "b")
    assert part.kind == "consumes"
    np.testing.assert_array_equal(part.index, [[i, i + 6] for i in range(6)])


@pytest.mark.parametrize("shape", [(6, 1, 1), (1, 6, 1, 1), (6, 4, 4), (1, 4), (4, 4), (1,), ()])
def test_added_constant(tmp_path: Path, shape: tuple[int, ...]) -> None:
    nodes = [node("Conv", "x a", "c"), node("Add", "k c", "s"), node("Relu", "s", "r"), *tail("r", 6)]
    found = groups_of(cut_everything(net(nodes, [*weights(a=(6, 3, 1, 1), k=shape), *head(6)]), tmp_path))
    assert found["c"].frozen is None
    assert any(part.value.name == "k" for part in found["c"].parts) == (6 in shape)


def test_constant_as_wide_as_an_image(tmp_path: Path) -> None:
    """A [4] constant lies along the width, although there are 4 channels too."""
    nodes = [node("Conv", "x a", "c"), node("Mul", "c k", "s"), *tail("s", 4)]
    found = groups_of(cut_everything(net(nodes, [*weights(a=(4, 3, 1, 1), k=(4,)), *head(4)]), tmp_path))
    assert [part.value.name for part in found["c"].parts] == ["a", "head.w"]


@pytest.mark.parametrize("target", [[-1, 96], [0, -1], [0, 96]])
def test_flatten_by_reshape(tmp_path: Path, target: list[int]) -> None:
    nodes = [
        node("Conv", "x a", "c"),
        node("Relu", "c", "r"),
        node("Reshape", "r shape", "f"),
        node("MatMul", "f w", "m"),
        node("Add", "bias m", "y"),
    ]
    inits = [*weights(a=(6, 3, 1, 1), w=(96, 2), bias=(2,)), *ints(shape=target)]
    found = groups_of(cut_everything(net(nodes, inits), tmp_path, made_only=True))
    part = next(p for p in found["c"].parts if p.value.name == "w")
    np.testing.assert_array_equal(part.index, np.arange(96).reshape(6, 16))


def test_target_shared_by_two_reshapes(tmp_path: Path) -> None:
    nodes = [
        node("Conv", "x a", "c"),
        node("Reshape", "c shape", "f"),
        node("Conv", "x b", "d"),
        node("Reshape", "d shape", "g"),
        node("Gemm", "f w", "h"),
        node("Gemm", "g w2 h", "y"),
    ]
    inits = [*weights(a=(6, 3, 1, 1), b=(6, 3, 1, 1), w=(96, 2), w2=(96, 2)), *ints(shape=[-1, 96])]
    cleaned = net(nodes, inits)
    check_cut(cleaned, {"c": np.arange(2), "d": np.arange(3, 6)}, tmp_path)


def test_weight_of_two_convolutions(tmp_path: Path) -> None:
    nodes = [
        node("Conv", "x a", "c"),
        node("Conv", "x b", "d"),
        node("Conv", "c w", "e"),
        node("Conv", "d w", "f"),
        node("Sub", "e f", "s"),
        *tail("s", 4),
    ]
    inits = [*weights(a=(6, 3, 1, 1), b=(6, 3, 1, 1), w=(4, 6, 1, 1)), *head(4)]
    found = groups_of(cut_everything(net(nodes, inits), tmp_path))
    assert {p.value.name for p in found["c"].parts} == {"a", "b", "w"}
    assert "d" not in found


def test_weight_used_in_two_ways_is_frozen() -> None:
    """The input channels of one node are the outputs of another: fixed sizes spread through the weight."""
    nodes = [
        node("Conv", "x a", "c"),
        node("Conv", "c w", "d"),
        node("Reshape", "w shape", "v"),
        node("Conv", "d v", "e"),
        *tail("e", 3),
    ]
    inits = [*weights(a=(4, 3, 1, 1), w=(6, 4, 1, 1)), *ints(shape=[4, 6, 1, 1]), *head(4)]
    found = groups_of(find_groups(net(nodes, inits)))
    assert all(group.frozen for group in found.values())


def test_squeeze_and_excite(tmp_path: Path) -> None:
    nodes = [
        node("Conv", "x a", "c"),
        node("ReduceMean", "c", "p", axes=[2, 3]),
        node("Conv", "p w1", "q"),
        node("Relu", "q", "r"),
        node("Conv", "r w2", "s"),
        node("HardSigmoid", "s", "g"),
        node("Mul", "g c", "m"),
        *tail("m", 6),
    ]
    inits = [*weights(a=(6, 3, 3, 3), w1=(2, 6, 1, 1), w2=(6, 2, 1, 1)), *head(6)]
    found = groups_of(cut_everything(net(nodes, inits), tmp_path))
    assert [(p.value.name, p.kind) for p in found["c"].parts] == [
        ("a", "produces"),
        ("w1", "consumes"),
        ("w2", "produces"),
        ("head.w", "consumes"),
    ]


def test_computed_weights(tmp_path: Path) -> None:
    """A weight that is scaled and transposed by nodes shrinks with them; one made from the data does not."""
    nodes = [
        node("Flatten", "x", "f"),
        node("Mul", "w scale", "ws"),
        node("Transpose", "ws", "wt", perm=[1, 0]),
        node("MatMul", "f wt", "h"),
        node("Relu", "h", "r"),
        node("Gemm", "r w ", "back", transB=0),
        node("Gemm", "back v", "y"),
    ]
    inits = weights(w=(5, 48), scale=(5, 1), v=(48, 2))
    found = groups_of(cut_everything(net(nodes, inits), tmp_path))
    assert {p.value.name for p in found["h"].parts} >= {"w", "scale"}
    nodes = [
        node("Flatten", "x", "f"),
        node("MatMul", "f w", "h"),
        node("Transpose", "h", "t", perm=[1, 0]),
        node("MatMul", "t h", "hh"),
        node("ReduceSum", "hh axes", "s"),
        node("Expand", "s two", "y"),
    ]
    inits = [*weights(w=(48, 5)), *ints(axes=[0, 1], two=[1, 2])]
    cut_everything(net(nodes, inits, x=info("x", [3, 3, 4, 4]), y=[1, 2]), tmp_path)


def test_output_of_the_model_is_frozen() -> None:
    nodes = [node("Conv", "x a", "c"), node("Relu", "c", "y"), node("Conv", "y b", "d")]
    proto = model(
        nodes,
        [X],
        [info("y", ["batch", 6, 4, 4]), info("d", ["batch", 2, 4, 4])],
        weights(a=(6, 3, 1, 1), b=(2, 6, 1, 1)),
    )
    found = groups_of(find_groups(clean(proto)))
    assert found["c"].frozen == "it reaches the output 'y'"
    with pytest.raises(ModelError, match="cannot be taken out: it reaches the output 'y'"):
        cut(clean(proto), {"c": np.arange(3)})


@pytest.mark.parametrize("opset", [11, 17])
def test_uneven_split(tmp_path: Path, opset: int) -> None:
    sizes = {"split": [2, 5]} if opset < 13 else {}
    nodes = [
        node("Conv", "x a", "c"),
        node("Split", "c" if sizes else "c sizes", "p q", axis=1, **sizes),
        node("Conv", "p b", "d"),
        node("Conv", "q e", "f"),
        node("Add", "d f", "s"),
        *tail("s", 4),
    ]
    inits = [*weights(a=(7, 3, 1, 1), b=(4, 2, 1, 1), e=(4, 5, 1, 1)), *head(4)]
    inits += [] if sizes else ints(sizes=[2, 5])
    cleaned = net(nodes, inits, opset=opset)
    (group,) = (g for g in find_groups(cleaned) if g.name == "c")
    assert sorted(int(piece.sum()) for piece in group.pieces) == [2, 5]
    check_cut(cleaned, {"c": np.array([1, 2, 6])}, tmp_path)
    assert group.problem(np.arange(7) > 1) == "nothing would be left of a piece that the graph splits off"
    with pytest.raises(ModelError, match="piece"):
        cut(cleaned, {"c": np.arange(2, 7)})
    check_cut(cleaned, {"c": np.array([1, 2, 6])}, tmp_path)  # the refused cut has changed nothing


def test_grouped_convolution(tmp_path: Path) -> None:
    nodes = [
        node("Conv", "x a", "c"),
        node("Relu", "c", "r"),
        node("Conv", "r w b", "d", group=3),
        *tail("d", 6),
    ]
    inits = [*weights(a=(12, 3, 1, 1), w=(6, 4, 1, 1), b=(6,)), *head(6)]
    cleaned = net(nodes, inits)
    found = groups_of(find_groups(cleaned))
    np.testing.assert_array_equal(found["c"].partition, np.repeat([0, 1, 2], 4))
    np.testing.assert_array_equal(found["d"].partition, np.repeat([0, 1, 2], 2))
    uneven = np.array([0, 1, 5, 7, 8, 11])
    check_cut(cleaned, {"c": uneven, "d": np.array([1, 2, 5])}, tmp_path)
    (part,) = (p for p in found["c"].parts if p.value.name == "w")
    assert part.sections == 3
    assert part.numbers().shape == (12, 2)
    with pytest.raises(ModelError, match="each of 3 sections has to keep the same number"):
        cut(cleaned, {"c": np.arange(6)})


def test_depthwise_that_doubles(tmp_path: Path) -> None:
    nodes = [
        node("Conv", "x a", "c"),
        node("Conv", "c w b", "d", group=4, pads=[1, 1, 1, 1]),
        node("Relu", "d", "r"),
        *tail("r", 8),
    ]
    inits = [*weights(a=(4, 3, 1, 1), w=(8, 1, 3, 3), b=(8,)), *head(8)]
    found = groups_of(cut_everything(net(nodes, inits), tmp_path, made_only=True))
    assert list(found) == ["c", "y"]
    (part,) = (p for p in found["c"].parts if p.value.name == "head.w")
    np.testing.assert_array_equal(part.index, np.arange(8).reshape(4, 2))


@pytest.mark.parametrize("way", ["pad", "zeros", "computed"])
def test_padded_shortcut(tmp_path: Path, way: str) -> None:
    """A shortcut whose missing channels are zeros, as ResNets for CIFAR have it."""
    first = node("Conv", "x a", "c")
    nodes = {
        "pad": [first, node("Pad", "c pads", "p")],
        "zeros": [first, node("Concat", "low c high", "p", axis=1)],
        "computed": [
            first,
            node("Shape", "c", "sh"),
            node("Gather", "sh zero", "n", axis=0),
            node("Concat", "n two four four", "zsh", axis=0),
            node("ConstantOfShape", "zsh", "low"),
            node("Concat", "low c low", "p", axis=1),
        ],
    }[way]
    nodes += [
        node("Conv", "c b", "d"),
        node("Relu", "d", "r"),
        node("Conv", "r e", "f"),
        node("Add", "p f", "s"),
        node("Relu", "s", "t"),
        *tail("t", 8),
    ]
    inits = [*weights(a=(4, 3, 1, 1), b=(5, 4, 1, 1), e=(8, 5, 1, 1)), *head(8)]
    batch: int | str = 1 if way == "zeros" else "batch"
    zeros = np.zeros((1, 2, 4, 4), dtype=np.float32)
    inits += {
        "pad": ints(pads=[0, 2, 0, 0, 0, 2, 0, 0]),
        "zeros": [init("low", zeros), init("high", zeros)],
        "computed": ints(zero=[0], two=[2], four=[4]),
    }[way]
    cleaned = net(nodes, inits, x=info("x", [batch, 3, 4, 4]), y=[batch, 2])
    found = groups_of(find_groups(cleaned))
    if way == "computed":
        # The same zeros stand on both sides: channels 0 and 6, 1 and 7 are the same.
        assert found["c"].channels == 6
    else:
        assert found["c"].channels == 8
        (part,) = (p for p in found["c"].parts if p.value.name == "a")
        assert sorted(part.index.reshape(-1)) == [-1, -1, -1, -1, 0, 1, 2, 3]
    random = rng(1)
    for _ in range(4):
        kept = np.sort(random.permutation(found["c"].channels)[:3])
        if found["c"].problem(np.isin(np.arange(found["c"].channels), kept)) is None:
            check_cut(cleaned, {"c": kept, "d": np.arange(3)}, tmp_path)


def test_concat_with_an_input_is_frozen_in_part(tmp_path: Path) -> None:
    nodes = [
        node("Conv", "x a", "c"),
        node("Concat", "x c", "t", axis=1),
        node("Conv", "t b", "d"),
        *tail("d", 4),
    ]
    inits = [*weights(a=(5, 3, 1, 1), b=(4, 8, 1, 1)), *head(4)]
    found = groups_of(cut_everything(net(nodes, inits), tmp_path))
    assert found["c"].frozen is None
    (part,) = (p for p in found["c"].parts if p.value.name == "b")
    np.testing.assert_array_equal(part.index.reshape(-1), np.arange(3, 8))


def test_sum_with_an_input_is_frozen() -> None:
    nodes = [node("Conv", "x a", "c"), node("Add", "c x", "t"), *tail("t", 3)]
    found = groups_of(find_groups(net(nodes, [*weights(a=(3, 3, 1, 1)), *head(3)])))
    assert found["c"].frozen == "Add 't' combines it with something that cannot shrink"


def test_unknown_operator_is_named() -> None:
    nodes = [
        node("Conv", "x a", "c"),
        node("Trilu", "c", "t"),
        *tail("t", 3),
    ]
    found = groups_of(find_groups(net(nodes, [*weights(a=(3, 3, 1, 1)), *head(3)])))
    assert found["c"].frozen == "the operator Trilu is not followed"


def test_computing_with_the_number_of_channels(tmp_path: Path) -> None:
    """1 / sqrt(C), read off the shape, must stay what it was."""
    nodes = [
        node("Conv", "x a", "c"),
        node("Shape", "c", "sh"),
        node("Gather", "sh one", "n"),
        node("Cast", "n", "nf", to=TensorProto.FLOAT),
        node("Sqrt", "nf", "root"),
        node("Div", "c root", "s"),
        *tail("s", 6),
    ]
    found = groups_of(
        cut_everything(net(nodes, [*weights(a=(6, 3, 1, 1)), *ints(one=1), *head(6)]), tmp_path, made_only=True)
    )
    assert found["c"].frozen is None


def test_step_over_channels_is_frozen() -> None:
    nodes = [node("Conv", "x a", "c"), node("Slice", "c b e ax st", "s"), *tail("s", 3)]
    inits = [*weights(a=(6, 3, 1, 1)), *ints(b=[0], e=[6], ax=[1], st=[2]), *head(3)]
    assert groups_of(find_groups(net(nodes, inits)))["c"].frozen == "Slice 's' steps over it"


def test_softmax_over_channels_is_frozen_and_over_positions_is_not(tmp_path: Path) -> None:
    for axis in (1, 3):
        nodes = [node("Conv", "x a", "c"), node("Softmax", "c", "s", axis=axis), *tail("s", 6)]
        found = groups_of(cut_everything(net(nodes, [*weights(a=(6, 3, 1, 1)), *head(6)]), tmp_path))
        assert (found["c"].frozen is None) == (axis == 3)


def test_resize_expand_tile(tmp_path: Path) -> None:
    nodes = [
        node("Conv", "x a", "c"),
        node("Resize", "c _ _ sizes", "u", mode="nearest"),
        node("Tile", "u reps", "v"),
        node("Conv", "v b", "d"),
        node("GlobalAveragePool", "d", "g"),
        node("Expand", "g shape", "e"),
        node("Add", "e d", "s"),
        *tail("s", 4),
    ]
    inits = [*weights(a=(6, 3, 1, 1), b=(4, 12, 1, 1)), *head(4)]
    inits += ints(sizes=[1, 6, 8, 8], reps=[1, 2, 1, 1], shape=[1, 4, 8, 8])
    found = groups_of(
        cut_everything(net(nodes, inits, x=info("x", [1, 3, 4, 4]), y=[1, 2]), tmp_path, made_only=True)
    )
    assert found["c"].frozen is None
    assert found["d"].frozen is None


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_depth_to_space(tmp_path: Path, mode: str) -> None:
    nodes = [
        node("Conv", "x a", "c"),
        node("DepthToSpace", "c", "u", blocksize=2, mode=mode),
        node("Relu", "u", "r"),
        node("SpaceToDepth", "r", "v", blocksize=2),
        *tail("v", 12),
    ]
    found = groups_of(cut_everything(net(nodes, [*weights(a=(12, 3, 1, 1)), *head(12)]), tmp_path, made_only=True))
    assert found["c"].channels == 3


def test_group_norm_by_reshape(tmp_path: Path) -> None:
    """Statistics over two channels each: whole pairs go, which is exact."""
    nodes = [
        node("Conv", "x a", "c"),
        node("Reshape", "c s1", "r"),
        node("InstanceNormalization", "r one zero", "n"),
        node("Reshape", "n s2", "u"),
        node("Mul", "u gamma", "g"),
        node("Add", "g beta", "h"),
        *tail("h", 8),
    ]
    inits = [
        *weights(a=(8, 3, 1, 1), gamma=(8, 1, 1), beta=(8, 1, 1)),
        *head(8),
        *ints(s1=[0, 4, -1], s2=[0, 8, 4, 4]),
    ]
    inits += [init("one", np.ones(4, np.float32)), init("zero", np.zeros(4, np.float32))]
    found = groups_of(cut_everything(net(nodes, inits), tmp_path))
    assert found["c"].frozen is None
    assert len(np.unique(found["c"].atoms)) == 4


def test_layer_norm_is_inexact_but_runs(tmp_path: Path) -> None:
    nodes = [
        node("Flatten", "x", "f"),
        node("Gemm", "f w", "h"),
        node("LayerNormalization", "h g b", "n"),
        node("Gemm", "n v", "y"),
    ]
    cleaned = net(nodes, weights(w=(48, 8), g=(8,), b=(8,), v=(8, 2)))
    group = groups_of(find_groups(cleaned))["h"]
    assert not group.exact
    assert group.inexact == "LayerNormalization 'n' takes statistics over channels"
    check_cut(cleaned, {"h": np.arange(5)}, tmp_path, tolerance=10)


def test_bad_choices() -> None:
    nodes = [node("Conv", "x a", "conv"), *tail("conv", 6)]
    cleaned = net(nodes, [*weights(a=(6, 3, 1, 1)), *head(6)])
    before = as_bytes_of(cleaned)
    for keep, message in (
        ({"con": np.arange(2)}, "no group of channels 'con'"),
        ({"conv": np.array([6])}, "numbers from 0 to 5"),
        ({"conv": np.array([-1])}, "numbers from 0 to 5"),
        ({"conv": np.array([0.5])}, "numbers from 0 to 5"),
        ({"conv": np.ones(5, bool)}, "numbers from 0 to 5"),
        ({"conv": np.zeros(6, bool)}, "no channel would be left"),
        ({"conv": np.arange(2), "y": np.arange(1)}, "it reaches the output 'y'"),
    ):
        with pytest.raises(ModelError, match=message):
            cut(cleaned, keep)
    assert as_bytes_of(cleaned) == before
    assert cut(cleaned, {"conv": np.ones(6, bool)}) == []


def as_bytes_of(cleaned: ir.Model) -> bytes:
    return ir.serde.serialize_model(cleaned).SerializeToString()


def test_weight_that_is_an_output_or_an_input_is_frozen() -> None:
    nodes = [node("Conv", "x a", "c"), *tail("c", 6)]
    proto = model(
        nodes,
        [X],
        [info("y", ["batch", 2]), info("a", [6, 3, 1, 1])],
        [*weights(a=(6, 3, 1, 1)), *head(6)],
    )
    assert "output" in str(groups_of(find_groups(clean(proto)))["c"].frozen)
    proto = model(nodes, [X, info("a", [6, 3, 1, 1])], [info("y", ["batch", 2])], head(6))
    assert all(group.frozen for group in find_groups(clean(proto)))


def test_float16(tmp_path: Path) -> None:
    inits = [
        init(t.name, onnx.numpy_helper.to_array(t).astype(np.float16)) for t in [*weights(a=(6, 3, 1, 1)), *head(6)]
    ]
    nodes = [node("Conv", "x a", "c"), node("Relu", "c", "r"), *tail("r", 6)]
    half = TensorProto.FLOAT16
    proto = model(nodes, [info("x", ["b", 3, 4, 4], half)], [info("y", ["b", 2], half)], inits)
    cleaned = clean(proto)
    check_cut(cleaned, {"c": np.arange(1, 4)}, tmp_path, tolerance=2e-3)
    assert len(as_bytes(cleaned, tmp_path)) > 0


@pytest.mark.parametrize("sizes", [["batch", 3, "height", "width"], [1, 3, "height", 20], ["b", 3, "h", 16]])
def test_images_of_any_size(tmp_path: Path, sizes: list[int | str]) -> None:
    nodes = [
        node("Conv", "x a", "c", strides=[2, 2], pads=[1, 1, 1, 1]),
        node("Relu", "c", "r"),
        node("MaxPool", "r", "p", kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", "p b", "d", pads=[1, 1, 1, 1]),
        node("Resize", "d _ scales", "u", mode="nearest"),
        node("Conv", "u e", "f"),
        node("Add", "f r", "s"),
        *tail("s", 6),
    ]
    inits = [*weights(a=(6, 3, 3, 3), b=(5, 6, 3, 3), e=(6, 5, 1, 1)), *head(6)]
    inits.append(init("scales", np.array([1, 1, 2, 2], np.float32)))
    cleaned = net(nodes, inits, x=info("x", sizes), y=[sizes[0], 2])
    found = groups_of(cut_everything(cleaned, tmp_path, made_only=True))
    assert [name for name, group in found.items() if group.frozen is None] == ["c", "d"]


def test_samples_and_words_in_one_axis(tmp_path: Path) -> None:
    """(batch, time, width) as (batch * time, width) and back."""
    nodes = [
        node("MatMul", "x w", "h"),
        node("Reshape", "h rows", "r"),
        node("Gemm", "r v", "g"),
        node("Reshape", "g back", "b"),
        node("ReduceMean", "b", "m", axes=[1], keepdims=0),
        node("MatMul", "m head", "y"),
    ]
    inits = [*weights(w=(5, 8), v=(8, 6), head=(6, 2)), *ints(rows=[-1, 8], back=[-1, 7, 6])]
    for time in (7, "time"):
        cleaned = net(nodes, inits, x=info("x", ["batch", time, 5]))
        if time == 7:
            found = groups_of(cut_everything(cleaned, tmp_path, made_only=True))
            assert [name for name, group in found.items() if group.frozen is None] == ["h", "g"]
        else:
            find_groups(cleaned)
