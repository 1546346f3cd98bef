"""One call from a table to a verified ONNX file with its report: what `modelkit automl` does."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from modelkit.automl.baseline import judge
from modelkit.automl.clock import Clock
from modelkit.automl.config import AutomlConfig
from modelkit.automl.made import Outcome
from modelkit.automl.outcome import Sources, report_of
from modelkit.automl.past import Past, folder_of
from modelkit.automl.prepare import Prepared, Roles, prepare
from modelkit.automl.problem import Problem, Task
from modelkit.automl.run import Run
from modelkit.config.resolve import Resolved
from modelkit.data.frame import Frame, Kind
from modelkit.data.framefiles import read_frame
from modelkit.errors import DataError, UsageError
from modelkit.files import Staging, check_outputs, json_bytes, outputs_of, sha256, shown
from modelkit.jobs.local import LocalRunner
from modelkit.jobs.protocol import Runner
from modelkit.progress import Progress, silent
from modelkit.report import leaderboard
from modelkit.version import VERSION

_WARM = ("modelkit.automl.build", "sklearn.linear_model", "onnx", "onnxruntime")


def automl(
    data: Path,
    output: Path,
    options: Resolved[AutomlConfig],
    *,
    test: Path | None = None,
    baseline: Path | None = None,
    force: bool = False,
    resume: bool = False,
    runner: Runner | None = None,
    progress: Progress = silent,
    began: float | None = None,
) -> dict[str, Any]:
    """Find a good model for a table, and write it as one ONNX file.

    An artifact is there as soon as there is any model, and is replaced by better ones; each is complete and verified.

    Args:
        data: Table to learn from: csv, tsv, parquet or npz.
        output: Where the ONNX file goes; its reports go beside it.
        options: The resolved config; ``target`` must be given.
        test: A table that only the reported figures are from; a part of ``data`` by default.
        baseline: An ONNX model to judge on the same rows as the artifact.
        force: Whether to replace an artifact that exists.
        resume: Whether to go on with an earlier run that was ended.
        runner: What runs the trials; processes of this machine by default.
        progress: Told how far the run is.
        began: ``time.monotonic()`` of the start that the time counts from; now by default.

    Returns:
        The report (schema ``modelkit.automl/1``).

    Raises:
        UsageError: A file or a column is not there, or the output exists.
        DataError: The table cannot be used.
        BudgetError: No model was finished in time, or none is inside of the budget.
    """
    config = options.value
    limit = None if config.max_trials is not None else config.time
    clock = Clock(limit, time.monotonic() if began is None else began)
    if config.target is None:
        raise UsageError("no target is named", "name the column to predict: --target COLUMN")
    inputs = [path for path in (data, test, baseline) if path is not None]
    check_outputs(outputs_of(output), inputs, force=force or resume)
    progress("reading the table", 0, 1)
    frame = read_frame(data)
    prepared = prepare(frame, _roles(config), _task(config, frame), config.seed)
    _check_metric(config, prepared.problem)
    kinds = {name: field.kind for name, field in frame.fields.items()}
    test_frame = None if test is None else read_frame(test, kinds)
    held = None if test_frame is None else _test_problem(test_frame, prepared)
    report: dict[str, Any] = {}

    def publish(path: Path, outcome: Outcome) -> None:
        nonlocal report
        report = _write(path, output, outcome, run, sources, clock, force=force or resume or bool(report))

    with tempfile.TemporaryDirectory(prefix="modelkit-automl-") as folder:
        past = Past(folder_of(output), _facts(data, test, config), resume=resume)
        run = Run(prepared.problem, held, config, Path(folder), past, clock, publish, progress)
        judged = None
        if baseline is not None:
            judged = judge(baseline, _held_frame(frame, test_frame, prepared, run), run.held)
        sources = Sources(data, test, frame.rows, prepared, options, judged)
        with past, runner or LocalRunner(run.workers, warm=_WARM) as active:
            run.run(active)
    return report


def _facts(data: Path, test: Path | None, config: AutomlConfig) -> dict[str, Any]:
    """What must be the same for an earlier run to be gone on with."""
    free = {"time", "max_trials", "workers", "budget", "ensemble", "refit", "trial"}
    options = {name: value for name, value in config.model_dump(mode="json").items() if name not in free}
    return {"data": sha256(data), "test": test and sha256(test), "version": VERSION, **options}


def _roles(config: AutomlConfig) -> Roles:
    assert config.target is not None
    return Roles(config.target, config.weight, config.group, config.time_column, tuple(config.ignore))


def _task(config: AutomlConfig, frame: Frame) -> Task | None:
    """The task as far as the options say it."""
    if config.task != "auto":
        return Task(config.task)
    target = frame.fields.get(config.target or "")
    is_number = target is not None and not target.kind.is_string
    return Task.regression if config.metric is not None and config.metric.is_regression and is_number else None


def _check_metric(config: AutomlConfig, problem: Problem) -> None:
    if config.metric is not None and config.metric.is_regression == problem.is_classes:
        fit = "log_loss, accuracy, balanced_accuracy, f1, auc" if problem.is_classes else "rmse, mae"
        raise UsageError(
            f"the metric {config.metric.value} does not fit the target '{shown(problem.target)}', which is "
            f"{'a class' if problem.is_classes else 'a number'}",
            f"metrics that do: {fit}",
        )


def _held_frame(frame: Frame, test: Frame | None, prepared: Prepared, run: Run) -> Frame:
    """The rows that figures are from, with all columns."""
    if test is None:
        return frame.take(prepared.rows[run.apart])
    return test.take(np.flatnonzero(~test.fields[prepared.problem.target].missing))


def _test_problem(frame: Frame, prepared: Prepared) -> Problem:
    """Rows of a test file as the problem that the training rows are."""
    problem = prepared.problem
    name, kinds = shown(frame.name), problem.frame.fields
    missing = [name for name in (*kinds, problem.target) if name not in frame.fields]
    if missing:
        listed = ", ".join(f"'{shown(name)}'" for name in missing[:5])
        raise DataError(f"{name} lacks {'the columns' if len(missing) > 1 else 'the column'} {listed}")
    target = frame.fields[problem.target]
    rows = np.flatnonzero(~target.missing)
    if problem.is_classes:
        place = {str(value): number for number, value in enumerate(problem.classes.tolist())}
        texts = [_class_text(value, target.kind) for value in target.values[rows]]
        unknown = sorted({text for text in texts if text not in place})
        if unknown:
            raise DataError(f"{name} has the class '{shown(unknown[0])}', which no row to learn from has")
        y = np.array([place[text] for text in texts], np.int64)
    else:
        y = np.asarray(target.values[rows], float)
    taken = frame.take(rows)
    return Problem(problem.task, problem.target, taken.only(kinds), y, problem.classes, seed=problem.seed)


def _class_text(value: Any, kind: Kind) -> str:
    return str(value) if kind.is_string else str(int(value))


def _write(
    path: Path, output: Path, outcome: Outcome, run: Run, sources: Sources, clock: Clock, *, force: bool
) -> dict[str, Any]:
    """Put an artifact and its reports into place, all or none."""
    _, artifact, beside_json, beside_md = outputs_of(output)
    with Staging(output.parent) as stage:
        shutil.copyfile(path, stage.path(artifact.name))
        report = report_of(outcome, run, sources, clock, stage.path(artifact.name), artifact.name)
        stage.path(beside_json.name).write_bytes(json_bytes(report))
        stage.path(beside_md.name).write_text(leaderboard.markdown(report), encoding="utf-8")
        stage.publish([artifact.name, beside_json.name, beside_md.name], force=force)
    return report
