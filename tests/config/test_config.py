"""Layers, origins, messages and round trips of configuration."""

# ruff: noqa: E501 - messages are asserted whole

import json
import math
from enum import Enum
from pathlib import Path
from typing import Annotated, Literal

import jsonschema
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, field_validator

from modelkit.config.nodes import printable
from modelkit.config.resolve import Milliseconds, Percent, Resolved, Seconds, as_yaml, json_schema, resolve
from modelkit.config.yaml_strict import core_scalar, dump
from modelkit.errors import ConfigError, ResourceError, UsageError


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Rounding(Enum):
    NEAREST = "nearest"
    FLOOR = "floor"


class Weights(Strict):
    bits: int = Field(8, ge=2, le=16)
    scale: Literal["minmax", "mse"] = "minmax"


class Percentile(Strict):
    kind: Literal["percentile"] = "percentile"
    q: float = Field(99.9, gt=0, lt=100)


class Entropy(Strict):
    kind: Literal["entropy"] = "entropy"
    bins: int = 128


class Config(Strict):
    weights: Weights = Field(default_factory=Weights)
    ranges: Annotated[Percentile | Entropy, Field(discriminator="kind")] = Field(default_factory=Percentile)
    bits: int | None = Field(8, ge=2, le=16)
    rounding: Rounding = Rounding.NEAREST
    per_channel: bool = True
    max_drop: Annotated[Percent, Field(ge=0, le=1)] | None = None
    max_latency: Milliseconds | None = None
    max_time: Seconds = 60.0
    threshold: float | Literal["auto"] = "auto"
    out: Path = Path("x")
    shape: tuple[int, int] = (1, 2)
    exclude: list[str] = []
    layers: dict[str, Weights] = {}
    steps: list[Weights] = []
    only: list[str] | dict[str, Weights] = []
    factor: float = 1.0
    note: str = Field("", max_length=20)

    @field_validator("note")
    @classmethod
    def _no_shouting(cls, text: str) -> str:
        if text.isupper():
            raise ValueError("the note shouts")
        return text


class Required(Strict):
    name: str
    inner: Weights


@pytest.fixture
def load(tmp_path):
    def load(text=None, sets=(), flags=None, schema=Config) -> Resolved:
        path = None
        if text is not None:
            path = tmp_path / "quantize.yaml"
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return resolve(schema, yaml_path=path, sets=sets, flags=flags)

    return load


@pytest.fixture
def problems(load):
    def problems(*args, **kwargs) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            load(*args, **kwargs)
        assert "\n" not in str(caught.value) and caught.value.exit_code == 2
        return caught.value.problems

    return problems


def test_defaults_have_an_origin_for_every_leaf(load):
    resolved = load()
    assert resolved.value == Config()
    assert set(resolved.origins.values()) == {"default"}
    assert {"weights.bits", "ranges.q", "exclude", "layers", "shape", "max_drop"} <= resolved.origins.keys()
    assert "weights" not in resolved.origins


def test_layers_and_origins(load):
    text = "weights:\n  bits: 4\n  scale: mse\nexclude:\n- a\nlayers:\n  conv.w: {bits: 3}\nsteps:\n- bits: 2\n"
    resolved = load(
        text,
        sets=["weights.scale=minmax", 'layers."a.b".bits=5', "max_drop=0.5%"],
        flags={"bits": (4, "--bits"), "out": (Path("y"), "-o"), "rounding": (Rounding.FLOOR, "--rounding")},
    )
    assert resolved.value == Config(
        weights=Weights(bits=4),
        bits=4,
        exclude=["a"],
        layers={"conv.w": Weights(bits=3), "a.b": Weights(bits=5)},
        max_drop=0.005,
        out=Path("y"),
        rounding=Rounding.FLOOR,
        steps=[Weights(bits=2)],
    )
    given_ = {key: origin for key, origin in resolved.origins.items() if origin != "default"}
    assert given_ == {
        "weights.bits": "quantize.yaml:2",
        "weights.scale": "--set weights.scale=minmax",
        "exclude": "quantize.yaml:4",
        'layers."conv.w".bits': "quantize.yaml:7",
        'layers."a.b".bits': '--set layers."a.b".bits=5',
        "steps.0.bits": "quantize.yaml:9",
        "max_drop": "--set max_drop=0.5%",
        "bits": "--bits",
        "out": "-o",
        "rounding": "--rounding",
    }


def test_later_set_wins_and_list_items_can_be_set(load):
    resolved = load("steps: [{bits: 3}, {bits: 4}]", sets=["bits=3", "bits=4", "steps.1.bits=5"])
    assert resolved.value.bits == 4
    assert [step.bits for step in resolved.value.steps] == [3, 5]
    assert resolved.origins["steps.1.bits"] == "--set steps.1.bits=5"
    assert resolved.origins["steps.0.bits"] == "quantize.yaml:1"


def test_lists_are_replaced_and_null_is_a_value(load):
    resolved = load("exclude: [a, b]\nbits: 4", sets=["exclude=[c]", "bits=null"])
    assert resolved.value.exclude == ["c"]
    assert resolved.value.bits is None


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "~", "\ufeffbits: 8", "bits: 8\r\n", "{}"])
def test_documents_that_say_little(load, text):
    assert load(text).value == Config()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("False", False),
        ("on", "on"),
        ("yes", "yes"),
        ("no", "no"),
        ("1:30", "1:30"),
        ("010", 10),
        ("0o17", 15),
        ("0xff", 255),
        ("1_000", "1_000"),
        ("1e-3", 0.001),
        ("1.", 1.0),
        (".5", 0.5),
        ("-.inf", -math.inf),
        ("2024-01-02", "2024-01-02"),
        ("~", None),
        ("null", None),
        ("", None),
        ("٣", "٣"),
        ("=", "="),
    ],
)
def test_core_scalars(text, value):
    assert core_scalar(text) == value
    assert type(core_scalar(text)) is type(value)


@pytest.mark.parametrize("text", ["yes", "1:30", "010", "2024-01-02", "on"])
def test_yaml_1_1_traps_stay_what_they_look_like(load, text):
    exclude = load(f"exclude: ['{text}', a{text}]").value.exclude
    assert exclude == [text, f"a{text}"]


ALL_WRONG = """\
wieghts: {}
weights:
  bits: 3.5
  scale: mze
  scale: mse
  scal: 3
scale: mse
per_channel: yes
max_drop: 500%
max_latency: 5 parsecs
shape: [1]
factor: 'x'
threshold: z
ranges: {kind: entropie}
only: {q: {bits: e, z: 1}}
exclude: 5
out: 3
note: LOUD
bits: "8"
"""


def test_all_problems_at_once(problems):
    found = problems(ALL_WRONG, sets=["weights.bits=77", "foo", "a.b=3", "steps=[1]"], flags={"bits": (64, "--bits")})
    assert found == [
        "quantize.yaml:1: unknown key 'wieghts' (did you mean 'weights'?)",
        "quantize.yaml:4: weights.scale: 'mze' is not one of 'minmax', 'mse' (did you mean 'mse'?)",
        "quantize.yaml:5: the key 'weights.scale' is given twice, first at quantize.yaml:4",
        "quantize.yaml:6: unknown key 'weights.scal' (did you mean 'weights.scale'?)",
        "quantize.yaml:7: unknown key 'scale' (did you mean 'weights.scale'?)",
        "quantize.yaml:8: per_channel: 'yes' is not true or false (write true)",
        "quantize.yaml:9: max_drop: '500%' is not at most 1",
        "quantize.yaml:10: max_latency: '5 parsecs' is not a duration: write a number with a unit such as 5ms or "
        "0.2s, or a plain number of milliseconds",
        "quantize.yaml:11: shape: item 2 of the list is missing",
        "quantize.yaml:12: factor: 'x' is not a number",
        "quantize.yaml:13: threshold: 'z' is not a number or 'auto'",
        "quantize.yaml:14: ranges.kind: 'entropie' is not one of 'entropy', 'percentile' (did you mean 'entropy'?)",
        "quantize.yaml:15: only.q.bits: 'e' is not a whole number",
        "quantize.yaml:15: unknown key 'only.q.z' (known here: bits, scale)",
        "quantize.yaml:16: exclude: 5 is not a list",
        "quantize.yaml:17: out: 3 is not text",
        "quantize.yaml:18: note: the note shouts",
        "--set weights.bits=77: 77 is not between 2 and 16",
        "--set foo: KEY=VALUE is expected, such as weights.bits=4",
        "--set a.b=3: unknown key 'a' (known here: weights, ranges, bits, rounding, per_channel, max_drop, "
        "max_latency, max_time, threshold, out, shape, exclude, layers, steps, only, factor, note)",
        "--set steps=[1]: steps.0: 1 is not a mapping of keys to values",
        "--bits: 64 is not between 2 and 16",
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("bits: 3.5", "quantize.yaml:1: bits: 3.5 is not a whole number"),
        ("bits: 8.0", "quantize.yaml:1: bits: 8.0 is not a whole number (write 8)"),
        ("\nbits: '8'", "quantize.yaml:2: bits: '8' is not a whole number (leave the quotes out)"),
        ("bits: true", "quantize.yaml:1: bits: true is not a whole number"),
        ("bits: 1", "quantize.yaml:1: bits: 1 is not between 2 and 16"),
        ("factor: true", "quantize.yaml:1: factor: true is not a number"),
        ("factor: null", "quantize.yaml:1: factor: null is not a number"),
        ("weights: 3", "quantize.yaml:1: weights: 3 is not a mapping of keys to values"),
        ("weights:", "quantize.yaml:1: weights: null is not a mapping of keys to values"),
        ("weights: [1, 2]", "quantize.yaml:1: weights: [1, 2] is not a mapping of keys to values"),
        ("exclude: [a, 1]", "quantize.yaml:1: exclude.1: 1 is not text"),
        ("exclude:\n- a\n- 1", "quantize.yaml:3: exclude.1: 1 is not text"),
        ("shape: [1, 2, 3]", "quantize.yaml:1: shape: [1, 2, 3] is not a list of at most 2"),
        ("only: 5", "quantize.yaml:1: only: 5 is not a list or a mapping of keys to values"),
        ("only: [5]", "quantize.yaml:1: only.0: 5 is not text"),
        ("ranges: {}", "quantize.yaml:1: the key 'ranges.kind' is missing; one of 'entropy', 'percentile' is expected"),
        ("ranges: {kind: entropy, q: 3}", "quantize.yaml:1: unknown key 'ranges.q' (known here: kind, bins)"),
        ("ranges: {kind: percentile, q: 0}", "quantize.yaml:1: ranges.q: 0 is not more than 0 and less than 100"),
        ("ranges: 3", "quantize.yaml:1: ranges: 3 is not a mapping of keys to values"),
        ("rounding: flor", "quantize.yaml:1: rounding: 'flor' is not one of 'nearest', 'floor' (did you mean 'floor'?)"),
        ("layers: {'a.b': {bits: 1}}", "quantize.yaml:1: layers.\"a.b\".bits: 1 is not between 2 and 16"),
        ("max_drop: -1%", "quantize.yaml:1: max_drop: '-1%' is not at least 0"),
        (
            "max_drop: much",
            "quantize.yaml:1: max_drop: 'much' is not a share: write a percentage such as 0.5% or a fraction such as "
            "0.005",
        ),
        ("max_drop: true", "quantize.yaml:1: max_drop: true is not a number"),
        (
            "max_drop: .nan",
            "quantize.yaml:1: max_drop: .nan is not a share: write a percentage such as 0.5% or a fraction such as "
            "0.005",
        ),
        ("note: aaaaaaaaaaaaaaaaaaaaaaaaa", "quantize.yaml:1: note: 'aaaaaaaaaaaaaaaaaaaaaaaaa' is not text of at most 20 characters"),
        ("- 1\n- 2", "quantize.yaml:1: the file holds [1, 2]; a mapping of keys to values is expected"),
        ("bits", "quantize.yaml:1: the file holds 'bits'; a mapping of keys to values is expected"),
        ("zz: 1\nbits: 3", "quantize.yaml:1: unknown key 'zz' (known here: weights, ranges, bits, rounding, per_channel, "
         "max_drop, max_latency, max_time, threshold, out, shape, exclude, layers, steps, only, factor, note)"),
        ("weights: {bits: 3, bits: 4}", "quantize.yaml:1: the key 'weights.bits' is given twice, first at quantize.yaml:1"),
        ("on: 1", "quantize.yaml:1: unknown key 'on' (did you mean 'only'?)"),
        ("weights: {factor: 1}", "quantize.yaml:1: unknown key 'weights.factor' (did you mean 'factor'?)"),
        ("\tbits: 3", "quantize.yaml:1: a tab stands where YAML needs spaces"),
        ("bits: 3\n\tfactor: 3", "quantize.yaml:2: a tab stands where YAML needs spaces"),
        ("bits: 3\n---\nbits: 4", "quantize.yaml:2: a second document begins here; one is expected"),
        ("bits: 3\n factor: 3", "quantize.yaml:2: not valid YAML: a second ':' on the line, or wrong indentation "
         "(quote text that holds ': ')"),
        ("exclude: [a\n", "quantize.yaml:2: not valid YAML: expected ',' or ']', but got '<stream end>'"),
        ("a: - b", "quantize.yaml:1: not valid YAML: sequence entries are not allowed here"),
        ("? [a]\n: 1", "quantize.yaml:1: a key must be plain text"),
        ("bits: !!str 8", "quantize.yaml:1: bits: '8' is not a whole number (leave the quotes out)"),
        ("bits: !!int x", "quantize.yaml:1: 'x' does not fit its tag !!int"),
    ],
)  # fmt: skip
def test_one_problem(problems, text, line):
    assert problems(text) == [line]


def test_missing_keys(problems):
    assert problems("name: x", schema=Required) == ["quantize.yaml: the key 'inner' is missing"]
    assert problems(schema=Required) == ["the key 'name' is missing", "the key 'inner' is missing"]


def test_missing_keys_are_no_news_after_broken_yaml(problems):
    assert problems("name: [", schema=Required, flags={"inner.bits": (1, "--bits")}) == [
        "quantize.yaml:1: not valid YAML: expected the node content, but found '<stream end>'",
        "--bits: 1 is not between 2 and 16",
    ]


@pytest.mark.parametrize(("value", "line"), [
    (3.5, "--bits: 3.5 is not a whole number"),
    (64, "--bits: 64 is not between 2 and 16"),
    ("8", "--bits: '8' is not a whole number"),
    ("\udc80", "--bits: the text is not valid Unicode"),
])  # fmt: skip
def test_flags(problems, value, line):
    assert problems(flags={"bits": (value, "--bits")}) == [line]


@pytest.mark.parametrize(("text", "line"), [
    ("bits", "--set bits: KEY=VALUE is expected, such as weights.bits=4"),
    ("=3", "--set =3: KEY=VALUE is expected, such as weights.bits=4"),
    ("a..b=3", "--set a..b=3: KEY=VALUE is expected, such as weights.bits=4"),
    ("bits=[", "--set bits=[: not valid YAML: expected the node content, but found '<stream end>'"),
    ("exclude.3=a", "--set exclude.3=a: exclude: {\"3\": \"a\"} is not a list"),
    ("bits=x\ny", "--set bits=x\\ny: 'x y' is not a whole number"),
])  # fmt: skip
def test_sets(problems, text, line):
    assert problems(sets=[text]) == [line]


def test_summary_names_where_the_problems_are(load):
    with pytest.raises(ConfigError, match=r"quantize.yaml' has 2 problems"):
        load("bits: x\nfactor: x")
    with pytest.raises(ConfigError, match="what the options give has 1 problem"):
        load("bits: 4", sets=["bits=x"])
    with pytest.raises(ConfigError, match="the configuration has 2 problems") as caught:
        load("factor: x", sets=["bits=x"])
    assert caught.value.hint == "`modelkit schema COMMAND` lists every key and what it takes"


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(UsageError, match=r"configuration 'no.yaml' does not exist"):
        resolve(Config, yaml_path=tmp_path / "no.yaml")
    with pytest.raises(UsageError, match="is a folder; a YAML file is expected"):
        resolve(Config, yaml_path=tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(ResourceError, match="cannot read the configuration 'loop'"):
        resolve(Config, yaml_path=tmp_path / "loop")


@pytest.mark.parametrize(("text", "value"), [
    ("0.5%", 0.005), ("0.005", 0.005), ("50 %", 0.5), ("'0.1'", 0.1), ("1e-2", 0.01), ("1", 1.0), (".5%", 0.005),
    ("0.1%", 0.001), ("0", 0.0),
])  # fmt: skip
def test_percent(load, text, value):
    assert load(f"max_drop: {text}").value.max_drop == value
    assert load(sets=[f"max_drop={text}"]).value.max_drop == value


@pytest.mark.parametrize(("text", "value"), [("5ms", 5), ("0.2s", 200), ("5", 5), ("300us", 0.3), ("1 min", 60000)])
def test_milliseconds(load, text, value):
    assert load(f"max_latency: {text}").value.max_latency == value
    assert load(flags={"max_latency": (text, "--max-latency")}).value.max_latency == value


@pytest.mark.parametrize(("text", "value"), [("90s", 90), ("2min", 120), ("1h", 3600), ("500ms", 0.5), ("7", 7)])
def test_seconds(load, text, value):
    assert load(f"max_time: {text}").value.max_time == value


def test_json_schema_says_what_resolve_accepts():
    schema = json_schema(Config, "quantize")
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"] == "urn:modelkit:schema:quantize"
    assert schema["title"] == "modelkit quantize"
    assert schema["additionalProperties"] is False
    assert schema["$defs"]["Weights"]["additionalProperties"] is False
    good = {"max_drop": "0.5%", "bits": 4, "layers": {"a": {"bits": 3}}, "max_latency": "5ms", "max_time": 3}
    jsonschema.validate(good, schema)
    for bad in ({"max_drop": "much"}, {"bits": 64}, {"wieghts": 1}, {"max_latency": "5 parsecs"}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(bad, schema)


def test_a_lax_schema_is_refused():
    class Lax(BaseModel):
        bits: int = 8

    class Outer(Strict):
        inner: Lax = Lax()

    with pytest.raises(TypeError, match="'Lax' must be declared with extra='forbid'"):
        resolve(Outer)
    with pytest.raises(TypeError, match="'Lax'"):
        json_schema(Lax, "x")


def test_aliases_within_reason(load):
    resolved = load("layers:\n  a: &x\n    bits: 3\n  b: *x\n")
    assert resolved.value.layers == {"a": Weights(bits=3), "b": Weights(bits=3)}
    assert resolved.origins["layers.a.bits"] == "quantize.yaml:3"


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
weights = st.builds(Weights, bits=st.integers(2, 16), scale=st.sampled_from(["minmax", "mse"]))
configs = st.builds(
    Config,
    weights=weights,
    ranges=st.builds(Percentile, q=st.floats(0.1, 99.9)) | st.builds(Entropy, bins=st.integers()),
    bits=st.none() | st.integers(2, 16),
    rounding=st.sampled_from(Rounding),
    per_channel=st.booleans(),
    max_drop=st.none() | st.floats(0, 1),
    max_latency=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    threshold=st.just("auto") | st.floats(allow_nan=False),
    out=st.builds(Path, st.text("ab/. é", min_size=1)),
    shape=st.tuples(st.integers(), st.integers()),
    exclude=st.lists(text, max_size=3),
    layers=st.dictionaries(text, weights, max_size=3),
    steps=st.lists(weights, max_size=2),
    only=st.lists(text, max_size=2) | st.dictionaries(text, weights, min_size=1, max_size=2),
    factor=st.floats(allow_nan=False),
    note=text.map(str.lower),
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(configs)
def test_round_trip(tmp_path, config):
    path = tmp_path / "c.yaml"
    path.write_text(as_yaml(config), encoding="utf-8", newline="")
    resolved = resolve(Config, yaml_path=path)
    assert resolved.value == config
    assert as_yaml(resolved) == as_yaml(config)
    assert all(origin.startswith("c.yaml:") for origin in resolved.origins.values())


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.sampled_from(
    ["1e-3", "on", "0o7", "~", "1:30", "-", "null", "=", "<<", "a: b", "a #b", "\x85", "\u2028", "\ufeff", " a ", "\t"]
))  # fmt: skip
@settings(max_examples=300, deadline=None)
def test_any_text_survives_a_dump(value):
    from modelkit.config.nodes import plain
    from modelkit.config.yaml_strict import parse

    node, problems = parse(dump({"a": [value], value: 1}), str)
    expected = {"a": 1} if value == "a" else {"a": [value], value: 1}
    assert plain(node) == expected
    assert not problems


LEAVES = {"bits": (2, 16), "weights.bits": (2, 16), "layers.x.bits": (2, 16), "ranges.bins": (1, 9)}


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_precedence(tmp_path, data):
    layers = [
        {k: data.draw(st.integers(*r)) for k, r in LEAVES.items() if data.draw(st.booleans())} for _ in range(3)
    ]
    in_yaml, in_sets, in_flags = layers
    tree = {"ranges": {"kind": "entropy"}}
    for key, value in in_yaml.items():
        *parents, last = key.split(".")
        inner = tree
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[last] = value
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(tree))
    resolved = resolve(
        Config,
        yaml_path=path,
        sets=[f"{k}={v}" for k, v in in_sets.items()],
        flags={k: (v, f"--{k}") for k, v in in_flags.items()},
    )
    plain = resolved.value.model_dump(mode="json")
    for key in LEAVES:
        value = plain
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        origin = resolved.origins.get(key)
        if key in in_flags:
            assert (value, origin) == (in_flags[key], f"--{key}")
        elif key in in_sets:
            assert (value, origin) == (in_sets[key], f"--set {key}={in_sets[key]}")
        elif key in in_yaml:
            assert value == in_yaml[key] and origin.startswith("c.yaml:")
        else:
            assert origin in (None, "default")


def test_printable_is_one_line():
    assert printable("a\nb\x1b[31m\udc80") == "a\\nb\\x1b[31m\\udc80"
    assert len(printable("x" * 10_000)) < 100


def test_origins_are_plain_data(load):
    json.dumps(load("bits: 4").origins)
