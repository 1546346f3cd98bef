"""The TreeEnsemble node computes what trees mean, whatever their thresholds, sets, and missing values."""

import numpy as np
import onnxruntime as ort
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from modelkit.automl.export.codes import exact_codes, truncated_codes
from modelkit.automl.export.ensemble import Trees
from modelkit.automl.export.graph import Graph
from modelkit.automl.export.single import finish

FEATURES = 4
CODES = (2, 3)
THRESHOLDS = (np.inf, -np.inf, 0.0, -0.0, 5e-324, 1e300, 3.0)


def grow(rng, codes):
    """A random tree as lists for Trees.add."""
    left, right, feature, threshold, missing, weights, sets = [], [], [], [], [], [], {}

    def node(depth):
        if depth == 0 or rng.random() < 0.15:
            weights.append(rng.normal())
            return -len(weights)
        place = len(left)
        for values in (left, right):
            values.append(0)
        feature.append(int(rng.integers(FEATURES)))
        threshold.append(float(rng.choice([rng.normal(), *THRESHOLDS])))
        missing.append(bool(rng.random() < 0.5))
        if feature[-1] in CODES:
            missing[-1] = False
            sets[place] = np.sort(rng.choice(codes, int(rng.integers(0, len(codes))), replace=False)).astype(float)
        left[place], right[place] = node(depth - 1), node(depth - 1)
        return place

    node(4)
    arrays = [np.array(left, np.int64), np.array(right, np.int64), np.array(feature, np.int64), np.array(threshold)]
    return [*arrays, np.array(missing, bool), np.array(weights)], sets


def leaf(tree, row):
    (left, right, feature, threshold, missing, weights), sets = tree
    at = 0 if len(left) else -1
    while at >= 0:
        value = row[feature[at]]
        below = value <= threshold[at] or (missing[at] and np.isnan(value))
        goes_left = value in sets[at] if at in sets else below
        at = (left if goes_left else right)[at]
    return weights[-1 - at]


def build(trees, targets, codes_of):
    graph = Graph(("x", "y"))
    found = Trees(targets)
    for number, (arrays, sets) in enumerate(trees):
        found.add(*arrays, number % targets, sets)
    graph.node("Identity", found.export(graph, codes_of(graph, "x", FEATURES, found.codes)), name="y")
    inputs = [helper.make_tensor_value_info("x", TensorProto.DOUBLE, ["N", FEATURES])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.DOUBLE, ["N", targets])]
    return ort.InferenceSession(finish(graph, inputs, outputs).SerializeToString())


def codes_as_int(x):
    """Codes as C casts them to int: cut towards 0; below 0 or beyond 32 bits is no code."""
    with np.errstate(invalid="ignore"):
        cut = np.trunc(x)
        return np.where((cut >= 0) & (cut < 2**31), cut, np.nan)


@given(
    st.integers(0, 2**32),
    st.sampled_from([5, 33, 64, 66, 250]),
    st.sampled_from([1, 7, 90]),
    st.sampled_from([1, 3]),
    st.sampled_from([0, 1, 2, 30]),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_trees_are_what_they_mean(seed, levels, count, targets, rows, truncates):
    rng = np.random.default_rng(seed)
    trees = [grow(rng, np.arange(levels)) for _ in range(count)]
    x = rng.normal(size=(rows, FEATURES))
    odd = rng.random(x.shape) < 0.3
    x[odd] = rng.choice([np.nan, *THRESHOLDS], int(odd.sum()))
    for column in CODES:
        x[:, column] = rng.integers(levels, size=rows)
        odd = rng.random(rows) < 0.3
        strange = [np.nan, np.inf, -np.inf, -1, -0.0, -0.5, 0.5, 2.7, -7, levels, 1e20, -1e20, 2.0**31, 2.0**32 + 3]
        x[odd, column] = rng.choice(strange, int(odd.sum()))
    session = build(trees, targets, truncated_codes if truncates else exact_codes)
    read = x.copy()
    if truncates:
        read[:, CODES] = codes_as_int(read[:, CODES])
    sums = np.zeros((rows, targets))
    for number, tree in enumerate(trees):
        sums[:, number % targets] += [leaf(tree, row) for row in read]
    np.testing.assert_allclose(session.run(None, {"x": x})[0], sums, rtol=0, atol=1e-12)
