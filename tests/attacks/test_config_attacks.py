"""Hostile configurations: each ends in a ConfigError, soon, and nothing runs."""

# ruff: noqa: E501 - messages are asserted whole

import time
from typing import Annotated, Literal

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from modelkit.config.resolve import Percent, resolve
from modelkit.errors import ConfigError


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Inner(Strict):
    bits: int = Field(8, ge=2, le=16)


class Other(Strict):
    kind: Literal["other"] = "other"
    x: int = 1


class Another(Strict):
    kind: Literal["another"] = "another"
    y: str = ""


class Config(Strict):
    inner: Inner = Inner()
    drop: Percent = 0.0
    names: list[str] = []
    layers: dict[str, Inner] = {}
    tagged: Annotated[Other | Another, Field(discriminator="kind")] = Other()
    either: int | list[Inner] | dict[str, Other] | None = None
    counts: dict[int, int] = {}


def problems(tmp_path, content, sets=()):
    path = tmp_path / "c.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    started = time.monotonic()
    with pytest.raises(ConfigError) as caught:
        resolve(Config, yaml_path=path, sets=sets)
    assert time.monotonic() - started < 15
    assert all("\n" not in line and len(line) < 1000 for line in caught.value.problems)
    return caught.value.problems


def test_alias_bomb(tmp_path):
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    bomb += "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10))
    assert problems(tmp_path, bomb) == ["c.yaml:5: more than 20000 values, aliases expanded"]


def test_alias_to_itself_or_nothing(tmp_path):
    assert problems(tmp_path, "names: &x [*x]") == ["c.yaml:1: the alias '*x' refers to itself"]
    assert problems(tmp_path, "a: &x\n  b: *x") == ["c.yaml:2: the alias '*x' refers to itself"]
    assert problems(tmp_path, "names: *x") == ["c.yaml:1: the alias '*x' has no anchor before it"]


@pytest.mark.parametrize("content", ["[" * 100_000, "{a: " * 50_000, "- " * 50_000, "? " * 50_000])
def test_deep_nesting(tmp_path, content):
    assert problems(tmp_path, content) == ["c.yaml:1: values are nested more than 50 deep"]


def test_deep_set_key(tmp_path):
    assert "KEY=VALUE is expected" in problems(tmp_path, "", [".".join("a" * 100) + "=1"])[0]
    assert "nested more than 50 deep" in problems(tmp_path, "", ["names=" + "[" * 100_000])[0]


def test_merge_key(tmp_path):
    assert problems(tmp_path, "inner: {<<: {bits: 3}}") == [
        "c.yaml:1: merge keys ('<<') are not supported; write the values out"
    ]


@pytest.mark.parametrize(
    "tag",
    [
        "!!python/object/apply:os.system",
        "!!python/name:os.system",
        "!!python/module:os",
        "!<tag:yaml.org,2002:python/object/new:os.system>",
        "!env",
        "!!binary",
        "!!set",
        "!!timestamp",
    ],
)
def test_tags_construct_nothing(tmp_path, tag):
    marker = tmp_path / "ran"
    found = problems(tmp_path, f"names: {tag} ['touch {marker}']\n")
    assert any("is not allowed; values are plain" in line for line in found)
    assert not marker.exists()
    assert any("is not allowed" in line for line in problems(tmp_path, "", [f"names={tag} [touch]"]))


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"inner: {}\nnames: [\xff\xfe]", "c.yaml:2: not UTF-8 text"),
        ("names: [é]".encode("utf-16"), "c.yaml:1: not UTF-8 text"),
        (b"names: [\x00]", "c.yaml:1: the character U+0000 is not allowed in YAML"),
        (b"\n\nnames: [\x1b[31m]", "c.yaml:3: the character U+001B is not allowed in YAML"),
        (b"#" * (256 * 1024 + 1), "c.yaml: larger than 256 KiB"),
        (rb'names: ["\ud800"]', "c.yaml:1: a text holds half a character (a lone surrogate)"),
        (rb'"\ud800": 1', "c.yaml:1: a key holds half a character (a lone surrogate)"),
        (rb'names: ["\UFFFFFFFF"]', "c.yaml:1: not valid YAML"),
        (b"inner: {bits: " + b"9" * 10_000 + b"}", "c.yaml:1: a number with 10000 digits is too long"),
        (b"drop: 1e999999999%", "c.yaml:1: drop: '1e999999999%' is not a share: write a percentage such as 0.5% or "
         "a fraction such as 0.005"),
        (b"%YAML 99.1\n---\n", "c.yaml:1: not valid YAML: found incompatible YAML document (version 1.* is required)"),
        (b"counts: {a: 1}", "c.yaml:1: counts.a: the key is not a whole number"),
        (b"inner: {bits: 1e400}", "c.yaml:1: inner.bits: .inf is not a whole number"),
    ],
)  # fmt: skip
def test_broken_bytes_and_numbers(tmp_path, content, line):
    assert problems(tmp_path, content) == [line]


def test_escape_codes_do_not_reach_the_terminal(tmp_path):
    found = problems(tmp_path, r'"\e[31m": 1' + "\n" + r'names: "\e[2J\n"')
    assert all(line.isprintable() for line in found)
    path = tmp_path / "a\nb.yaml"
    path.write_text("x: 1")
    with pytest.raises(ConfigError) as caught:
        resolve(Config, yaml_path=path)
    assert caught.value.problems[0].startswith("a\\nb.yaml:1:")
    assert str(caught.value).isprintable()


def test_thousands_of_problems_are_cut_short(tmp_path):
    found = problems(tmp_path, "\n".join(f"k{i}: {i}" for i in range(5000)))
    assert len(found) == 101
    assert found[-1] == "and 4900 more"
    found = problems(tmp_path, "inner: {}\n" * 5000)
    assert len(found) == 101


def test_slow_patterns(tmp_path):
    problems(tmp_path, "drop: '" + "1" * 100_000 + "x'")
    problems(tmp_path, "drop: '" + " " * 100_000 + "x'")
    problems(tmp_path, "", ["a" * 50_000 + "." * 50_000 + "=1"])
    problems(tmp_path, "", ['"' * 100_001 + "=1"])
    problems(tmp_path, "k" * 200_000 + ": 1")


keys = st.sampled_from(
    [
        "inner",
        "drop",
        "names",
        "layers",
        "tagged",
        "either",
        "kind",
        "bits",
        "x",
        "y",
        "other",
        "counts",
        "0",
        "a.b",
    ]
)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["other", "another", "0.5%", "list[Inner]", "dict[str,Other]", "int"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys | st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)


def survives(path, content: bytes, sets=()):
    path.write_bytes(content)
    try:
        resolve(Config, yaml_path=path, sets=sets)
    except ConfigError as error:
        assert error.problems
        assert all(line and line.isprintable() for line in error.problems)


loose = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@loose
@given(st.dictionaries(keys, values, max_size=6))
def test_random_trees(tmp_path, tree):
    survives(tmp_path / "c.yaml", yaml.safe_dump(tree, allow_unicode=True).encode("utf-8", "surrogatepass"))


@loose
@given(st.lists(st.sampled_from(
    ["inner", "names", "bits", "tagged", "either", ": ", "\n", "- ", "  ", "{", "}", "[", "]", ", ", "&a ", "*a", "!!str ",
     "!x ", "'", '"', "|\n", ">-\n", "? ", "#", "%", "---\n", "...\n", "<<", "1", "1e3", "~", "\t", "é", "\ufeff", "@", "`"]
), max_size=25).map("".join))  # fmt: skip
def test_random_yaml_text(tmp_path, content):
    survives(tmp_path / "c.yaml", content.encode())


@loose
@given(st.binary(max_size=60))
def test_random_bytes(tmp_path, content):
    survives(tmp_path / "c.yaml", content)


@loose
@given(st.lists(st.text(max_size=10) | st.builds("{}={}".format, keys, st.text(max_size=10)), max_size=3))
def test_random_sets(tmp_path, sets):
    survives(tmp_path / "c.yaml", b"names: [a, b]", sets)
