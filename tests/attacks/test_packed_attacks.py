"""Packed files that were changed by hand or made to do harm."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from modelkit import api
from modelkit.errors import ModelError
from modelkit.graph.load import load
from modelkit.graph.save import save
from modelkit.packing.body import DOMAIN

SAMPLE = Path(__file__).parents[2] / "sample_models" / "digits_mlp.onnx"


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packed")
    config = {"sparsity": 0.9, "pack": "size", "measure.seconds": 0.01}
    api.prune(SAMPLE, output=folder / "p.onnx", config=config)
    return folder / "p.onnx"


def call(proto: onnx.ModelProto) -> onnx.NodeProto:
    return next(node for node in proto.graph.node if node.domain == DOMAIN)


def stream(proto: onnx.ModelProto, index: int = 0) -> onnx.TensorProto:
    name = call(proto).input[index]
    return next(tensor for tensor in proto.graph.initializer if tensor.name == name)


def attribute(proto: onnx.ModelProto, name: str) -> onnx.AttributeProto:
    return next(each for each in call(proto).attribute if each.name == name)


def shorter(proto: onnx.ModelProto) -> None:
    tensor = stream(proto)
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor)[:-3], tensor.name))


def missing(proto: onnx.ModelProto) -> None:
    proto.graph.initializer.remove(stream(proto))


def huge(proto: onnx.ModelProto) -> None:
    attribute(proto, "shape").ints[:] = [1 << 20, 1 << 20, 1 << 10]


def negative(proto: onnx.ModelProto) -> None:
    attribute(proto, "shape").ints[:] = [-1, -64]


def far(proto: onnx.ModelProto) -> None:
    attribute(proto, "shape").ints[:] = [1, 1]


def no_shape(proto: onnx.ModelProto) -> None:
    call(proto).attribute.remove(attribute(proto, "shape"))


def more_entries(proto: onnx.ModelProto) -> None:
    attribute(proto, "entries").ints[:] = [1 << 40]


def random_bits(proto: onnx.ModelProto) -> None:
    rng = np.random.default_rng(0)
    for name in call(proto).input:
        tensor = next(each for each in proto.graph.initializer if each.name == name)
        array = numpy_helper.to_array(tensor)
        if array.dtype == np.uint8:
            changed = rng.integers(0, 256, array.shape, dtype=np.uint8)
            tensor.CopyFrom(numpy_helper.from_array(changed, name))


DAMAGE: list[tuple[Callable[[onnx.ModelProto], None], str]] = [
    (shorter, "is damaged"),
    (missing, "is damaged: '.*' is missing"),
    (huge, "is too large"),
    (negative, "is too large|is damaged"),
    (far, "is damaged"),
    (no_shape, "is damaged: 'shape' is missing"),
    (more_entries, "is damaged|is too large"),
]


@pytest.mark.parametrize(("change", "message"), DAMAGE, ids=lambda each: getattr(each, "__name__", ""))
def test_damage_is_an_error_that_names_the_weight(
    packed: Path, tmp_path: Path, change: Callable[[onnx.ModelProto], None], message: str
) -> None:
    proto = onnx.load(packed)
    change(proto)
    onnx.save(proto, tmp_path / "x.onnx")
    with pytest.raises(ModelError, match=rf"the packed weight '.*' (of shape .* )?({message})"):
        api.unpack(tmp_path / "x.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["x.onnx"]


def test_random_bits_never_end_in_a_defect(packed: Path, tmp_path: Path) -> None:
    proto = onnx.load(packed)
    random_bits(proto)
    onnx.save(proto, tmp_path / "x.onnx")
    try:
        load(tmp_path / "x.onnx")
    except ModelError as error:
        assert "is damaged" in error.message


def test_a_function_of_another_body_is_an_ordinary_function(packed: Path, tmp_path: Path) -> None:
    proto = onnx.load(packed)
    wanted = next(each for each in proto.functions if each.name == call(proto).op_type)
    last = wanted.node[-1].output[0]
    wanted.node[-1].output[0] = "plain"
    wanted.node.append(onnx.helper.make_node("Neg", ["plain"], [last]))
    onnx.save(proto, tmp_path / "x.onnx")
    loaded = load(tmp_path / "x.onnx")
    assert call(proto).output[0] not in loaded.packed
    save(loaded.model, tmp_path / "y.onnx")
    onnx.checker.check_model(tmp_path / "y.onnx")
