"""Datasets in ONNX `test_data_set_*` folders: `input_N.pb` feeds the N-th input; each set is a batch.

Shapes may differ from set to set. Samples are the rows of the sets where all batched inputs of each set
agree on how many there are; otherwise a set cannot be taken apart and its samples cannot be picked.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from modelkit.data.check import Problems, cast, check_dtype, check_shape, describe_spec, find_bad
from modelkit.data.dataset import Dataset, Rows, hash_files
from modelkit.data.npyformat import one_line
from modelkit.data.paths import entries
from modelkit.data.plan import plan_batches
from modelkit.errors import DataError, UnsafeError
from modelkit.runtime import TensorSpec

_LARGEST = 1 << 31  # protobuf reads no more


def find_sets(folder: Path) -> list[Path]:
    """Return the sets in a folder in the order of their numbers, or the folder itself where it is one."""
    sets = [sub for sub in entries(folder) if sub.is_dir() and re.fullmatch(r"test_data_set_\d+", sub.name)]
    if sets:
        return sorted(sets, key=lambda sub: int(sub.name.rsplit("_", 1)[1]))
    return [folder] if (folder / "input_0.pb").exists() else []


class TestSets(Dataset):
    """ONNX test sets.

    Args:
        folder: The folder with the sets.
        specs: The model's inputs.
        need_labels: Labels must be there; they never are.

    Raises:
        UnsafeError: A link or a tensor's external data leaves the folder.
        DataError: A file is damaged, or a set does not fit the model; all mismatches at once.
    """

    __test__ = False  # pytest: not a test
    format = "onnx test sets"

    def __init__(self, folder: Path, specs: Sequence[TensorSpec], *, need_labels: bool) -> None:
        self.name, self.path = folder.name, folder
        self.plan = plan_batches(specs)
        self._specs = list(specs)
        problems, notes = Problems(folder.name), dict[str, None]()
        self._sets = [_SetFiles(sub, folder, specs, problems) for sub in find_sets(folder)]
        if need_labels:
            problems.add("test sets have no labels; labels are needed to measure quality")
        self._rows: list[int] = []
        self._whole = False
        for one in self._sets:
            self._check(one, problems, notes)
        problems.raise_any(
            f"expected {', '.join(f'input_{i}.pb {s.name} {describe_spec(s)}' for i, s in enumerate(specs))}"
        )
        if self._whole:
            # Without a batch axis that all inputs share, every array goes to the model as it is.
            self.plan = replace(self.plan, axes=dict.fromkeys(self.plan.axes), fixed=None)
        self.count = sum(self._rows)
        self.notes = tuple(notes)

    def _check(self, one: _SetFiles, problems: Problems, notes: dict[str, None]) -> None:
        counts = []
        for spec in self._specs:
            if spec.name not in one.files:
                continue
            label = f"{one.name}/{one.files[spec.name].name}"
            try:
                array = one.load(spec.name)
            except DataError as error:
                problems.add(error.message)
                continue
            found, casts = Problems(label), list[str]()
            axis = self.plan.axes[spec.name]
            if check_dtype(spec, array.dtype, found, casts) and array.ndim and array.shape[0]:
                bad = find_bad(array, spec.dtype)
                if bad:
                    found.add(f"input '{spec.name}' has {bad[1]} at row {bad[0]} (counted from 0)")
            check_shape(spec, array.shape, None, found)
            for problem in found.found:
                problems.add(f"{label}: {problem}")
            notes.update(dict.fromkeys(casts))
            if axis is not None and axis < array.ndim:
                counts.append(array.shape[axis])
        self._rows.append(counts[0] if counts else 1)
        if self._rows[-1] == 0:
            problems.add(f"{one.name} has no samples")
        self._whole |= len(set(counts)) != 1

    def rows(self, size: int, indices: np.ndarray | None = None) -> Iterator[Rows]:
        """Stream samples set by set, whatever `size` is (see `Dataset.rows`)."""
        if indices is None:
            for number in range(len(self._sets)):
                yield self._set(number, None)
            return
        if self._whole:
            yield from self._first_sets(indices)
            return
        ends = np.cumsum(self._rows)
        owners = np.searchsorted(ends, indices, side="right")
        cuts = np.flatnonzero(np.diff(owners)) + 1
        for run in np.split(np.arange(len(indices)), cuts):
            owner = int(owners[run[0]])
            yield self._set(owner, indices[run] - (ends[owner] - self._rows[owner]))

    def _first_sets(self, indices: np.ndarray) -> Iterator[Rows]:
        """Serve a `limit` on sets that cannot be taken apart: whole sets until it is reached."""
        if not np.array_equal(indices, np.arange(len(indices))):
            raise DataError(
                f"samples cannot be picked from {self.name}: the inputs of a set share no batch axis",
                hint="use all of it, or save the inputs as npz",
            )
        left = len(indices)
        for number, count in enumerate(self._rows):
            if left <= 0:
                return
            yield replace(self._set(number, None), count=min(count, left))
            left -= count

    def _set(self, number: int, rows: np.ndarray | None) -> Rows:
        one = self._sets[number]
        batched, shared = {}, {}
        for spec in self._specs:
            array, axis = cast(one.load(spec.name), spec.dtype), self.plan.axes[spec.name]
            if axis is None:
                shared[spec.name] = array
            else:
                array = np.moveaxis(array, axis, 0)
                batched[spec.name] = array if rows is None else array[rows]
        return Rows(batched, shared, self._rows[number] if rows is None else len(rows))

    def fingerprint(self) -> str:
        """Return the SHA-256 (hex) of the names and bytes of all input files."""
        assert self.path is not None
        return hash_files([file for one in self._sets for file in one.files.values()], self.path)


class _SetFiles:
    """The files of one set: which one feeds which input."""

    def __init__(self, folder: Path, base: Path, specs: Sequence[TensorSpec], problems: Problems) -> None:
        self.name = folder.name
        self.files: dict[str, Path] = {}
        found = {
            int(match.group(1)): file
            for file in entries(folder, base)
            if (match := re.fullmatch(r"input_(\d+)\.pb", file.name)) and file.is_file()
        }
        for number, spec in enumerate(specs):
            if number in found:
                self.files[spec.name] = found[number]
            else:
                problems.add(f"{self.name}/input_{number}.pb for input '{spec.name}' is missing")
        for number in sorted(set(found) - set(range(len(specs)))):
            problems.add(f"{self.name}/input_{number}.pb feeds nothing: the model has {len(specs)} inputs")

    def load(self, name: str) -> np.ndarray:
        """Read one input.

        Raises:
            UnsafeError: The tensor's values are in another file.
            DataError: It is no readable tensor.
        """
        import onnx
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

        file = self.files[name]
        label = f"{self.name}/{file.name}"
        try:
            if file.stat().st_size >= _LARGEST:
                raise DataError(f"{label} is larger than protobuf reads (2 GB)", hint="save the inputs as npz")
            tensor = onnx.TensorProto.FromString(file.read_bytes())
        except (OSError, DecodeError) as error:
            raise DataError(f"{label} is not a tensor: {one_line(error)}") from error
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            raise UnsafeError(f"{label} points to another file for its values", hint="store the values in the tensor")
        try:
            array = onnx.numpy_helper.to_array(tensor)
        except (ValueError, TypeError, KeyError, UnicodeDecodeError, OverflowError, MemoryError) as error:
            raise DataError(f"{label} is not a plain tensor: {one_line(error)}") from error
        return array
