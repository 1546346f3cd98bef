"""Losses of distillation against torchdistill's, where it is installed, and against the papers' formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modelkit.train import distillation
from modelkit.train.config import TrainOptions
from modelkit.train.follow import Follow, Hint
from modelkit.train.objective import plan_objective


def logits(seed: int, rows: int, classes: int) -> list[torch.Tensor]:
    """A student's and a teacher's, in double precision."""
    random = np.random.default_rng(seed)
    return [torch.from_numpy(3 * random.standard_normal((rows, classes))) for _ in range(2)]


def log_softmax(x: np.ndarray) -> np.ndarray:
    x = x - x.max(1, keepdims=True)
    return x - np.log(np.exp(x).sum(1, keepdims=True))


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("shape", [(32, 10), (7, 3), (128, 100)])
def test_dist_is_torchdistills(shape: tuple[int, int], temperature: float) -> None:
    # Its dependencies are not needed here: pip install --no-deps torchdistill==1.1.5, as `make venv` does.
    peer = pytest.importorskip("torchdistill.losses.mid_level")
    student, teacher = logits(1, *shape)
    theirs = peer.DISTLoss("s", "output", "t", "output", beta=1.5, gamma=0.5, tau=temperature)
    wanted = theirs({"s": {"output": student}}, {"t": {"output": teacher}}).item()
    own = distillation.relations(student, teacher, temperature=temperature, between=1.5, within=0.5)
    assert own.item() == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_kl_is_torchdistills(temperature: float) -> None:
    peer = pytest.importorskip("torchdistill.losses.mid_level")
    student, teacher = logits(2, 32, 10)
    theirs = peer.KDLoss("s", "output", "t", "output", temperature=temperature, alpha=0.0)
    wanted = theirs({"s": {"output": student}}, {"t": {"output": teacher}}).item()
    own = distillation.divergence(student, teacher, temperature=temperature).item() / temperature**2
    assert own == pytest.approx(wanted, abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 40), st.integers(3, 20), st.floats(0.5, 8))
def test_dist_is_the_papers_formula(seed: int, rows: int, classes: int, temperature: float) -> None:
    student, teacher = logits(seed, rows, classes)
    y, z = (np.exp(log_softmax(t.numpy() / temperature)) for t in (student, teacher))
    between = np.mean([1 - np.corrcoef(y[i], z[i])[0, 1] for i in range(rows)])
    within = np.mean([1 - np.corrcoef(y[:, j], z[:, j])[0, 1] for j in range(classes)])
    own = distillation.relations(student, teacher, temperature=temperature, between=2.0, within=3.0).item()
    assert own == pytest.approx((2 * between + 3 * within) * temperature**2, abs=1e-5)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(3, 20), st.floats(0.5, 8))
def test_dkd_is_the_papers_formula(seed: int, rows: int, classes: int, temperature: float) -> None:
    """Equations 3 to 7 as they stand: binary probabilities, and probabilities among the others."""
    student, teacher = logits(seed, rows, classes)
    targets = np.random.default_rng(seed).integers(0, classes, rows)
    total = 0.0
    for i, t in enumerate(targets):
        q, p = (np.exp(log_softmax(x.numpy()[i : i + 1] / temperature))[0] for x in (student, teacher))
        tckd = p[t] * np.log(p[t] / q[t]) + (1 - p[t]) * np.log((1 - p[t]) / (1 - q[t]))
        q_hat, p_hat = (np.delete(x, t) / (1 - x[t]) for x in (q, p))
        total += 1.5 * tckd + 4.0 * float((p_hat * np.log(p_hat / q_hat)).sum())
    own = distillation.decoupled(
        student, teacher, torch.from_numpy(targets), temperature=temperature, target=1.5, others=4.0
    )
    assert own.item() == pytest.approx(total / rows * temperature**2, rel=1e-6, abs=1e-6)


def test_dkd_with_the_weights_of_the_teachers_doubt_is_hintons() -> None:
    """Equation 6: beta = 1 - p_t makes it the divergence of all classes; with one row that is one number."""
    student, teacher = logits(5, 1, 10)
    target = torch.tensor([3])
    doubt = 1 - torch.softmax(teacher / 2, 1)[0, 3].item()
    own = distillation.decoupled(student, teacher, target, temperature=2.0, target=1.0, others=doubt)
    assert own.item() == pytest.approx(distillation.divergence(student, teacher, temperature=2.0).item(), rel=1e-9)


def test_all_are_nothing_at_agreement_and_have_finite_gradients() -> None:
    for loss in (
        lambda a, b: distillation.relations(a, b, temperature=2.0),
        lambda a, b: distillation.decoupled(a, b, b.argmax(1), temperature=2.0),
        lambda a, b: distillation.divergence(a, b, temperature=2.0),
    ):
        student, teacher = logits(3, 16, 5)
        assert loss(teacher, teacher).item() == pytest.approx(0, abs=1e-9)
        sure = (1e4 * torch.nn.functional.one_hot(teacher.argmax(1), 5)).double()
        student.requires_grad_()
        loss(student, sure).backward()
        assert torch.isfinite(student.grad).all() and student.grad.abs().sum() > 0
    one, other = logits(4, 1, 5)
    assert np.isfinite(distillation.relations(one, other, temperature=1.0).item())


def test_attention_is_compared_head_by_head_or_by_the_mean_of_heads() -> None:
    maps = torch.softmax(torch.from_numpy(np.random.default_rng(0).standard_normal((2, 4, 3, 3))), 3)
    others = torch.softmax(torch.from_numpy(np.random.default_rng(1).standard_normal((2, 4, 3, 3))), 3)
    wanted = (others * (others / maps).log()).sum() / (2 * 4 * 3)
    assert distillation.attention(maps, others).item() == pytest.approx(wanted.item(), rel=1e-6)
    assert distillation.attention(others[:, :2], others).item() > 0
    assert distillation.attention(others.mean(1, keepdim=True), others).item() == pytest.approx(0, abs=1e-7)


def test_the_objective_follows_as_it_is_told() -> None:
    student, teacher = (t.float().numpy() for t in logits(6, 8, 5))
    labels = np.arange(8) % 5

    def loss(follow: Follow, given: np.ndarray | None, alpha: float = 0.0) -> tuple[float, str]:
        plan = plan_objective(
            {"y": student, "h": student},
            given,
            {"y": teacher, "g": teacher},
            TrainOptions(temperature=1.0, alpha=alpha),
            follow,
        )
        tensors = {"y": torch.from_numpy(student), "h": torch.from_numpy(student)}
        theirs = {"y": torch.from_numpy(teacher), "g": torch.from_numpy(teacher)}
        found = plan.of(tensors, None if given is None else torch.from_numpy(given), theirs)
        return found.item(), plan.describe()

    pair = torch.from_numpy(student), torch.from_numpy(teacher)
    dist, named = loss(Follow("dist"), labels)
    assert named.endswith("distillation (DIST)")
    assert dist == pytest.approx(distillation.relations(*pair, temperature=1.0).item(), rel=1e-5)
    dkd = Follow("dkd", weights=(1.0, 8.0))
    said = distillation.decoupled(*pair, pair[1].argmax(1), temperature=1.0).item()
    assert loss(dkd, None)[0] == pytest.approx(said, rel=1e-5)
    by_label = distillation.decoupled(*pair, torch.from_numpy(labels), temperature=1.0).item()
    hard = torch.nn.functional.cross_entropy(pair[0], torch.from_numpy(labels)).item()
    assert loss(dkd, labels, 0.25)[0] == pytest.approx(0.25 * hard + 0.75 * by_label, rel=1e-5)
    plain = loss(Follow("dist"), None)[0]
    hinted, named = loss(Follow("dist", hints=(Hint("h", "g"),), hint_weight=0.5), None)
    scaled = ((student - teacher) ** 2).mean() / teacher.var(axis=0).mean()
    assert hinted == pytest.approx(plain + 0.5 * scaled, rel=1e-5) and named.endswith("+ features")


def test_numbers_are_met_by_squares_huber_or_angles() -> None:
    random = np.random.default_rng(0)
    student, teacher = (random.standard_normal((16, 3, 2)).astype(np.float32) for _ in range(2))

    def loss(values: str) -> float:
        plan = plan_objective({"y": student}, None, {"y": teacher}, TrainOptions(), Follow(values=values))  # type: ignore[arg-type]
        assert plan.soft[0][0].kind == "values" or values == "kind"
        return plan.of({"y": torch.from_numpy(student)}, None, {"y": torch.from_numpy(teacher)}).item()

    variance = teacher.reshape(16, -1).var(axis=0).mean()
    assert loss("mse") == pytest.approx(((student - teacher) ** 2).mean() / variance, rel=1e-5)
    flat = [x.reshape(16, -1) for x in (student, teacher)]
    cosines = (flat[0] * flat[1]).sum(1) / np.prod([np.linalg.norm(x, axis=1) for x in flat], axis=0)
    assert loss("cosine") == pytest.approx(1 - cosines.mean(), rel=1e-5)
    assert 0 < loss("huber") < loss("mse")
