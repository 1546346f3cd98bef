"""Choosing channels: importance, second-order elimination, widths, costs and the search over them."""

import itertools

import numpy as np
import onnx_ir as ir
import pytest
from channel_nets import Net, copies, images, residual
from hypothesis import given, settings
from hypothesis import strategies as st
from sparse_nets import dataset_of, read

from modelkit.channels.costs import Costs
from modelkit.channels.elimination import consumer_of, greedy_order
from modelkit.channels.search import Widths, choose, equal, ranked, searched, widths_of
from modelkit.channels.survey import Survey
from modelkit.errors import ModelError, UsageError
from modelkit.graph.channels import Group, cut, find_groups
from modelkit.graph.facts import describe
from modelkit.linear.grams import LayerGram
from modelkit.prune.config import PruneConfig

SAMPLES = ["digits_mlp", "fashion_cnn", "language_gru", "language_transformer"]


def config(**structure) -> PruneConfig:
    return PruneConfig.model_validate({"channels": 0.5, "structure": structure})


def gram_of(x: np.ndarray) -> LayerGram:
    gram = LayerGram()
    gram.add(x[:, None, :])
    return gram


def least_error(x: np.ndarray, weight: np.ndarray, kept: list[int]) -> float:
    """Squared error of the best weights on some columns, as a share of the output's energy."""
    y = x @ weight.T
    best = np.linalg.lstsq(x[:, kept], y, rcond=None)[0]
    return float(np.square(x[:, kept] @ best - y).sum() / np.square(y).sum())


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.integers(4, 7), st.integers(1, 2))
def test_elimination_finds_the_cheapest_channel_and_the_best_weights_without_it(seed, atoms, k) -> None:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((200, atoms * k)) @ rng.standard_normal((atoms * k, atoms * k))
    weight = rng.standard_normal((3, atoms * k))
    columns = list(np.arange(atoms * k).reshape(atoms, k))
    consumer = consumer_of("w", weight[None], gram_of(x), columns, centred=False, ridge=1e-12)
    brute = [least_error(x, weight, np.delete(np.arange(atoms * k), columns[a]).tolist()) for a in range(atoms)]
    assert np.allclose(consumer.losses(np.arange(atoms)), brute, rtol=1e-4, atol=1e-8)
    order, added = greedy_order([consumer], atoms, 2)
    assert sorted(order) == list(range(atoms))
    assert order[0] == int(np.argmin(brute))
    kept = np.setdiff1d(np.arange(atoms * k), np.concatenate([columns[a] for a in order[:2]]))
    assert added[:2].sum() == pytest.approx(least_error(x, weight, kept.tolist()), rel=1e-3, abs=1e-8)
    best = np.linalg.lstsq(x[:, kept], x @ weight.T, rcond=None)[0].T
    assert np.allclose(consumer.matrices[0][:, kept], best, atol=1e-3 * np.abs(best).max())
    assert not np.delete(consumer.matrices[0], kept, axis=1).any()


@pytest.mark.parametrize("method", ["reconstruction", "activation", "l1", "l2", "geometric_median"])
def test_a_channel_that_says_nothing_goes_first(method: str) -> None:
    model = residual().build()
    for name, axis in (("first.w", 0), ("first.b", 0), ("second.w", 1)):
        value = model.graph.initializers[name]
        array = value.const_value.numpy().copy()
        np.moveaxis(array, axis, 0)[5] *= 1e-3
        value.const_value = ir.tensor(array, name=name)
    survey = Survey(model, config(), dataset_of(images()))
    found = survey.rankings(method)["n_first"]
    assert found.method == method
    # In the geometric median all near zero are close to the middle: first or among the first.
    assert 5 in found.order[: 3 if method == "geometric_median" else 1]


def test_reconstruction_sees_that_copies_can_go_and_magnitude_does_not() -> None:
    model = copies()
    survey = Survey(model, config(), dataset_of(images()))
    pairs = survey.rankings("reconstruction")["n_first"].order[:8] // 2
    assert sorted(pairs) == list(range(8)), "one of each pair goes before any second one"
    assert sorted(survey.rankings("l2")["n_first"].order[:8] // 2) != list(range(8))


def test_random_depends_on_the_seed_and_the_group_only() -> None:
    def order(seed: int) -> list[int]:
        options = PruneConfig.model_validate({"channels": 0.5, "seed": seed})
        return Survey(residual().build(), options, None).rankings("random")["n_first"].order.tolist()

    assert order(1) == order(1) != order(2)


def test_gamma_reads_batchnorm_that_is_left_and_says_where_there_is_none() -> None:
    net = Net({"x": ["n", 3, 6, 6]}, {"y": ["n", 4, 6, 6]})
    hidden = net.node("Relu", [net.conv("x", "first", net.normal(8, 3, 3, 3))], "relu")
    gamma = np.array([3, 1, 2, 0.5, 4, 5, 6, 7], np.float32)
    norm = [net.weight(n, a) for n, a in (("g", gamma), ("b", gamma), ("m", gamma * 0), ("v", gamma * 0 + 1))]
    hidden = net.node("Sigmoid", [net.node("BatchNormalization", [hidden, *norm], "bn")], "sigmoid")
    net.conv(hidden, "second", net.normal(4, 8, 1, 1), out="y")
    assert Survey(net.build(), config(), None).rankings("gamma")["n_first"].order[:3].tolist() == [3, 1, 2]
    with pytest.raises(UsageError, match="gamma needs BatchNormalization"):
        Survey(residual().build(), config(), None).rankings("gamma")


def test_taylor_follows_the_labels() -> None:
    from sparse_nets import SAMPLES as FOLDER

    from modelkit.data.open import open_dataset
    from modelkit.graph.run import session_of
    from modelkit.runtime import input_specs

    model = read("digits_mlp")
    data = open_dataset(FOLDER / "digits_mlp.calib.npz", input_specs(session_of(model)))
    dead = model.graph.initializers["4.weight"]
    array = dead.const_value.numpy().copy()
    array[:, 7] = 0
    dead.const_value = ir.tensor(array, name=dead.name)
    options = PruneConfig.model_validate({"channels": 0.5, "calibration": {"samples": 64}})
    ranking = Survey(model, options, data).rankings("taylor")["node_linear_1"]
    assert ranking.method == "taylor" and ranking.order[0] == 7
    assert len(np.unique(ranking.scores)) > 100
    with pytest.raises(UsageError, match="labelled data"):
        Survey(residual().build(), config(), dataset_of(images())).rankings("taylor")
    with pytest.raises(UsageError, match="no data"):
        Survey(residual().build(), config(), None).rankings("activation")


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("seed", range(3))
def test_costs_are_those_of_the_cut_model(name: str, seed: int) -> None:
    model = read(name)
    groups = [group for group in find_groups(model) if group.frozen is None]
    rng = np.random.default_rng(seed)
    keep = {}
    for group in groups:
        atoms = len(np.unique(group.atoms))
        keep[group.name] = choose(group, rng.permutation(atoms), int(rng.integers(1, group.channels + 1)))
    counts = {name: int(kept.sum()) for name, kept in keep.items()}
    predicted = {kind: Costs(model, groups, kind).of(counts) for kind in ("parameters", "macs")}
    before = describe(model)
    assert Costs(model, groups, "macs").total == pytest.approx(before.macs)
    cut(model, keep)
    after = describe(model)
    assert predicted["macs"] == pytest.approx(after.macs, rel=1e-6)
    # Constants in formulas are numbers too, but not what describe counts: the difference must not change.
    assert Costs(read(name), groups, "parameters").total - before.parameters == pytest.approx(
        predicted["parameters"] - after.parameters, abs=2
    )


class Product:
    """Costs of two groups that multiply, as the widths of neighbouring layers do."""

    total = 64.0 * 48

    def of(self, keep) -> float:
        return float(keep["a"] * keep["b"])

    def saved(self, keep, name, count) -> float:
        return self.of(keep) - self.of({**keep, name: count})


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 1000), st.floats(0.05, 0.9))
def test_search_reaches_the_limit_and_is_close_to_the_best_plan(seed, ratio) -> None:
    rng = np.random.default_rng(seed)
    widths = [Widths("a", 64, (8, 16, 24, 32, 40, 48, 56, 64)), Widths("b", 48, (8, 16, 24, 32, 40, 48))]
    errors = {}
    for each in widths:
        steps = np.cumsum(rng.exponential(size=len(each.choices) - 1) ** 2)
        errors[each.name] = dict(zip(reversed(each.choices), [0.0, *steps], strict=True))
    limit = Product.total * (1 - ratio)
    plan = searched(widths, errors, Product(), limit)
    assert Product().of(plan) <= limit
    plans = [dict(zip("ab", counts, strict=True)) for counts in itertools.product(*(w.choices for w in widths))]
    price = {tuple(p.values()): errors["a"][p["a"]] + errors["b"][p["b"]] for p in plans}
    best = min(price[tuple(p.values())] for p in plans if Product().of(p) <= limit)
    assert price[plan["a"], plan["b"]] <= best * 1.5 + 1e-9


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 1000), st.floats(0, 0.9))
def test_equal_and_global_reach_the_limit_too(seed, ratio) -> None:
    rng = np.random.default_rng(seed)
    widths = [Widths("a", 64, tuple(range(8, 65, 8))), Widths("b", 48, tuple(range(8, 49, 8)))]
    scores = {"a": rng.exponential(size=64), "b": rng.exponential(size=48)}
    limit = Product.total * (1 - ratio) + 1e-6
    plans = [equal(widths, Product(), limit), ranked(widths, scores, Product(), limit)]
    for plan in plans:
        assert Product().of(plan) <= limit
    shares = [plans[0][w.name] / w.channels for w in widths]
    assert abs(shares[0] - shares[1]) <= 0.2


def test_what_cannot_be_reached_is_an_error_that_says_how_far_one_can_go() -> None:
    widths = [Widths("a", 64, (32, 64)), Widths("b", 48, (24, 48))]
    errors = {"a": {32: 1.0, 64: 0.0}, "b": {24: 1.0, 48: 0.0}}
    for plan in (
        lambda limit: equal(widths, Product(), limit),
        lambda limit: searched(widths, errors, Product(), limit),
    ):
        with pytest.raises(ModelError, match=r"at most 75\.0%"):
            plan(Product.total * 0.1)


def group(channels: int, atom: int = 1, **options) -> Group:
    return Group("g", channels, [], np.arange(channels) // atom, **options)


def test_widths_are_multiples_and_finer_in_small_layers() -> None:
    assert widths_of(group(64), 16, 0.1).choices == (16, 32, 48, 64)
    assert widths_of(group(70), 16, 0.1).choices == (16, 32, 48, 64, 70)
    assert widths_of(group(16), 16, 0.1).choices == (4, 8, 12, 16)
    assert widths_of(group(3), 16, 0.0).choices == (1, 2, 3)
    assert widths_of(group(64), 16, 0.5).choices == (32, 48, 64)
    assert widths_of(group(128, atom=32), 16, 0.1).choices == (32, 64, 96, 128)
    sections = np.repeat(np.arange(3), 8)
    assert all(count % 3 == 0 for count in widths_of(group(24, partition=sections), 8, 0.1).choices)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.sampled_from([1, 2]), st.sampled_from([None, 2, 3]), st.integers(1, 24))
def test_what_is_chosen_can_be_cut(seed, atom, sections, count) -> None:
    rng = np.random.default_rng(seed)
    partition = None if sections is None else np.repeat(np.arange(sections), 24 // sections)
    pieces = [np.arange(24) < 6, np.arange(24) >= 20]
    each = group(24, atom, partition=partition, pieces=pieces)
    wanted = min(widths_of(each, 1, 0.0).choices, key=lambda c: abs(c - count))
    kept = choose(each, rng.permutation(24 // atom), wanted)
    assert kept.sum() >= wanted
    assert all(kept[piece].any() for piece in pieces)
    problem = each.problem(kept)
    # A piece may hold a channel back in one section only; all else must be as the group wants it.
    assert problem is None or (sections is not None and "section" in problem)


def test_costs_of_grouped_convolutions_are_those_of_the_cut_model() -> None:
    net = Net({"x": ["n", 3, 6, 6]}, {"y": ["n", 4, 6, 6]})
    hidden = net.node("Relu", [net.conv("x", "first", net.normal(16, 3, 3, 3))], "relu")
    hidden = net.node("Relu", [net.conv(hidden, "grouped", net.normal(24, 4, 3, 3), group=4)], "relu2")
    net.conv(hidden, "last", net.normal(4, 24, 1, 1), out="y")
    model = net.build()
    groups = [each for each in find_groups(model) if each.frozen is None]
    keep = {}
    for each in groups:
        wanted = widths_of(each, 1, 0.0).choices
        keep[each.name] = choose(each, np.arange(len(np.unique(each.atoms))), wanted[len(wanted) // 2])
        assert each.problem(keep[each.name]) is None and not keep[each.name].all()
    counts = {name: int(kept.sum()) for name, kept in keep.items()}
    predicted = {kind: Costs(model, groups, kind).of(counts) for kind in ("parameters", "macs")}
    cut(model, keep)
    found = describe(model)
    assert predicted == {"parameters": pytest.approx(found.parameters), "macs": pytest.approx(found.macs)}
