"""Uses a model on a new table: what `modelkit predict` does."""

from __future__ import annotations

import csv
import difflib
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from modelkit.automl.served import Said, Served
from modelkit.data.frame import Frame
from modelkit.data.framefiles import read_frame
from modelkit.errors import DataError, UsageError
from modelkit.files import Staging, check_outputs, shown


@dataclass(frozen=True)
class Predictions:
    """What a model says about the rows of a table.

    Attributes:
        columns: Name -> values [N]: columns of the table that were asked for, then ``label`` and a probability for
            each class, or ``prediction``.
        notes: What a reader must know.
    """

    columns: dict[str, np.ndarray]
    notes: tuple[str, ...] = ()


def predict(model: Path, data: Path, keep: tuple[str, ...] = ()) -> Predictions:
    """Run a model on a table.

    Args:
        model: An ONNX file, by ``modelkit automl`` or any other that takes a table.
        data: csv, tsv, parquet or npz.
        keep: Columns of the table to put beside the predictions.

    Raises:
        UsageError: A file or a column to keep is not there.
        ModelError: The model cannot be run or does not take a table.
        DataError: A column is missing or holds something else than the model was made for; with all of them.
    """
    served = Served(model)
    frame = read_frame(data, served.kinds)
    _check(served, frame)
    for name in keep:
        if name not in frame.fields:
            near = difflib.get_close_matches(name, frame.fields, n=3)
            raise UsageError(
                f"{shown(frame.name)} has no column '{shown(name)}'",
                f"did you mean {' or '.join(near)}?" if near else None,
            )
    said = served.say(frame)
    columns = {name: frame.fields[name].values for name in keep}
    columns.update(_named(said, served.classes))
    unseen = [name for name in served.kinds if frame.fields[name].missing.all()]
    notes = [f"column '{name}' has no values in any row" for name in unseen]
    return Predictions(columns, (*frame.notes, *notes))


def _check(served: Served, frame: Frame) -> None:
    problems = []
    for name in served.kinds:
        if name not in frame.fields:
            near = difflib.get_close_matches(name, frame.fields, n=1)
            hint = f" (there is '{shown(near[0])}')" if near else ""
            problems.append(f"the column '{shown(name)}' is missing{hint}")
    if problems:
        more = f" and {len(problems) - 1} more" if len(problems) > 1 else ""
        raise DataError(
            f"{shown(frame.name)} does not fit '{shown(served.name)}': {problems[0]}{more}",
            problems,
            f"the model takes {', '.join(list(served.kinds)[:12])}{', ...' if len(served.kinds) > 12 else ''}",
        )


def _named(said: Said, classes: list[object]) -> dict[str, np.ndarray]:
    if said.labels is None:
        assert said.values is not None
        if said.values.shape[1] == 1:
            return {"prediction": said.values[:, 0]}
        return {f"output_{index}": said.values[:, index] for index in range(said.values.shape[1])}
    found = {"label": said.labels}
    if said.values is not None:
        names = classes if len(classes) == said.values.shape[1] else list(range(said.values.shape[1]))
        found.update({f"probability_{name}": said.values[:, index] for index, name in enumerate(names)})
    return found


def as_csv(predictions: Predictions) -> str:
    """The predictions as csv; numbers in the shortest form that is read back as the same double."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(predictions.columns)
    lists = [values.tolist() for values in predictions.columns.values()]
    writer.writerows([_text(value) for value in row] for row in zip(*lists, strict=True))
    return out.getvalue()


def _text(value: object) -> object:
    if isinstance(value, float):
        return (
            "" if np.isnan(value) else repr(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
        )
    return value


def write(predictions: Predictions, output: Path, inputs: list[Path], *, force: bool) -> None:
    """Write the predictions as csv, or as parquet where the name ends so.

    Raises:
        UsageError: The output exists, or is an input.
    """
    check_outputs([output], inputs, force=force)
    with Staging(output.parent) as stage:
        if output.suffix == ".parquet":
            import pyarrow as pa
            import pyarrow.parquet as pq

            pq.write_table(
                pa.table({k: pa.array(v.tolist()) for k, v in predictions.columns.items()}), stage.path(output.name)
            )
        else:
            stage.path(output.name).write_text(as_csv(predictions), encoding="utf-8")
        stage.publish([output.name], force=force)
