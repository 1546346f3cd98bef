"""An ONNX model of a table as it is used: which columns it takes, and what it says about rows."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from modelkit.automl.artifact import METADATA, SCHEMA
from modelkit.data.frame import Frame, Kind
from modelkit.errors import ModelError
from modelkit.files import require_file, shown
from modelkit.runtime import make_session, run

_ROWS = 2048
_PROBABILITIES = ("probabilities", "output_probability", "probability", "scores")


@dataclass(frozen=True)
class Said:
    """What a model says about rows.

    Attributes:
        labels: Classes as the model calls them [N]; None where it predicts numbers.
        values: Probabilities [N, K] or predictions [N, 1]; None where it gives labels only.
    """

    labels: np.ndarray | None
    values: np.ndarray | None


class Served:
    """A model that takes a table.

    Made by ``modelkit automl``, it knows what its columns hold. Of any other model, inputs [N] or [N, 1] are columns
    of their names, and a single input [N, F] takes the columns of the table that are numbers, in their order.

    Args:
        path: The ONNX file.

    Raises:
        UsageError: It does not exist.
        ModelError: It cannot be run, or takes something else than a table.
    """

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self.session = make_session(require_file(path))
        self._inputs = {each.name: each for each in self.session.get_inputs()}
        self._outputs = {each.name: each for each in self.session.get_outputs()}
        self.facts = self._metadata()
        self.matrix: str | None = None
        if self.facts:
            self.kinds = {column["name"]: Kind(column["kind"]) for column in self.facts["columns"]}
            self._input_of = {column["name"]: column["input"] for column in self.facts["columns"]}
        else:
            self.kinds, self._input_of = self._guess()

    @property
    def classes(self) -> list[Any]:
        """Its classes in the order of the probabilities; empty where it does not say."""
        return list(self.facts.get("classes", []))

    def _metadata(self) -> dict[str, Any]:
        text = self.session.get_modelmeta().custom_metadata_map.get(METADATA)
        if text is None:
            return {}
        try:
            facts: dict[str, Any] = json.loads(text)
            names = {column["input"] for column in facts["columns"] if Kind(column["kind"])}
            known = facts["schema"] == SCHEMA and names == set(self._inputs)
        except (ValueError, TypeError, KeyError) as error:
            raise ModelError(f"the metadata of '{shown(self.name)}' are damaged: {error}") from error
        if not known:
            raise ModelError(f"the metadata of '{shown(self.name)}' do not fit the model, or are of another version")
        return facts

    def _guess(self) -> tuple[dict[str, Kind], dict[str, str]]:
        kinds = {}
        for name, each in self._inputs.items():
            shape = each.shape
            if len(shape) == 2 and shape[1] != 1 and len(self._inputs) == 1 and each.type != "tensor(string)":
                self.matrix = name
                return {}, {}
            if len(shape) not in (1, 2) or (len(shape) == 2 and shape[1] != 1):
                raise ModelError(
                    f"'{shown(self.name)}' does not take a table: its input '{shown(name)}' has the shape {shape}",
                    "inputs [N] or [N, 1] are columns of their names; a single input [N, F] takes numbers",
                )
            kinds[name] = Kind.category if each.type == "tensor(string)" else Kind.number
        return kinds, {name: name for name in kinds}

    def say(self, frame: Frame) -> Said:
        """Run the model on all rows of a table that has its columns."""
        parts = [
            self._some(frame.take(np.arange(at, min(at + _ROWS, frame.rows)))) for at in range(0, frame.rows, _ROWS)
        ]
        labels = (
            None if parts[0].labels is None else np.concatenate([p.labels for p in parts if p.labels is not None])
        )
        values = (
            None if parts[0].values is None else np.concatenate([p.values for p in parts if p.values is not None])
        )
        return Said(labels, values)

    def feeds(self, frame: Frame) -> dict[str, np.ndarray]:
        """What the session is fed for rows of a table."""
        columns = frame.columns()
        if self.matrix is not None:
            wide = np.stack([v for n, v in columns.items() if not frame.fields[n].kind.is_string], axis=1)
            return {self.matrix: wide.astype(_dtype(self._inputs[self.matrix].type))}
        found = {}
        for name, key in self._input_of.items():
            values = (
                columns[name]
                if columns[name].dtype == object
                else columns[name].astype(_dtype(self._inputs[key].type))
            )
            found[key] = values[:, None] if len(self._inputs[key].shape) == 2 else values
        return found

    def _some(self, frame: Frame) -> Said:
        found = dict(zip(self._outputs, run(self.session, self.feeds(frame), self.name), strict=True))
        values = next((found[name] for name in _PROBABILITIES if name in found), None)
        if isinstance(values, list):  # what ZipMap makes: a dictionary for each row
            values = np.array([list(row.values()) for row in values])
        for name, value in found.items():
            if name in _PROBABILITIES or isinstance(value, list):
                continue
            if value.dtype == object or value.dtype.kind in "iu":
                return Said(value.reshape(-1), values)
            if values is None:
                values = np.asarray(value, float).reshape(len(value), -1)
        return Said(None, values)


def _dtype(kind: str) -> np.dtype:
    names = {
        "tensor(double)": "float64",
        "tensor(float)": "float32",
        "tensor(int64)": "int64",
        "tensor(bool)": "bool",
    }
    return np.dtype(names.get(kind, "float32"))
