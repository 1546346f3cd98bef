"""`modelkit verify`: whether what a report says is so."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from modelkit.cli import ci
from modelkit.cli import flags as f
from modelkit.cli.ci import GithubFlag, JunitOption
from modelkit.cli.console import DebugFlag, JsonFlag, QuietFlag, VerboseFlag, progress, show, show_json
from modelkit.errors import BudgetError


def command(
    report: Annotated[
        Path,
        typer.Argument(metavar="REPORT", help="The .report.json that lies beside an artifact.", show_default=False),
    ],
    model: Annotated[
        Path | None, typer.Option("--model", metavar="PATH", help="The original, where it is not beside the report.")
    ] = None,
    artifact: Annotated[
        Path | None, typer.Option("--artifact", metavar="PATH", help="The artifact, where it is elsewhere.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", metavar="PATH", help="What --data was, where it is elsewhere.")
    ] = None,
    test: Annotated[
        Path | None, typer.Option("--test", metavar="PATH", help="What --test was, where it is elsewhere.")
    ] = None,
    arch: f.ArchOption = None,
    inputs: f.InputOption = None,
    trust: f.TrustFlag = False,
    tolerance: Annotated[
        str,
        typer.Option("--tolerance", metavar="SHARE", help="How much slower than reported it may run: 50% or 0.5."),
    ] = "50%",
    seconds: Annotated[
        float, typer.Option("--seconds", metavar="S", min=0.001, max=600, help="Time spent on timing each model.")
    ] = 2.0,
    no_latency: Annotated[bool, typer.Option("--no-latency", help="Do not measure latency.")] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit code 1 also where something could not be checked.")
    ] = False,
    junit: JunitOption = None,
    github: GithubFlag = False,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
    verbose: VerboseFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Find out whether what a report says is so; exit code 1 and a line for each figure that differs.

    Hashes of the model, the artifact and the samples are computed again, size and parameters must be the same, and
    where the files are there quality, agreement and latency are measured again. Latency is compared on the machine
    that measured it only. A report can name no file but those beside it; options name others.

    For example:

        modelkit verify model.int8.report.json

        modelkit verify model.int8.report.json --model models/model.onnx --data labelled.npz

        modelkit verify model.int8.report.json --no-latency --strict --json
    """
    ci.begin("verify", report, junit=junit, github=github, files=(model, artifact, data, test))
    from modelkit.api import verify
    from modelkit.config.yaml_strict import core_scalar
    from modelkit.report import verification as faces

    loading, share = f.loading(arch, inputs, trust), core_scalar(tolerance)
    with progress(quiet=quiet, verbose=verbose) as listener:
        found = verify(
            report,
            model=model,
            artifact=artifact,
            data=data,
            test=test,
            loading=loading,
            tolerance=share if isinstance(share, str | int | float) else tolerance,
            seconds=seconds,
            latency=not no_latency,
            progress=listener,
        )
    ci.tell(faces.cases(found, str(report)), faces.markdown(found))
    if as_json:
        show_json(found.to_dict())
    elif not quiet:
        show(faces.render(found))
    wrong = found.of(faces.Outcome.DIFFERS)
    if wrong:
        summary = f"{len(wrong)} of {len(found.checks)} figures differ from the report"
        raise BudgetError(summary, problems=[faces.line(check) for check in wrong])
    unknown = found.of(faces.Outcome.UNCHECKED)
    if strict and (unknown or found.notes):
        problems = [*(faces.line(check) for check in unknown), *found.notes]
        raise BudgetError("not all of the report could be checked", problems=problems)
