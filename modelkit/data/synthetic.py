"""Made-up inputs for a model without data: good for shapes and speed, they say little about quality.

Floats are standard normal; integers are uniform below the input's vocabulary, or 0 and 1 where none is
known, which suits masks and is a valid index everywhere; booleans are fair coins; strings are single
letters. A sample's values depend on the seed, the input's name and the sample's number only, so they are
the same at every batch size.
"""

from __future__ import annotations

import ast
import hashlib
import json
import operator
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from modelkit.data.check import describe_spec, family
from modelkit.data.dataset import Dataset, Rows
from modelkit.data.plan import BatchPlan, plan_batches
from modelkit.errors import DataError, UsageError
from modelkit.runtime import TensorSpec

_DEFAULT_SPATIAL = 64
_DEFAULT_CHANNELS = 3
_DEFAULT_LENGTH = 16
_DEFAULT_VOCABULARY = 2
_MOST_ELEMENTS = 1 << 28
_WORDS = np.array(list("abcdefghijklmnopqrstuvwxyz"), dtype=object)
_SIGNS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Div: operator.floordiv,
}


class Synthetic(Dataset):
    """Random inputs, see `synthetic_dataset`."""

    name = "synthetic"
    format = "synthetic"
    synthetic = True

    def __init__(
        self,
        specs: Sequence[TensorSpec],
        plan: BatchPlan,
        shapes: dict[str, tuple[int, ...]],
        count: int,
        seed: int,
        vocabulary: dict[str, int],
    ) -> None:
        self.plan, self.count, self.seed = plan, count, seed
        self._specs, self._shapes, self._vocabulary = list(specs), shapes, vocabulary
        self.notes = tuple(
            f"input '{spec.name}' is synthetic: {describe_spec(spec)} as {list(shapes[spec.name])}"
            + (f", values below {vocabulary[spec.name]}" if spec.name in vocabulary else "")
            for spec in specs
        )

    def rows(self, size: int, indices: np.ndarray | None = None) -> Iterator[Rows]:
        """Make samples (see `Dataset.rows`)."""
        shared = {
            spec.name: self._values(spec, self._shapes[spec.name], ())
            for spec in self._specs
            if self.plan.axes[spec.name] is None
        }
        order = range(self.count) if indices is None else [int(i) for i in indices]
        for start in range(0, len(order), size):
            block = order[start : start + size]
            batched = {
                spec.name: np.stack([self._values(spec, self._sample_shape(spec.name), (i,)) for i in block])
                for spec in self._specs
                if self.plan.axes[spec.name] is not None
            }
            yield Rows(batched, shared, len(block))

    def _sample_shape(self, name: str) -> tuple[int, ...]:
        axis, shape = self.plan.axes[name], self._shapes[name]
        return shape if axis is None else shape[:axis] + shape[axis + 1 :]

    def _values(self, spec: TensorSpec, shape: tuple[int, ...], sample: tuple[int, ...]) -> np.ndarray:
        random = np.random.default_rng([self.seed, zlib.crc32(spec.name.encode()), *sample])
        kind = family(spec.dtype)
        if kind == "float":
            return random.standard_normal(shape, np.float32).astype(spec.dtype)
        if kind == "int":
            return random.integers(0, self._vocabulary[spec.name], shape).astype(spec.dtype)
        if kind == "bool":
            return np.asarray(random.integers(0, 2, shape), dtype=np.bool_)
        return np.asarray(_WORDS[random.integers(0, len(_WORDS), shape)], dtype=object)

    def fingerprint(self) -> str:
        """Return the SHA-256 (hex) of everything that the values follow from."""
        recipe = [
            [spec.name, str(spec.dtype), self._shapes[spec.name], self._vocabulary.get(spec.name)]
            for spec in self._specs
        ]
        return hashlib.sha256(json.dumps([self.seed, self.count, recipe]).encode()).hexdigest()


def synthetic_dataset(
    specs: Sequence[TensorSpec],
    *,
    count: int = 64,
    seed: int = 0,
    vocabulary: Mapping[str, int] | None = None,
    dims: Mapping[str, int] | None = None,
) -> Dataset:
    """Make a dataset of random inputs.

    A symbolic dimension that does not count samples gets the same size wherever it occurs: what `dims`
    says; else, at its first occurrence, 64 for a spatial axis (rank 4 and 5), 3 for the channels there,
    16 elsewhere. A sum or product of symbols ("past + 1") is worked out.

    Args:
        specs: The model's inputs.
        count: Number of samples, at least 1.
        seed: Seed of all values, at least 0.
        vocabulary: For integer inputs, how many values there are: 0 to that many less one; 2 by default.
        dims: Sizes of symbolic dimensions by name, at least 1. The batch's own name fixes the batch size.

    Raises:
        UsageError: An argument is out of range, or names what the model does not have.
        DataError: The model has no inputs, or one whose samples would be larger than 2^28 elements.
    """
    if count < 1:
        raise UsageError(f"the number of synthetic samples is {count}; it must be at least 1")
    if seed < 0:
        raise UsageError(f"the seed is {seed}; it must be at least 0")
    if not specs:
        raise DataError("the model has no inputs, so there is nothing to feed it")
    plan = plan_batches(specs)
    sizes = _known_sizes(specs, dims or {})
    batch = {spec.shape[axis] for spec in specs if (axis := plan.axes[spec.name]) is not None} & sizes.keys()
    if batch:
        plan = replace(plan, fixed=sizes[str(min(batch))])
    shapes = {}
    for spec in specs:
        shapes[spec.name] = _shape(spec, plan.axes[spec.name], sizes)
        if np.prod([float(d) for d in shapes[spec.name]]) > _MOST_ELEMENTS:
            raise DataError(
                f"a synthetic sample of input '{spec.name}' would have the shape {list(shapes[spec.name])}",
                hint="give smaller sizes for its symbolic dimensions",
            )
    if all(axis is None for axis in plan.axes.values()):
        count = 1  # every sample would be the same
    return Synthetic(specs, plan, shapes, count, seed, _vocabulary(specs, vocabulary or {}))


def _known_sizes(specs: Sequence[TensorSpec], dims: Mapping[str, int]) -> dict[str, int]:
    symbols = sorted({d for spec in specs for d in spec.shape if isinstance(d, str) and d != "?"})
    for name, size in dims.items():
        if name not in symbols:
            raise UsageError(
                f"the model has no symbolic dimension '{name}'",
                hint=f"it has {', '.join(symbols)}" if symbols else "all of its dimensions are fixed",
            )
        if size < 1:
            raise UsageError(f"the size of dimension '{name}' is {size}; it must be at least 1")
    return dict(dims)


def _shape(spec: TensorSpec, axis: int | None, sizes: dict[str, int]) -> tuple[int, ...]:
    """Return the shape of one sample with 1 on the batch axis; sizes of new symbols are added to `sizes`."""
    shape = []
    for i, dim in enumerate(spec.shape):
        if i == axis:
            shape.append(1)
        elif isinstance(dim, int):
            shape.append(dim)
        elif dim in sizes:
            shape.append(sizes[dim])
        else:
            size = _work_out(dim, sizes) or _default(spec, i)
            if dim != "?":
                sizes[dim] = size
            shape.append(size)
    return tuple(shape)


def _default(spec: TensorSpec, axis: int) -> int:
    rank = len(spec.shape)
    if rank not in (4, 5):
        return _DEFAULT_LENGTH
    last = spec.shape[-1] in (1, 3, 4) and spec.shape[1] not in (1, 3, 4)
    return _DEFAULT_CHANNELS if axis == (rank - 1 if last else 1) else _DEFAULT_SPATIAL


def _work_out(text: str, sizes: dict[str, int]) -> int | None:
    """Return the value of "past + 1", 0 if negative; None where `text` is a plain name or anything else."""
    try:
        tree = ast.parse(text, mode="eval").body
        return max(0, _value(tree, sizes)) if isinstance(tree, ast.BinOp) else None
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError, MemoryError):
        return None


def _value(node: ast.expr, sizes: dict[str, int]) -> int:
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return node.value
    if isinstance(node, ast.Name):
        return sizes.setdefault(node.id, _DEFAULT_LENGTH)
    if isinstance(node, ast.BinOp) and type(node.op) in _SIGNS:
        return _SIGNS[type(node.op)](_value(node.left, sizes), _value(node.right, sizes))
    raise ValueError(ast.dump(node))


def _vocabulary(specs: Sequence[TensorSpec], given: Mapping[str, int]) -> dict[str, int]:
    known = {spec.name for spec in specs}
    for name, size in given.items():
        if name not in known:
            raise UsageError(f"the model has no input '{name}' to give a vocabulary to")
        if size < 1:
            raise UsageError(f"the vocabulary of input '{name}' is {size}; it must be at least 1")
    return {
        spec.name: min(given.get(spec.name, _DEFAULT_VOCABULARY), int(np.iinfo(spec.dtype).max))
        for spec in specs
        if family(spec.dtype) == "int"
    }
