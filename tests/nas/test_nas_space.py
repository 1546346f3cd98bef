"""Spaces: what YAML becomes, what is refused and in which words, samples, neighbours, hashes."""

from __future__ import annotations

from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelkit.architectures.build import parse
from modelkit.architectures.signature import Signature
from modelkit.config.resolve import json_schema, resolve
from modelkit.errors import ConfigError
from modelkit.nas.config import Constraints, NasConfig
from modelkit.nas.feasible import Architectures, require_some
from modelkit.nas.parse import parse_space
from modelkit.nas.space import key_of

CNN: dict[str, Any] = {
    "family": "cnn",
    "activation": ["relu", "silu"],
    "stem": {"width": {"from": 4, "to": 16, "log": True, "values": 3}},
    "stages": [
        {
            "op": ["conv", "inverted"],
            "depth": {"from": 0, "to": 2},
            "expand": {"choices": [2, 3], "when": {"stages.0.op": "inverted"}},
        },
        {"width": [8, 16], "stride": 2},
    ],
}
SIGNATURE = Signature((1, 8, 8), 10)


def test_choices_ranges_and_conditions() -> None:
    space = parse_space(CNN)
    values = {v.name: v.values for v in space.variables}
    assert values == {
        "activation": ("relu", "silu"),
        "stem.width": (4, 8, 16),
        "stages.0.op": ("conv", "inverted"),
        "stages.0.depth": (0, 1, 2),
        "stages.0.expand": (2, 3),
        "stages.1.width": (8, 16),
    }
    assert space.size == 2 * 3 * 2 * 3 * 2 * 2
    # The condition halves what half of the operations had.
    assert len(list(space.all())) == 2 * 3 * 3 * 2 * (1 + 2)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_every_candidate_is_an_architecture_and_its_neighbours_differ_once(seed: int) -> None:
    space, rng = parse_space(CNN), np.random.default_rng(seed)
    genome = space.sample(rng)
    assert space.settled(genome) == genome
    document = space.decode(genome)
    parse(document, "x")
    assert ("expand" in document["stages"][0]) == (document["stages"][0]["op"] == "inverted")
    for near in space.neighbours(genome):
        assert near != genome and space.settled(near) == near
    assert space.mutate(genome, rng) != genome
    assert space.encode(genome).shape == space.encode(space.sample(rng)).shape
    child = space.cross(genome, space.sample(rng), rng)
    assert space.settled(child) == child


def test_the_same_network_has_one_key() -> None:
    problem = Architectures(parse_space(CNN), SIGNATURE, Constraints())
    space = problem.space
    none = [g for g in space.all() if space.decode(g)["stages"][0]["depth"] == 0]
    assert len({key_of(problem.look(g).document) for g in none}) == 2 * 3 * 2 < len(none)


@pytest.mark.parametrize(
    ("space", "problem"),
    [
        (
            {"family": "cnn", "stages": [{"op": ["conv", "convv"]}]},
            "space.stages.0.op: 'convv' is unknown; did you mean 'conv'? there are conv, separable, inverted, "
            "max_pool, avg_pool, skip",
        ),
        (
            {"family": "cel"},
            "space.family: 'cel' is unknown; did you mean 'cell'? there are mlp, cnn, transformer, cell",
        ),
        (
            {"family": "cell", "ops": ["skip", "conv7x7"]},
            "space.edges.0-1: 'conv7x7' is unknown; did you mean 'conv5x5'? there are none, skip, conv1x1, conv3x3, "
            "conv5x5, separable3x3, separable5x5, inverted3x3, max_pool, avg_pool",
        ),
        (
            {"family": "mlp", "activation": []},
            "space.activation: an empty list of choices leaves nothing to choose: name one value or more",
        ),
        (
            {"family": "mlp", "layers": [{"width": {"from": 9, "to": 4}}]},
            "space.layers.0.width: from 9 is above to 4, which leaves nothing to choose",
        ),
        (
            {"family": "mlp", "dropout": {"from": 0, "to": 0.5, "log": True}},
            "space.dropout: a log range must begin above 0",
        ),
        (
            {"family": "mlp", "dropout": {"from": 0, "too": 0.5}},
            "space.dropout: 'too' is unknown; did you mean 'to'? there are from, log, step, to, values, when",
        ),
        ({"family": "mlp", "wdth": 3}, "space.wdth: there is no such key in this family"),
        (
            {
                "family": "mlp",
                "activation": ["relu", "elu"],
                "dropout": {"choices": [0, 0.1], "when": {"activation": "gelu"}},
            },
            "space.dropout.when: activation is never gelu; it may be relu, elu",
        ),
        (
            {"family": "mlp", "dropout": {"choices": [0, 0.1], "when": {"activaton": "gelu"}}},
            "space.dropout.when: 'activaton' is unknown; there are dropout",
        ),
    ],
)
def test_what_is_refused(space: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_space(space)
    assert problem in caught.value.problems


def test_an_empty_space_names_the_constraint_and_the_nearest_figure() -> None:
    space = parse_space({"family": "mlp", "layers": [{"width": [8, 16]}]})
    smallest = Architectures(space, SIGNATURE, Constraints()).look((0,)).parameters
    with pytest.raises(ConfigError) as caught:
        require_some(Architectures(space, SIGNATURE, Constraints(max_parameters=100)), 0)
    assert caught.value.message == "the space is empty: no architecture keeps the constraints"
    assert caught.value.problems == [
        "constraints.max_parameters rules out 2 of all 2 architectures; the nearest one: "
        f"{smallest} are more than 100"
    ]
    require_some(Architectures(space, SIGNATURE, Constraints(max_parameters=smallest)), 0)
    with pytest.raises(ConfigError) as caught:
        require_some(Architectures(space, SIGNATURE, Constraints(max_bytes=200)), 0)
    assert caught.value.problems[0].startswith(
        "constraints.max_bytes rules out 2 of all 2 architectures; the nearest"
    )
    odd = parse_space({"family": "transformer", "width": [6, 10], "heads": [4, 8]})
    with pytest.raises(ConfigError) as caught:
        require_some(Architectures(odd, SIGNATURE, Constraints()), 0)
    assert "cannot be divided among" in caught.value.problems[0]


def test_constraints_that_contradict_each_other() -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(NasConfig, sets=["constraints.min_macs=10", "constraints.max_macs=5"])
    assert any("min_macs 10 is above max_macs 5: nothing can keep both" in line for line in caught.value.problems)


def test_the_schema_knows_spaces() -> None:
    validator = jsonschema.Draft202012Validator(json_schema(NasConfig, "nas"))
    assert validator.is_valid({"space": CNN})
    assert not validator.is_valid({"space": {"family": "cnn", "stages": [{"op": ["convv"]}]}})
    assert not validator.is_valid({"space": {"family": "rnn"}})
    assert not validator.is_valid({"space": {"family": "mlp", "layers": [{"width": {"from": 3}}]}})


def test_the_hash_tells_spaces_apart() -> None:
    assert parse_space(CNN).hash == parse_space(dict(CNN)).hash
    assert parse_space(CNN).hash != parse_space({**CNN, "activation": ["relu", "gelu"]}).hash
