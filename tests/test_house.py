"""The house rules that no linter knows: short files, light imports, templates that work."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from modelkit import templates
from modelkit.api import CompareConfig, EvaluateConfig
from modelkit.automl.config import AutomlConfig
from modelkit.compress.config import CompressConfig
from modelkit.config.resolve import json_schema, resolve
from modelkit.distill.config import DistillConfig
from modelkit.nas.config import NasConfig
from modelkit.pack.config import PackConfig
from modelkit.prune.config import PruneConfig
from modelkit.quantize.config import QuantizeConfig
from modelkit.recipe.config import RecipeConfig

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = ROOT / "sample_models"
MODULES = sorted((ROOT / "modelkit").rglob("*.py"))
# Rules files are documents of their own, no configs of a command; tests/rules runs them.
TEMPLATES = sorted(path for path in (ROOT / "configs").glob("*/*.yaml") if path.parent.name != "rules")
SCHEMAS = {
    **{"automl": AutomlConfig, "compare": CompareConfig, "evaluate": EvaluateConfig},
    **{
        "compress": CompressConfig,
        "distill": DistillConfig,
        "pack": PackConfig,
        "prune": PruneConfig,
        "quantize": QuantizeConfig,
    },
    **{"nas": NasConfig, "run": RecipeConfig},
}
# A recipe without steps is none.
LEAST: dict[str, dict[str, Any]] = {"run": {"steps": [{"command": "quantize"}]}}
HEAVY = {
    *("numpy", "onnx", "onnx_ir", "onnxruntime", "onnxscript", "torch", "sklearn", "lightgbm", "optuna"),
    *("pydantic", "yaml", "PIL", "pyarrow", "ml_dtypes"),
}
# typer checks a command's options with pydantic, as soon as a command is named.
TYPER_OWN = {"pydantic"}
# Templates that say so need labels; the others run without any data.
NEED_DATA = ("labelled.npz", "calib.npz")


def label(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def run_and_list_modules(*argv: str, cwd: Path | None = None) -> tuple[int, set[str], str]:
    """Run a command line in a fresh process; return its exit code, what it imported, and its stderr."""
    code = (
        "import sys, json\n"
        "from modelkit.cli.app import run\n"
        "code = run(sys.argv[1:])\n"
        "print('\\n' + json.dumps([code, sorted({name.split('.')[0] for name in sys.modules})]))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code, *argv], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    exit_code, names = json.loads(done.stdout.splitlines()[-1])
    return exit_code, set(names), done.stderr


@pytest.mark.parametrize("path", MODULES, ids=label)
def test_files_are_short_and_say_what_they_do(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 400, f"{label(path)} is too long to read at one sitting: split it by theme"
    docstring = ast.get_docstring(ast.parse(text))
    assert docstring, f"{label(path)} has no docstring"
    assert docstring.splitlines()[0].endswith((".", ":")), f"{label(path)}: the first line must be a sentence"


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (["--help"], 0),
        (["--version"], 0),
        (["quantize", "--help"], 0),
        (["prune", "--help"], 0),
        (["distill", "--help"], 0),
        (["compress", "--help"], 0),
        (["run", "--help"], 0),
        (["inspect", "--help"], 0),
        (["evaluate", "--help"], 0),
        (["compare", "--help"], 0),
        (["automl", "--help"], 0),
        (["nas", "--help"], 0),
        (["predict", "--help"], 0),
        (["verify", "--help"], 0),
        (["init", "--help"], 0),
        (["rules", "--help"], 0),
        (["rules", "check", "--help"], 0),
        (["quantize"], 2),
        (["quantize", "model.onnx", "--no-such-option"], 2),
        (["no-such-command"], 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_help_and_usage_errors_import_nothing_heavy(argv: list[str], code: int) -> None:
    exit_code, names, _ = run_and_list_modules(*argv)
    assert exit_code == code
    named = bool(argv) and not argv[0].startswith("-")
    assert names & HEAVY <= (TYPER_OWN if named else set())


def test_quantizing_never_imports_torch(tmp_path: Path) -> None:
    exit_code, names, stderr = run_and_list_modules(
        "quantize",
        str(SAMPLES / "digits_mlp.onnx"),
        "--data",
        str(SAMPLES / "digits_mlp.calib.npz"),
        "--output",
        str(tmp_path / "small.onnx"),
        "--set",
        "measure.seconds=0.05",
    )
    assert exit_code == 0, stderr
    assert "onnxruntime" in names
    assert not names & {"torch", "sklearn", "django", "matplotlib"}


def test_there_are_templates() -> None:
    assert {path.parent.name for path in TEMPLATES} == set(SCHEMAS)
    for command in SCHEMAS:
        names = [path.stem for path in TEMPLATES if path.parent.name == command]
        listed = [name for name, _ in templates.available(command)]
        assert sorted(listed) == names and listed[0] == "default"


@pytest.mark.parametrize("path", TEMPLATES, ids=label)
def test_template_has_its_head_and_fits_the_schema(path: Path) -> None:
    command = path.parent.name
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0] == f"# yaml-language-server: $schema={command}.schema.json"
    assert len(lines[1].removeprefix("# ")) > 10, "the second line says what the template is for"
    assert any(line.startswith(f"# Use it with: modelkit {command} ") for line in lines)
    resolve(SCHEMAS[command], yaml_path=path)
    schema = json_schema(SCHEMAS[command], command)
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(yaml.safe_load("\n".join(lines)))


@pytest.mark.parametrize("command", SCHEMAS)
def test_schema_refuses_what_the_command_refuses(command: str) -> None:
    validator = jsonschema.Draft202012Validator(json_schema(SCHEMAS[command], command))
    for wrong in (
        {"no_such_key": 1},
        {"seed": "one"},
        {"measure": {"seconds": 0}},
        {"synthetic": {"samples": 0}},
    ):
        assert not validator.is_valid({**LEAST.get(command, {}), **wrong}), f"{wrong} is accepted"
    assert validator.is_valid(LEAST.get(command, {}))


@pytest.mark.parametrize("command", SCHEMAS)
def test_default_template_lists_every_key_with_its_default(command: str) -> None:
    written = yaml.safe_load((ROOT / "configs" / command / "default.yaml").read_text(encoding="utf-8"))
    if command == "run":  # which steps there are is no default
        defaults = SCHEMAS[command].model_validate({"steps": written["steps"]}).model_dump(mode="json")
        written["steps"] = defaults["steps"]
        assert flat(written) == flat(defaults)
        return
    assert flat(written) == flat(SCHEMAS[command]().model_dump(mode="json"))


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Return every leaf by its dotted key; empty mappings are leaves."""
    if not isinstance(value, dict) or not value:
        return {prefix: value}
    return {
        key: leaf for name, item in value.items() for key, leaf in flat(item, f"{prefix}.{name}".strip(".")).items()
    }


def test_schema_of_quantize_refuses_words_for_numbers() -> None:
    validator = jsonschema.Draft202012Validator(json_schema(QuantizeConfig, "quantize"))
    assert not validator.is_valid({"bits": "eight"})
    assert not validator.is_valid({"budget": {"max_drop": "a lot"}})


def test_template_of_compare_works_on_models() -> None:
    template = ROOT / "configs" / "compare" / "default.yaml"
    models = [str(SAMPLES / "digits_mlp.onnx"), str(SAMPLES / "twins" / "digits_mlp_external.onnx")]
    argv = ["compare", *models, "--config", str(template), "--set", "measure.seconds=0.05", "--max-slowdown", "100%"]
    exit_code, _, stderr = run_and_list_modules(*argv)
    assert exit_code == 0, stderr


def test_template_of_evaluate_works_on_a_model() -> None:
    template = ROOT / "configs" / "evaluate" / "default.yaml"
    argv = ["evaluate", str(SAMPLES / "digits_mlp.onnx"), "--config", str(template), "--json"]
    exit_code, _, stderr = run_and_list_modules(*argv, "--set", "measure.seconds=0.05")
    assert exit_code == 0, stderr


@pytest.mark.parametrize("options", [("--sparsity", "0.5"), ("--pattern", "2:4")], ids=" ".join)
def test_pruning_weights_never_imports_torch(options: tuple[str, str], tmp_path: Path) -> None:
    argv = ["prune", str(SAMPLES / "digits_mlp.onnx"), *options, "--data", str(SAMPLES / "digits_mlp.calib.npz")]
    argv += ["--output", str(tmp_path / "sparse.onnx"), "--set", "measure.seconds=0.05"]
    exit_code, names, stderr = run_and_list_modules(*argv)
    assert exit_code == 0, stderr
    assert not names & {"torch", "sklearn", "scipy"}


@pytest.mark.parametrize(
    "path", [path for path in TEMPLATES if path.parent.name == "prune" and path.stem != "default"], ids=label
)
def test_template_of_prune_works_on_a_model(path: Path, tmp_path: Path) -> None:
    argv = ["prune", str(SAMPLES / "digits_mlp.onnx"), "--config", str(path), "--output", str(tmp_path / "x.onnx")]
    if any(word in path.read_text(encoding="utf-8") for word in NEED_DATA):
        argv += ["--data", str(SAMPLES / "digits_mlp.calib.npz"), "--test", str(SAMPLES / "digits_mlp.eval.npz")]
    exit_code, _, stderr = run_and_list_modules(*argv, "--set", "measure.seconds=0.05")
    assert exit_code == 0, stderr
    report = json.loads((tmp_path / "x.report.json").read_text(encoding="utf-8"))
    assert report["status"] == "done"
    assert any(origin.startswith(f"{path.name}:") for origin in report["origins"].values())


@pytest.mark.parametrize("path", [path for path in TEMPLATES if path.parent.name == "run"], ids=label)
def test_template_of_run_works_on_a_model(path: Path, tmp_path: Path) -> None:
    argv = ["run", str(path), str(SAMPLES / "digits_mlp.onnx"), "--output", str(tmp_path / "x.onnx")]
    if any(word in path.read_text(encoding="utf-8") for word in NEED_DATA):
        argv += ["--data", str(SAMPLES / "digits_mlp.calib.npz"), "--test", str(SAMPLES / "digits_mlp.eval.npz")]
    exit_code, names, stderr = run_and_list_modules(*argv, "--set", "measure.seconds=0.05")
    assert exit_code == 0, stderr
    assert ("torch" in names) == ("epochs" in path.read_text(encoding="utf-8"))
    report = json.loads((tmp_path / "x.report.json").read_text(encoding="utf-8"))
    assert report["status"] == "done" and len(report["steps"]) > 1


@pytest.mark.parametrize("path", [path for path in TEMPLATES if path.parent.name == "quantize"], ids=label)
def test_template_works_on_a_model(path: Path, tmp_path: Path) -> None:
    artifact = tmp_path / "artifact.onnx"
    argv = [path.parent.name, str(SAMPLES / "digits_mlp.onnx"), "--config", str(path), "--output", str(artifact)]
    if any(word in path.read_text(encoding="utf-8") for word in NEED_DATA):
        argv += ["--data", str(SAMPLES / "digits_mlp.calib.npz"), "--test", str(SAMPLES / "digits_mlp.eval.npz")]
    exit_code, _, stderr = run_and_list_modules(*argv, "--set", "measure.seconds=0.05")
    assert exit_code == 0, stderr
    assert artifact.stat().st_size < (SAMPLES / "digits_mlp.onnx").stat().st_size
    report = json.loads((tmp_path / "artifact.report.json").read_text(encoding="utf-8"))
    assert report["status"] == "done"
    assert any(origin.startswith(f"{path.name}:") for origin in report["origins"].values())


def test_constraints_pin_every_dependency() -> None:
    import tomllib

    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *(r for extra in project["optional-dependencies"].values() for r in extra)]
    pins = [
        Requirement(line)
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if line[0] != "#"
    ]
    pinned = {canonicalize_name(pin.name): next(iter(pin.specifier)) for pin in pins}
    for requirement in map(Requirement, wanted):
        if requirement.name == project["name"]:  # an extra within an extra
            continue
        specifier = pinned.get(canonicalize_name(requirement.name))
        assert specifier is not None, f"constraints.txt does not pin {requirement.name}"
        assert specifier.operator == "==" and "+" not in specifier.version
        assert requirement.specifier.contains(specifier.version), f"{requirement} excludes the pin {specifier}"


def test_every_dependency_is_explained() -> None:
    import tomllib

    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    page = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    for extra in (project["dependencies"], *project["optional-dependencies"].values()):
        for requirement in extra:
            name = Requirement(requirement).name
            assert name == project["name"] or f"`{name}`" in page, (
                f"docs/dependencies.md does not say why {name} is there"
            )
