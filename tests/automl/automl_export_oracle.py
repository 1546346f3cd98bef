"""Compares an exported estimator with the original, on rows where exporters err."""

import numpy as np
import onnxruntime as ort
from onnx import numpy_helper

from modelkit.automl.export.single import single

ODD = np.array(
    [np.nan, np.inf, -np.inf, 0.0, -0.0, -1.0, -0.5, 0.5, 2.7, 63.0, 64.0, 1e6, 1e20, 2.0**31, 2.0**32 + 3]
)
"""What a column of codes should not hold, and codes at the borders of words."""


def computed(model, x):
    """What onnxruntime makes of an estimator's file for rows [N, F]."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(single(model, x.shape[1]).SerializeToString(), options)
    return session.run(None, {"features": np.asarray(x, float)})[0]


def wanted(model, x):
    """What Python makes of them, [N, K or 1]."""
    found = np.asarray(model.predict_proba(x) if hasattr(model, "predict_proba") else model.predict(x))
    return found.reshape(len(x), -1)


def thresholds(model):
    """Features and finite thresholds of the trees in a file."""
    found = []
    for node in model.graph.node:
        if node.op_type == "TreeEnsemble":
            attributes = {each.name: each for each in node.attribute}
            splits = numpy_helper.to_array(attributes["nodes_splits"].t)
            found += [
                (f, t) for f, t in zip(attributes["nodes_featureids"].ints, splits, strict=True) if np.isfinite(t)
            ]
    return found


def at_edges(model, x, rng, most=400):
    """Rows at thresholds and one step beside, in float64 and in float32."""
    found = thresholds(single(model, x.shape[1]))
    chosen = [found[at] for at in rng.permutation(len(found))[:most]]
    rows = []
    for feature, threshold in chosen:
        with np.errstate(over="ignore"):
            narrow = np.float32(threshold)
        steps = [threshold, np.nextafter(threshold, np.inf), np.nextafter(threshold, -np.inf)]
        steps += [float(np.nextafter(narrow, np.float32(sign * np.inf))) for sign in (1, -1)]
        for value in steps:
            row = x[rng.integers(len(x))].copy()
            row[feature] = value
            rows.append(row)
    return np.array(rows).reshape(-1, x.shape[1])


def with_odd(x, columns, rng, values=ODD, share=0.4):
    """Rows in whose columns there are odd values."""
    x = x.copy()
    for column in columns:
        odd = rng.random(len(x)) < share
        x[odd, column] = rng.choice(values, int(odd.sum()))
    return x


def agree(model, *tables):
    """Asserts equal numbers within 1e-9 of their size, and equal labels."""
    for x in tables:
        got, want = computed(model, x), wanted(model, x)
        np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-9)
        if hasattr(model, "predict_proba"):
            np.testing.assert_array_equal(got.argmax(axis=1), want.argmax(axis=1))
        for count in (0, 1):  # other code paths of onnxruntime
            np.testing.assert_allclose(computed(model, x[:count]), want[:count], rtol=1e-9, atol=1e-9)
