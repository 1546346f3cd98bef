"""The YAML of recipes: any command is a step, all mistakes are told at once, every value knows where it came from."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from modelkit.algorithm.config import TransformConfig
from modelkit.config.nodes import dotted
from modelkit.config.resolve import Resolved, json_schema, resolve
from modelkit.errors import ConfigError
from modelkit.recipe.config import RecipeConfig, _step, step_options
from modelkit.recipe.job import read_recipe, recipe_artifact
from modelkit.transform.commands import COMMANDS

ROOT = Path(__file__).parents[2]
TEXT = """\
steps:
  - command: prune
    sparsity: 50%
    measure: {threads: 2}
  - command: quantize
    mode: float16
    data: other.npz
    seed: 9
measure:
  seconds: 0.5
  threads: 4
synthetic:
  dims: {a.b: 3}
preprocess: {resize: 32}
seed: 7
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Resolved[RecipeConfig]:
    path = tmp_path / "r.yaml"
    path.write_text(TEXT)
    return resolve(RecipeConfig, yaml_path=path, sets=["steps.0.sparsity=0.25"])


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_a_step(command: str) -> None:
    found = read_recipe({"steps": [{"command": command}]})
    assert step_options(found, 0).value == COMMANDS[command].schema()
    plain = resolve(COMMANDS[command].schema)
    assert step_options(found, 0).origins == plain.origins


def test_a_command_whose_options_are_named_like_those_of_a_step_is_noticed() -> None:
    class Fresh(TransformConfig):
        strength: int = 3

    class Clashing(TransformConfig):
        optional: bool = False

    step: Any = _step("fresh", Fresh)
    assert step(command="fresh", strength=4).strength == 4
    with pytest.raises(TypeError, match="optional of clashing"):
        _step("clashing", Clashing)


FRESH = """
import json, sys
from modelkit.transform import commands
from modelkit.algorithm.candidate import Candidate
from modelkit.transform.commands import COMMANDS, Command
from modelkit.decision import Decision
from modelkit.algorithm.config import TransformConfig


class HalveConfig(TransformConfig):
    share: float = 0.5


class Halver:
    objective = "size"

    def __init__(self, config):
        self.config = config

    def candidates(self):
        return [Candidate("halved", self.apply)]

    def apply(self, model, progress):
        import onnx_ir as ir

        for value in model.graph.initializers.values():
            if value.const_value.dtype == ir.DataType.FLOAT:
                value.const_value = ir.tensor(value.const_value.numpy() * self.config.share, name=value.name)
        return [Decision("all", "scaled", "asked for", {"share": self.config.share})]

    def refine(self, trials, progress):
        return []

    def audit(self, path, decisions):
        return None


COMMANDS["halve"] = Command(
    schema=HalveConfig,
    suffix=lambda config: "halved",
    maker=lambda job: lambda model, data: Halver(job.options.value),
    safe=lambda config: False,
    training=lambda config: False,
)
from modelkit.cli.app import run

sys.exit(run(sys.argv[1:]))
"""


def test_a_new_entry_of_the_commands_is_a_step_at_once(tmp_path: Path) -> None:
    """Nothing but the list of commands has to change: schema, options, name, cache and report follow."""
    (tmp_path / "r.yaml").write_text(
        "steps:\n- {command: quantize, mode: weights}\n- {command: halve, share: 0.25}\n"
    )
    argv = ["run", "r.yaml", str(ROOT / "sample_models" / "digits_mlp.onnx"), "-o", "x.onnx", "--json"]
    code, environment = [sys.executable, "-c", FRESH], {**os.environ, "PYTHONPATH": str(ROOT)}
    more = ["--set", "measure.seconds=0.001"]
    done = subprocess.run([*code, *argv, *more], cwd=tmp_path, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    last = json.loads(done.stdout)["steps"][1]
    assert (last["command"], last["method"], last["origins"]["share"]) == ("halve", "halved", "r.yaml:3")
    schema = subprocess.run([*code, "schema", "run"], env=environment, capture_output=True, check=True).stdout
    assert "HalveStep" in json.loads(schema)["$defs"]


def test_values_of_a_step_are_its_own_or_the_recipes(recipe: Resolved[RecipeConfig]) -> None:
    prune, quantize = step_options(recipe, 0), step_options(recipe, 1)
    assert isinstance(prune.value, COMMANDS["prune"].schema) and type(prune.value) is COMMANDS["prune"].schema
    assert (prune.value.seed, quantize.value.seed) == (7, 9)
    assert (prune.value.measure.threads, quantize.value.measure.threads) == (2, 4)
    assert prune.value.measure.seconds == quantize.value.measure.seconds == 0.5
    assert quantize.value.preprocess is not None and quantize.value.preprocess.resize == 32
    assert prune.value.synthetic.dims == {"a.b": 3}
    assert prune.value.budget.max_drop is None


def test_origins_of_a_step(recipe: Resolved[RecipeConfig]) -> None:
    prune, quantize = step_options(recipe, 0).origins, step_options(recipe, 1).origins
    assert prune["sparsity"] == "--set steps.0.sparsity=0.25"
    assert prune["measure.threads"] == "r.yaml:4" and prune["measure.seconds"] == "r.yaml:10"
    assert (prune["seed"], quantize["seed"]) == ("r.yaml:15", "r.yaml:8")
    assert quantize["mode"] == "r.yaml:6" and quantize["bits"] == "default"
    assert quantize["preprocess.resize"] == "r.yaml:14" and "preprocess" not in quantize
    assert quantize['synthetic.dims."a.b"'] == "r.yaml:13" and "synthetic.dims" not in quantize
    assert not {"command", "data", "optional"} & {*prune, *quantize}
    for index in range(2):
        found = step_options(recipe, index)
        assert set(leaves(found.value.model_dump(mode="json"))) == set(found.origins)


def leaves(value: Any, path: tuple[str, ...] = ()) -> list[str]:
    if isinstance(value, dict) and value:
        return [leaf for key, item in value.items() for leaf in leaves(item, (*path, key))]
    return [dotted(path)]


def test_all_mistakes_at_once(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(
        "steps:\n  - command: prune\n    sparsity: lots\n    foo: 1\n  - comand: quantize\n  - command: distilll\n"
        "  - quantize\nbudgt: {}\n"
    )
    with pytest.raises(ConfigError) as caught:
        read_recipe(path)
    lines = [line.split(": ", 1)[0] for line in caught.value.problems]
    assert lines == [f"bad.yaml:{number}" for number in (3, 4, 5, 6, 7, 8)]
    text = "\n".join(caught.value.problems)
    for part in ("steps.0.sparsity: 'lots' is not", "steps.0.foo", "steps.1.command", "'distilll' is not one of"):
        assert part in text


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"steps": []},
        {"steps": [{"sparsity": 0.5}]},
        {"steps": [{"command": "prune", "bits": 8}]},
        {"steps": [{"command": "prune", "data": 3}]},
        {"steps": [{"command": "quantize", "optional": "yes"}]},
        {"steps": [{"command": "quantize"}], "budget": {"max_size": "lots"}},
        {"steps": [{"command": "quantize"}], "objective": "size"},
        {"steps": [{"command": "run", "steps": []}]},
    ],
)
def test_what_is_wrong_is_wrong_for_the_schema_too(wrong: dict[str, Any]) -> None:
    validator = jsonschema.Draft202012Validator(json_schema(RecipeConfig, "run"))
    assert not validator.is_valid(wrong)
    assert validator.is_valid({"steps": [{"command": "quantize", "bits": 4}], "budget": {"max_size": "10kB"}})
    with pytest.raises(ConfigError):
        read_recipe(wrong)


def test_options_can_be_sent_to_workers(recipe: Resolved[RecipeConfig]) -> None:
    assert pickle.loads(pickle.dumps(recipe)) == recipe


def test_the_artifacts_name_has_a_word_for_each_step() -> None:
    steps = [{"command": "prune"}, {"command": "quantize", "bits": 4}]
    assert recipe_artifact(Path("a/m.onnx"), read_recipe({"steps": steps})) == "m.pruned.int4.onnx"
    assert recipe_artifact(Path("m.pt2"), read_recipe({"steps": [*steps, steps[0]]})) == "m.pruned.int4.onnx"
