"""`modelkit init` and `modelkit schema`: templates that work, and that overwrite nothing."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml
from cli_models import QUICK, cli, listing, mlp, quantize, samples

Capsys = pytest.CaptureFixture[str]
CONFIGS = Path(__file__).parents[2] / "configs"
# Rules files are documents of their own, no configs of a command, automl takes a table and nas samples: their tests
# run those.
OTHERS = ("automl", "nas", "rules")
TEMPLATES = sorted((p.parent.name, p.stem) for p in CONFIGS.glob("*/*.yaml") if p.parent.name not in OTHERS)


def test_writes_template_and_schema(capsys: Capsys, folder: Path) -> None:
    ran = cli(capsys, "init", "quantize")
    assert (ran.code, ran.out) == (0, "")
    assert ran.err == "wrote quantize.yaml; run: modelkit quantize MODEL --config quantize.yaml\n"
    assert sorted(listing(folder)) == ["quantize.schema.json", "quantize.yaml"]
    first = (folder / "quantize.yaml").read_text().splitlines()[0]
    assert first == "# yaml-language-server: $schema=quantize.schema.json"
    assert json.loads((folder / "quantize.schema.json").read_text()) == json.loads(
        cli(capsys, "schema", "quantize").out
    )


def test_refuses_to_overwrite(capsys: Capsys, folder: Path) -> None:
    (folder / "quantize.yaml").write_text("mine: true\n")
    before = listing(folder)
    ran = cli(capsys, "init", "quantize")
    assert ran.code == 2 and ran.err.splitlines() == [
        "error: 'quantize.yaml' exists already",
        "hint: --force replaces what is there, -o chooses another name",
    ]
    assert listing(folder) == before
    assert cli(capsys, "init", "quantize", "--force").code == 0
    assert "mode: auto" in (folder / "quantize.yaml").read_text()


def test_output_option(capsys: Capsys, folder: Path) -> None:
    assert cli(capsys, "init", "quantize", "-t", "static", "-o", "deep/s.yaml").code == 0
    assert sorted(listing(folder)) == ["deep", "deep/quantize.schema.json", "deep/s.yaml"]
    before = listing(folder)
    ran = cli(capsys, "init", "quantize", "-t", "static", "-o", "-")
    assert ran.code == 0 and ran.err == "" and ran.out == (CONFIGS / "quantize/static.yaml").read_text()
    assert listing(folder) == before
    ran = cli(capsys, "init", "quantize", "-o", "quantize.schema.json")
    assert ran.code == 2 and "quantize.schema.json" in ran.err


def test_second_init_keeps_the_schema(capsys: Capsys, folder: Path) -> None:
    assert cli(capsys, "init", "quantize").code == 0
    stamp = (folder / "quantize.schema.json").stat().st_mtime_ns
    assert cli(capsys, "init", "quantize", "-o", "other.yaml").code == 0
    assert (folder / "quantize.schema.json").stat().st_mtime_ns == stamp


def test_list(capsys: Capsys) -> None:
    ran = cli(capsys, "init", "quantize", "--list")
    assert ran.code == 0 and ran.err == ""
    lines = ran.out.splitlines()
    assert lines[0].split() == ["default", *["Every", "option", "with", "its", "default", "value"]]
    names = [line.split()[0] for line in lines if not line.startswith(" ")]
    assert names == ["default", *sorted({name for command, name in TEMPLATES if command == "quantize"} - {"default"})]


@pytest.mark.parametrize(
    ("argv", "error", "hint"),
    [
        (
            ["init", "quantize", "-t", "nope"],
            "modelkit quantize has no template 'nope'",
            "there are default, article",
        ),
        (["init", "quantize", "-t", "../evaluate/default"], "has no template '../evaluate/default'", "see --list"),
        (
            ["init", "prune\x1b[1m"],
            "'prune\\x1b[1m' has no config",
            "commands with one: quantize, prune, distill, compress, pack, run, automl, nas, evaluate, compare, rules",
        ),
        (
            ["schema", "inspect"],
            "'inspect' has no config",
            "commands with one: quantize, prune, distill, compress, pack, run, automl, nas, evaluate, compare, rules",
        ),
    ],
)
def test_unknown_names(capsys: Capsys, folder: Path, argv: list[str], error: str, hint: str) -> None:
    ran = cli(capsys, *argv)
    first, second = ran.err.splitlines()
    assert first.startswith("error: ") and error in first
    assert second.startswith("hint: ") and hint in second
    assert (ran.code, ran.out) == (2, "") and listing(folder) == {}


@pytest.mark.parametrize(("command", "template"), TEMPLATES)
def test_every_template_fits_its_schema_and_runs(capsys: Capsys, folder: Path, command: str, template: str) -> None:
    assert cli(capsys, "init", command, "-t", template, "-o", "c.yaml").code == 0
    text = (folder / "c.yaml").read_text()
    schema = json.loads((folder / f"{command}.schema.json").read_text())
    jsonschema.validate(yaml.safe_load(text), schema, cls=jsonschema.Draft202012Validator)
    assert text.splitlines()[0] == f"# yaml-language-server: $schema={command}.schema.json"
    assert text.splitlines()[1].startswith("# ") and max(map(len, text.splitlines())) <= 100
    mlp()
    samples()
    # The defaults of prune and compress do not say how much.
    more = ["--sparsity", "0.5"] if (command, template) in (("prune", "default"), ("compress", "default")) else []
    models = ["m.onnx", mlp("n.onnx", sizes=(16, 32, 10))] if command == "compare" else ["m.onnx"]
    if command == "pack":
        # Only what is sparse or has few values can be packed.
        cli(capsys, "prune", mlp("m.onnx", sizes=(16, 256, 10)), "--sparsity", "0.9", "-o", "p.onnx", *QUICK)
        models = ["p.onnx"]
    how = ["c.yaml", "m.onnx"] if command == "run" else [*models, "--config", "c.yaml"]
    ran = cli(capsys, command, *how, "--data", "d.npz", *more, *QUICK)
    assert ran.code in (0, 1), ran.err
    assert ran.out


def test_default_template_says_the_defaults(capsys: Capsys, folder: Path) -> None:
    """Running with the default template is running without a config."""
    mlp()
    assert cli(capsys, "init", "quantize").code == 0
    plans = []
    for argv in ([], ["--config", "quantize.yaml"]):
        plans.append(json.loads(quantize(capsys, "m.onnx", "--dry-run", "--json", *argv).out))
    assert plans[0]["config"] == plans[1]["config"]
    assert set(plans[0]["origins"]) == set(plans[1]["origins"])
    origins = {key: origin for key, origin in plans[1]["origins"].items() if origin == "default"}
    assert not origins, "the template leaves options out"
