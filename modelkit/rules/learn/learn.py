"""From labelled rows to a rules file, its ONNX file and a report: `modelkit rules learn`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from modelkit.errors import DataError, UsageError
from modelkit.files import Staging, check_outputs, file_record, json_bytes, outputs_of
from modelkit.progress import Progress, silent
from modelkit.rules.build import build
from modelkit.rules.build_report import BuildReport
from modelkit.rules.conditions import atoms as atoms_of
from modelkit.rules.conditions import columns_of
from modelkit.rules.document import to_yaml
from modelkit.rules.learn.choose import Candidate, Choice, choose, quality
from modelkit.rules.learn.compose import size
from modelkit.rules.learn.config import LearnConfig
from modelkit.rules.learn.frame import labelled, read_frame
from modelkit.rules.learn.problem import Problem
from modelkit.rules.learn.prune import Cut, pruned
from modelkit.rules.learn.simplify import simplified
from modelkit.rules.model import RuleSet

SCHEMA = "modelkit.rules.learn/1"


@dataclass(frozen=True)
class Learned:
    """A learned rule set and how it came about.

    Attributes:
        rules: The rule set.
        chosen: The learner and size that were chosen, with the cross-validated figures.
        pareto: Learners and sizes that no other beats in quality and comparisons.
        tried: How many were measured.
        literals_saved: Comparisons that were taken out without changing any result.
        cuts: What was taken out beyond that, and what each cost on the training rows.
        train: Accuracy (R² for numbers) on the training rows.
    """

    rules: RuleSet
    chosen: Candidate
    pareto: tuple[Candidate, ...]
    tried: int
    literals_saved: int
    cuts: tuple[Cut, ...]
    train: float


@dataclass(frozen=True)
class LearnReport:
    """What `learn` wrote.

    Attributes:
        learned: The rule set, and how it came about.
        source: The data file: name, bytes, sha256.
        files: The files that were written.
        notes: What was left out of the data.
        config: How it was learned.
        built: The report of the ONNX file.
        test: Quality on the test file; None without one.
    """

    learned: Learned
    source: dict[str, str | int]
    files: tuple[str, ...]
    notes: tuple[str, ...]
    config: LearnConfig
    built: BuildReport
    test: float | None = None

    def as_json(self) -> dict[str, Any]:
        """Plain values, as the report file holds them."""
        learned = self.learned
        rules, comparisons = size(learned.rules)
        return {
            "schema": SCHEMA,
            "source": self.source,
            "config": self.config.model_dump(),
            "notes": list(self.notes),
            "metric": "r2" if learned.rules.is_numeric else "accuracy",
            "chosen": asdict(learned.chosen),
            "pareto": [asdict(each) for each in learned.pareto],
            "candidates": learned.tried,
            "rules": rules,
            "literals": comparisons,
            "literals_saved": learned.literals_saved,
            "cuts": [asdict(cut) for cut in learned.cuts],
            "quality": {"train": learned.train, "cross_validated": learned.chosen.quality, "test": self.test},
            "files": list(self.files),
            "build": self.built.as_json(),
        }


def learn_rules(problem: Problem, config: LearnConfig = LearnConfig(), progress: Progress = silent) -> Learned:  # noqa: B008
    """Learn a rule set from rows.

    Args:
        problem: The rows.
        config: How.
        progress: Told of each step.

    Raises:
        DataError: No rule says more than the default.
    """
    choice = choose(problem, config, progress=progress)
    if choice is None:
        raise DataError("no rule was found that says more than the default", hint="are the columns related to it?")
    return finished(choice, problem, config)


def finished(choice: Choice, problem: Problem, config: LearnConfig) -> Learned:
    """Simplify what was chosen, prune it, and leave only the columns that rules look at."""
    shorter = simplified(choice.rules)
    saved = size(choice.rules)[1] - size(shorter)[1]
    short, cuts = pruned(shorter, problem, config.max_literals, free=config.prune)
    return Learned(
        _tidy(short),
        choice.chosen,
        choice.pareto,
        len(choice.candidates),
        saved,
        tuple(cuts),
        quality(short, problem),
    )


def _tidy(rules: RuleSet) -> RuleSet:
    used = {name for rule in rules.rules for atom in atoms_of(rule.when) for name in columns_of(atom)}
    return replace(rules, columns=tuple(column for column in rules.columns if column.name in used))


def learn(
    data: Path,
    target: str,
    output: Path | None = None,
    *,
    config: LearnConfig = LearnConfig(),  # noqa: B008 - frozen
    outcome: str = "auto",
    without: Sequence[str] = (),
    test: Path | None = None,
    force: bool = False,
    progress: Progress = silent,
) -> LearnReport:
    """Learn rules from a csv or parquet file and write them as YAML and ONNX, with reports.

    Args:
        data: Labelled rows.
        target: The column that rules should give.
        output: Where the rules file goes; beside the data without. The ONNX file and the reports go beside it.
        config: How to learn.
        outcome: ``label``, ``number`` or ``auto``.
        without: Columns that rules must not look at.
        test: Labelled rows for the final figures; nothing is chosen by them.
        force: Whether to replace files that exist.
        progress: Told of each step.

    Raises:
        UsageError: A file does not exist, or the output is in the way.
        DataError: The data cannot be learned from.
    """
    path = data.with_suffix(".rules.yaml") if output is None else output
    if path.suffix not in (".yaml", ".yml"):
        raise UsageError(f"the output '{path}' must end in .yaml", "the ONNX file goes beside it")
    model = path.with_suffix(".onnx")
    about = path.with_suffix(".learn.json")
    inputs = [data, *([] if test is None else [test])]
    written = [path, about, *(each for each in outputs_of(model) if each.suffix != ".data")]
    check_outputs(written, inputs, force=force)
    frame = read_frame(data, without=[target, *without])
    problem, notes = labelled(frame, target, outcome)
    learned = learn_rules(problem, config, progress)
    with Staging(path.parent) as stage:
        staged = stage.path(path.name)
        staged.write_text(to_yaml(learned.rules), encoding="utf-8")
        built = build(staged, data=test or data, target=target, allow_findings=True, force=True, progress=progress)
        tested = None if test is None or built.fit is None else built.fit.quality
        final = None if tested is None else tested.get("accuracy", tested.get("r2"))
        report = LearnReport(
            learned,
            file_record(data),
            tuple(each.name for each in written),
            (*frame.notes, *notes),
            config,
            built,
            final,
        )
        stage.path(about.name).write_bytes(json_bytes(report.as_json()))
        stage.publish([each.name for each in written], force=force)
    return report
