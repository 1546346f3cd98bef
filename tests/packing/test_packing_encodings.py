"""Every encoding gives back the very bits: in numpy, in onnxruntime at each level, and in onnx's own evaluator."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from modelkit.packing import catalog
from modelkit.packing.body import DOMAIN
from modelkit.packing.catalog import by_name
from modelkit.packing.codes import bits_for
from modelkit.packing.encoding import TABLE, Encoding, Words, functions, words_of
from modelkit.packing.fixed import Fixed
from modelkit.packing.prefix import Prefix, code_lengths

LEVELS = [
    ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
]


def weight(seed: int, shape: tuple[int, ...], dtype: str, values: int, sparsity: float) -> np.ndarray:
    """Numbers of so many different values, a share of them zero; -0.0 and NaN among the floats."""
    rng = np.random.default_rng(seed)
    if values > 256:
        drawn = rng.standard_normal(shape) * 100
    else:
        # The lower ones are more frequent, as they are in trained weights.
        drawn = np.floor(rng.random(shape) ** 3 * values) - values // 3
    if dtype.startswith(("float", "bfloat")):
        drawn = np.where(rng.random(shape) < 0.01, np.nan, drawn)
        drawn = np.where(rng.random(shape) < 0.02, -0.0, drawn)
    drawn = np.where(rng.random(shape) < sparsity, 0, drawn)
    kind = np.dtype(ml_dtypes.bfloat16) if dtype == "bfloat16" else np.dtype(dtype)
    with np.errstate(invalid="ignore"):
        return drawn.astype(kind)


def model(array: np.ndarray, encoding: Encoding, opset: int = 18) -> onnx.ModelProto:
    """A model that gives the weight."""
    streams = encoding.encode(Words.of(array))
    stored = [
        numpy_helper.from_array(part.view(array.dtype) if name == TABLE else part, f"w.{name}")
        for name, part in streams.arrays.items()
    ]
    call = helper.make_node(
        encoding.name,
        [f"w.{name}" for name in encoding.inputs],
        ["w"],
        domain=DOMAIN,
        shape=list(array.shape),
        **{name: [count] for name, count in streams.attributes.items()},
    )
    kind = helper.np_dtype_to_tensor_dtype(array.dtype)
    graph = helper.make_graph([call], "g", [], [helper.make_tensor_value_info("w", kind, array.shape)], stored)
    return helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid(DOMAIN, 1)],
        functions=functions(encoding, opset),
        ir_version=9,
    )


def in_blocks(seed: int, dtype: str, values: int, run: int, axis: int) -> np.ndarray:
    """A weight whose zeros come in blocks along an axis."""
    array = weight(seed, (32, 64), dtype, values, 0.0)
    blocks = np.random.default_rng(seed).random((32 // run, 64) if axis == 0 else (32, 64 // run)) < 0.8
    array[np.repeat(blocks, run, axis=axis)] = 0
    return array


shapes = st.sampled_from([(1,), (7,), (64,), (5, 13), (33, 31), (2, 3, 4, 5), (1000,), (300, 1)])
blocked = st.builds(
    in_blocks,
    st.integers(0, 1000),
    st.sampled_from(["float32", "float16", "int8", "int64"]),
    st.sampled_from([5, 16, 120, 1000]),
    st.sampled_from([2, 4, 8]),
    st.sampled_from([0, 1]),
)
plain = st.builds(
    weight,
    st.integers(0, 1000),
    shapes,
    st.sampled_from(["float32", "float16", "bfloat16", "float64", "int8", "uint8", "int32", "int64"]),
    st.sampled_from([1, 2, 3, 5, 16, 40, 120, 255, 1000]),
    st.sampled_from([0.0, 0.3, 0.9, 0.99, 1.0]),
)

weights = st.one_of(plain, blocked)


@settings(max_examples=120, deadline=None)
@given(weights)
def test_numpy_gives_back_the_same_bits_in_the_promised_bytes(array: np.ndarray) -> None:
    words = Words.of(array)
    for encoding, size in catalog.offers(words):
        streams = encoding.encode(words)
        assert sum(part.nbytes for part in streams.arrays.values()) == size, encoding.name
        assert list(streams.arrays) == list(encoding.inputs)
        assert np.array_equal(encoding.decode(streams, array.size), words.flat), encoding.name
        assert by_name(encoding.name) == encoding


@settings(max_examples=25, deadline=None)
@given(weights, st.sampled_from(LEVELS), st.sampled_from([18, 21, 24]))
def test_onnxruntime_gives_the_same_bits(array: np.ndarray, level: ort.GraphOptimizationLevel, opset: int) -> None:
    words = Words.of(array)
    offers = catalog.offers(words)
    for encoding, _ in offers[:: max(1, len(offers) // 6)]:
        proto = model(array, encoding, opset)
        onnx.checker.check_model(proto, full_check=True)
        options = ort.SessionOptions()
        options.graph_optimization_level, options.log_severity_level = level, 4
        session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
        if array.dtype == ml_dtypes.bfloat16:
            continue  # it loads; onnxruntime has no way to hand this type to numpy
        (found,) = session.run(None, {})
        assert found.dtype == array.dtype and np.array_equal(words_of(found), words_of(array)), encoding.name


@pytest.mark.parametrize("run", [4, 16])
@pytest.mark.parametrize("axis", [0, 1])
def test_zeros_in_blocks_take_one_bit_for_each(run: int, axis: int) -> None:
    rng = np.random.default_rng(0)
    array = rng.integers(1, 128, (64, 128)).astype(np.int8)
    array[np.repeat(rng.random((64 // run, 128) if axis == 0 else (64, 128 // run)) < 0.9, run, axis=axis)] = 0
    encoding, size = min(catalog.offers(Words.of(array), prefix=False), key=lambda offer: offer[1])
    assert encoding.name == "Block_raw" and size == array.size // run // 8 + np.count_nonzero(array) + 1
    scattered = array.reshape(-1)[rng.permutation(array.size)].reshape(array.shape)
    assert not any(each.name.startswith("Block") for each, _ in catalog.offers(Words.of(scattered)))


@settings(max_examples=15, deadline=None)
@given(weights.filter(lambda array: array.dtype != ml_dtypes.bfloat16))
def test_the_reference_evaluator_gives_the_same_bits(array: np.ndarray) -> None:
    offers = catalog.offers(Words.of(array))
    for encoding, _ in offers[:: max(1, len(offers) // 4)]:
        (found,) = ReferenceEvaluator(model(array, encoding)).run(None, {})
        assert np.array_equal(words_of(np.asarray(found)), words_of(array)), encoding.name


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 10_000), min_size=2, max_size=256), st.sampled_from([8, 12]))
def test_code_lengths_are_those_of_huffman_or_as_short_as_allowed(counts: list[int], most: int) -> None:
    lengths = code_lengths(tuple(counts), most)
    assert max(lengths) <= most
    assert sum(2.0**-length for length in lengths) <= 1
    total = sum(count * length for count, length in zip(counts, lengths, strict=True))
    shares = np.array(counts) / sum(counts)
    entropy = float(-(shares * np.log2(shares)).sum()) * sum(counts)
    assert total >= entropy - 1e-6
    if max(huffman(counts)) <= most:
        assert total == sum(count * length for count, length in zip(counts, huffman(counts), strict=True))


def huffman(counts: list[int]) -> list[int]:
    """Huffman's own way: the two rarest become one, until one is left."""
    import heapq

    heap = [(count, [index]) for index, count in enumerate(counts)]
    lengths = [0] * len(counts)
    heapq.heapify(heap)
    while len(heap) > 1:
        (a, first), (b, second) = heapq.heappop(heap), heapq.heappop(heap)
        for index in first + second:
            lengths[index] += 1
        heapq.heappush(heap, (a + b, first + second))
    return lengths


def test_a_skewed_stream_is_close_to_its_entropy() -> None:
    rng = np.random.default_rng(0)
    codes = np.clip(np.round(rng.standard_normal(100_000) * 10) + 60, 0, 127).astype(np.uint8)
    histogram = np.bincount(codes)
    shares = histogram[histogram > 0] / len(codes)
    floor = -(shares * np.log2(shares)).sum() * len(codes) / 8
    assert Prefix(4, 12).nbytes(histogram) < 1.02 * floor
    assert Fixed(bits_for(len(histogram))).nbytes(histogram) > 1.25 * floor


@pytest.mark.parametrize(
    "name",
    [
        "Dense_9",
        "Dense_0",
        "Dense_p4to2",
        "Dense_p3to8",
        "Pair_raw",
        "Mask_",
        "Gap_3",
        "Gap_3_4_5",
        "Level",
        "Dense_raw",
    ],
)
def test_other_names_are_no_encodings(name: str) -> None:
    assert by_name(name) is None
