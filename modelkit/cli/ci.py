"""What continuous integration is told: a JUnit file, annotations, a step summary; only where a flag asks for it.

A command says at its start what it is about (``begin``), and on its way what it found (``tell``). Where a run ends,
however it ends, ``end`` writes all of it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelkit.cli.console import fail, say, state
from modelkit.cli.outcome import Outcome
from modelkit.errors import ModelkitError

if TYPE_CHECKING:
    from modelkit.report.cases import Case
    from modelkit.report.report import Report
    from modelkit.report.summary import Summary

JunitOption = Annotated[
    Path | None, typer.Option("--junit", metavar="XML", help="Write the outcome of each check as a JUnit file.")
]
GithubFlag = Annotated[
    bool, typer.Option("--github", help="Annotate the run of GitHub Actions, and add to its step summary.")
]


def begin(
    command: str, subject: Path, *, junit: Path | None, github: bool, files: Sequence[Path | None] = ()
) -> None:
    """Take note of what the run is about, where a flag asks for it.

    Args:
        command: Name of the command.
        subject: What it works on.
        junit: The option's value.
        github: The flag.
        files: Other files of this run, which the JUnit file must not replace.

    Raises:
        UsageError: The JUnit file would replace something else.
    """
    if junit is None and not github:
        return
    from modelkit.files import check_outputs
    from modelkit.report import github as actions
    from modelkit.report.junit import check_target

    if junit is not None:
        check_target(junit)
        check_outputs([junit], [path for path in (subject, *files) if path is not None], force=True)
    opening, closing = actions.stop_commands()
    state.ci = Outcome(command, subject, junit, closing if github else None)
    if github:
        print(opening, file=sys.stderr, flush=True)


def tell(cases: Sequence[Case], body: str = "") -> None:
    """Add what was found."""
    if state.ci is not None:
        state.ci.cases += cases
        state.ci.body += body


def tell_report(report: Report) -> None:
    """Add the outcome of a transform."""
    if state.ci is not None:
        from modelkit.report import cases, markdown

        tell(cases.of_report(report, str(state.ci.subject)), markdown.brief(report))


def tell_comparison(found: dict[str, Any], model: Path) -> None:
    """Add the outcome of models side by side.

    Args:
        found: The comparison.
        model: The last model, which annotations are about.
    """
    if state.ci is not None:
        from modelkit.report import cases, comparison

        held = comparison.gates_of(found)
        tell(
            [cases.of_gate(gate, name, str(model)) for name, gates in held for gate in gates],
            comparison.markdown(found),
        )


def tell_summary(summary: Summary) -> None:
    """Add the outcome of a folder of models."""
    if state.ci is not None:
        from modelkit.report import cases
        from modelkit.report.summary import markdown

        tell(cases.of_summary(summary, str(state.ci.subject)), markdown(summary))


def end(code: int) -> int:
    """Write what the run has to tell.

    Args:
        code: Exit code of the run; where it is not 0, ``state.error`` says why.

    Returns:
        The same, or that of what went wrong in writing where nothing else did.
    """
    outcome, state.ci = state.ci, None
    if outcome is None:
        return code
    outcome.cases += _closing_cases(outcome, code)
    try:
        _write(outcome)
    except ModelkitError as error:
        return fail(error) if code == 0 else (fail(error), code)[1]
    return code


def _closing_cases(outcome: Outcome, code: int) -> list[Case]:
    """What the run's end says beyond the cases that were told."""
    from modelkit.report.cases import Case, Result, of_error

    name, file = outcome.subject.name or str(outcome.subject), str(outcome.subject)
    if code == 0:
        return [] if outcome.cases else [Case(outcome.command, name, Result.PASSED, file=file)]
    if state.error is None:
        return [Case(outcome.command, name, Result.ERROR, "the run was ended from outside", kind="ended", file=file)]
    if code in (1, 3) and any(case.bad for case in outcome.cases):
        return []  # each of them is there by itself
    return [of_error(state.error, outcome.command, name, file)]


def _write(outcome: Outcome) -> None:
    command = f"modelkit {outcome.command}"
    if outcome.closing is not None:
        from modelkit.report import github

        sys.stdout.flush()
        print(outcome.closing, file=sys.stderr, flush=True)
        root = os.environ.get("GITHUB_WORKSPACE")
        for line in github.workflow_commands(outcome.cases, command, Path(root) if root else Path.cwd()):
            print(line, file=sys.stderr, flush=True)
        summary = os.environ.get("GITHUB_STEP_SUMMARY")
        if summary:
            github.append_summary(Path(summary), github.page(outcome.cases, command, outcome.body))
        else:
            say("note: GITHUB_STEP_SUMMARY is not set, so there is no step summary")
    if outcome.junit is not None:
        from modelkit.report import junit

        junit.write(outcome.junit, command, outcome.cases)
