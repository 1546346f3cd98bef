"""Compares two model files on random inputs, before anything is built on their being the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from modelkit.decision import Decision
from modelkit.errors import ModelError
from modelkit.runtime import TensorSpec, input_specs, make_session

if TYPE_CHECKING:
    import onnxruntime as ort

_RUNS = 3
# Tried in turn for symbolic dimensions after the first: text lengths, then image sizes.
_SIZES = (16, 32, 64, 224, 1, 4)
_FIRST = 2


def verify_same(
    before: Path | bytes | ort.InferenceSession,
    after: Path | bytes,
    *,
    seed: int = 0,
    tolerance: float = 1e-4,
    vocabulary: Mapping[str, int] | None = None,
) -> Decision:
    """Run two models on the same random inputs and compare all outputs.

    Floats are drawn from the standard normal distribution, integers from 0 up to the vocabulary.

    Args:
        before: The original: a file, bytes, or a session that is there already.
        after: File or bytes of what must compute the same.
        seed: Of the random inputs.
        tolerance: Largest difference allowed, relative to the largest magnitude in that output.
        vocabulary: For integer inputs, the number of values allowed (default 2).

    Returns:
        Action "verified" with the largest relative difference found, or "not verified" where the
        original itself cannot run on random inputs.

    Raises:
        ModelError: A file cannot be loaded, inputs or outputs have other names, or results differ.
    """
    first = make_session(before, arena=False) if isinstance(before, Path | bytes) else before
    second = make_session(after, arena=False)
    for kind, names in (
        ("inputs", [[a.name for a in s.get_inputs()] for s in (first, second)]),
        ("outputs", [[a.name for a in s.get_outputs()] for s in (first, second)]),
    ):
        if names[0] != names[1]:
            raise ModelError(f"the {kind} changed from {names[0]} to {names[1]}", _BUG)
    specs = input_specs(first)
    outputs = [a.name for a in first.get_outputs()]
    worst, problem, done = 0.0, "", 0
    for feeds in random_feeds(specs, vocabulary or {}, seed):
        try:
            expected = first.run(None, feeds)
        except Exception as error:  # onnxruntime's run-time errors have no common base
            problem = " ".join(str(error).split())[:200]
            continue
        try:
            found = second.run(None, feeds)
        except Exception as error:
            raise ModelError(f"the cleaned model fails where the original runs: {str(error)[:200]}", _BUG) from error
        for name, a, b in zip(outputs, expected, found, strict=True):
            difference = _difference(a, b)
            if not difference <= tolerance:
                raise ModelError(
                    f"the output '{name}' changed by {difference:.3g} of its size, more than {tolerance:g}",
                    _BUG,
                )
            worst = max(worst, difference)
        done += 1
        if done == _RUNS:
            break
    if not done:
        return Decision("model", "not verified", f"the original does not run on random inputs: {problem}")
    reason = f"the outputs on {done} random inputs are those of the original"
    return Decision("model", "verified", reason, {"largest_difference": worst, "runs": done, "seed": seed})


_BUG = "this is a fault of modelkit's cleaning: please report the model"


def random_feeds(
    specs: Sequence[TensorSpec], vocabulary: Mapping[str, int], seed: int
) -> Iterator[dict[str, np.ndarray]]:
    """Draw random inputs, several for each guess of the symbolic dimensions.

    A symbolic first dimension is 2 (or 1); others take each of a few sizes, the same for the same name.
    """
    for first in (_FIRST, 1):
        for size in _SIZES:
            for run in range(_RUNS):
                generator = np.random.default_rng([seed, run])
                dims: dict[str, int] = {}
                for spec in specs:
                    for axis, dim in enumerate(spec.shape):
                        if isinstance(dim, str) and dim != "?":
                            dims.setdefault(dim, first if axis == 0 else size)
                yield {spec.name: _draw(spec, dims, first, size, vocabulary, generator) for spec in specs}
            if not any(isinstance(d, str) for spec in specs for d in spec.shape):
                return


def _draw(
    spec: TensorSpec,
    dims: Mapping[str, int],
    first: int,
    size: int,
    vocabulary: Mapping[str, int],
    generator: np.random.Generator,
) -> np.ndarray:
    shape = tuple(
        d if isinstance(d, int) else dims.get(d, first if axis == 0 else size) for axis, d in enumerate(spec.shape)
    )
    if spec.dtype.kind in "iu":
        return generator.integers(0, vocabulary.get(spec.name, 2), shape).astype(spec.dtype)
    if spec.dtype.kind == "b":
        return generator.integers(0, 2, shape).astype(bool)
    if spec.dtype.kind == "O":
        return np.full(shape, "a", dtype=object)
    return generator.standard_normal(shape).astype(spec.dtype)


def _difference(a: object, b: object) -> float:
    """Largest difference relative to the largest magnitude; for other than floats 0 or infinity.

    Of whole numbers one in a thousand may differ: two scores that are nearly equal can change places.
    """
    if isinstance(a, list) and isinstance(b, list):
        if len(a) != len(b):
            return float("inf")
        return max((_difference(x, y) for x, y in zip(a, b, strict=True)), default=0.0)
    left, right = np.asarray(a), np.asarray(b)
    if left.shape != right.shape or left.dtype != right.dtype:
        return float("inf")
    if not left.size:
        return 0.0
    if left.dtype.kind in "iubOSU":
        return 0.0 if (left != right).mean() <= 1e-3 else float("inf")
    left, right = left.astype(np.float64), right.astype(np.float64)
    finite = np.isfinite(left)
    if not np.array_equal(left[~finite], right[~finite], equal_nan=True):
        return float("inf")
    if not finite.any():
        return 0.0
    scale = float(np.abs(left[finite]).max())
    return float(np.abs(left[finite] - right[finite]).max()) / max(scale, 1e-6)
