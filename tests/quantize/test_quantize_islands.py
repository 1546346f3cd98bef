"""Islands of integer layers: which layers hang together, and which of them are left in float by measurement."""

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from quantize_nets import Net

from modelkit.algorithm.candidate import Trial
from modelkit.config.options import Measure
from modelkit.data.arrays import from_arrays
from modelkit.quantize import islands
from modelkit.quantize.calibrated import StaticMode
from modelkit.quantize.config import QuantizeConfig
from modelkit.quantize.islands import find_islands, slow_islands
from modelkit.quantize.plan import make_plan
from modelkit.quantize.static import ActivationType
from modelkit.runtime import TensorSpec


def chain(*between, channels=8):
    """Convolutions with an operator between each two."""
    net = Net(17)
    net.input("x", ["n", channels, 8, 8])
    value = net.conv("x", channels, channels)
    for op in between:
        value = net.conv(net.add(op, value) if op else value, channels, channels)
    net.add("Relu", value, out="y")
    net.output("y", ["n", channels, 8, 8])
    return net.build()


def plan(model, **more):
    return make_plan(model, include=[], exclude=[], **more)


@pytest.mark.parametrize(
    ("between", "sizes"),
    [
        ((), [1]),
        ((None, "Relu"), [3]),  # integers are handed on
        (("Tanh",), [1, 1]),  # float between them
        (("Relu", "Softsign", "Sigmoid"), [2, 2]),
    ],
)
def test_layers_that_hand_integers_to_each_other_are_one_island(between, sizes):
    found = find_islands(plan(chain(*between)))
    assert [len(island) for island in found] == sizes
    assert all(not (one & other) for one, other in pairwise(found))


def test_what_is_slow_is_left_in_float_with_the_reason():
    model = chain("Tanh", "Relu")
    slow = find_islands(plan(model))[0]
    decided = plan(model, slow=slow)
    assert not slow & {node.name for node in decided.nodes}
    (reason,) = [d.reason for d in decided.decisions if d.action == "kept float"]
    assert reason.startswith("measured: the conversions around it cost more")


@pytest.fixture
def mode():
    model = chain("Tanh", "Tanh")
    data = np.random.default_rng(0).standard_normal((4, 8, 8, 8)).astype(np.float32)
    dataset = from_arrays({"x": data}, [TensorSpec("x", np.dtype(np.float32), ("n", 8, 8, 8))])
    config = QuantizeConfig(measure=Measure(seconds=0.01))
    return StaticMode(model, config, dataset, ActivationType(False, 8), lambda *_: [])


def timed(name):
    return Trial(name, latency={"median_ms": 1.0, "speedup": {"value": 0.8, "low": 0.7, "high": 0.9}})


@pytest.mark.parametrize(
    ("ratios", "left"),
    [((1.2, 1.005, 0.9), 1), ((0.9, 1.1, 1.1), 2), ((1.2, 1.2, 1.2), None), ((1.0, 1.0, 1.0), None)],
)
def test_the_fastest_variant_is_tried_without_what_costs(monkeypatch, mode, ratios, left):
    """The timings are given, so that the test does not hang on them; the models are made and loaded."""

    def given(factories, **_):
        for factory in factories.values():
            factory()()
        names = [name for name in factories if name != "all"]
        return SimpleNamespace(
            ratios={name: SimpleNamespace(value=value) for name, value in zip(names, ratios, strict=True)}
        )

    monkeypatch.setattr(islands, "compare_fresh", given)
    names = [candidate.name for candidate in mode.candidates()]
    more = mode.refine([timed(name) for name in names])
    assert [candidate.name for candidate in more] == (
        [] if left is None else [f"{names[0]}, without {left} that cost"]
    )
    assert mode.refine([timed(name) for name in names]) == []
    for candidate in more:
        decisions = candidate.apply(mode.model.clone(), lambda *_: None)
        assert sum(decision.action == "kept float" for decision in decisions) == left


def test_nothing_is_timed_for_one_island_or_too_many():
    def never(_):
        raise AssertionError

    many = [frozenset({str(index)}) for index in range(islands.MOST_ISLANDS + 1)]
    assert (
        slow_islands([frozenset({"a"})], never, {}, Measure())
        == slow_islands(many, never, {}, Measure())
        == frozenset()
    )
