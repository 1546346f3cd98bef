"""The `modelkit` program: its commands, and the one place where errors become lines and exit codes.

Nothing here may import numpy, onnx or torch: `modelkit --help` answers at once.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
import warnings
from typing import Annotated

import typer

from modelkit.cli import (
    automl,
    ci,
    compare,
    compress,
    distill,
    evaluate,
    init,
    inspect,
    nas,
    pack,
    predict,
    prune,
    quantize,
    rules,
    verify,
)
from modelkit.cli import run as run_command
from modelkit.cli.console import drop_stdout, fail, state
from modelkit.errors import ModelkitError, ResourceError, UsageError, defect, refusal
from modelkit.version import VERSION

app = typer.Typer(
    name="modelkit",
    help="Make saved model files smaller and faster, and prove it with measurements.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
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


app.command("quantize", short_help="Store a model's numbers in fewer bits.")(quantize.command)
app.command("prune", short_help="Take weights or whole channels out of a model.")(prune.command)
app.command("distill", short_help="Train a small model on what a large one says.")(distill.command)
app.command("compress", short_help="Prune, share values and pack: the smallest file in a budget.")(compress.command)
app.command("pack", short_help="Store weights in fewer bytes without changing them.")(pack.command)
app.command("unpack", short_help="Give a packed model its plain weights back.")(pack.unpack)
app.command("run", short_help="Run several commands in order, from a recipe.")(run_command.command)
app.command("automl", short_help="Find a good model for a table and write it as ONNX.")(automl.command)
app.command("nas", short_help="Search architectures, from a space or from a saved model.")(nas.command)
app.command("predict", short_help="Use a model on the rows of a table.")(predict.command)
app.add_typer(rules.app, name="rules", short_help="Write, check and run rule engines.")
app.command("inspect", short_help="Show what is in a model, and what would stop quantization.")(inspect.command)
app.command("evaluate", short_help="Compare models: quality, agreement, size and latency.")(evaluate.command)
app.command("compare", short_help="Hold a new model against the old one: a gate for CI.")(compare.command)
app.command("verify", short_help="Find out whether what a report says is so.")(verify.command)
app.command("init", short_help="Write a commented YAML template for a command.")(init.init)
app.command("schema", short_help="Print the JSON Schema of a command's config.")(init.schema)


def main(argv: list[str] | None = None) -> None:
    """Run the program and exit with the codes of modelkit.errors."""
    _catch_signals()
    if not sys.warnoptions:
        # Warnings of libraries are about this code, not about the user's model.
        warnings.simplefilter("ignore")
    # A program started with these closed has none, and prints nothing.
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: PTH123, SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: PTH123, SIM115
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # What a terminal cannot show (an old encoding, a broken file name) is spelled out, not an error.
            stream.reconfigure(errors="backslashreplace")
    code = run(sys.argv[1:] if argv is None else argv)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        drop_stdout()
    sys.exit(code)


def run(argv: list[str]) -> int:
    """Run one command line and return its exit code."""
    state.debug, state.wrote, state.left = "--debug" in argv, False, ""
    state.error = state.ci = None
    code = _run(argv)
    return ci.end(code) if state.ci is not None else code


def _run(argv: list[str]) -> int:
    try:
        code = int(app(args=argv, prog_name="modelkit", standalone_mode=False) or 0)
        # typer makes an exit code of Ctrl-C, and ends the program itself where nobody reads its help.
        return _stopped("interrupted", code) if code == 130 else code
    except SystemExit:
        drop_stdout()
        return 0
    except KeyboardInterrupt:
        return _stopped("interrupted", 130)
    except _TerminatedError as stop:
        return _stopped("terminated", 128 + stop.signal)
    except BrokenPipeError:
        drop_stdout()
        return 0
    except Exception as error:
        if state.debug and not _is_click(error) and type(error).__name__ not in ("Abort", "Exit"):
            traceback.print_exception(error)
        return _explain(error, argv)


def _explain(error: Exception, argv: list[str]) -> int:
    """Show an exception as an error line and a hint; returns the exit code."""
    if isinstance(error, ModelkitError):
        return fail(error)
    if isinstance(error, MemoryError):
        return fail(ResourceError("out of memory", "a smaller --set measure.batch or fewer samples need less"))
    if isinstance(error, OSError) and error.strerror:
        return fail(ResourceError(refusal(error)))
    if _is_click(error):
        return _usage(error, argv)
    if type(error).__name__ == "Abort":  # what typer makes of Ctrl-C
        return _stopped("interrupted", 130)
    if type(error).__name__ == "Exit":
        return int(getattr(error, "exit_code", 0))
    return fail(ResourceError(defect(error), "run again with --debug and report what it shows"))


def _is_click(error: Exception) -> bool:
    """Whether typer found fault with the arguments; it brings its own copy of click, hence by name."""
    return any(kind.__name__ in ("TyperException", "ClickException") for kind in type(error).__mro__)


def _usage(error: Exception, argv: list[str]) -> int:
    """Show a wrong option or argument in the same form as every other error."""
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        print(context.get_help() if context else "", file=sys.stderr)
        return 2
    known = {command.name for command in app.registered_commands}
    path = f"modelkit {argv[0]}" if argv and argv[0] in known else "modelkit"
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    return fail(UsageError(message.rstrip("."), f"{path} --help shows what there is"))


def _stopped(how: str, code: int) -> int:
    """Tell that the user or the system ended the run, and what became of it."""
    left = "the results are complete" if state.wrote else state.left or "nothing was written"
    print(f"{how}; {left}", file=sys.stderr)
    return code


class _TerminatedError(BaseException):
    """A signal that ends the program; like KeyboardInterrupt it must not be taken for a failure of the work."""

    def __init__(self, signal: int) -> None:
        super().__init__(signal)
        self.signal = signal


def _catch_signals() -> None:
    """Let a terminated run clean up like an interrupted one."""
    known = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    # nohup starts its programs with SIGHUP ignored, and means it.
    caught = [number for number in known if signal.getsignal(number) is not signal.SIG_IGN]

    def terminated(number: int, frame: object) -> None:
        for each in caught:
            signal.signal(each, signal.SIG_IGN)  # a second one must not end the cleaning up
        raise _TerminatedError(number)

    for number in caught:
        signal.signal(number, terminated)
