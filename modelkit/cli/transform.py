"""Running a job from the command line: the same for every command that writes an artifact."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelkit.cli.console import progress, say, show, show_json, state

if TYPE_CHECKING:
    from modelkit.job import Job
    from modelkit.report.report import Report


def run_job(job: Job, *, dry_run: bool, explain: bool, as_json: bool, quiet: bool, verbose: bool) -> None:
    """Run a job, or only plan it, and print what came of it.

    Raises:
        BudgetError: Its report is printed before.
        ModelkitError: Whatever is wrong.
    """
    from modelkit import api
    from modelkit.errors import BudgetError

    if dry_run:
        with progress(quiet=quiet, verbose=verbose) as listener:
            plan = api.dry_run(job, listener)
        if as_json:
            show_json(plan.to_dict())
        elif not quiet:
            from modelkit.report import table

            show(table.render_plan(plan, explain=explain))
        return
    try:
        with progress(quiet=quiet, verbose=verbose) as listener:
            report = api.run(job, listener)
    except BudgetError as error:
        state.wrote = True
        if error.report is not None:
            _print(error.report, explain, as_json, quiet)  # type: ignore[arg-type]
        raise
    state.wrote = True
    _print(report, explain, as_json, quiet)
    # Weights without an architecture keep their format, and so their ending.
    written = job.output.with_name(report.after.file["name"])
    say(f"wrote {written} and its report", quiet=quiet or as_json)


def _print(report: Report, explain: bool, as_json: bool, quiet: bool) -> None:
    from modelkit.report import table

    if as_json:
        show_json(report.to_dict())
    elif not quiet:
        show(table.render(report, explain=explain))
