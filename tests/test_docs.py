"""The documentation: every command in it is run, the reference is fresh, links lead somewhere."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# Commands that set a machine up or run the whole suite: continuous integration runs those.
NOT_RUN = ("make", "git clone", "cd", "pip install", "python -m venv", "source", "cat", "ls")
# What was measured differs from run to run; all other output must be as shown.
MEASURED = re.compile(r"modelkit (quantize(?!.*--dry-run)|evaluate)")


@dataclass
class Command:
    """One command of a page.

    Attributes:
        text: What is typed.
        line: Line number in the page.
        shown: Output that the page shows; a line "..." stands for anything.
        code: Exit code that the page shows by `echo $?`, else 0.
    """

    text: str
    line: int
    shown: list[str] = field(default_factory=list)
    code: int = 0


def commands_of(page: Path) -> list[Command]:
    """Read the commands of all console and bash blocks."""
    found: list[Command] = []
    inside = continued = False
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("```"):
            inside = line.removeprefix("```").strip() in ("console", "bash") and not inside
        elif not inside:
            continue
        elif continued or line.startswith("$ "):
            text = line.removeprefix("$ ").strip()
            if continued:
                found[-1].text += " " + text
            else:
                found.append(Command(text, number))
            continued = found[-1].text.endswith("\\")
            found[-1].text = found[-1].text.removesuffix("\\").strip()
        elif found:
            found[-1].shown.append(line.rstrip())
    for command, status in pairwise(found):
        if status.text == "echo $?":
            command.code = int(status.shown[0])
    return [command for command in found if command.text != "echo $?"]


def run(text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command line as someone would who has just installed modelkit."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "COLUMNS": "80",
        "NO_COLOR": "1",
    }
    return subprocess.run(
        ["bash", "-c", text], cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def matches(shown: list[str], printed: list[str]) -> bool:
    """Tell whether output is as shown; "..." in what is shown stands for any lines."""
    parts = ["".join(re.escape(line.rstrip()) + "\n" for line in part) for part in _split(shown)]
    text = "".join(f"{line.rstrip()}\n" for line in printed)
    return re.fullmatch(r"(?:.*\n)*".join(parts), text) is not None


def _split(lines: list[str]) -> list[list[str]]:
    parts: list[list[str]] = [[]]
    for line in lines:
        if line == "...":
            parts.append([])
        else:
            parts[-1].append(line)
    return parts


def trimmed(lines: list[str]) -> list[str]:
    """Drop empty lines at both ends."""
    return "\n".join(line.rstrip() for line in lines).strip("\n").split("\n")


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", [page for page in PAGES if commands_of(page)], ids=lambda page: page.name)
def test_every_command_shown_runs(page: Path, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "sample_models", tmp_path / "sample_models", ignore=shutil.ignore_patterns("made", "*.py"))
    for command in commands_of(page):
        if command.text.startswith(NOT_RUN):
            continue
        where = f"{page.name}:{command.line}: {command.text}"
        assert command.text.startswith("modelkit "), f"{where}: neither a modelkit command nor one that is known"
        done = run(command.text, tmp_path)
        assert done.returncode == command.code, f"{where}: exit code {done.returncode}\n{done.stderr}"
        assert "Traceback" not in done.stderr, where
        if command.shown and not MEASURED.search(command.text):
            errors = [
                line for line in done.stderr.splitlines() if line.startswith(("error:", "hint:", "  ", "wrote"))
            ]
            printed = trimmed([*done.stdout.splitlines(), *errors])
            assert matches(trimmed(command.shown), printed), f"{where}: printed\n" + "\n".join(printed)


def test_the_command_line_reference_is_fresh() -> None:
    module = generator()
    assert module.TARGET.read_text(encoding="utf-8") == module.render(), "docs/cli.md is stale; run: make docs"


def test_every_command_is_documented() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in generator().commands():
        assert f"`modelkit {name}`" in readme, f"README.md does not list modelkit {name}"


def test_pages_speak_only_of_commands_that_exist() -> None:
    known = set(generator().commands())
    for page in PAGES:
        named = set(re.findall(r"(?<![\w./-])modelkit ([a-z]+)(?![\w.:])", _code(page)))
        assert named <= known, f"{page.name}: there is no command {', '.join(sorted(named - known))}"


def _code(page: Path) -> str:
    """Return everything of a page that is set as code."""
    text = page.read_text(encoding="utf-8")
    return "\n".join(re.findall(r"```.*?```|`[^`\n]+`", text, re.DOTALL))


@pytest.mark.parametrize("name", ["quantize"])
def test_every_option_of_the_config_is_documented(name: str) -> None:
    from modelkit.templates import schema

    page = (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
    text = schema(name)
    blocks = [text, *text.get("$defs", {}).values()]
    keys = {key for block in blocks for key in block.get("properties", {})}
    missing = sorted(key for key in keys if not re.search(rf"`(?:\w+\.)*{key}(?::[^`]*)?`", page))
    assert not missing, f"docs/{name}.md says nothing of {', '.join(missing)}"


def test_exit_codes_are_those_of_the_errors() -> None:
    from modelkit import errors

    codes = {
        kind.exit_code
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.ModelkitError)
    }
    table = re.findall(r"^\| (\d+) \|", (ROOT / "docs" / "cli.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert {int(code) for code in table} == codes | {0, 130}


def test_links_lead_to_files_and_headings() -> None:
    pages = [*PAGES, *ROOT.glob("*.md"), ROOT / "sample_models" / "README.md"]
    for page in dict.fromkeys(pages):
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
            if "://" in target or target.startswith("mailto:"):
                continue
            name, _, anchor = target.partition("#")
            file = (page.parent / name) if name else page
            assert file.exists(), f"{page.name} links to {target}, which is not there"
            if anchor:
                assert anchor in _anchors(file), f"{page.name} links to {target}; there is no such heading"


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def test_nothing_names_a_place_on_someones_machine() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    names = [name for name in listed.split("\0") if name] or [str(page.relative_to(ROOT)) for page in PAGES]
    place = re.compile(r"(?<![\w.])/(?:home|Users|root|work|opt)/\w+")
    for name in names:
        file = ROOT / name
        if (
            file.suffix in (".md", ".py", ".toml", ".yaml", ".txt", "")
            and file.is_file()
            and name != "tests/test_docs.py"
        ):
            found = place.search(file.read_text(encoding="utf-8", errors="replace"))
            assert found is None, f"{name} names {found and found.group()}"
