"""Writes docs/cli.md from the help texts, and runs the commands of all pages to show what they print now.

`python docs/generate.py`, or `make docs`. Output that a page cuts short with a line "..." stays as it is.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "docs" / "cli.md"
# Commands that set a machine up or run the whole suite: continuous integration runs those.
NOT_RUN = ("make ", "source ", "pip install ", "python benchmarks/")

HEAD = """\
# Command line

<!-- Written by docs/generate.py from --help; edit the help texts, then run: make docs -->

Results go to stdout; progress, notes and errors to stderr. `--json` puts one JSON document on stdout, nothing else;
for a folder of models one on each line.
Flags win over `--set`, `--set` over the YAML of `--config`, the YAML over the defaults.

| exit code | meaning |
| ---: | --- |
| 0 | done |
| 1 | a budget or a gate was not met; a transform wrote its report and no artifact |
| 2 | what was given cannot be used: an option, a config, a model or a data set |
| 3 | of a folder of models some failed, or all; the others are done |
| 4 | refused as unsafe |
| 5 | the machine or the runtime failed: disk, permission, memory, onnxruntime |
| 130 | interrupted; nothing was written, or what was finished of a folder |

Environment: `NO_COLOR` turns colours off, `COLUMNS` sets the width where the output is no terminal.
"""


@dataclass
class Command:
    """One command in a console block of a page.

    Attributes:
        text: What is typed, continued lines joined.
        line: Line of the page where it stands, from 1.
        shown: Output that the page shows.
        first: Index of the page's first output line.
        code: Exit code that the page shows by `echo $?`, else 0.
    """

    text: str
    line: int
    shown: list[str] = field(default_factory=list)
    first: int = 0
    code: int = 0

    @property
    def is_run(self) -> bool:
        """Whether this page's test runs it."""
        return not f"{self.text} ".startswith(NOT_RUN)


def pages() -> list[Path]:
    """Return the pages whose commands are run."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands_of(page: Path) -> list[Command]:
    """Read the commands of all `console` and `bash` blocks of a page."""
    found: list[Command] = []
    inside = continued = fresh = False
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("```"):
            inside, fresh = line.removeprefix("```").strip() in ("console", "bash") and not inside, True
        elif inside and (continued or line.startswith("$ ")):
            text = line.removeprefix("$ ").strip()
            if continued:
                found[-1].text += f" {text}"
            else:
                found.append(Command(text, number))
            continued, fresh = text.endswith("\\"), False
            found[-1].text = found[-1].text.removesuffix("\\").strip()
            found[-1].first = number
        elif inside and not fresh:
            found[-1].shown.append(line.rstrip())
    for position, command in enumerate(found[1:]):
        if command.text == "echo $?":
            found[position].code = int(command.shown[0])
    return [command for command in found if command.text != "echo $?"]


def run(text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command line in a folder, as someone would who has just installed modelkit."""
    environment = {key: value for key, value in os.environ.items() if "TYPER" not in key and "FORCE_" not in key}
    environment |= {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "PYTHONIOENCODING": "utf-8",
        "COLUMNS": "80",
        "NO_COLOR": "1",
        "TERM": "dumb",
    }
    return subprocess.run(
        ["bash", "-c", text],
        cwd=folder,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        timeout=300,
        check=False,
    )


def printed(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Return what a person saw, without progress, trailing blanks and repeated empty lines."""
    ends = [line for line in done.stderr.splitlines() if re.match(r"error: |hint: |  |wrote .* run: ", line)]
    return tidy([*done.stdout.splitlines(), *ends])


def tidy(lines: list[str]) -> list[str]:
    """Strip trailing blanks, and empty lines at the ends and after empty lines."""
    text = "\n".join(line.rstrip() for line in lines)
    return re.sub(r"\n{3,}", "\n\n", text).strip("\n").split("\n")


FACTORY = """\
from torch import nn


def make():
    return nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10))
"""


def playground(folder: Path) -> None:
    """Lay out what the commands of a page work on: git's sample models, and one of them as a state dict."""
    import onnx
    from safetensors.numpy import save_file

    ignored = shutil.ignore_patterns("made", "*.py", "__pycache__")
    shutil.copytree(ROOT / "sample_models", folder / "sample_models", ignore=ignored)
    weights = onnx.load(ROOT / "sample_models" / "digits_mlp.onnx").graph.initializer
    save_file({each.name: onnx.numpy_helper.to_array(each) for each in weights}, folder / "digits.safetensors")
    (folder / "digits.py").write_text(FACTORY, encoding="utf-8")


def refresh(page: Path) -> None:
    """Run the commands of a page in order and put in what they print now."""
    lines = page.read_text(encoding="utf-8").splitlines()
    changes: list[tuple[Command, list[str]]] = []
    with tempfile.TemporaryDirectory() as name:
        playground(Path(name))
        for command in commands_of(page):
            if command.is_run:
                done = run(command.text, Path(name))
                if command.shown and "..." not in command.shown:
                    changes.append((command, printed(done)))
    for command, output in reversed(changes):
        lines[command.first : command.first + len(command.shown)] = output
    page.write_text("\n".join(lines) + "\n", encoding="utf-8")


def command_names() -> list[str]:
    """Return the names of all commands, in the order of `modelkit --help`."""
    from modelkit.cli.app import app

    return [str(command.name) for command in (*app.registered_commands, *app.registered_groups)]


def help_titles() -> list[str]:
    """Return the command lines whose help makes up the reference: every command, then its sub-commands."""
    from modelkit.cli.app import app

    inner = {
        str(group.name): [str(command.name) for command in group.typer_instance.registered_commands]
        for group in app.registered_groups
        if group.typer_instance is not None
    }
    titles = ["modelkit"]
    for name in command_names():
        titles += [f"modelkit {name}", *(f"modelkit {name} {sub}" for sub in inner.get(name, []))]
    return titles


def render() -> str:
    """Return the text of docs/cli.md."""
    parts = [HEAD]
    for title in help_titles():
        text = "\n".join(printed(run(f"{title} --help", ROOT)))
        parts.append(f"## {title}\n\n```text\n{text}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    TARGET.write_text(render(), encoding="utf-8")
    for each in pages():
        refresh(each)
