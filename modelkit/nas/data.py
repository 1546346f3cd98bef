"""The samples of a search: read once, divided among their uses, and kept where workers find them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from modelkit.architectures.signature import Signature, spread
from modelkit.data.arrays import from_arrays
from modelkit.data.dataset import Dataset
from modelkit.data.labels import LABELS
from modelkit.data.npz import members
from modelkit.data.open import open_dataset
from modelkit.data.split import split
from modelkit.errors import DataError, UsageError
from modelkit.files import require_file, shown
from modelkit.nas.config import NasConfig
from modelkit.runtime import TensorSpec

_LEAST = 8  # samples of each part below which no figure says anything
_SPREAD = 10_000  # samples that the spread of the inputs is told from


@dataclass(frozen=True)
class Parts:
    """What the samples serve for; none serves for two.

    Attributes:
        training: Candidates learn from them.
        validation: Compare candidates.
        test: Judge what was chosen, once.
        specs: The inputs.
    """

    training: Dataset
    validation: Dataset
    test: Dataset
    specs: list[TensorSpec]

    def describe(self) -> dict[str, int]:
        """How many samples serve for what."""
        return {"training": self.training.count, "validation": self.validation.count, "test": self.test.count}


def read_samples(path: Path, test: Path | None, config: NasConfig) -> tuple[Parts, Signature]:
    """Read labelled samples that no model says anything about, and tell what networks must read and give.

    Args:
        path: An npz file with one array of inputs and ``labels``.
        test: Another one for the final figures only; a part of the samples by default.
        config: Shares and the seed.

    Raises:
        UsageError: The file is not there.
        DataError: It holds no labels, several inputs, or too few samples.
    """
    name, inputs, labels = _arrays(path)
    tokens = inputs.dtype.kind in "iu" and inputs.ndim == 2 and inputs.dtype.itemsize > 1
    dtype = np.dtype(np.int64 if tokens else np.float32)
    spec = TensorSpec(name, dtype, ("batch", *inputs.shape[1:]))
    classes = labels.dtype.kind in "iub"
    outputs = int(labels.max()) + 1 if classes and len(labels) else 1 if labels.ndim == 1 else int(labels.shape[-1])
    made = from_arrays({name: inputs.astype(dtype)}, [spec], labels=labels, name=path.name, need_labels=True)
    held = None
    if test is not None:
        other, rows, theirs = _arrays(test)
        if other != name or rows.shape[1:] != inputs.shape[1:]:
            raise DataError(f"{shown(test)} does not hold the input '{name}' in the shape that {shown(path)} has")
        held = from_arrays({name: rows.astype(dtype)}, [spec], labels=theirs, name=test.name, need_labels=True)
    parts = divide(made, held, [spec], config)
    mean: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    if not tokens:
        rows = np.concatenate([b.inputs[name] for b in parts.training.batches(1024, limit=_SPREAD)])
        mean, scale = spread(rows)
    vocabulary = int(inputs.max()) + 1 if tokens else 0
    if tokens and inputs.min() < 0:
        raise DataError(f"{path.name}: tokens are numbers from 0, and '{name}' has {int(inputs.min())}")
    signature = Signature(
        tuple(int(n) for n in inputs.shape[1:]),
        max(2, outputs) if classes else outputs,
        name,
        "output" if name != "output" else "result",
        tokens,
        vocabulary,
        mean,
        scale,
    )
    return parts, signature


def open_for(path: Path, test: Path | None, specs: list[TensorSpec], config: NasConfig) -> Parts:
    """Open samples for a model that is there; errors as ``modelkit.data.open.open_dataset`` and ``divide``."""
    data = open_dataset(path, specs)
    held = None if test is None else open_dataset(test, specs)
    return divide(data, held, specs, config)


def divide(data: Dataset, held: Dataset | None, specs: list[TensorSpec], config: NasConfig) -> Parts:
    """Divide samples among their uses.

    Raises:
        DataError: A part would be too small.
    """
    shares = {"training": 1 - config.validation - config.test, "validation": config.validation, "test": config.test}
    if held is not None:
        rest = 1 - config.validation
        shares = {"training": rest, "validation": config.validation}
    smallest = min(shares.values())
    if data.count * smallest < _LEAST:
        needed = int(np.ceil(_LEAST / smallest))
        name = min(shares, key=lambda part: shares[part])
        raise DataError(
            f"'{data.name}' has {data.count} samples, too few to divide: {name} would have "
            f"{int(data.count * smallest)} of them, and needs {_LEAST}",
            hint=f"give {needed} samples or more, or other shares: --set validation=0.3 --set test=0.3",
        )
    parts = split(data, parts=shares, seed=config.seed)
    return Parts(parts["training"], parts["validation"], held if held is not None else parts["test"], specs)


def keep(dataset: Dataset, specs: list[TensorSpec], path: Path) -> None:
    """Write samples to a file for workers."""
    gathered: dict[str, list[np.ndarray]] = {spec.name: [] for spec in specs}
    for batch in dataset.batches(256):
        for name in gathered:
            axis = batch.axes.get(name)
            if axis is not None:
                gathered[name].append(np.moveaxis(batch.real(name), axis, 0))
            elif not gathered[name]:
                gathered[name].append(batch.inputs[name][None])
    arrays = {f"input_{number}": np.concatenate(gathered[spec.name]) for number, spec in enumerate(specs)}
    if dataset.labels is not None:
        arrays[LABELS] = dataset.labels
    with path.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


@lru_cache(maxsize=4)
def kept(path: Path, names: tuple[tuple[str, str, tuple[int | str, ...]], ...]) -> Dataset:
    """Read samples that ``keep`` wrote; held in memory from then on.

    Args:
        path: The file.
        names: Name, dtype and shape of each input.
    """
    specs = [TensorSpec(name, np.dtype(dtype), shape) for name, dtype, shape in names]
    with np.load(path, allow_pickle=False) as found:
        stored = {name: found[name] for name in found.files}
    arrays = {}
    for number, spec in enumerate(specs):
        array = stored[f"input_{number}"]
        axis = _axis(specs, spec)
        arrays[spec.name] = array[0] if axis is None else np.moveaxis(array, 0, axis)
    return from_arrays(arrays, specs, labels=stored.get(LABELS), name=path.stem)


def spec_facts(specs: list[TensorSpec]) -> tuple[tuple[str, str, tuple[int | str, ...]], ...]:
    """Inputs as plain values, for ``kept``."""
    return tuple((spec.name, spec.dtype.str, tuple(spec.shape)) for spec in specs)


def _axis(specs: list[TensorSpec], spec: TensorSpec) -> int | None:
    from modelkit.data.plan import plan_batches

    return plan_batches(specs).axes[spec.name]


def _arrays(path: Path) -> tuple[str, np.ndarray, np.ndarray]:
    require_file(path)
    with path.open("rb") as file:
        if file.read(2) != b"PK":
            raise DataError(
                f"{path.name} is no npz file", hint="save one array of inputs and one called labels with numpy.savez"
            )
    found: dict[str, Any] = dict(members(path))
    labels = found.pop(LABELS, None)
    if labels is None:
        raise DataError(
            f"{path.name} has no array 'labels': a search of a space needs to know what is right",
            hint="save one label for each sample as labels; around a saved model the model's own answers will do",
        )
    if len(found) != 1:
        raise DataError(
            f"{path.name} has {len(found)} arrays besides 'labels' ({', '.join(found) or 'none'}), and networks of a "
            "space read one input",
            hint="save one array of inputs",
        )
    name, array = next(iter(found.items()))
    inputs, given = array.load(), labels.load()
    if inputs.ndim < 1 or inputs.dtype.kind not in "fiub":
        raise DataError(f"{path.name}: '{name}' is {inputs.dtype}, and networks read numbers")
    if given.dtype.kind not in "fiub":
        raise DataError(f"{path.name}: 'labels' is {given.dtype}, and must be class numbers or values")
    if given.dtype.kind in "iub":
        given = given.astype(np.int64)
        if given.ndim > 1:
            raise DataError(f"{path.name}: 'labels' must have one class number for each sample, not {given.shape}")
        if len(given) and given.min() < 0:
            raise UsageError(f"{path.name}: class numbers begin at 0, and 'labels' has {int(given.min())}")
    return name, inputs, given
