"""Checks arrays against a model's inputs; every mismatch is collected and told in one error."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from modelkit.data.npyformat import Array
from modelkit.errors import DataError
from modelkit.runtime import TensorSpec

_MOST = 50
_SCAN_BYTES = 1 << 20


class Problems:
    """The mismatches found so far.

    Args:
        name: What the dataset is called.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.found: list[str] = []

    def add(self, problem: str) -> None:
        """Note one mismatch."""
        self.found.append(problem)

    def raise_any(self, hint: str | None = None) -> None:
        """Raise if there are any.

        Raises:
            DataError: With all of them.
        """
        if not self.found:
            return
        shown = self.found[:_MOST]
        if len(self.found) > _MOST:
            shown.append(f"... and {len(self.found) - _MOST} more")
        if len(self.found) == 1:
            raise DataError(f"{self.name} does not fit the model: {self.found[0]}", shown, hint)
        raise DataError(f"{self.name} does not fit the model: {len(self.found)} problems", shown, hint)


def family(dtype: np.dtype) -> str:
    """Return "float", "int", "bool", "string" or "other"; casts never leave a family."""
    if dtype.kind == "f" or dtype.name == "bfloat16":
        return "float"
    return {"i": "int", "u": "int", "b": "bool", "U": "string", "O": "string"}.get(dtype.kind, "other")


def dtype_name(dtype: np.dtype) -> str:
    """Return a dtype as a person would say it."""
    return "string" if family(dtype) == "string" else dtype.name


def describe_spec(spec: TensorSpec) -> str:
    """Return an input's dtype and shape, such as ``float32 [batch, 3, 32, 32]``."""
    return f"{dtype_name(spec.dtype)} {describe_shape(spec.shape)}"


def describe_shape(shape: Sequence[int | str]) -> str:
    """Return a shape such as ``[batch, 3, 32, 32]``."""
    return f"[{', '.join(str(d) for d in shape)}]"


def expected(specs: Sequence[TensorSpec], found: Iterable[str], labels: str) -> str:
    """Return the hint that lists what the model wants and what is there."""
    wants = ", ".join(f"{spec.name} {describe_spec(spec)}" for spec in specs)
    return f"expected {wants} and {labels}; found {', '.join(found) or 'nothing'}"


def near(name: str, names: Iterable[str]) -> str:
    """Return "; did you mean ...?" where a known name is close."""
    lower = {n.lower(): n for n in names}
    close = difflib.get_close_matches(name.lower(), sorted(lower), 1, 0.6)
    return f"; did you mean '{lower[close[0]]}'?" if close else ""


def check_names(found: Sequence[str], specs: Sequence[TensorSpec], what: str, problems: Problems) -> None:
    """Compare names; `what` is what the dataset calls them ("array", "column")."""
    wanted = [spec.name for spec in specs]
    spare = [name for name in found if name not in wanted]
    for spec in specs:
        if spec.name not in found:
            problems.add(f"input '{spec.name}' ({describe_spec(spec)}) is missing{near(spec.name, spare)}")
    for name in spare:
        missing = [n for n in wanted if n not in found]
        problems.add(f"{what} '{name}' is not an input of the model{near(name, missing)}")


def check_shape(spec: TensorSpec, shape: Sequence[int], axis: int | None, problems: Problems) -> None:
    """Compare rank and fixed dimensions; `axis` counts samples, so any size fits there."""
    if len(shape) != len(spec.shape):
        problems.add(
            f"input '{spec.name}' has {len(shape)} dimensions {describe_shape(shape)}, "
            f"the model takes {len(spec.shape)} {describe_shape(spec.shape)}"
        )
        return
    wrong = [
        i
        for i, (have, want) in enumerate(zip(shape, spec.shape, strict=True))
        if isinstance(want, int) and have != want and i != axis
    ]
    if wrong:
        places = f"axis {wrong[0]} differs" if len(wrong) == 1 else f"axes {', '.join(map(str, wrong))} differ"
        problems.add(
            f"input '{spec.name}' is {describe_shape(shape)}, the model takes {describe_shape(spec.shape)} ({places})"
        )


def check_dtype(spec: TensorSpec, dtype: np.dtype, problems: Problems, notes: list[str]) -> bool:
    """Compare dtypes: the same family fits, with a note; values out of range are found by `scan`."""
    if family(dtype) != family(spec.dtype) or family(dtype) == "other":
        remedy = "" if family(spec.dtype) == "string" else f"; convert it with .astype('{spec.dtype.name}')"
        problems.add(f"input '{spec.name}' is {dtype_name(dtype)}, the model takes {dtype_name(spec.dtype)}{remedy}")
        return False
    if dtype_name(dtype) != dtype_name(spec.dtype):
        notes.append(f"input '{spec.name}' was cast from {dtype_name(dtype)} to {dtype_name(spec.dtype)}")
    return True


def check_counts(counts: Mapping[str, int], problems: Problems) -> int:
    """Compare sample counts; returns the first (0 where there is none)."""
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name} {count}" for name, count in counts.items())
        problems.add(f"sample counts differ: {listed}")
    elif counts and min(counts.values()) == 0:
        problems.add("it has no samples")
    return next(iter(counts.values()), 0)


def cast(rows: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Convert rows to the model's dtype (native byte order, contiguous) within a family."""
    if family(dtype) == "string":
        return np.asarray(rows, object, order="C")
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(rows, dtype, order="C")


def find_bad(rows: np.ndarray, dtype: np.dtype) -> tuple[int, str] | None:
    """Find the first row that the model's dtype cannot hold.

    Args:
        rows: ``[count, ...]`` as stored.
        dtype: The model's dtype.

    Returns:
        Index of the row in `rows` and what is wrong with it; None where all is well.
    """
    if rows.dtype.kind == "U" and rows.dtype.itemsize:
        # numpy turns any four bytes into a "character"; others crash on such strings.
        order = np.dtype(np.uint32).newbyteorder(rows.dtype.byteorder)
        codes = np.ascontiguousarray(rows).reshape(len(rows), -1).view(order)
        bad = (codes > 0x10FFFF) | ((codes >= 0xD800) & (codes <= 0xDFFF))
        return (int(np.argmax(bad.any(axis=1))), "letters that are not Unicode") if bad.any() else None
    if family(dtype) == "float":
        bad = ~np.isfinite(cast(rows, dtype))
    elif family(dtype) == "int" and not np.can_cast(rows.dtype, dtype, "safe"):
        limits = np.iinfo(dtype)
        bad = (rows < limits.min) | (rows > limits.max)
    else:
        return None
    if not bad.any():
        return None
    row = int(np.argmax(bad.reshape(len(rows), -1).any(axis=1)))
    value = rows[row][bad[row]].reshape(-1)[0]
    if family(dtype) == "float" and not np.isfinite(value):
        return row, "NaN" if np.isnan(value) else "an infinite value"
    return row, f"the value {value}, which {dtype.name} cannot hold,"


def scan(name: str, array: Array, dtype: np.dtype, problems: Problems) -> None:
    """Read all of an array once: it is intact and every value is finite and fits the model's dtype.

    Args:
        name: The input's name.
        array: What to read; constant memory in its first dimension.
        dtype: The model's dtype.
        problems: Where to add what is wrong.
    """
    if not array.shape:
        bad = find_bad(array.load().reshape(1), dtype)
        if bad:
            problems.add(f"input '{name}' is {bad[1].rstrip(',')}")
        return
    count = array.shape[0]
    row_bytes = array.dtype.itemsize * int(np.prod(array.shape[1:], dtype=np.float64))
    step = max(1, _SCAN_BYTES // max(1, row_bytes))
    reader, found = array.rows(), False
    try:
        for start in range(0, count, step):
            rows = reader.read(min(step, count - start))
            bad = None if found else find_bad(rows, dtype)
            if bad:
                found = True
                problems.add(f"input '{name}' has {bad[1]} at row {start + bad[0]} (counted from 0)")
    except DataError as error:
        problems.add(error.message)
    finally:
        reader.close()
