"""The documentation: every command in it is run, the reference is fresh, links lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "docs"))

import generate  # noqa: E402 - it lies beside the pages

PAGES = generate.pages()
# What was measured differs from run to run; all other output must be as shown.
MEASURED = re.compile(r"modelkit ((?:quantize|prune|distill|pack|run)(?!.*--dry-run)|evaluate|compare|verify)")


def matches(shown: list[str], printed: list[str]) -> bool:
    """Tell whether output is as shown; "..." in what is shown stands for any lines."""
    pattern = "".join(r"(?:.*\n)*" if line == "..." else re.escape(line) + r"\n" for line in shown)
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in printed)) is not None


@pytest.mark.parametrize("page", [page for page in PAGES if generate.commands_of(page)], ids=lambda page: page.name)
def test_every_command_shown_runs(page: Path, tmp_path: Path) -> None:
    generate.playground(tmp_path)
    for command in generate.commands_of(page):
        if not command.is_run:
            continue
        where = f"{page.name}:{command.line}: {command.text}"
        assert command.text.startswith("modelkit "), f"{where}: neither a modelkit command nor one that is known"
        done = generate.run(command.text, tmp_path)
        assert done.returncode == command.code, f"{where}: exit code {done.returncode}\n{done.stderr}"
        assert "Traceback" not in done.stderr, where
        # Refusals come before anything is measured.
        if command.shown and (command.code in (2, 4) or not MEASURED.search(command.text)):
            printed = generate.printed(done)
            assert matches(generate.tidy(command.shown), printed), f"{where}: printed\n" + "\n".join(printed)


def test_the_command_line_reference_is_fresh() -> None:
    assert generate.TARGET.read_text(encoding="utf-8") == generate.render(), "docs/cli.md is stale; run: make docs"


def test_make_has_the_targets_that_the_pages_name() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for page in [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / ".ci" / "run"]:
        text = page.read_text(encoding="utf-8")
        named = set(re.findall(r"^(?:\$ )?make ([a-z]+)|`make ([a-z]+)`", text, re.MULTILINE))
        assert {name for pair in named for name in pair if name} <= targets, page.name


def test_every_command_is_documented() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in generate.command_names():
        assert f"`modelkit {name}`" in readme, f"README.md does not list modelkit {name}"


def test_pages_speak_only_of_commands_that_exist() -> None:
    known = set(generate.command_names())
    for page in PAGES:
        named = set(re.findall(r"(?<![\w./-])modelkit ([a-z]+)(?![\w.:])", _code(page)))
        assert named <= known, f"{page.name}: there is no command {', '.join(sorted(named - known))}"


def _code(page: Path) -> str:
    """Return everything of a page that is set as code."""
    text = page.read_text(encoding="utf-8")
    return "\n".join(re.findall(r"```.*?```|`[^`\n]+`", text, re.DOTALL))


@pytest.mark.parametrize("name", ["quantize"])
def test_every_option_of_the_config_is_documented(name: str) -> None:
    from modelkit.config.resolve import json_schema
    from modelkit.quantize.config import QuantizeConfig

    page = (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
    text = json_schema(QuantizeConfig, name)
    blocks = [text, *text.get("$defs", {}).values()]
    keys = {key for block in blocks for key, value in block.get("properties", {}).items() if "$ref" not in value}
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
