"""`modelkit inspect`: what is in a model file; with --check, whether it can be used at all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from modelkit.cli import ci, page
from modelkit.cli import flags as f
from modelkit.cli.ci import GithubFlag, JunitOption
from modelkit.cli.console import DebugFlag, JsonFlag, QuietFlag, say, show, show_json
from modelkit.cli.folder import FolderFlags, any_folder, no_results, run_folder
from modelkit.errors import BudgetError, UsageError
from modelkit.staging import shown

if TYPE_CHECKING:
    from modelkit.check import Problem
    from modelkit.checkpoint.loading import Loading


def command(
    models: Annotated[
        list[Path],
        typer.Argument(
            metavar="MODEL",
            help="An ONNX file or a checkpoint, or a folder of them; with --check any number of files.",
            show_default=False,
        ),
    ],
    check: Annotated[
        bool, typer.Option("--check", help="Tell only what keeps a model from being used; exit code 1 for any.")
    ] = False,
    layers: Annotated[
        int,
        typer.Option("--layers", metavar="N", min=0, help="How many layers to list, largest first; 0 for all."),
    ] = 15,
    arch: f.ArchOption = None,
    inputs: f.InputOption = None,
    trust: f.TrustFlag = False,
    output: f.ResultsOption = None,
    force: f.ForceFlag = False,
    match: f.MatchOption = None,
    skip: f.SkipOption = None,
    on: f.OnOption = None,
    workers: f.WorkersOption = None,
    cpus: f.CpusOption = None,
    gpus: f.GpusOption = None,
    timeout: f.TimeoutOption = None,
    memory: f.MemoryOption = None,
    resume: f.ResumeFlag = False,
    html: f.HtmlFlag = False,
    junit: JunitOption = None,
    github: GithubFlag = False,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Show inputs, outputs, operators, parameters, MACs and bytes by layer, and what would stop quantization.

    With --check, a gate for commits: each file must be a model and no Git LFS pointer, whole, with its external data
    beside it, valid by ONNX's checker, and load in onnxruntime.

    For example:

        modelkit inspect model.onnx

        modelkit inspect model.onnx --layers 0

        modelkit inspect model.onnx --json

        modelkit inspect model.onnx --html

        modelkit inspect models/

        modelkit inspect --check model.onnx other.onnx

        modelkit inspect --check models/ --junit models.xml
    """
    ci.begin("inspect", models[0], junit=junit, github=github, files=models[1:])
    many = FolderFlags(match, skip, on, workers, cpus, gpus, timeout, memory, resume)
    loading = f.loading(arch, inputs, trust)
    if check:
        if html:
            raise UsageError("--html is not for --check", "--junit FILE keeps what is said")
        _check(models, many, loading, output=output, as_json=as_json, quiet=quiet)
        return
    folder = any_folder(models, many)
    if folder is not None:
        run_folder(
            "inspect",
            folder,
            many,
            output=output,
            loading=loading,
            force=force,
            html=html,
            as_json=as_json,
            quiet=quiet,
        )
        return
    no_results(output, html=html)
    if len(models) > 1:
        raise UsageError(f"{len(models)} models are named, and one is shown at a time", "--check takes several")
    target = page.place(html, output, models, "inspection", force=force)
    from modelkit.api import inspect
    from modelkit.report import inspection

    found = inspect(models[0], loading=loading)
    if as_json:
        show_json(found)
    elif not quiet:
        from modelkit.report import state

        render = state.render if found["schema"] == state.SCHEMA else inspection.render
        show(render(found, layers=layers))
    page.write(found, target, quiet=quiet or as_json)


def _check(
    named: list[Path], many: FolderFlags, loading: Loading, *, output: Path | None, as_json: bool, quiet: bool
) -> None:
    """Look for what keeps models from being used.

    Raises:
        BudgetError: There is something.
        UsageError: A file is not there, or an option makes no sense here.
    """
    from modelkit.check import SCHEMA, problems_of

    if output is not None:
        raise UsageError("--output is not for --check", "--json > FILE keeps what is said")
    found: dict[Path, list[Problem]] = {}
    for path in _files(named, many):
        found[path] = problems_of(path, loading)
        if not (found[path] or as_json):
            say(f"{path}: ok", quiet=quiet)
    _tell(found)
    if as_json:
        models = [
            {"model": str(path), "problems": [{"message": each.message, "hint": each.hint} for each in problems]}
            for path, problems in found.items()
        ]
        show_json({"schema": SCHEMA, "models": models})
    problems = [each for several in found.values() for each in several]
    if problems:
        hints = list(dict.fromkeys(each.hint for each in problems if each.hint))
        bad, total = sum(bool(several) for several in found.values()), len(found)
        summary = f"{bad} of {total} models cannot be used" if len(problems) > 1 else problems[0].message
        raise BudgetError(summary, "; ".join(hints[:3]) or None, problems=[each.message for each in problems])


def _files(named: list[Path], many: FolderFlags) -> list[Path]:
    """The files to check, each once: those named, and every model below a folder."""
    import os

    from modelkit.batch.find import MODELS, WEIGHTS, find_models

    for flag in many.given():
        if flag not in ("--match", "--skip"):
            raise UsageError(f"{flag} is not for --check")
    files: list[Path] = []
    for path in named:
        if not os.path.lexists(path):
            raise UsageError(f"'{shown(path)}' does not exist")
        if not path.is_dir():
            files.append(path)
            continue
        below = find_models(
            path, match=many.match or (), skip=many.skip or (), artifacts=True, kinds=MODELS | WEIGHTS
        )
        for note in below.notes:
            say(f"note: {note}")
        files += [path / name for name in below.models]
    return list(dict.fromkeys(files))


def _tell(found: dict[Path, list[Problem]]) -> None:
    """Tell continuous integration: a case for each model."""
    from modelkit.report.cases import Case, Result

    cases = []
    for path, problems in found.items():
        result = Result.PASSED
        if problems:
            result = Result.FAILED if all(each.known for each in problems) else Result.ERROR
        message = "; ".join(each.message for each in problems)
        detail = "\n".join(f"hint: {each.hint}" for each in problems if each.hint)
        cases.append(Case(str(path), "modelkit inspect", result, message, detail, "check", file=str(path)))
    ci.tell(cases)
