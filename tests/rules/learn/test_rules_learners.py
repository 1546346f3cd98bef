"""Each learner does what it says: the optimum, the precision, the exact list of a tree."""

import itertools

import numpy as np
import pytest
from learn_data import mixed

from modelkit.rules.evaluate import evaluate, holds
from modelkit.rules.learn.additive import AdditiveFit, AdditiveSettings, additive_path, softmax
from modelkit.rules.learn.atoms import between, cuts, make_atoms, snapped
from modelkit.rules.learn.beam import Beam, best_boxes
from modelkit.rules.learn.choose import pareto, pick, quality
from modelkit.rules.learn.compose import size
from modelkit.rules.learn.config import LearnConfig
from modelkit.rules.learn.cover import CoverSettings, cover_path
from modelkit.rules.learn.learn import learn_rules
from modelkit.rules.learn.lists import ListSearch, ListSettings, list_path
from modelkit.rules.learn.methods import methods
from modelkit.rules.learn.optimal import candidates, optimal_path
from modelkit.rules.learn.problem import folds, regression
from modelkit.rules.learn.prune import pruned
from modelkit.rules.learn.tree import as_list, grow, listed, tree_path

PROBLEM = mixed()
ATOMS = make_atoms(PROBLEM, 8)


def test_atoms_hold_where_their_bits_say():
    for i in range(0, len(ATOMS.literals), 5):
        assert (holds(ATOMS.literals[i], PROBLEM.table) == ATOMS.bits[:, i]).all()
    assert len({ATOMS.bits[:, i].tobytes() for i in range(ATOMS.bits.shape[1])}) == ATOMS.bits.shape[1]


@pytest.mark.parametrize(
    ("low", "high"), [(1.0, 2.0), (1.49999, 1.5), (-3.0, 7.0), (0.1, 0.1 + 1e-15), (1e9, 1e9 + 1)]
)
def test_between_is_short_and_parts_the_two(low, high):
    found = between(low, high)
    assert low <= found < high
    assert len(repr(found)) <= max(len(repr(low)), len(repr(high))) + 1


def test_whole_columns_get_whole_thresholds():
    assert all(value.is_integer() for value in cuts(PROBLEM.table["age"], 20, whole=True))


def test_thresholds_of_a_teacher_part_the_rows_as_they_are():
    values = np.array([0.0, 1.0, 2.0, 5.0])
    splits = np.array([0.4997, 0.4997, 3.30001])
    found = snapped(splits, values, 10)
    assert [(values <= a).sum() for a in found] == [(values <= b).sum() for b in np.unique(splits)]
    assert found == [0.5, 3.0]


def test_beam_finds_the_best_pair():
    gain = (PROBLEM.target[:, 0] - 0.5)[:, None]
    found = best_boxes(ATOMS, gain, lambda sums, rows: sums[:, 0], Beam(width=50, depth=2))[0]
    pairs = itertools.combinations(range(len(ATOMS.literals)), 2)
    best = max(gain[ATOMS.box(pair)].sum() for pair in pairs if ATOMS.box(pair).sum() >= 2)
    assert found.score == pytest.approx(best, abs=1e-3)


def test_weights_are_at_the_optimum():
    fit = AdditiveFit(PROBLEM, ATOMS, AdditiveSettings())
    ensemble = fit.grow(fit.grow(fit.start()))
    columns, classes = fit._design(ensemble)
    values = np.concatenate([ensemble.weights, ensemble.base])
    spread = np.zeros((len(values), 3))
    spread[np.arange(len(values)), classes] = values
    slope = (columns * (PROBLEM.target - softmax(columns @ spread))[:, classes]).sum(axis=0)
    ridge = np.array([1.0] * len(ensemble.boxes) + [1e-3] * 3)
    assert np.abs(slope - ridge * values).max() < 1e-3


def test_exchange_only_lowers_the_loss():
    fit = AdditiveFit(PROBLEM, ATOMS, AdditiveSettings())
    ensemble = fit.start()
    for _ in range(4):
        ensemble = fit.grow(ensemble)
    assert fit.improve(ensemble).loss <= ensemble.loss + 1e-6


def test_a_tree_and_its_list_agree_on_rows_with_missing_values():
    root = grow(PROBLEM, ATOMS, 8)
    entries, default = as_list(root, ATOMS)
    rules = listed(PROBLEM, ATOMS, entries, default)
    fresh = mixed(seed=9)
    bits = {i: holds(ATOMS.literals[i], fresh.table) for i in range(len(ATOMS.literals))}

    def walk(node, row):
        while node.atom is not None:
            node = node.yes if bits[node.atom][row] else node.no
        return PROBLEM.classes[int(node.value)]

    result = evaluate(rules, fresh.table).result
    assert [walk(root, row) for row in range(len(fresh))] == result.tolist()
    assert size(rules)[0] <= root.leaves()


def test_optimal_trees_are_optimal_among_their_comparisons():
    rules = optimal_path(PROBLEM, ATOMS, [4], most=12)[4]
    tried = candidates(PROBLEM, ATOMS, 12)
    bits, target = ATOMS.bits[:, tried], PROBLEM.target

    def best_split(rows):
        return max([_best(target, rows), *(_best(target, rows & b) + _best(target, rows & ~b) for b in bits.T)])

    everything = np.ones(len(target), bool)
    brute = max(best_split(b) + best_split(~b) for b in bits.T)
    # A tree of four leaves may also split one side twice.
    for a, b, c in itertools.product(range(12), repeat=3):
        for side, rest in ((bits[:, a], ~bits[:, a]), (~bits[:, a], bits[:, a])):
            for inner, outer in ((bits[:, b], ~bits[:, b]), (~bits[:, b], bits[:, b])):
                parts = (rest, side & outer, side & inner & bits[:, c], side & inner & ~bits[:, c])
                brute = max(brute, sum(_best(target, part) for part in parts))
    assert everything.all()
    assert quality(rules, PROBLEM) * len(PROBLEM) == pytest.approx(brute)


def _best(target, rows):
    return target[rows].sum(axis=0).max() if rows.any() else 0.0


def test_list_search_never_loses():
    search = ListSearch(PROBLEM, ATOMS, ListSettings())
    entries, default = [], search.best_default([])
    for _ in range(3):
        entries, _ = search.insert(entries, default, [len(entries)])
    better, other = search.improve(entries, default)
    assert search.value(better, other) >= search.value(entries, default)


def test_rules_of_a_cover_are_as_precise_as_asked():
    rules = cover_path(PROBLEM, ATOMS, [6], CoverSettings(Beam(), 0.9))[6]
    found = evaluate(rules, PROBLEM.table)
    truth = np.array(PROBLEM.classes, object)[PROBLEM.truth]
    for i in range(len(rules.rules)):
        rows = found.rule_id == i
        assert rows.any()
        assert (found.label[rows] == truth[rows]).mean() >= 0.9


@pytest.mark.parametrize("name", sorted(methods(PROBLEM, LearnConfig())))
def test_every_learner_finds_the_two_rules(name):
    clean = mixed(noise=0.0)
    path = methods(clean, LearnConfig())[name]
    found = path(clean, make_atoms(clean, 16), [2, 4, 8])
    assert found
    assert all(size(rules)[0] <= most for most, rules in found.items())
    best = max(quality(rules, mixed(seed=5, noise=0.0)) for rules in found.values())
    assert best >= (0.85 if name == "scorecard" else 0.93), best


def test_numbers_are_learned_too():
    base = mixed(noise=0.0)
    values = np.where(base.truth == 0, 1000.0, np.where(base.truth == 1, 2000.0, 4000.0))
    problem = regression(base.columns, base.table, values)
    learned = learn_rules(problem, LearnConfig(max_rules=5))
    assert quality(learned.rules, problem) > 0.95
    assert learned.rules.is_numeric


def test_folds_keep_the_mix():
    for held in folds(PROBLEM, 5, 0):
        share = np.bincount(PROBLEM.truth[held], minlength=3) / held.sum()
        assert np.abs(share - np.bincount(PROBLEM.truth) / len(PROBLEM)).max() < 0.03
    assert sum(folds(PROBLEM, 5, 0)).tolist() == [1] * len(PROBLEM)


def test_the_choice_is_on_the_front_and_the_same_every_time():
    config = LearnConfig(max_rules=4, methods=["tree", "list"])
    learned = learn_rules(PROBLEM, config)
    assert np.mean(pick(list(learned.pareto), 0.0).per_fold) == max(np.mean(c.per_fold) for c in learned.pareto)
    assert pick(list(learned.pareto), 100.0) == learned.pareto[0]
    assert pareto(list(learned.pareto)) == list(learned.pareto)
    assert learn_rules(PROBLEM, config).rules == learned.rules


def test_a_limit_of_comparisons_is_kept_and_its_price_told():
    rules = list_path(PROBLEM, ATOMS, [8], ListSettings())[8]
    shorter, cuts_ = pruned(rules, PROBLEM, 3)
    assert size(shorter)[1] <= 3 < size(rules)[1]
    assert sum(cut.cost for cut in cuts_) == pytest.approx(quality(rules, PROBLEM) - quality(shorter, PROBLEM))


def test_additive_sizes_are_what_was_asked():
    found = additive_path(PROBLEM, ATOMS, [2, 5], AdditiveSettings())
    assert [len(rules.rules) for rules in found.values()] == [2, 5]
    assert len(tree_path(PROBLEM, ATOMS, [3])[3].rules) <= 2
