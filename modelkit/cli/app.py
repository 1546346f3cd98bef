"""The `modelkit` program: its commands, and the one place where errors become lines and exit codes.

Nothing here may import numpy, onnx or torch: `modelkit --help` answers at once.
"""

from __future__ import annotations

import signal
import sys
from typing import Annotated

import typer

from modelkit.cli import evaluate, init, inspect, quantize
from modelkit.cli.console import fail, state
from modelkit.errors import ModelkitError
from modelkit.version import VERSION

app = typer.Typer(
    name="modelkit",
    help="Make saved model files smaller and faster, and prove it with measurements.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"modelkit {VERSION}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


app.command("quantize")(quantize.command)
app.command("inspect")(inspect.command)
app.command("evaluate")(evaluate.command)
app.command("init")(init.init)
app.command("schema")(init.schema)


def main(argv: list[str] | None = None) -> None:
    """Run the program and exit with the codes of modelkit.errors."""
    # A terminated run cleans up like an interrupted one.
    signal.signal(signal.SIGTERM, _terminated)
    sys.exit(run(sys.argv[1:] if argv is None else argv))


def run(argv: list[str]) -> int:
    """Run one command line and return its exit code."""
    state.debug = "--debug" in argv
    try:
        code = app(args=argv, prog_name="modelkit", standalone_mode=False)
        return int(code or 0)
    except ModelkitError as error:
        if state.debug:
            raise
        return fail(error)
    except KeyboardInterrupt:
        print("interrupted; nothing was written", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 0
    except MemoryError:
        print("error: out of memory", file=sys.stderr)
        print("hint: a smaller --set measure.batch or fewer samples need less", file=sys.stderr)
        return 5
    except Exception as error:
        if any(kind.__name__ in ("TyperException", "ClickException") for kind in type(error).__mro__):
            return _usage(error)
        if type(error).__name__ in ("Abort", "Exit"):
            return int(getattr(error, "exit_code", 130))
        if state.debug:
            raise
        print(f"error: {type(error).__name__}: {error}", file=sys.stderr)
        print("hint: this is a defect in modelkit; run again with --debug and report it", file=sys.stderr)
        return 5


def _usage(error: Exception) -> int:
    """Show a wrong option or argument in the same form as every other error."""
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        print(context.get_help() if context else "", file=sys.stderr)
        return 2
    path = context.command_path if context is not None else "modelkit"
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    print(f"error: {message.rstrip('.')}", file=sys.stderr)
    print(f"hint: {path} --help shows what there is", file=sys.stderr)
    return 2


def _terminated(number: int, frame: object) -> None:
    raise SystemExit(128 + number)
