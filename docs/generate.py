"""Writes docs/cli.md from the help text of every command: `python docs/generate.py`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

TARGET = Path(__file__).with_name("cli.md")

HEAD = """\
# Command line

<!-- Written by docs/generate.py from --help; edit the help texts, then run: make docs -->

Results go to stdout; progress, notes and errors to stderr. `--json` puts one JSON document on stdout, nothing else.
Flags win over `--set`, `--set` over the YAML of `--config`, the YAML over the defaults.

| exit code | meaning |
| ---: | --- |
| 0 | done |
| 1 | a budget was not met; no artifact was written, the report was |
| 2 | what was given cannot be used: an option, a config, a model or a data set |
| 4 | refused as unsafe |
| 5 | the machine or the runtime failed: disk, permission, memory, onnxruntime |
| 130 | interrupted; nothing was written |

Environment: `NO_COLOR` turns colours off, `COLUMNS` sets the width where the output is no terminal.
"""


def commands() -> list[str]:
    """Return the names of all commands, in the order of `modelkit --help`."""
    from modelkit.cli.app import app

    return [str(command.name) for command in app.registered_commands]


def help_of(*command: str) -> str:
    """Return what `modelkit COMMAND --help` prints at 80 columns, without colours."""
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("TYPER_", "_TYPER", "FORCE_"))
    }
    environment |= {
        "COLUMNS": "80",
        "TERMINAL_WIDTH": "80",
        "NO_COLOR": "1",
        "TERM": "dumb",
        "PYTHONIOENCODING": "utf-8",
    }
    done = subprocess.run(
        [sys.executable, "-c", "from modelkit.cli.app import main; main()", *command, "--help"],
        capture_output=True,
        check=True,
        encoding="utf-8",
        env=environment,
    )
    lines = "\n".join(line.rstrip() for line in done.stdout.splitlines())
    return re.sub(r"\n{3,}", "\n\n", lines).strip("\n")


def render() -> str:
    """Return the text of docs/cli.md."""
    parts = [HEAD, _section("modelkit", help_of())]
    parts += [_section(f"modelkit {name}", help_of(name)) for name in commands()]
    return "\n".join(parts)


def _section(title: str, text: str) -> str:
    return f"## {title}\n\n```text\n{text}\n```\n"


if __name__ == "__main__":
    TARGET.write_text(render(), encoding="utf-8")
