"""Making up for cut channels: the least squares, the shortcut, the Relu, and whole models."""

import numpy as np
import onnx_ir as ir
import pytest
from channel_nets import copies, images, residual
from hypothesis import given, settings
from hypothesis import strategies as st
from sparse_nets import dataset_of

from modelkit.channels.cutting import Way, prune_channels
from modelkit.channels.repair import Repair, Stayed
from modelkit.errors import DataError
from modelkit.graph.channels import cut
from modelkit.graph.run import session_of
from modelkit.linear import fit as fit_module
from modelkit.linear.fit import Fit
from modelkit.prune.config import PruneConfig


def run(model: ir.Model, x: np.ndarray) -> np.ndarray:
    return session_of(model).run(None, {"x": x})[0]


def distance(model: ir.Model, expected: np.ndarray, x: np.ndarray) -> float:
    return float(np.square(run(model, x) - expected).sum() / np.square(expected - expected.mean()).sum())


def config(**structure) -> PruneConfig:
    return PruneConfig.model_validate({"channels": 0.5, "structure": structure})


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.sampled_from([1, 3]), st.booleans())
def test_fit_is_the_least_squares_solution(seed: int, groups: int, biased: bool) -> None:
    rng = np.random.default_rng(seed)
    rows, columns, outputs = 120, 5, 4
    x = rng.standard_normal((rows, groups, columns)).astype(np.float32) + 1
    rest = rng.standard_normal((rows, groups * outputs)).astype(np.float32)
    start = rng.standard_normal((groups, outputs, columns))
    targets = rng.standard_normal((rows, groups * outputs)).astype(np.float32)
    now = np.einsum("rgk,gok->rgo", x, start).reshape(rows, -1) + rest
    fit = Fit(start, biased, relu=False)
    for half in (slice(0, 50), slice(50, rows)):
        fit.add(x[half], now[half].astype(np.float32), targets[half])
    matrices, shift = fit.solve(0.0)
    wanted = (targets - rest).reshape(rows, groups, outputs)
    for group in range(groups):
        design = np.concatenate([x[:, group], np.ones((rows, int(biased)))], axis=1)
        best = np.linalg.lstsq(design, wanted[:, group], rcond=None)[0]
        assert np.allclose(matrices[group], best[:columns].T, atol=1e-4)
        assert np.allclose(shift[group], best[columns] if biased else 0, atol=1e-4)
    residue = np.einsum("rgk,gok->rgo", x, matrices) + shift - wanted
    spread = np.square(wanted - wanted.mean(axis=0)).sum()
    assert fit.error(matrices, shift) == pytest.approx(np.square(residue).sum() / spread, rel=1e-3)
    assert np.allclose(fit.solve(1e9)[0], start, atol=1e-4), "a strong pull leaves the weights as they are"


@pytest.mark.parametrize("biased", [True, False])
def test_wide_layers_get_the_same_weights_from_rows(biased: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    x = rng.standard_normal((60, 1, 20)).astype(np.float32) + 1
    start, targets = rng.standard_normal((1, 3, 20)), rng.standard_normal((60, 3)).astype(np.float32)
    now = (x[:, 0] @ start[0].T).astype(np.float32)
    found = []
    for limit in (5000, 10):
        monkeypatch.setattr(fit_module, "WIDE", limit)
        monkeypatch.setattr(fit_module, "_FEW_ROWS", 1)
        fit = Fit(start, biased, relu=False, validated=False)
        fit.add(x, now, targets)
        matrices, shift = fit.solve(0.1)
        found.append([*matrices.reshape(-1), *shift.reshape(-1), fit.error(matrices, shift), *fit.shift()[0]])
    assert np.allclose(*found, atol=1e-4)


def test_layer_and_relu_fitted_together_are_better_than_the_layer_alone() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2000, 1, 6)).astype(np.float32)
    targets = (np.sin(x[:, 0] @ rng.standard_normal((6, 8))) - 0.5).astype(np.float32)
    start = np.zeros((1, 8, 6))
    errors = []
    for rounds in (False, True):
        fit = Fit(start, True, relu=rounds)
        fit.add(x, np.zeros_like(targets), targets)
        matrices, shift = fit.solve(1e-6)
        judge = Fit(start, True, relu=True)
        judge.add(x, np.zeros_like(targets), targets)
        errors.append(judge.error(matrices, shift))
    assert errors[1] < 0.98 * errors[0]


def test_copies_are_taken_out_for_nothing() -> None:
    model, x = copies(), images(64)
    fresh = images(16, seed=9)
    expected = run(model, fresh)
    config = PruneConfig.model_validate(
        {
            "channels": 0.5,
            "include": ["n_first"],
            "structure": {"multiple_of": 1, "ridge": 1e-8},
        }
    )
    decisions = prune_channels(model, config, 0.5, dataset_of(x))
    assert model.graph.initializers["first.w"].const_value.shape == (8, 12, 3, 3)
    assert distance(model, expected, fresh) < 1e-6
    assert {d.action for d in decisions if d.target == "n_first"} == {"cut"}
    assert any(d.action == "verified" and d.numbers["largest_difference"] < 1e-5 for d in decisions)


def test_every_part_of_the_repair_helps() -> None:
    """On inputs that were not fitted to: nothing, bias, plain least squares, shortcut absorbed."""
    original, x, fresh = residual(16, 24).build(), images(96), images(96, seed=9)
    expected, data = run(original, fresh), dataset_of(x)
    keep = {"n_stem": np.arange(16) % 4 > 0, "n_first": np.arange(24) % 3 > 0}
    kept = {name: np.flatnonzero(mask) for name, mask in keep.items()}
    stayed = Stayed(
        {"stem.w": kept["n_stem"], "second.w": kept["n_stem"], "first.w": kept["n_first"]},
        {"first.w", "second.w", "last.w"},
    )

    def repaired(**options) -> float:
        model = original.clone()
        cut(model, keep)
        if options:
            Repair(original, data, 96, threads=1, **options).apply(model, stayed)
        return distance(model, expected, fresh)

    nothing = repaired()
    bias = repaired(bias_only=True)
    plain = repaired(shortcuts=False, relu=False)
    shortcuts = repaired(shortcuts=True, relu=False)
    assert bias < nothing and plain < 0.5 * nothing and shortcuts <= plain * 1.02
    assert repaired(shortcuts=True, relu=True) < 1.05 * shortcuts


def test_rounds_go_on_from_each_other_and_reach_the_same_target() -> None:
    original, data = residual(16, 32).build(), dataset_of(images(64))
    counts = {}
    calls: list[int] = []

    def finetune(model: ir.Model, progress) -> list:
        calls.append(len(model.graph))
        return []

    for rounds in (1, 3):
        model = original.clone()
        options = config(rounds=rounds, multiple_of=1, target="macs", ranking="search")
        decisions = prune_channels(model, options, 0.5, data, finetune=finetune)
        assert decisions[0].numbers["macs"] <= 0.5 * decisions[0].numbers["macs_before"]
        counts[rounds] = decisions[0].numbers["macs"]
        assert distance(model, run(original, images(seed=5)), images(seed=5)) < 0.5
    assert len(calls) == 4
    assert counts[3] > 0.4 * decisions[0].numbers["macs_before"], "the rounds do not cut more than was asked for"


def test_infinite_activations_are_refused() -> None:
    model = residual().build()
    data = dataset_of(np.full((16, 3, 6, 6), 3e38, np.float32))
    with pytest.raises(DataError, match="infinite or NaN"):
        prune_channels(
            model, config(importance="l2", ranking="equal"), 0.3, data, way=Way("l2", "equal", "least_squares")
        )
