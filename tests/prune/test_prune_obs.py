"""Optimal brain surgeon against exact solutions of small problems."""

from itertools import combinations

import numpy as np
import pytest

from modelkit.linear import factor
from modelkit.prune.weights import masks, obs, wanda

rng = np.random.default_rng(0)


def problem(outputs, inputs, rows=60, damping=0.01):
    """Correlated inputs, weights, and what obs makes of them."""
    x = rng.standard_normal((rows, inputs)) @ rng.standard_normal((inputs, inputs))
    weights = rng.standard_normal((outputs, inputs))
    hessian = obs.Hessian.of(x.T @ x, damping)
    right = hessian.right(x.T @ x @ weights.T, weights)
    return x, weights, hessian, right


def loss(x, weights, start, ridge):
    return np.square((weights - start) @ x.T).sum(axis=1) + ridge * np.square(weights - start).sum(axis=1)


def best_given(x, start, mask, ridge):
    """Exact least squares of one row whose zeros are known, by another way than obs: stacked rows."""
    stacked = np.concatenate([x, np.sqrt(ridge) * np.eye(len(start))])
    found = np.zeros(len(start))
    found[mask] = np.linalg.lstsq(stacked[:, mask], stacked @ start, rcond=None)[0]
    return found


@pytest.mark.parametrize("inputs", [1, 5, 127, 300])
def test_the_factor_is_that_of_the_inverse(inputs):
    _, _, hessian, _ = problem(1, inputs, rows=2 * inputs)
    upper = hessian.upper
    np.testing.assert_allclose(np.tril(upper, -1), 0, atol=1e-12)
    np.testing.assert_allclose(upper.T @ upper @ hessian.matrix, np.eye(inputs), atol=1e-6)


def test_weights_come_back_where_nothing_is_zeroed():
    _, weights, hessian, right = problem(3, 9)
    np.testing.assert_allclose(hessian.solve(right), weights, rtol=1e-8)


def test_refit_is_the_exact_least_squares_for_the_zeros():
    x, weights, hessian, right = problem(4, 10)
    mask = rng.random(weights.shape) < 0.4
    found = obs.refit(hessian, right, mask)
    for row in range(4):
        np.testing.assert_allclose(found[row], best_given(x, weights[row], mask[row], hessian.ridge), atol=1e-8)


def test_one_column_swept_is_the_exact_surgeon():
    # Only the first column is zeroed: nothing left of it is frozen, so the sweep is exact.
    x, weights, hessian, _ = problem(3, 8)
    mask = np.ones(weights.shape, dtype=bool)
    mask[:, 0] = False
    swept, found = obs.sweep(weights, hessian.upper, [8], lambda costs, start, end: mask[:, start:end])
    assert (found == mask).all()
    for row in range(3):
        np.testing.assert_allclose(swept[row], best_given(x, weights[row], mask[row], hessian.ridge), atol=1e-8)
        # The cost that the choice goes by is the loss that it causes.
        cost = weights[row, 0] ** 2 / np.square(hessian.upper).sum(axis=0)[0]
        assert cost == pytest.approx(loss(x, swept[row : row + 1], weights[row : row + 1], hessian.ridge)[0])
        assert hessian.costs(weights)[row, 0] == pytest.approx(cost)


def test_blocks_of_columns_change_nothing():
    _, weights, hessian, _ = problem(5, 300, rows=700)
    mask = rng.random(weights.shape) < 0.5

    def keep(costs, start, end):
        return mask[:, start:end]

    one, _ = obs.sweep(weights, hessian.upper, [300], keep)
    many, _ = obs.sweep(weights, hessian.upper, [*range(4, 300, 4), 300], keep)
    np.testing.assert_allclose(one, many, rtol=1e-6, atol=1e-9)


def test_close_to_the_best_of_all_zeros():
    """Brute force over all choices of zeros: the surgeon is near the optimum, and nearer than others."""
    lost = {"obs": 0.0, "wanda": 0.0, "magnitude": 0.0, "best": 0.0}
    for _ in range(30):
        x, weights, hessian, right = problem(1, 8)
        ridge = hessian.ridge
        all_zero = loss(x, 0 * weights, weights, ridge)[0]  # no problem counts more than another
        best = min(
            loss(x, best_given(x, weights[0], mask, ridge)[None], weights, ridge)[0]
            for chosen in combinations(range(8), 4)
            for mask in [np.isin(np.arange(8), chosen)]
        )
        swept, mask = obs.sweep(weights, hessian.upper, [8], lambda costs, start, end: masks.drop(costs, 0.5))
        exact = obs.refit(hessian, right, mask)
        found = loss(x, exact, weights, ridge)[0]
        assert best - 1e-9 <= found <= loss(x, swept, weights, ridge)[0] + 1e-9
        lost["best"] += best / all_zero
        lost["obs"] += found / all_zero
        by_wanda = masks.drop(wanda.scores(weights[None], np.square(x).sum(axis=0)[None]), 0.5)[0]
        for name, kept in (("wanda", by_wanda), ("magnitude", masks.drop(np.abs(weights), 0.5))):
            lost[name] += loss(x, weights * kept, weights, ridge)[0] / all_zero
    assert lost["best"] <= lost["obs"] < 4 * lost["best"]
    assert lost["obs"] < 0.95 * min(lost["wanda"], lost["magnitude"])


def test_error_is_that_of_the_outputs():
    x, weights, hessian, right = problem(3, 8)
    zeroed = weights * (rng.random(weights.shape) < 0.5)
    energy = float(np.square(weights @ x.T).sum())
    expected = float(np.square((zeroed - weights) @ x.T).sum()) / energy
    assert obs.error(hessian, right, zeroed, weights, energy) == pytest.approx(expected, rel=1e-6)
    assert obs.error(hessian, right, weights, weights, energy) == pytest.approx(0, abs=1e-9)


def test_large_matrices_go_by_float32(monkeypatch):
    monkeypatch.setattr(factor, "_SINGLE_FROM", 32)
    monkeypatch.setattr(obs, "STRIPE", 16)
    x, weights, hessian, right = problem(4, 64, rows=300)
    assert hessian.upper.dtype == np.float32
    np.testing.assert_allclose(hessian.solve(right), weights, rtol=1e-2, atol=1e-3)
    energy = float(np.square(weights @ x.T).sum())
    assert obs.error(hessian, right, weights, weights, energy) == pytest.approx(0, abs=1e-4)


def test_what_would_take_minutes_is_not_solved(monkeypatch):
    monkeypatch.setattr(obs, "_REFIT_COST", 10.0)
    _, weights, hessian, right = problem(3, 8)
    assert obs.refit(hessian, right, np.ones(weights.shape, dtype=bool)) is None


def test_inputs_that_are_always_zero_do_no_harm():
    x = rng.standard_normal((40, 6))
    x[:, 2:4] = 0
    weights = rng.choice([-1, 1], (2, 6)) * rng.uniform(1, 2, (2, 6))  # none is so small that it goes first
    hessian = obs.Hessian.of(x.T @ x, 0.01)
    right = hessian.right(x.T @ x @ weights.T, weights)
    swept, mask = obs.sweep(
        hessian.solve(right), hessian.upper, [6], lambda costs, start, end: masks.drop(costs, 0.34)
    )
    assert np.isfinite(swept).all() and not mask[:, 2:4].any()
