"""What a run checked, case by case: the form that continuous integration is told of it in."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from modelkit.errors import ModelkitError
from modelkit.report.report import Gate, Report
from modelkit.report.summary import DONE, MISSED, Row, Summary


class Result(StrEnum):
    """How a case ended."""

    PASSED = "passed"
    FAILED = "failed"  # it was measured, and is not as it must be
    ERROR = "error"  # it could not be found out
    SKIPPED = "skipped"  # it was not tried


@dataclass(frozen=True)
class Case:
    """One thing that was checked.

    Attributes:
        name: What.
        subject: What it was checked of, such as the model's file name.
        result: How it ended.
        message: Why it is not passed, or what was found; one line.
        detail: More about it, such as a hint.
        kind: What sort of failure: a gate's option, a status, an error's class.
        seconds: How long it took; 0 where that is not known.
        file: Path of the file that it is about, as it was named; empty where there is none.
    """

    name: str
    subject: str
    result: Result
    message: str = ""
    detail: str = ""
    kind: str = ""
    seconds: float = 0.0
    file: str = ""

    @property
    def bad(self) -> bool:
        """Whether it failed or could not be found out."""
        return self.result in (Result.FAILED, Result.ERROR)


def of_gate(gate: Gate, subject: str, file: str) -> Case:
    """A gate: passed or failed, and by how much."""
    said = f"{gate.name} {gate.got}, asked {gate.asked}{f': {gate.by}' if gate.by else ''}"
    return Case(gate.name, subject, Result.PASSED if gate.ok else Result.FAILED, said, kind=gate.option, file=file)


def of_report(report: Report, file: str) -> list[Case]:
    """The cases of a transform: whether an artifact came of it, what was verified, and each gate.

    Args:
        report: The report.
        file: Path of the model, as it was named.
    """
    subject = str(report.before.file["name"])
    done = report.status == DONE
    chosen = next((entry for entry in report.candidates if entry["name"] == report.method), None)
    why = "" if done or chosen is None else str(chosen["reason"])
    missed = ", ".join(gate.name for gate in report.gates if not gate.ok)
    message = report.method if done else why or (f"missed: {missed}" if missed else report.status)
    found = [
        Case("artifact", subject, Result.PASSED if done else Result.FAILED, message, kind=report.status, file=file)
    ]
    for decision in report.normalisation:
        if decision.action in ("verified", "not verified"):
            result = Result.PASSED if decision.action == "verified" else Result.SKIPPED
            found.append(Case("clean-up", subject, result, decision.reason, kind=decision.action, file=file))
    return found + [of_gate(gate, subject, file) for gate in report.gates]


def of_summary(summary: Summary, folder: str) -> list[Case]:
    """The cases of a folder: one for each model.

    Args:
        summary: What came of the models.
        folder: Path of the folder of models, as it was named.
    """
    return [_of_row(row, f"modelkit {summary.command}", folder) for row in summary.models]


def _of_row(row: Row, subject: str, folder: str) -> Case:
    message, result = row.reason, Result.ERROR
    if row.status == MISSED:
        result = Result.FAILED
    elif row.status == DONE:
        result = Result.SKIPPED if row.resumed else Result.PASSED
        message = "done by an earlier run, and nothing has changed" if row.resumed else ""
    return Case(
        row.model, subject, result, message, row.hint or "", row.status, row.seconds, file=f"{folder}/{row.model}"
    )


def of_error(error: ModelkitError, name: str, subject: str, file: str) -> Case:
    """The case of a run that an error ended: failed where a gate was missed, else an error."""
    result = Result.FAILED if error.exit_code == 1 else Result.ERROR
    problems = [text for text in getattr(error, "problems", []) if text not in error.message]
    detail = "\n".join([*problems, *([f"hint: {error.hint}"] if error.hint else [])])
    return Case(name, subject, result, error.message, detail, type(error).__name__, file=file)


def counted(cases: Iterable[Case]) -> str:
    """How many cases ended in which way: ``4 checks: 3 passed, 1 failed``."""
    found = list(cases)
    parts = [f"{count} {kind}" for kind in Result if (count := sum(case.result is kind for case in found))]
    return f"{len(found)} check{'' if len(found) == 1 else 's'}: {', '.join(parts)}" if found else "no checks"
