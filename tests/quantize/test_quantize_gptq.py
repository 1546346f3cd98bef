"""Rounding with data: less error at the layer's outputs than rounding to nearest, in the same bytes."""

import numpy as np
import pytest
from quantize_nets import Net, closeness, kernels, optimised, run

from modelkit.data.dataset import Batch
from modelkit.errors import UsageError
from modelkit.graph.opset import ensure_opset
from modelkit.quantize.affine import dequantize, quantize_array, sqnr_db
from modelkit.quantize.auto import Quantizer
from modelkit.quantize.config import QuantizeConfig, WeightOptions
from modelkit.quantize.weights import quantize_weights

RNG = np.random.default_rng(11)
# Inputs of real layers are far from independent: a few directions hold most of them.
MIX = RNG.standard_normal((64, 64)) * np.geomspace(1, 0.02, 64)[:, None]


class Rows:
    """A data set of rows, or of images made of them."""

    def __init__(self, arrays):
        self.arrays, self.count = arrays, len(next(iter(arrays.values())))

    def batches(self, size, limit=None):
        end = min(self.count, limit or self.count)
        for start in range(0, end, size):
            yield Batch(
                {k: v[start : min(start + size, end)] for k, v in self.arrays.items()}, None, min(size, end - start)
            )


def rows(count):
    return (RNG.standard_normal((count, 64)) @ MIX).astype(np.float32)


def product(turned):
    net = Net(17, seed=5)
    net.input("x", ["n", 64])
    if turned:
        net.add("Gemm", "x", net.weight(48, 64, name="w"), transB=1, out="y")
    else:
        net.add("MatMul", "x", net.weight(64, 48, name="w", scale=0.1), out="y")
    net.output("y", ["n", 48])
    return net.build()


def images(count):
    mixed = RNG.standard_normal((count, 8, 8, 16)) @ MIX[:16, :16]
    return np.moveaxis(mixed, -1, 1).astype(np.float32)


def convolution(groups):
    net = Net(17, seed=6)
    net.input("x", ["n", 16, 8, 8])
    net.add("Conv", "x", net.weight(32, 16 // groups, 3, 3, name="w"), group=groups, out="y")
    net.output("y", ["n", 32, 6, 6])
    return net.build()


def stored(model, data, fuse=False, **options):
    copy = model.clone()
    decisions = quantize_weights(
        copy,
        bits=options.pop("bits", 4),
        options=WeightOptions(**{"scale": "mse", **options}),
        include=[],
        exclude=[],
        fuse_matmul=fuse,
        data=data,
    )
    return copy, decisions


@pytest.mark.parametrize("center", ["zero", "range"])
@pytest.mark.parametrize("granularity", ["channel", "block"])
@pytest.mark.parametrize("turned", [False, True])
def test_products_lose_less_on_inputs_that_were_not_seen(center, granularity, turned):
    model = product(turned)
    ensure_opset(model, 21)
    test = {"x": rows(200)}
    before = run(model, test)
    how = {"center": center, "granularity": granularity}
    plain, old = stored(model, None, **how)
    made, new = stored(model, Rows({"x": rows(400)}), rounding="gptq", **how)
    assert closeness(before, run(made, test)) > closeness(before, run(plain, test)) + 2
    sizes = [[d.numbers["bytes_after"] for d in each if d.action == "quantized"] for each in (old, new)]
    assert sizes[0] == sizes[1]


# Of the inputs of a group few depend on each other.
@pytest.mark.parametrize(("groups", "gain"), [(1, 1.0), (4, 0.2)])
def test_convolutions_lose_less(groups, gain):
    model = convolution(groups)
    ensure_opset(model, 21)
    test = {"x": images(40)}
    before = run(model, test)
    plain, _ = stored(model, None)
    made, _ = stored(model, Rows({"x": images(60)}), rounding="gptq")
    assert closeness(before, run(made, test)) > closeness(before, run(plain, test)) + gain


def test_blocks_still_become_matmulnbits(tmp_path):
    model = product(False)
    ensure_opset(model, 21)
    made, _ = stored(model, Rows({"x": rows(100)}), True, rounding="gptq", granularity="block", center="range")
    assert kernels(optimised(made, tmp_path))["MatMulNBits"] == 1


def test_inputs_that_are_always_zero_do_no_harm():
    model = product(False)
    ensure_opset(model, 21)
    made, _ = stored(model, Rows({"x": np.zeros((8, 64), np.float32)}), rounding="gptq")
    found = run(made, {"x": rows(4)})[0]
    assert (
        np.isfinite(found).all()
        and closeness(run(model, {"x": rows(4) * 0 + 1}), run(made, {"x": rows(4) * 0 + 1})) > 15
    )


def test_gptq_without_data_is_refused():
    options = QuantizeConfig.model_validate({"mode": "weights", "bits": 4, "weights": {"rounding": "gptq"}})
    with pytest.raises(UsageError, match="rounding by gptq needs calibration data") as caught:
        Quantizer(product(False), options, None, "avx2").candidates()
    assert "--data" in caught.value.hint and "hqq" in caught.value.hint


@pytest.mark.parametrize("rounding", ["gptq", "adaround"])
def test_rounding_by_data_is_nothing_for_integers_made_at_run_time(rounding):
    with pytest.raises(
        ValueError, match=f"weights.rounding {rounding} needs mode weights, static or auto, not dynamic"
    ):
        QuantizeConfig.model_validate({"mode": "dynamic", "weights": {"rounding": rounding}})


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("center", ["zero", "range"])
def test_half_quadratic_steps_never_lose_to_the_search_they_start_from(bits, center):
    array = RNG.standard_t(4, (32, 128)).astype(np.float32)
    how = {"bits": bits, "block": (1, 32), "center": center}
    searched, fitted = (quantize_array(array, search=search, **how) for search in ("mse", "hqq"))
    assert sqnr_db(array, dequantize(fitted)) >= sqnr_db(array, dequantize(searched)) - 1e-6


@pytest.mark.parametrize("number", [0.0, 1e-35, 1.0, 1e30])
def test_half_quadratic_steps_take_constant_tensors(number):
    quantized = quantize_array(np.full((4, 32), number, np.float32), bits=4, block=(1, 32), search="hqq")
    assert np.isfinite(dequantize(quantized)).all()
