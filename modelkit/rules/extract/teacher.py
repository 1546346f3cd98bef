"""A saved model with tabular inputs, asked for labels or numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from modelkit.errors import DataError, ModelError
from modelkit.files import require_file, shown
from modelkit.rules.columns import Column
from modelkit.rules.evaluate import Table
from modelkit.runtime import make_session

_BATCH = 4096


@dataclass(frozen=True)
class Answers:
    """What a teacher says of N rows.

    Attributes:
        labels: int64 [N], indices into `Teacher.classes`; None for numbers.
        share: float64 [N, K], probabilities of the classes; one-hot where the teacher tells only labels.
        numbers: float64 [N]; None for labels.
    """

    labels: np.ndarray | None
    share: np.ndarray | None
    numbers: np.ndarray | None


class Teacher:
    """An ONNX model whose input is a table.

    Args:
        path: The file.
        columns: Columns of the data, in its order.
        outcome: ``label``, ``number``, or ``auto``: labels where the model has an output of labels, or one of a
            column for each class, or one of numbers between 0 and 1.

    Raises:
        ModelError: It has no tabular input, or no output that is understood.
        DataError: The data has not the columns that the model takes.
    """

    def __init__(self, path: Path, columns: tuple[Column, ...], outcome: str = "auto") -> None:
        self._session = make_session(require_file(path))
        self._name = shown(path.name)
        self._inputs = list(self._session.get_inputs())
        self._columns = _used(self._inputs, columns, self._name)
        self._outcome = outcome
        self._classes: tuple[str | int, ...] = ()

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns that it takes, in its order."""
        return self._columns

    @property
    def classes(self) -> tuple[str | int, ...]:
        """The labels that it gave when `learn_classes` asked; empty for numbers."""
        return self._classes

    @cached_property
    def takes_matrix(self) -> bool:
        """Whether all columns go in as one matrix."""
        return len(self._inputs) == 1 and len(self._columns) > 1

    def learn_classes(self, table: Table) -> None:
        """Find out on some rows whether it gives labels or numbers, and which labels.

        Raises:
            ModelError: No output is understood.
        """
        found = self._run(table)
        labels = _label_output(found)
        matrix = _matrix_output(found)
        if self._outcome == "number" or (labels is None and matrix is None):
            _number_output(found, self._name)
            if self._outcome == "label":
                raise ModelError(f"'{self._name}' has no output of labels or of a column for each class")
            return
        if matrix is not None and matrix.shape[1] > 1:
            names: list[Any] = list(range(matrix.shape[1]))
            if labels is not None:
                names = self._names(labels, matrix)
            self._classes = tuple(names)
        elif labels is not None:
            self._classes = tuple(np.unique(labels).tolist())
        elif matrix is not None:
            self._classes = (0, 1)
        if any(isinstance(name, int) and name < 0 for name in self._classes):
            self._classes = tuple(str(name) for name in self._classes)

    def _names(self, labels: np.ndarray, matrix: np.ndarray) -> list[Any]:
        """The label of each column of scores: the one given where the column is largest."""
        best = matrix.argmax(axis=1)
        found: list[Any] = []
        for k in range(matrix.shape[1]):
            values, counts = np.unique(labels[best == k], return_counts=True)
            found.append(values[counts.argmax()].item() if len(values) else None)
        if len({name for name in found if name is not None}) < sum(name is not None for name in found):
            return np.unique(labels).tolist()  # the scores are about something else
        text = any(isinstance(name, str) for name in found)
        return [(f"class {k}" if text else k) if name is None else name for k, name in enumerate(found)]

    def ask(self, table: Table) -> Answers:
        """Ask about rows; `learn_classes` comes first."""
        found = self._run(table)
        if not self._classes:
            return Answers(None, None, _number_output(found, self._name))
        width = len(self._classes)
        labels, matrix = _label_output(found), _matrix_output(found)
        share = _probabilities(matrix, width)
        if labels is not None:
            text = isinstance(self._classes[0], str)
            known = {name: k for k, name in enumerate(self._classes)}
            given = [str(value) if text else int(value) for value in labels.tolist()]
            codes = np.array([known.get(value, -1) for value in given], np.int64)
            if share is not None:
                codes = np.where(codes < 0, share.argmax(axis=1), codes)
            codes = np.maximum(codes, 0)
        else:
            assert share is not None
            codes = share.argmax(axis=1)
        if share is None:
            share = np.eye(width)[codes]
        return Answers(codes, share, None)

    def _run(self, table: Table) -> list[np.ndarray]:
        count = len(next(iter(table.values())))
        parts = []
        for start in range(0, count, _BATCH):
            feed = self._feed({name: values[start : start + _BATCH] for name, values in table.items()})
            try:
                parts.append([_array(value) for value in self._session.run(None, feed)])
            except Exception as error:
                text = " ".join(str(error).split())[:300]
                raise ModelError(f"'{self._name}' cannot take these rows: {text}") from error
        return [np.concatenate([part[i] for part in parts]) for i in range(len(parts[0]))]

    def _feed(self, table: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        if self.takes_matrix:
            matrix = np.column_stack([table[column.name] for column in self._columns])
            return {self._inputs[0].name: matrix.astype(_dtype(self._inputs[0].type))}
        feed = {}
        for spec, column in zip(self._inputs, self._columns, strict=True):
            values = table[column.name]
            values = values if values.dtype == object else values.astype(_dtype(spec.type))
            feed[spec.name] = values.reshape((-1, 1) if len(spec.shape) == 2 else (-1,))
        return feed


_TYPES: dict[str, Any] = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(bool)": np.bool_,
    "tensor(string)": object,
}


def _dtype(text: str) -> Any:
    return _TYPES.get(text, np.float32)


def _used(inputs: list[Any], columns: tuple[Column, ...], name: str) -> tuple[Column, ...]:
    """The columns that a model takes."""
    for spec in inputs:
        if spec.type not in _TYPES or len(spec.shape) not in (1, 2):
            raise ModelError(
                f"'{name}' takes '{shown(spec.name)}' of type {spec.type} and shape {spec.shape}; "
                "a table is one matrix, or one input for each column"
            )
    known = {column.name: column for column in columns}
    if all(spec.name in known for spec in inputs):
        return tuple(known[spec.name] for spec in inputs)
    if len(inputs) > 1:
        absent = next(spec.name for spec in inputs if spec.name not in known)
        raise DataError(f"'{name}' takes a column '{shown(absent)}', which the data has not")
    width = inputs[0].shape[-1]
    numeric = tuple(column for column in columns if not column.type.is_text)
    if len(numeric) < len(columns):
        texts = ", ".join(column.name for column in columns if column.type.is_text)
        raise DataError(
            f"'{name}' takes one matrix of numbers, and the data has columns of text: {texts}",
            hint="leave them out with --without",
        )
    if isinstance(width, int) and width != len(numeric):
        raise DataError(
            f"'{name}' takes {width} columns, and the data has {len(numeric)}: "
            f"{', '.join(column.name for column in numeric[:12])}",
            hint="--without leaves columns out, such as the labels (--target)",
        )
    return numeric


def _array(value: Any) -> np.ndarray:
    """An output as an array; a list of mappings (ZipMap) as a matrix."""
    if isinstance(value, list):
        if value and isinstance(value[0], dict):
            return np.array([[row[key] for key in sorted(value[0])] for row in value], np.float64)
        return np.array(value)
    return np.asarray(value)


def _label_output(found: list[np.ndarray]) -> np.ndarray | None:
    for value in found:
        if value.dtype.kind in "iuUSOb" and value.size == len(value):
            return value.reshape(-1)
    return None


def _matrix_output(found: list[np.ndarray]) -> np.ndarray | None:
    """The first output of a column for each class, or of numbers between 0 and 1."""
    floats = [value for value in found if value.dtype.kind == "f"]
    for value in floats:
        if value.ndim == 2 and value.shape[1] > 1:
            return value.astype(np.float64)
    for value in floats:
        if value.size == len(value) and bool(((value >= 0) & (value <= 1)).all()):
            return value.reshape(-1, 1).astype(np.float64)
    return None


def _number_output(found: list[np.ndarray], name: str) -> np.ndarray:
    for value in found:
        if value.dtype.kind in "fiu" and value.size == len(value):
            numbers = value.reshape(-1).astype(np.float64)
            if not np.isfinite(numbers).all():
                raise ModelError(f"'{name}' gives numbers that are not finite on these rows")
            return numbers
    raise ModelError(f"'{name}' has no output of one label or number for each row")


def _probabilities(matrix: np.ndarray | None, width: int) -> np.ndarray | None:
    """Scores as probabilities: as they are where rows sum to 1, else their softmax."""
    if matrix is None:
        return None
    if matrix.shape[1] == 1:
        return np.hstack([1 - matrix, matrix]) if width == 2 else None
    if matrix.shape[1] != width:
        return None
    if bool((matrix >= -1e-6).all()) and np.allclose(matrix.sum(axis=1), 1, atol=1e-3):
        return np.clip(matrix, 0, 1)
    shifted = np.exp(matrix - matrix.max(axis=1, keepdims=True))
    found: np.ndarray = shifted / shifted.sum(axis=1, keepdims=True)
    return found
