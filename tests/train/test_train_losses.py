"""Losses against torch's own, and the choice of what is minimised."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from modelkit.errors import DataError, ModelError
from modelkit.train import distillation, losses
from modelkit.train.config import TrainOptions
from modelkit.train.objective import plan_objective

RANDOM = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(np.float32)


def softmax(x: np.ndarray, axis: int = 1) -> np.ndarray:
    return torch.softmax(torch.from_numpy(x), axis).numpy()


def loss(outputs: np.ndarray, labels: np.ndarray | None, wanted: np.ndarray | None = None, **options: Any) -> float:
    objective = plan_objective(
        {"y": outputs}, labels, None if wanted is None else {"y": wanted}, TrainOptions(**options)
    )
    tensor = None if labels is None else torch.from_numpy(labels)
    theirs = {} if wanted is None else {"y": torch.from_numpy(wanted)}
    return objective.of({"y": torch.from_numpy(outputs)}, tensor, theirs).item()


def test_cross_entropy_of_logits_and_of_probabilities_is_torchs() -> None:
    logits, labels = normal(32, 5), RANDOM.integers(0, 5, 32)
    wanted = functional.cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels)).item()
    assert loss(logits, labels) == pytest.approx(wanted, rel=1e-6)
    assert loss(softmax(logits), labels) == pytest.approx(wanted, rel=1e-5)
    logged = np.log(softmax(logits))
    assert loss(logged, labels) == pytest.approx(wanted, rel=1e-5)


def test_label_smoothing_is_torchs() -> None:
    logits, labels = normal(32, 5), RANDOM.integers(0, 5, 32)
    wanted = functional.cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels), label_smoothing=0.1)
    assert loss(logits, labels, label_smoothing=0.1) == pytest.approx(wanted.item(), rel=1e-6)
    assert loss(softmax(logits), labels, label_smoothing=0.1) == pytest.approx(wanted.item(), rel=1e-5)


def test_probabilities_of_zero_have_a_finite_gradient() -> None:
    logits = torch.tensor([[200.0, -200.0, 0.0]], requires_grad=True)
    rows = losses.class_rows(torch.softmax(logits, 1), 1, probabilities=True)
    losses.cross_entropy(rows, torch.tensor([1])).backward()
    assert torch.isfinite(logits.grad).all()


def test_positions_have_their_class_axis_and_unlabelled_ones_do_not_count() -> None:
    scores, labels = normal(4, 6, 5), RANDOM.integers(0, 5, (4, 6))
    labels[:, 4:] = -100
    wanted = functional.cross_entropy(
        torch.from_numpy(scores[:, :4]).reshape(-1, 5), torch.from_numpy(labels[:, :4]).reshape(-1)
    )
    assert loss(scores, labels) == pytest.approx(wanted.item(), rel=1e-6)
    maps, pixels = normal(2, 3, 4, 4), RANDOM.integers(0, 3, (2, 4, 4))
    pixels[0] = 255
    wanted = functional.cross_entropy(torch.from_numpy(maps[1:]), torch.from_numpy(pixels[1:]))
    assert loss(maps, pixels) == pytest.approx(wanted.item(), rel=1e-6)


def test_binary_cross_entropy_of_logits_and_of_probabilities_is_torchs() -> None:
    logits, labels = 2 * normal(64, 1), RANDOM.integers(0, 2, 64)
    wanted = functional.binary_cross_entropy_with_logits(
        torch.from_numpy(logits[:, 0]), torch.from_numpy(labels).float()
    )
    assert loss(logits, labels) == pytest.approx(wanted.item(), rel=1e-6)
    assert loss(1 / (1 + np.exp(-logits)), labels) == pytest.approx(wanted.item(), rel=1e-4)


def test_squared_and_huber_errors_are_torchs_in_units_of_the_labels_variance() -> None:
    out, labels = normal(64, 3), (10 * normal(64, 3) + 5).astype(np.float32)
    variance = labels.astype(np.float64).var(axis=0).mean()
    wanted = functional.mse_loss(torch.from_numpy(out), torch.from_numpy(labels)).item() / variance
    assert loss(out, labels) == pytest.approx(wanted, rel=1e-5)
    huber = functional.huber_loss(torch.from_numpy(out), torch.from_numpy(labels), delta=variance**0.5).item()
    assert loss(out, labels, loss="huber") == pytest.approx(huber / variance, rel=1e-5)


def test_distillation_is_the_divergence_of_softened_classes_and_nothing_at_agreement() -> None:
    student, teacher = normal(16, 4), softmax(normal(16, 4))
    t = 3.0
    p = torch.softmax(torch.from_numpy(np.log(teacher)) / t, 1)
    q = torch.log_softmax(torch.from_numpy(student) / t, 1)
    by_hand = (p * (p.log() - q)).sum(1).mean().item() * t**2
    rows = distillation.divergence(torch.from_numpy(student), torch.from_numpy(np.log(teacher)), temperature=t)
    assert rows.item() == pytest.approx(by_hand, rel=1e-5)
    assert loss(softmax(student), None, teacher, temperature=t) == pytest.approx(by_hand, rel=1e-4)
    assert loss(teacher, None, teacher) == pytest.approx(0, abs=1e-6)
    single = 1 / (1 + np.exp(-normal(16, 1)))
    assert loss(single, None, single) == pytest.approx(0, abs=1e-6)
    values = 7 * normal(16, 1)
    assert loss(values, None, values) == 0
    assert loss(values * 0, None, values) == pytest.approx((values**2).mean() / values.var(), rel=1e-4)


def test_alpha_weighs_labels_and_teacher() -> None:
    logits, teacher, labels = normal(32, 5), normal(32, 5), RANDOM.integers(0, 5, 32)
    hard = loss(logits, labels)
    soft = loss(logits, labels, teacher, loss="distill")
    assert loss(logits, labels, teacher, alpha=0.3) == pytest.approx(0.3 * hard + 0.7 * soft, rel=1e-5)
    assert loss(logits, labels, teacher, alpha=0.0) == pytest.approx(soft, rel=1e-6)


def test_scores_that_nobody_called_classes_are_followed_in_their_values_too() -> None:
    teacher = normal(16, 4)
    assert loss(teacher + 3, None, teacher) > 1, "a softmax alone would not see the shift"


def test_labels_find_the_output_that_they_fit() -> None:
    outputs = {"embedding": normal(8, 3, 7), "ids": np.zeros(8, np.int64), "logits": normal(8, 5)}
    objective = plan_objective(outputs, np.arange(8) % 5, None, TrainOptions())
    assert objective.hard is not None and objective.hard.output == "logits"


@pytest.mark.parametrize(
    ("outputs", "labels", "wanted", "options", "error", "words"),
    [
        ({"y": np.zeros((4, 3), np.int64)}, np.zeros(4, np.int64), None, {}, ModelError, "no output is a float"),
        ({"y": normal(4, 3)}, None, None, {}, DataError, "needs labels"),
        ({"y": normal(4, 3)}, None, {"y": normal(4, 3)}, {"loss": "mse"}, DataError, "mse needs labels"),
        ({"y": normal(4, 3)}, np.array([0, 1, 2, 3]), None, {}, DataError, "a label is 3"),
        ({"y": normal(4, 3)}, normal(4, 2), None, {}, DataError, "fit no output"),
        ({"y": normal(4, 3)}, np.arange(4) % 3, None, {"loss": "mse"}, DataError, "the loss mse"),
        ({"y": normal(4, 1)}, np.arange(4.0), None, {"loss": "bce"}, DataError, "bce needs labels of 0 to 1"),
        ({"y": normal(4, 1)}, normal(4), None, {"label_smoothing": 0.1}, DataError, "label_smoothing"),
        ({"y": normal(4, 3)}, None, {"y": normal(4, 2)}, {}, ModelError, "the teacher's 'y'"),
        ({"y": normal(4, 3)}, None, {"a": normal(4, 3), "b": normal(4, 3)}, {}, ModelError, "none of the outputs"),
    ],
)
def test_what_does_not_fit_is_said(
    outputs: Any, labels: Any, wanted: Any, options: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        plan_objective(outputs, labels, wanted, TrainOptions(**options))
