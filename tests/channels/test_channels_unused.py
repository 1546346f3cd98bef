"""Channels that nothing reads are taken out, and the model computes what it computed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from modelkit.channels.unused import cut_unused
from modelkit.graph.load import load
from modelkit.graph.normalise import normalise
from modelkit.graph.save import save
from modelkit.graph.verify import verify_same

SAMPLES = Path(__file__).parents[2] / "sample_models"


def changed(name: str, change: Callable[[dict[str, np.ndarray]], None]) -> ir.Model:
    """A sample model, its weights changed."""
    model = load(SAMPLES / f"{name}.onnx").model
    normalise(model)
    found = {key: value.const_value for key, value in model.graph.initializers.items()}
    arrays = {key: tensor.numpy().copy() for key, tensor in found.items() if tensor is not None}
    change(arrays)
    for key, array in arrays.items():
        model.graph.initializers[key].const_value = ir.tensor(array, name=key)
    return model


def shapes(model: ir.Model) -> dict[str, tuple[int, ...]]:
    tensors = {key: value.const_value for key, value in model.graph.initializers.items()}
    return {key: tuple(tensor.shape.numpy()) for key, tensor in tensors.items() if tensor is not None}


def test_what_led_to_them_goes_too(tmp_path: Path) -> None:
    def change(arrays: dict[str, np.ndarray]) -> None:
        arrays["4.weight"][:, 10:] = 0  # of the 128 units behind, 10 are read
        arrays["2.weight"][:10, 100:] = 0  # and these read 100 of the 256 in front

    model = changed("digits_mlp", change)
    save(model, tmp_path / "before.onnx")
    decisions = cut_unused(model)
    save(model, tmp_path / "after.onnx")
    found = shapes(model)
    assert [found[f"{n}.weight"] for n in (0, 2, 4)] == [(100, 64), (10, 100), (10, 10)]
    assert (found["0.bias"], found["2.bias"]) == ((100,), (10,))
    assert {each.action for each in decisions} == {"cut"}
    assert sorted(tuple(each.numbers.values()) for each in decisions) == [(128, 10), (256, 100)]
    assert verify_same(tmp_path / "before.onnx", tmp_path / "after.onnx").action == "verified"


def test_one_channel_stays_of_those_that_nothing_reads(tmp_path: Path) -> None:
    def change(arrays: dict[str, np.ndarray]) -> None:
        arrays["4.weight"][:] = 0

    model = changed("digits_mlp", change)
    cut_unused(model)
    assert shapes(model)["4.weight"] == (10, 1)
    save(model, tmp_path / "m.onnx")


def test_channels_of_a_residual_network_go_where_all_that_read_them_agree(tmp_path: Path) -> None:
    def change(arrays: dict[str, np.ndarray]) -> None:
        arrays["16.body.6.weight"][:, ::2] = 0

    model = changed("fashion_cnn", change)
    save(model, tmp_path / "before.onnx")
    assert cut_unused(model)
    save(model, tmp_path / "after.onnx")
    found = shapes(model)
    assert found["16.body.6.weight"][1] == 144 and found["16.body.3.weight"][0] == 144
    assert verify_same(tmp_path / "before.onnx", tmp_path / "after.onnx").action == "verified"


@pytest.mark.parametrize("exclude", [[], ["4.weight"]])
def test_nothing_to_do(exclude: list[str]) -> None:
    def change(arrays: dict[str, np.ndarray]) -> None:
        if exclude:
            arrays["4.weight"][:, :50] = 0

    model = changed("digits_mlp", change)
    before = shapes(model)
    assert cut_unused(model, exclude=exclude) == [] and shapes(model) == before
