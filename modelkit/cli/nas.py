"""`modelkit nas`: search architectures, from a space or from a saved model, and keep the Pareto set."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from modelkit.cli import flags as f
from modelkit.cli.console import DebugFlag, JsonFlag, QuietFlag, VerboseFlag, progress, show, show_json, state


def command(
    model: Annotated[
        Path | None,
        typer.Argument(
            metavar="[MODEL]",
            help="A saved ONNX model to search around; without it the config's space is searched.",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="PATH", help="Samples: npz with one array and labels, or what fits MODEL."),
    ] = None,
    test: Annotated[
        Path | None,
        typer.Option(
            "--test", metavar="PATH", help="Samples that only the reported figures are from (a part of --data)."
        ),
    ] = None,
    time_: Annotated[str | None, typer.Option("--time", metavar="TIME", help="Time of the search: 60s, 10m.")] = None,
    trials: Annotated[
        str | None, typer.Option("--trials", metavar="N", help="Full trainings, or their epochs' worth (50).")
    ] = None,
    epochs: Annotated[
        str | None, typer.Option("--epochs", metavar="N", help="Passes over the training samples of a trial (10).")
    ] = None,
    strategy: Annotated[
        str | None,
        typer.Option("--strategy", metavar="NAME", help="random, bayes, evolution, local or nsga2 (evolution)."),
    ] = None,
    fidelity: Annotated[
        str | None,
        typer.Option("--fidelity", metavar="NAME", help="full, asha or hyperband: fewer epochs for what looks bad."),
    ] = None,
    objectives: Annotated[
        list[str] | None,
        typer.Option(
            "--objective",
            metavar="WHAT",
            help="Besides quality, what the Pareto set weighs: latency, bytes, macs, parameters; repeatable (macs).",
        ),
    ] = None,
    max_latency: Annotated[
        str | None, typer.Option("--max-latency", metavar="TIME", help="Longest median latency of one sample: 3ms.")
    ] = None,
    max_size: Annotated[str | None, typer.Option("--max-size", metavar="SIZE", help="Largest file: 500kB.")] = None,
    max_macs: Annotated[
        str | None,
        typer.Option("--max-macs", metavar="N", help="Most multiply-accumulates, checked before training."),
    ] = None,
    max_parameters: Annotated[
        str | None, typer.Option("--max-parameters", metavar="N", help="Most parameters, checked before training.")
    ] = None,
    bits: Annotated[
        list[str] | None,
        typer.Option("--bits", metavar="N", help="Around MODEL: bits that weights may have, 32, 8 or 4; repeatable."),
    ] = None,
    space: Annotated[
        Path | None,
        typer.Option(
            "--space",
            metavar="FILE",
            help="YAML of a space, or of one architecture such as best.pareto/03.yaml, which is then built again.",
        ),
    ] = None,
    workers: Annotated[str | None, typer.Option("--workers", metavar="N", help="Trials at a time (1).")] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            "--storage",
            metavar="URL",
            help="A database that several machines share: sqlite:///study.db or a PostgreSQL URL.",
        ),
    ] = None,
    on: f.OnOption = None,
    config: f.ConfigOption = None,
    sets: f.SetOption = None,
    seed: f.SeedOption = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="PATH", help="Where the best model goes (best.onnx, MODEL.nas.onnx)."),
    ] = None,
    force: f.ForceFlag = False,
    html: f.HtmlFlag = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a run that was ended, on the same data, space and options.")
    ] = False,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
    verbose: VerboseFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Search architectures and write the best one, and all that nothing else beats, as ONNX files.

    The Pareto set goes into a folder beside the best model, each with the YAML that rebuilds it. Ctrl-C writes what
    was found so far.

    For example:

        modelkit nas --config nas.yaml --data train.npz --time 10m

        modelkit nas model.onnx --data train.npz --max-latency 3ms
    """
    began = time.monotonic()
    from modelkit.errors import UsageError
    from modelkit.nas.config import NasConfig

    if data is None:
        raise UsageError("a search needs samples to learn from, and there are none", "give them with --data")
    options = f.resolve_config(
        "nas",
        NasConfig,
        config=config,
        sets=sets,
        flags={
            "time": ("--time", time_),
            "trials": ("--trials", trials),
            "training.epochs": ("--epochs", epochs),
            "strategy": ("--strategy", strategy),
            "fidelity.method": ("--fidelity", fidelity),
            "objectives": (
                "--objective",
                ["quality", *(o for o in objectives if o != "quality")] if objectives else None,
            ),
            "limits.max_latency": ("--max-latency", max_latency),
            "limits.max_size": ("--max-size", max_size),
            "constraints.max_macs": ("--max-macs", max_macs),
            "constraints.max_parameters": ("--max-parameters", max_parameters),
            "derived.bits": ("--bits", bits or None),
            "workers": ("--workers", workers),
            "storage": ("--storage", storage),
            "seed": ("--seed", seed),
        },
    )
    from modelkit.nas.parse import with_space
    from modelkit.nas.session import nas
    from modelkit.report import searched
    from modelkit.transform.bits import STORE

    where = output if output is not None else Path("best.onnx") if model is None else model.with_suffix(".nas.onnx")
    if space is not None:
        options = with_space(options, space)
    with progress(quiet=quiet, verbose=verbose) as listener:
        report = nas(
            data,
            where,
            options,
            model=model,
            test=test,
            force=force,
            html=html,
            resume=resume,
            store=STORE,
            on=on,
            progress=listener,
            began=began,
        )
    state.wrote = True
    if as_json:
        show_json(report)
    elif not quiet:
        show(searched.render(report))
