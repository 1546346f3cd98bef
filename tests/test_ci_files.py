"""The pre-commit hook and the GitHub action: what they name exists, they do what they say, inputs are no code."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = ROOT / "sample_models"
HOOKS = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
ACTION = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
STEPS = ACTION["runs"]["steps"]
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "a" * 64 + "\nsize 9\n"
# The program as it is installed, with the modules of this tree.
ENV = {
    **os.environ,
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "PYTHONPATH": str(ROOT),
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_SYSTEM": os.devnull,
}

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the action and these tests use bash")


def call(*argv: str, cwd: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        argv, cwd=cwd, env={**ENV, **(env or {})}, capture_output=True, text=True, timeout=120, check=False
    )


# --- pre-commit -----------------------------------------------------------------------------------------------


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A git repository whose commits have to pass the hook, run as pre-commit runs it."""
    folder = tmp_path / "repository"
    folder.mkdir()
    for argv in (["init", "-q"], ["config", "user.email", "a@example.com"], ["config", "user.name", "A"]):
        assert call("git", *argv, cwd=folder).returncode == 0
    hook = next(each for each in HOOKS if each["language"] == "system")
    argv = shlex.join([*shlex.split(hook["entry"]), *hook["args"]])
    script = (
        "#!/usr/bin/env bash\nset -euo pipefail\n"
        "mapfile -d '' -t files < <(git diff --cached --name-only --diff-filter=ACMR -z "
        f"| grep -zP '{hook['files']}')\n"
        f'if ((${{#files[@]}})); then {argv} "${{files[@]}}"; fi\n'
    )
    target = folder / ".git" / "hooks" / "pre-commit"
    target.write_text(script, encoding="utf-8")
    target.chmod(0o755)
    return folder


def commit(folder: Path) -> subprocess.CompletedProcess[str]:
    assert call("git", "add", "-A", cwd=folder).returncode == 0
    return call("git", "commit", "-q", "-m", "models", cwd=folder)


def test_hooks_are_as_pre_commit_wants_them() -> None:
    for hook in HOOKS:
        assert {"id", "name", "entry", "language"} <= set(hook)
        assert hook["language"] in ("python", "system")
        assert shlex.split(hook["entry"])[:2] == ["modelkit", "inspect"]
        assert re.search(hook["files"], "a/b.onnx") and not re.search(hook["files"], "b.onnx.data")
    assert len({hook["id"] for hook in HOOKS}) == len(HOOKS)


def test_a_good_model_can_be_committed(repository: Path) -> None:
    shutil.copy(SAMPLES / "digits_mlp.onnx", repository / "a model.onnx")
    (repository / "notes.txt").write_text("no model")
    done = commit(repository)
    assert done.returncode == 0, done.stderr
    assert call("git", "log", "--oneline", cwd=repository).stdout


def test_bad_models_cannot_be_committed(repository: Path) -> None:
    shutil.copy(SAMPLES / "digits_mlp.onnx", repository / "good.onnx")
    (repository / "pointer.onnx").write_text(LFS)
    (repository / "-rf.onnx").write_bytes((SAMPLES / "digits_mlp.onnx").read_bytes()[:5000])
    (repository / "$(touch pwned).onnx").write_bytes(b"")
    done = commit(repository)
    assert done.returncode == 1
    assert "3 of 4 models cannot be used" in done.stderr
    assert "'pointer.onnx' is a Git LFS pointer, not the model itself" in done.stderr
    assert not (repository / "pwned").exists()
    assert call("git", "log", "--oneline", cwd=repository).returncode != 0


# --- the action -----------------------------------------------------------------------------------------------


def run_step(name: str, folder: Path, **given: str) -> subprocess.CompletedProcess[str]:
    """Run a step's script as GitHub's runner does: bash, with the step's variables."""
    step = next(each for each in STEPS if each["id"] == name)
    assert set(given) <= set(step["env"])
    script = folder / "step.sh"
    script.write_text(step["run"], encoding="utf-8")
    env = {
        **{key: value for key, value in step["env"].items() if "${{" not in value},
        **given,
        "GITHUB_OUTPUT": str(folder / "output"),
        "GITHUB_PATH": str(folder / "path"),
        "GITHUB_STEP_SUMMARY": str(folder / "summary.md"),
        "GITHUB_WORKSPACE": str(folder),
    }
    return call("bash", "--noprofile", "--norc", "-e", "-o", "pipefail", str(script), cwd=folder, env=env)


def start(folder: Path, command: str, *arguments: str, junit: str = "") -> subprocess.CompletedProcess[str]:
    return run_step(
        "run", folder, MODELKIT_COMMAND=command, MODELKIT_ARGUMENTS="\n".join(arguments), MODELKIT_JUNIT=junit
    )


def test_the_action_is_as_github_wants_it() -> None:
    assert {"name", "description", "runs"} <= set(ACTION)
    assert ACTION["runs"]["using"] == "composite"
    for step in STEPS:
        assert step["shell"] == "bash"
        # What is put into a script is run as code: inputs come as variables.
        assert "${{" not in step["run"]
    named = {
        match for step in STEPS for value in step["env"].values() for match in re.findall(r"inputs\.(\w+)", value)
    }
    assert named == set(ACTION["inputs"])
    assert all(each.get("description") for each in [*ACTION["inputs"].values(), *ACTION["outputs"].values()])


def test_the_action_names_commands_that_exist() -> None:
    from modelkit.cli.app import app

    names = re.findall(r"\b[a-z]+\b", ACTION["inputs"]["command"]["description"].split(":")[1])
    assert set(names) <= {str(each.name) for each in app.registered_commands}
    assert (ROOT / "constraints.txt").is_file()


def test_the_action_runs_a_command(tmp_path: Path) -> None:
    shutil.copy(SAMPLES / "digits_mlp.onnx", tmp_path / "a model.onnx")
    done = start(tmp_path, "inspect", "--check", "a model.onnx", "", junit="out dir/j.xml")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "output").read_text() == "exit-code=0\n"
    assert (tmp_path / "out dir" / "j.xml").is_file()
    assert "1 check: 1 passed" in (tmp_path / "summary.md").read_text(encoding="utf-8")


def test_the_action_fails_where_modelkit_does(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_text(LFS)
    done = start(tmp_path, "inspect", "--check", "m.onnx")
    assert done.returncode == 1 and "::error file=m.onnx," in done.stderr
    assert (tmp_path / "output").read_text() == "exit-code=1\n"


@pytest.mark.parametrize("where", ["command", "arguments", "junit"])
def test_inputs_are_no_code(tmp_path: Path, where: str) -> None:
    hostile = """* $(touch pwned) `touch pwned` '; touch pwned; ' "; touch pwned; " ; touch pwned & ${IFS}"""
    (tmp_path / "m.onnx").write_text(LFS)
    given: dict[str, Any] = {"command": "inspect", "arguments": "m.onnx", "junit": ""} | {where: hostile}
    done = start(tmp_path, given["command"], given["arguments"], junit=given["junit"])
    assert done.returncode == 2, done.stderr
    assert not (tmp_path / "pwned").exists()


def test_the_action_takes_what_is_installed(tmp_path: Path) -> None:
    done = run_step("install", tmp_path, MODELKIT_SOURCE=str(ROOT), MODELKIT_PYTHON="no-such-python")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("modelkit is installed: modelkit ")
    assert not (tmp_path / "path").exists()


# --- the page -------------------------------------------------------------------------------------------------


def test_the_examples_on_the_page_name_what_there_is() -> None:
    page = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
    workflow, hooks, gitlab = (yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL))
    (step,) = [each for each in workflow["jobs"]["compare"]["steps"] if "modelkit" in each.get("uses", "")]
    assert set(step["with"]) <= set(ACTION["inputs"])
    required = {name for name, each in ACTION["inputs"].items() if each["required"]}
    assert required <= set(step["with"])
    assert {hook["id"] for repo in hooks["repos"] for hook in repo["hooks"]} <= {hook["id"] for hook in HOOKS}
    lines = [[step["with"]["command"], *step["with"]["arguments"].split("\n")]]
    lines += [shlex.split(line)[1:] for line in gitlab["model"]["script"]]
    for command, *arguments in lines:
        shown = call("modelkit", command, "--help", cwd=ROOT).stdout
        for option in (each.split("=")[0] for each in arguments if each.startswith("--")):
            assert f"{option} " in shown, f"modelkit {command} has no option {option}"
