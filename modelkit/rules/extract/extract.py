"""From a saved model and rows to a rule set that imitates it: `modelkit rules extract`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from modelkit.errors import DataError, ModelError, UsageError
from modelkit.files import Staging, check_outputs, file_record, json_bytes, outputs_of
from modelkit.progress import Progress, silent
from modelkit.rules.build import build
from modelkit.rules.build_report import BuildReport
from modelkit.rules.document import to_yaml
from modelkit.rules.evaluate import Table
from modelkit.rules.extract.config import ExtractConfig
from modelkit.rules.extract.near import rows_near
from modelkit.rules.extract.splits import teacher_splits
from modelkit.rules.extract.teacher import Teacher
from modelkit.rules.fit import Fit, fit
from modelkit.rules.learn.choose import Extras, choose, quality
from modelkit.rules.learn.compose import size
from modelkit.rules.learn.frame import Frame, read_frame
from modelkit.rules.learn.learn import Learned, finished
from modelkit.rules.learn.problem import Problem, folds

SCHEMA = "modelkit.rules.extract/1"
_LEAST_MADE_UP = 1000


@dataclass(frozen=True)
class Extracted:
    """A rule set that imitates a teacher, and how well.

    Attributes:
        learned: The rule set and how it came about; its quality is fidelity.
        held_out: Share of held-out rows on which rules and teacher agree (R² against the teacher for numbers).
        made_up: The same on made-up rows near the held-out ones; none of them was learned from.
        fit: What each rule does on the held-out rows, held against the teacher.
        queries: Made-up rows that the teacher was asked about for the final rule set.
        splits: Columns whose thresholds came from the teacher.
    """

    learned: Learned
    held_out: float
    made_up: float
    fit: Fit
    queries: int
    splits: tuple[str, ...]


@dataclass(frozen=True)
class ExtractReport:
    """What `extract` wrote.

    Attributes:
        extracted: The rule set, and how well it imitates.
        teacher: The model file: name, bytes, sha256.
        source: The data file likewise.
        files: The files that were written.
        notes: What was left out of the data.
        config: How it was extracted.
        built: The report of the ONNX file.
        accuracy: With labels: accuracy of rules and teacher on the held-out rows; None without.
    """

    extracted: Extracted
    teacher: dict[str, str | int]
    source: dict[str, str | int]
    files: tuple[str, ...]
    notes: tuple[str, ...]
    config: ExtractConfig
    built: BuildReport
    accuracy: dict[str, float] | None = None

    def as_json(self) -> dict[str, Any]:
        """Plain values, as the report file holds them."""
        found = self.extracted
        rules, comparisons = size(found.learned.rules)
        return {
            "schema": SCHEMA,
            "teacher": self.teacher,
            "source": self.source,
            "config": self.config.model_dump(),
            "notes": list(self.notes),
            "metric": "r2" if found.learned.rules.is_numeric else "agreement",
            "fidelity": {
                "held_out": found.held_out,
                "made_up": found.made_up,
                "cross_validated": found.learned.chosen.quality,
            },
            "accuracy": self.accuracy,
            "queries": found.queries,
            "teacher_splits": list(found.splits),
            "chosen": asdict(found.learned.chosen),
            "pareto": [asdict(each) for each in found.learned.pareto],
            "rules": rules,
            "literals": comparisons,
            "literals_saved": found.learned.literals_saved,
            "cuts": [asdict(cut) for cut in found.learned.cuts],
            "held_out_rules": found.fit.as_json(),
            "files": list(self.files),
            "build": self.built.as_json(),
        }


def extract_rules(
    teacher: Teacher,
    table: Table,
    config: ExtractConfig = ExtractConfig(),  # noqa: B008 - frozen
    splits: dict[str, np.ndarray] | None = None,
    progress: Progress = silent,
) -> tuple[Extracted, np.ndarray]:
    """Imitate a teacher on some rows and near them.

    Args:
        teacher: The model.
        table: Rows of its columns.
        config: How.
        splits: Thresholds of the teacher by column; None for thresholds between values.
        progress: Told of each step.

    Returns:
        The rule set with its figures, and which rows were held out: bool [N].

    Raises:
        DataError: Too few rows, or no rule says more than the default.
        ModelError: The teacher says the same of all rows, or is not understood.
    """
    count = len(next(iter(table.values())))
    if count < 20:
        raise DataError(f"{count} rows are too few to imitate a model on; 20 at least")
    progress("asking the model", 0, 0)
    teacher.learn_classes(table)
    whole = asked(teacher, table)
    if len(np.unique(whole.truth)) < 2:
        raise ModelError("the model says the same of all rows; there is nothing to imitate")
    parts = max(2, round(1 / config.held_out))
    held = folds(whole, parts, config.seed)[0]
    known, kept = whole.rows(~held), whole.rows(held)
    learned, queries = imitate(teacher, known, config, splits, progress)
    made_up = _near(teacher, kept, config.seed + 1)
    held_fit = fit(learned.rules, kept.table, _labels(kept))
    found = Extracted(
        learned,
        quality(learned.rules, kept),
        quality(learned.rules, made_up),
        held_fit,
        queries,
        tuple(sorted(splits or ())),
    )
    return found, held


def imitate(
    teacher: Teacher,
    known: Problem,
    config: ExtractConfig,
    splits: dict[str, np.ndarray] | None = None,
    progress: Progress = silent,
) -> tuple[Learned, int]:
    """Learn what a teacher says of some rows, all of them, and of made-up rows near them.

    Args:
        teacher: The model; it knows its classes.
        known: The rows, as `asked` gives them.
        config: How.
        splits: Thresholds of the teacher by column; None for thresholds between values.
        progress: Told of each step.

    Returns:
        The rule set, and how many made-up rows it was learned from.

    Raises:
        DataError: No rule says more than the default.
    """
    extras = Extras(
        lambda part: _with_queries(teacher, part, config), splits, lambda part: _near(teacher, part, config.seed + 2)
    )
    choice = choose(known, config, progress, extras)
    if choice is None:
        raise DataError("no rule was found that says more than the default")
    more = extras.more(known)
    return finished(choice, more, config), len(more) - len(known)


def asked(teacher: Teacher, table: Table) -> Problem:
    """Rows, and what a teacher says of them as what is to be learned."""
    answers = teacher.ask(table)
    if answers.numbers is not None:
        return Problem(teacher.columns, table, (), answers.numbers[:, None], answers.numbers)
    assert answers.labels is not None and answers.share is not None
    # Half of what is fitted is the answer, half how sure the teacher is: rules see how near the border a row is.
    target = 0.5 * answers.share + 0.5 * np.eye(len(teacher.classes))[answers.labels]
    return Problem(teacher.columns, table, teacher.classes, target, answers.labels)


def _near(teacher: Teacher, problem: Problem, seed: int) -> Problem:
    """Made-up rows near some rows, to judge rules on."""
    count = max(_LEAST_MADE_UP, 4 * len(problem))
    return asked(teacher, rows_near(problem.columns, problem.table, count, np.random.default_rng(seed)))


def _with_queries(teacher: Teacher, problem: Problem, config: ExtractConfig) -> Problem:
    """Rows, and made-up ones near them that the teacher was asked about."""
    count = min(round(config.queries * len(problem)), config.most_rows - len(problem))
    if count <= 0:
        return problem
    table = rows_near(problem.columns, problem.table, count, np.random.default_rng(config.seed))
    more = asked(teacher, table)
    joined = {name: np.concatenate([values, table[name]]) for name, values in problem.table.items()}
    target, truth = np.vstack([problem.target, more.target]), np.concatenate([problem.truth, more.truth])
    return Problem(problem.columns, joined, problem.classes, target, truth)


def _labels(problem: Problem) -> np.ndarray:
    """What the teacher says, as `fit` takes it: text, or numbers."""
    if problem.is_numeric:
        return problem.truth
    return np.array([*(str(problem.classes[k]) for k in problem.truth), ""], object)[:-1]


def extract(
    model: Path,
    data: Path,
    output: Path | None = None,
    *,
    target: str | None = None,
    config: ExtractConfig = ExtractConfig(),  # noqa: B008 - frozen
    outcome: str = "auto",
    without: Sequence[str] = (),
    force: bool = False,
    progress: Progress = silent,
) -> ExtractReport:
    """Extract rules that imitate a model, and write them as YAML and ONNX, with reports.

    Args:
        model: An ONNX file with tabular input.
        data: csv or parquet with the columns that it takes.
        output: Where the rules file goes; beside the model without. The ONNX file and the reports go beside it.
        target: The column of labels, where there are any; the model does not see it.
        config: How.
        outcome: ``label``, ``number`` or ``auto``.
        without: Columns that the model does not take.
        force: Whether to replace files that exist.
        progress: Told of each step.

    Raises:
        UsageError: A file does not exist, or the output is in the way.
        DataError: The data does not fit the model.
        ModelError: The model has no tabular input, or no output that is understood.
    """
    path = model.with_suffix(".rules.yaml") if output is None else output
    if path.suffix not in (".yaml", ".yml"):
        raise UsageError(f"the output '{path}' must end in .yaml", "the ONNX file goes beside it")
    about = path.with_suffix(".extract.json")
    outputs = [each for each in outputs_of(path.with_suffix(".onnx")) if each.suffix != ".data"]
    written = [path, about, *outputs]
    check_outputs(written, [model, data], force=force)
    frame = read_frame(data, without=[*([] if target is None else [target]), *without])
    teacher = Teacher(model, frame.columns, outcome)
    table = {column.name: frame.table[column.name] for column in teacher.columns}
    splits: dict[str, np.ndarray] = {}
    if config.teacher_splits and teacher.takes_matrix:
        splits = teacher_splits(model, tuple(column.name for column in teacher.columns))
    extracted, held = extract_rules(teacher, table, config, splits or None, progress)
    accuracy = None if target is None else _accuracy(teacher, extracted, frame, target, table, held)
    with Staging(path.parent) as stage:
        staged = stage.path(path.name)
        staged.write_text(to_yaml(extracted.learned.rules), encoding="utf-8")
        built = build(staged, allow_findings=True, force=True, progress=progress)
        report = ExtractReport(
            extracted,
            file_record(model),
            file_record(data),
            tuple(each.name for each in written),
            frame.notes,
            config,
            built,
            accuracy,
        )
        stage.path(about.name).write_bytes(json_bytes(report.as_json()))
        stage.publish([each.name for each in written], force=force)
    return report


def _accuracy(
    teacher: Teacher, extracted: Extracted, frame: Frame, target: str, table: Table, held: np.ndarray
) -> dict[str, float]:
    """Accuracy (R² for numbers) of rules and teacher against labels, on the held-out rows."""
    from modelkit.rules.evaluate import evaluate

    rows = {name: values[held] for name, values in table.items()}
    given = [value for value, kept in zip(frame.raw[target], held, strict=True) if kept]
    answers, result = teacher.ask(rows), evaluate(extracted.learned.rules, rows).result
    if answers.numbers is not None:
        truth = np.array([np.nan if value in (None, "") else float(value) for value in given])
        whole = np.nansum((truth - np.nanmean(truth)) ** 2)
        pairs = {"rules": result, "teacher": answers.numbers}
        return {name: float(1 - np.nansum((truth - values) ** 2) / whole) for name, values in pairs.items()}
    assert answers.labels is not None
    text = np.array([_label(value) for value in given])
    said = np.array([str(teacher.classes[k]) for k in answers.labels])
    return {"rules": float((result.astype(str) == text).mean()), "teacher": float((said == text).mean())}


def _label(value: Any) -> str:
    """A label as text; whole numbers without a point."""
    try:
        return str(int(value)) if float(value).is_integer() else str(value)
    except (TypeError, ValueError):
        return "" if value is None else str(value).strip()
