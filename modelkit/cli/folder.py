"""A folder of models on the command line: what is shown while it runs, at its end, and its exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelkit.cli import ci
from modelkit.cli.console import say, show, show_line, state
from modelkit.cli.flags import scalars
from modelkit.errors import BudgetError, PartError, UsageError
from modelkit.staging import shown

if TYPE_CHECKING:
    from modelkit.batch.plan import Request
    from modelkit.batch.run import Listener
    from modelkit.checkpoint.loading import Loading
    from modelkit.config.resolve import Resolved
    from modelkit.report.summary import Summary


@dataclass(frozen=True)
class FolderFlags:
    """The options that only a folder takes, as they were typed."""

    match: list[str] | None = None
    skip: list[str] | None = None
    on: str | None = None
    workers: str | None = None
    cpus: str | None = None
    gpus: str | None = None
    timeout: str | None = None
    memory: str | None = None
    resume: bool = False

    def given(self) -> list[str]:
        """Names of those that were typed."""
        return [f"--{name}" for name, value in vars(self).items() if value]


def is_folder(models: Path, flags: FolderFlags) -> bool:
    """Whether a command is to run on a folder of models.

    Raises:
        UsageError: It is not, and an option was given that only a folder takes.
    """
    if os.path.isdir(models):  # noqa: PTH112 - unlike Path.is_dir it never raises
        return True
    if flags.given():
        raise UsageError(f"{flags.given()[0]} is for a folder of models; '{shown(models)}' is none")
    return False


def any_folder(models: list[Path], flags: FolderFlags) -> Path | None:
    """The folder among a command's arguments; None where there is none.

    Raises:
        UsageError: There is something beside it, or an option was given that only a folder takes.
    """
    for each in models:
        if len(models) > 1 and os.path.isdir(each):  # noqa: PTH112
            raise UsageError(f"'{shown(each)}' is a folder; a folder of models comes alone")
    return models[0] if is_folder(models[0], flags) else None


def no_results(output: Path | None, *, html: bool = False) -> None:
    """Refuse a folder for results where there is only one model and no page to be written.

    Raises:
        UsageError: One was given.
    """
    if output is not None and not html:
        raise UsageError("--output is for a folder of models", "--json > FILE keeps what is said of one model")


def run_folder(
    command: str,
    models: Path,
    flags: FolderFlags,
    *,
    output: Path | None = None,
    data: Path | None = None,
    test: Path | None = None,
    config: Resolved[Any] | None = None,
    loading: Loading,
    cache: Path | bool = True,
    force: bool = False,
    html: bool = False,
    dry_run: bool = False,
    explain: bool = False,
    as_json: bool = False,
    quiet: bool = False,
    verbose: bool = False,
) -> None:
    """Run a command on every model below a folder, and print what came of it.

    Raises:
        PartError: A model failed.
        BudgetError: None failed, and one is outside its budget.
        ModelkitError: Nothing could be done.
    """
    from modelkit import api
    from modelkit.report import summary as report

    if explain:
        raise UsageError("--explain is for one model", "the reports beside the artifacts hold every decision")
    request = api.folder_request(
        command,
        models,
        output=output,
        data=data,
        test=test,
        config=config,
        options=_options(flags),
        loading=loading,
        cache=cache,
        resume=flags.resume,
        force=force,
        html=html,
    )
    if dry_run:
        _show_plan(request, as_json=as_json, quiet=quiet)
        return
    with _faces(as_json=as_json, quiet=quiet, verbose=verbose, kept=output is not None) as faces:
        found = api.run_folder(request, listener=faces)
    state.wrote = True
    ci.tell_summary(found)
    if as_json:
        show_line(found.to_dict(rows=False))
    elif not quiet:
        show(report.render(found))
    if output is not None:
        more = f", and {output / 'index.html'}" if html else ""
        say(f"wrote {output / 'summary.json'} and {output / 'summary.md'}{more}", quiet=quiet or as_json)
    _judge(found, output)


def _options(flags: FolderFlags) -> Resolved[Any]:
    from modelkit.batch.options import FolderOptions
    from modelkit.config.resolve import resolve
    from modelkit.errors import ConfigError

    typed = {name: (f"--{name}", getattr(flags, name) or None) for name in FolderOptions.model_fields}
    try:
        return resolve(FolderOptions, flags=scalars(typed))
    except ConfigError as error:
        error.hint = None
        raise


def _judge(found: Summary, output: Path | None) -> None:
    """Turn what came of the models into an exit code."""
    count, total = sum(row.failed for row in found.models), len(found.models)
    where = f"{output / 'summary.md'} tells why" if output is not None else None
    if found.exit_code == 3:
        raise PartError(f"{count} of {total} models failed", where)
    if found.exit_code == 1:
        missed = total - found.counts.get("done", 0)
        raise BudgetError(f"{missed} of {total} models missed the budget", where)


def _show_plan(request: Request, *, as_json: bool, quiet: bool) -> None:
    """Show which models would be done, and where the results would go."""
    from modelkit.batch.plan import check_existing, plan

    items, left_out = plan(request)
    check_existing(items, request)
    if as_json:
        for item in items:
            show_line({"model": item.name, "output": None if item.output is None else str(item.output)})
    elif not quiet:
        from modelkit.report.text import notes, pairs, stack, titled

        title = f"{len(items)} model{'' if len(items) == 1 else 's'} (nothing is written)"
        rows = pairs([(item.name, item.output or "") for item in items])
        show(stack([titled(title, rows), *([notes(left_out)] if left_out else [])]))


@contextmanager
def _faces(*, as_json: bool, quiet: bool, verbose: bool, kept: bool) -> Iterator[Listener]:
    """What is shown while the run lasts; where it is cut short, the state says how far it came."""
    from modelkit.cli.live import Lines, Live

    kind = Live if sys.stderr.isatty() and not verbose else Lines
    faces = kind(as_json=as_json, quiet=quiet, verbose=verbose)
    try:
        with faces:
            yield faces
    except BaseException:
        done = f"{faces.done} of {faces.total} models are done"
        state.left = f"{done}; --resume goes on" if kept and faces.done else ""
        raise
