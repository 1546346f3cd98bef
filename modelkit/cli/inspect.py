"""`modelkit inspect`: what is in a model file, and what would stop quantization."""

from __future__ import annotations

from typing import Annotated

import typer

from modelkit.cli import flags as f
from modelkit.cli import page
from modelkit.cli.console import DebugFlag, JsonFlag, QuietFlag, show, show_json
from modelkit.cli.folder import FolderFlags, is_folder, no_results, run_folder


def command(
    model: f.ModelArgument,
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
    workers: f.WorkersOption = None,
    timeout: f.TimeoutOption = None,
    memory: f.MemoryOption = None,
    resume: f.ResumeFlag = False,
    html: f.HtmlFlag = False,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Show inputs, outputs, operators, parameters, MACs and bytes by layer, and what would stop quantization.

    For example:

        modelkit inspect model.onnx

        modelkit inspect model.onnx --layers 0

        modelkit inspect model.onnx --json

        modelkit inspect model.onnx --html

        modelkit inspect models/
    """
    many = FolderFlags(match, skip, workers, timeout, memory, resume)
    if is_folder(model, many):
        run_folder(
            "inspect",
            model,
            many,
            output=output,
            loading=f.loading(arch, inputs, trust),
            force=force,
            html=html,
            as_json=as_json,
            quiet=quiet,
        )
        return
    no_results(output, html=html)
    target = page.place(html, output, [model], "inspection", force=force)
    from modelkit.api import inspect
    from modelkit.report import inspection

    found = inspect(model, loading=f.loading(arch, inputs, trust))
    if as_json:
        show_json(found)
    elif not quiet:
        from modelkit.report import state

        render = state.render if found["schema"] == state.SCHEMA else inspection.render
        show(render(found, layers=layers))
    page.write(found, target, quiet=quiet or as_json)
