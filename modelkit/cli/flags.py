"""Options that several commands share, and how they become a config."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

if TYPE_CHECKING:
    from pydantic import BaseModel

    from modelkit.checkpoint.loading import Loading
    from modelkit.config.resolve import Resolved

T = TypeVar("T", bound="BaseModel")

ModelArgument = Annotated[
    Path,
    typer.Argument(metavar="MODEL", help="An ONNX file or a checkpoint, or a folder of them.", show_default=False),
]
OutputOption = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="PATH",
        help="Where the artifact goes; for a folder of models, the folder of results.",
    ),
]
ResultsOption = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="PATH",
        help="For a folder of models: where results are kept as JSON. For one model with --html: the page.",
    ),
]
PageOption = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="PATH", help="With --html: where the page goes.")
]
DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="PATH",
        help="Inputs to calibrate with and to compare candidates on: npz, folder of npy, images or ONNX test sets, "
        "csv, parquet. With labels, half of it is kept for the final figures.",
    ),
]
TestOption = Annotated[
    Path | None,
    typer.Option(
        "--test", metavar="PATH", help="Labelled inputs for the final figures only; nothing is chosen by them."
    ),
]
ArchOption = Annotated[
    str | None,
    typer.Option(
        "--arch",
        metavar="MODULE:FACTORY",
        help="For a state dict: what builds its module, such as mypkg.nets:make. Its code is run.",
    ),
]
InputOption = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        metavar="[NAME=]SHAPE[:TYPE]",
        help="For a checkpoint: an input, such as 1x3x32x32:float32; repeatable. Any batch fits later; :fixed at the "
        "end keeps it.",
    ),
]
TrustFlag = Annotated[
    bool,
    typer.Option("--trust", help="Load a checkpoint that can run code: pickled modules, TorchScript."),
]
HtmlFlag = Annotated[
    bool, typer.Option("--html", help="Write the report as a page for the browser too, in one file.")
]
ForceFlag = Annotated[bool, typer.Option("--force", "-f", help="Overwrite an artifact that exists.")]
ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", metavar="YAML", help="Options from a file."),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Any key of the config, such as weights.scale=mse; may be repeated."
    ),
]
MaxDropOption = Annotated[
    str | None,
    typer.Option("--max-drop", metavar="SHARE", help="Largest loss of accuracy allowed: 0.5% or 0.005."),
]
MinRatioOption = Annotated[
    str | None,
    typer.Option("--min-ratio", metavar="X", help="At least this many times smaller: 3.5x."),
]
MinSpeedupOption = Annotated[
    str | None,
    typer.Option("--min-speedup", metavar="X", help="At least this many times faster: 2x."),
]
MaxLatencyOption = Annotated[
    str | None,
    typer.Option("--max-latency", metavar="TIME", help="Longest median latency of a batch: 5ms."),
]
PackOption = Annotated[
    str | None,
    typer.Option("--pack", metavar="HOW", help="Store the result in fewer bytes still: auto, size, load (off)."),
]
MaxSizeOption = Annotated[
    str | None,
    typer.Option("--max-size", metavar="SIZE", help="Most bytes of the artifact: 100kB."),
]
ThreadsOption = Annotated[
    str | None,
    typer.Option("--threads", metavar="N", help="Threads of a timed inference (1)."),
]
DryRunFlag = Annotated[bool, typer.Option("--dry-run", help="Show the plan and the predicted sizes; write nothing.")]
ExplainFlag = Annotated[bool, typer.Option("--explain", help="List what was done to every layer, and why.")]
MatchOption = Annotated[
    list[str] | None,
    typer.Option("--match", metavar="GLOB", help="Of a folder, take only models that fit: vision/*; repeatable."),
]
SkipOption = Annotated[
    list[str] | None,
    typer.Option("--skip", metavar="GLOB", help="Of a folder, leave out models and folders that fit; repeatable."),
]
OnOption = Annotated[
    str | None,
    typer.Option(
        "--on",
        metavar="WHERE",
        help="Where models of a folder are worked on: ray starts a local Ray, ray://HOST:10001 is a Ray cluster.",
    ),
]
WorkersOption = Annotated[
    str | None,
    typer.Option(
        "--workers",
        metavar="N",
        help="Models of a folder that are worked on at a time (1; on a cluster as many as fit).",
    ),
]
CpusOption = Annotated[
    str | None, typer.Option("--cpus", metavar="N", help="Processors for each model of a folder (on a cluster 1).")
]
GpusOption = Annotated[
    str | None, typer.Option("--gpus", metavar="N", help="Accelerators for each model of a folder, on a cluster (0).")
]
TimeoutOption = Annotated[
    str | None, typer.Option("--timeout", metavar="TIME", help="Longest time for one model of a folder: 10min.")
]
MemoryOption = Annotated[
    str | None, typer.Option("--memory", metavar="SIZE", help="Most memory for one model of a folder: 2GB.")
]
ResumeFlag = Annotated[
    bool, typer.Option("--resume", help="Of a folder, leave alone what an earlier run did and nothing has changed.")
]
SeedOption = Annotated[str | None, typer.Option("--seed", metavar="N", help="Seed of everything random (0).")]


def loading(arch: str | None, inputs: list[str] | None, trust: bool) -> Loading:
    """Put together what the options say about a checkpoint."""
    from modelkit.checkpoint.loading import Loading

    return Loading(arch, tuple(inputs or ()), trust)


def shared(
    objective: str | None,
    include: list[str] | None,
    exclude: list[str] | None,
    max_drop: str | None,
    min_ratio: str | None,
    min_speedup: str | None,
    max_latency: str | None,
    threads: str | None,
    seed: str | None,
) -> dict[str, tuple[str, object]]:
    """The flags that every command which transforms a model has, by the keys that they set."""
    return {
        "objective": ("--objective", objective),
        "include": ("--include", include or None),
        "exclude": ("--exclude", exclude or None),
        "budget.max_drop": ("--max-drop", max_drop),
        "budget.min_ratio": ("--min-ratio", min_ratio),
        "budget.min_speedup": ("--min-speedup", min_speedup),
        "budget.max_latency": ("--max-latency", max_latency),
        "measure.threads": ("--threads", threads),
        "seed": ("--seed", seed),
    }


def scalars(flags: dict[str, tuple[str, object]]) -> dict[str, tuple[object, str]]:
    """For each key the value and the flag's name: text is read as a YAML scalar, None is left out."""
    from modelkit.config.yaml_strict import core_scalar

    return {
        key: (core_scalar(value) if isinstance(value, str) else value, name)
        for key, (name, value) in flags.items()
        if value is not None
    }


def resolve_config(
    command: str,
    schema: type[T],
    *,
    config: Path | None,
    sets: list[str] | None,
    flags: dict[str, tuple[str, object]],
) -> Resolved[T]:
    """Turn options into a config, flags over --set over YAML over defaults.

    Args:
        command: Name of the command.
        schema: Its config.
        config: The YAML file.
        sets: The --set options.
        flags: For each dotted key, the flag's name and its value (text is read as a YAML scalar; None is left out).

    Raises:
        ConfigError: Values that the command does not take, all at once.
        UsageError: The YAML file is not there.
    """
    from modelkit.config.resolve import resolve
    from modelkit.errors import ConfigError

    try:
        return resolve(schema, yaml_path=config, sets=sets or (), flags=scalars(flags))
    except ConfigError as error:
        error.hint = f"modelkit schema {command} lists every key and what it takes"
        raise
