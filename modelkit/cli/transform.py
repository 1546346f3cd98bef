"""Running a job from the command line: the same for every command that writes an artifact."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelkit.cli import ci
from modelkit.cli.console import progress, say, show, show_json, state
from modelkit.cli.folder import FolderFlags, is_folder, run_folder

if TYPE_CHECKING:
    from modelkit.checkpoint.loading import Loading
    from modelkit.config.resolve import Resolved
    from modelkit.report.report import Report
    from modelkit.transform.job import Job


@dataclass(frozen=True)
class Given:
    """What every command that transforms a model is given beside its own options, as it was typed."""

    output: Path | None
    data: Path | None
    test: Path | None
    loading: Loading
    force: bool
    html: bool
    dry_run: bool
    explain: bool
    as_json: bool
    quiet: bool
    verbose: bool
    resume: bool = False

    def for_folder(self) -> dict[str, Any]:
        """All but what a folder has an option of its own for."""
        return {name: value for name, value in vars(self).items() if name != "resume"}


def transform(command: str, model: Path, options: Resolved[Any], folder: FolderFlags, given: Given) -> None:
    """Run a command on a model, or on every model below a folder, and print what came of it.

    Raises:
        BudgetError: A budget was missed; the report is printed before.
        PartError: A model of a folder failed.
        ModelkitError: Whatever is wrong.
    """
    from modelkit.transform.commands import make_job

    if is_folder(model, folder):
        run_folder(command, model, folder, config=options, **given.for_folder())
        return
    job = make_job(
        command,
        model,
        output=given.output,
        data=given.data,
        test=given.test,
        config=options,
        force=given.force,
        html=given.html,
        loading=given.loading,
        resume=given.resume,
    )
    run_job(job, given)


def run_job(job: Job, given: Given) -> None:
    """Do what a job describes, or tell what it would do, and print it.

    Raises:
        BudgetError: A budget was missed; the report is printed before.
        ModelkitError: Whatever is wrong.
    """
    from modelkit import api
    from modelkit.errors import BudgetError

    explain, as_json, quiet, verbose = given.explain, given.as_json, given.quiet, given.verbose
    if given.dry_run:
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
    say(f"wrote {job.outputs.artifact} and its report", quiet=quiet or as_json)


def _print(report: Report, explain: bool, as_json: bool, quiet: bool) -> None:
    from modelkit.report import table

    ci.tell_report(report)
    if as_json:
        show_json(report.to_dict())
    elif not quiet:
        show(table.render(report, explain=explain))
