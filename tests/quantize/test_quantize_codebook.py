"""Shared values: k-means on a line is exact, files take the bits asked for, and nothing is left to run."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quantize_nets import Net, closeness, kernels, optimised, run

from modelkit import api
from modelkit.errors import ConfigError, UsageError
from modelkit.graph.load import load
from modelkit.pack.proven import pack_model
from modelkit.quantize.affine import dequantize, quantize_array
from modelkit.quantize.codebook import palette_of, share_values
from modelkit.quantize.config import Codebook, QuantizeConfig
from modelkit.quantize.kmeans import kmeans, nearest

SAMPLES = Path(__file__).parents[2] / "sample_models"
MLP = SAMPLES / "digits_mlp.onnx"
QUICK = {"measure.seconds": 0.01, "mode": "weights"}


def error(numbers: np.ndarray, values: np.ndarray, weights: np.ndarray) -> float:
    return float((weights * (numbers - values[nearest(numbers, values)]) ** 2).sum())


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-50, 50), st.integers(1, 9)), min_size=1, max_size=9),
    st.integers(1, 4),
)
def test_kmeans_on_a_line_is_the_best_there_is(points: list[tuple[int, int]], count: int) -> None:
    numbers, weights = (np.array(column, np.float64) for column in zip(*points, strict=True))
    found = kmeans(numbers, count, weights)
    assert 1 <= len(found) <= count and (np.diff(found) > 0).all()
    order = np.argsort(numbers)
    numbers, weights = numbers[order], weights[order]
    best = np.inf
    for runs in range(1, min(count, len(numbers)) + 1):
        for cuts in combinations(range(1, len(numbers)), runs - 1):
            parts = np.split(np.arange(len(numbers)), cuts)
            means = [np.average(numbers[part], weights=weights[part]) for part in parts]
            costs = [weights[part] @ (numbers[part] - mean) ** 2 for part, mean in zip(parts, means, strict=True)]
            best = min(best, float(sum(costs)))
    assert error(numbers, found, weights) <= best + 1e-9 * (1 + best)


def test_many_numbers_are_served_nearly_as_well() -> None:
    numbers = np.random.default_rng(0).standard_normal(50_000)
    found = kmeans(numbers, 16)
    # Max (1960): the best 16 values for a normal distribution have an error of 0.009497.
    assert len(found) == 16 and error(numbers, found, np.ones_like(numbers)) / len(numbers) < 0.0097
    # What counts more is nearer to a value.
    heavy = np.where(numbers > 1, 100.0, 1.0)
    assert error(numbers, kmeans(numbers, 16, heavy), heavy) < error(numbers, found, heavy)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10**6),
    st.sampled_from([(0,), (1,), (7,), (6, 5), (4, 3, 2, 2)]),
    st.integers(2, 17),
    st.integers(0, 3),
    st.sampled_from([0.0, 0.5, 0.95, 1.0]),
)
def test_a_palette_keeps_zeros_and_takes_no_more_values(
    seed: int, shape: tuple[int, ...], values: int, group: int, sparsity: float
) -> None:
    rng = np.random.default_rng(seed)
    array = np.where(rng.random(shape) < sparsity, 0, rng.standard_normal(shape)).astype(np.float32)
    found = palette_of(array, values, axis=0, group=group)
    restored = found.array
    assert restored.shape == shape and restored.dtype == np.float32
    assert found.tables.shape[1] == values and (found.codes < values).all()
    for start in range(0, shape[0], group or max(shape[0], 1)):
        part = slice(start, start + (group or shape[0]))
        assert len(np.unique(restored[part])) <= values
        if (array[part] == 0).mean() > 1 / values:
            assert ((array[part] == 0) <= (restored[part] == 0)).all()


@pytest.mark.parametrize("bits", [1, 2, 3, 5, 6, 7])
def test_the_file_takes_as_many_bits_as_were_asked_for(bits: int, tmp_path: Path) -> None:
    report = api.quantize(MLP, output=tmp_path / "q.onnx", config={**QUICK, "bits": bits})
    weights = sum(int(np.prod(t.dims)) for t in onnx.load(MLP).graph.initializer if len(t.dims) > 1)
    assert report.config["pack"] is None and report.status == "done"
    # What else is in it: scales, biases, names, the function.
    rest = report.after.file["bytes"] - weights * bits / 8
    assert 0 < rest < 7500


def test_one_bit_is_the_sign_and_the_mean_magnitude() -> None:
    array = np.array([[1.0, -3.0, 2.0, -2.0], [0.0, 0.0, 0.0, 0.0]], np.float32)
    found = quantize_array(array, bits=1, reduce_axes=(1,))
    assert np.array_equal(dequantize(found), [[2, -2, 2, -2], [0, 0, 0, 0]])
    with pytest.raises(ValueError, match="bits must be 1 to 8, not 0"):
        quantize_array(array, bits=0)


def net() -> ir.Model:
    built = Net(opset=21)
    built.input("x", ["n", 8, 10, 10])
    hidden = built.add("Relu", built.add("Conv", "x", built.weight(24, 8, 3, 3), built.weight(24)))
    flat = built.add("Flatten", built.add("GlobalAveragePool", hidden))
    built.add("Gemm", flat, built.weight(24, 40), built.weight(40), out="y")
    built.output("y", ["n", 40])
    return built.build()


@pytest.mark.parametrize(("group", "packed"), [(0, False), (0, True), (8, False), (8, True)])
@pytest.mark.parametrize("values", [5, 16, 40])
def test_shared_values_leave_nothing_to_run(values: int, group: int, packed: bool, tmp_path: Path) -> None:
    model = net()
    floats = {name: value.const_value.numpy() for name, value in model.graph.initializers.items()}  # type: ignore[union-attr]
    options = Codebook(values=values, group=group)
    decisions = share_values(model, options, include=[], exclude=[], packed=packed)
    clustered = [each.target for each in decisions if each.action == "clustered"]
    assert len(clustered) == 2
    if packed:
        pack_model(model, "load")
    left = optimised(model, tmp_path)
    onnx.checker.check_model(tmp_path / "model.onnx", full_check=True)
    assert not kernels(left).keys() & {"Gather", "Cast", "Add", "DequantizeLinear"}
    expected = net()
    for name in clustered:
        axis = 0 if floats[name].ndim == 4 else 1
        array = palette_of(floats[name], values, axis=axis, group=group).array
        expected.graph.initializers[name].const_value = ir.tensor(array, name=name)
    feeds = {"x": np.random.default_rng(0).standard_normal((2, 8, 10, 10)).astype(np.float32)}
    assert closeness(run(expected, feeds), run(model, feeds)) > 100


def test_with_inputs_weights_count_by_what_they_are_multiplied_with(tmp_path: Path) -> None:
    report = api.quantize(
        SAMPLES / "language_transformer.onnx",
        output=tmp_path / "q.onnx",
        data=SAMPLES / "language_transformer.calib.npz",
        test=SAMPLES / "language_transformer.eval.npz",
        config={**QUICK, "codebook.values": 16},
    )
    assert {each["name"] for each in report.candidates} == {"codebook", "codebook, by inputs"}
    assert report.before.quality is not None and report.after.quality is not None
    assert report.after.quality["accuracy"] > report.before.quality["accuracy"] - 0.01
    assert report.before.file["bytes"] > 6 * report.after.file["bytes"]


def test_trained_values_stay_few_and_zeros_stay(tmp_path: Path) -> None:
    sparse = tmp_path / "sparse.onnx"
    api.prune(MLP, output=sparse, config={"sparsity": 0.8, "measure.seconds": 0.01})
    report = api.quantize(
        sparse,
        output=tmp_path / "q.onnx",
        data=SAMPLES / "digits_mlp.calib.npz",
        test=SAMPLES / "digits_mlp.eval.npz",
        config={
            **QUICK,
            **{"codebook.values": 4, "codebook.biases": "float16", "qat.enabled": True, "qat.epochs": 3},
            **{"qat.learning_rate": 0.001, "objective": "quality"},
        },
    )
    assert [each["name"] for each in report.candidates][-1] == "codebook, trained"
    noise = {each["name"]: each["fidelity"]["sqnr_db"] for each in report.candidates}
    assert noise["codebook, trained"] > noise["codebook"] + 1
    before, after = (load(path).model.graph.initializers for path in (sparse, tmp_path / "q.onnx"))
    for name, value in before.items():
        old = value.const_value.numpy()  # type: ignore[union-attr]
        if old.ndim == 2:
            new = after[name].const_value.numpy()  # type: ignore[union-attr]
            assert len(np.unique(new)) <= 4 and ((old == 0) <= (new == 0)).all()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"bits": 0}, "must be 1 to 8, or 16, not 0"),
        ({"bits": 1, "weights.center": "range"}, "1 bit is the sign of a weight"),
        ({"bits": 1, "mode": "static"}, "mode static computes with integers: bits must be 2 to 8, not 1"),
        ({"codebook.values": 16, "mode": "static"}, "mode must be auto or weights, not static"),
        ({"codebook.values": 16, "bits": 4}, "codebook.values and bits both say"),
        ({"codebook.values": 16, "weights.scale": "mse"}, "weights says how integers are made"),
        ({"codebook.values": 1}, "1 is not between 2 and 256"),
        ({"codebook.values": 257}, "257 is not between 2 and 256"),
        ({"codebook.group": 8}, "codebook is about shared values"),
        ({"codebook.values": 16, "codebook.group": 8, "qat.enabled": True}, "leave out codebook.group"),
    ],
)
def test_what_does_not_fit_together_is_refused(config: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        api.quantize(MLP, output=tmp_path / "q.onnx", config=config)
    assert message in "\n".join(refused.value.problems)


def test_training_values_needs_data(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="training shared values needs data"):
        api.quantize(MLP, output=tmp_path / "q.onnx", config={"codebook.values": 16, "qat.enabled": True})


def test_packing_follows_from_the_bits() -> None:
    expected = {1: "auto", 2: "auto", 3: "auto", 4: "off", 5: "auto", 7: "auto", 8: "off", 16: "off"}
    assert {bits: QuantizeConfig(bits=bits).packing for bits in expected} == expected
    assert QuantizeConfig(codebook=Codebook(values=16)).packing == "auto"
    assert QuantizeConfig(bits=3, pack="off").packing == "off"
