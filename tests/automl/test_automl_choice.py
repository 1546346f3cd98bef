"""What is tried, what is dropped, and what the final model is made of."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelkit.automl.blend import choose, soften
from modelkit.automl.encode.dates import date_parts
from modelkit.automl.ensemble import calibrate, favour, greedy, prefer_single
from modelkit.automl.families.known import FAMILIES
from modelkit.automl.losses import Metric, loss, scores
from modelkit.automl.search import Search
from modelkit.automl.space import Span
from modelkit.automl.trial import hopeless


@pytest.fixture
def noisy():
    """Classes, and four models of them whose errors differ."""
    rng = np.random.default_rng(0)
    y = rng.integers(3, size=400)
    models = {}
    for number in range(4):
        raw = np.eye(3)[y] * 1.2 + rng.normal(scale=0.9 + 0.3 * number, size=(400, 3))
        models[number] = soften(np.exp(raw) / np.exp(raw).sum(axis=1, keepdims=True), 1.0)
    return y, models


def test_an_ensemble_is_better_than_its_best_member(noisy):
    y, models = noisy
    choice = greedy(Metric.log_loss, y, models, None, {0: "a", 1: "b", 2: "c", 3: "d"})
    assert sum(choice.weights.values()) == pytest.approx(1)
    assert choice.loss < min(loss(Metric.log_loss, y, predicted) for predicted in models.values())
    one = greedy(Metric.log_loss, y, models, None, {0: "a", 1: "b", 2: "c", 3: "d"}, most=1)
    assert one.weights == {0: 1.0}


def test_a_linear_model_is_preferred_where_it_is_as_good(noisy):
    y, models = noisy
    choice = greedy(Metric.log_loss, y, models, None, {0: "a", 1: "b", 2: "c", 3: "d"})
    complexity = {0: 1, 1: 7, 2: 7, 3: 7}
    assert prefer_single(choice, Metric.log_loss, y, models, complexity, 100.0).weights == {0: 1.0}
    assert prefer_single(choice, Metric.log_loss, y, models, complexity, 0.0).weights == choice.weights


def test_overconfidence_is_softened_and_honesty_left_alone(noisy):
    y, models = noisy
    assert calibrate(y, soften(models[0], 0.4)) > 1.5
    honest = np.random.default_rng(1).dirichlet([1, 1, 1], 3000)
    drawn = np.array([np.random.default_rng(row).choice(3, p=p) for row, p in enumerate(honest)])
    assert calibrate(drawn, honest) == pytest.approx(1, abs=0.1)


def test_a_rare_class_gets_a_threshold_of_its_own():
    rng = np.random.default_rng(0)
    y = (rng.random(2000) < 0.05).astype(int)
    positive = np.clip(0.05 + 0.25 * y + rng.normal(scale=0.06, size=2000), 0.001, 0.999)
    probabilities = np.stack([1 - positive, positive], axis=1)
    factor = favour(Metric.balanced_accuracy, y, probabilities, None)
    labels = choose(probabilities, tuple(factor))
    assert scores(y, probabilities, labels, None)["balanced_accuracy"] > 0.9
    assert scores(y, probabilities, choose(probabilities, None), None)["balanced_accuracy"] < 0.6
    assert favour(Metric.log_loss, y, probabilities, None) is None


def test_scores_are_those_of_scikit_learn(noisy):
    from sklearn import metrics

    y, models = noisy
    labels = models[1].argmax(axis=1)
    weight = np.random.default_rng(2).random(400)
    found = scores(y, models[1], labels, weight)
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(y, labels, sample_weight=weight))
    assert found["log_loss"] == pytest.approx(metrics.log_loss(y, models[1], sample_weight=weight))
    assert found["f1"] == pytest.approx(metrics.f1_score(y, labels, average="macro", sample_weight=weight))
    balanced = metrics.balanced_accuracy_score(y, labels, sample_weight=weight)
    assert found["balanced_accuracy"] == pytest.approx(balanced)
    two = np.stack([1 - models[1][:, 0], models[1][:, 0]], axis=1)
    area = metrics.roc_auc_score(y == 0, two[:, 1], sample_weight=weight)
    assert scores((y == 0).astype(int), two, two.argmax(axis=1), weight)["auc"] == pytest.approx(area)


def test_hopeless_trials_are_dropped_and_promising_ones_are_not():
    race = {"losses": [0.1, 0.12, 0.11, 0.1, 0.12], "slack": 0.03}
    assert hopeless([0.5, 0.52, 0.5], race, 5)
    assert not hopeless([0.5], race, 5)  # one fold is not enough
    assert not hopeless([0.13, 0.14, 0.13], race, 5)
    assert not hopeless([0.5] * 5, race, 5)
    assert not hopeless([9.0] * 3, None, 5)


def test_a_search_begins_with_guesses_and_stays_in_its_space():
    spans = {"lightgbm": {"leaves": Span(low=4, high=9, whole=True)}}
    search = Search([FAMILIES["linear"], FAMILIES["lightgbm"]], spans, "auto", True, 0)
    first = [search.next() for _ in range(5)]
    assert [trial.family for trial in first] == ["linear"] * 4 + ["lightgbm"], "what is quick is tried at once"
    for trial in first:
        trial.status, trial.loss = "done", 1.0
    for _ in range(60):
        trial = search.next()
        if trial.family == "lightgbm":
            assert 4 <= trial.params["leaves"] <= 9
        trial.status, trial.loss = "done", 1.0
    keys = {(t.family, str(t.params)) for t in search.trials}
    assert len(keys) == len(search.trials), "something was tried twice"


def test_a_space_without_hyper_parameters_ends():
    search = Search([FAMILIES["constant"]], {}, "auto", True, 0)
    assert search.next().family == "constant"
    assert search.next() is None


def test_bayesian_search_learns():
    search = Search([FAMILIES["linear"]], {}, "bayesian", False, 0)
    for _ in range(30):
        trial = search.next()
        trial.status, trial.loss = "done", abs(np.log(trial.params["strength"]) - 2.0)
        search.tell(trial)
    later = [trial.loss for trial in search.trials[15:]]
    assert np.median(later) < np.median([trial.loss for trial in search.trials[:10]])


@given(st.floats(0.02, 0.98), st.booleans(), st.integers(0, 2**31))
@settings(max_examples=100, deadline=None)
def test_spans_stay_inside(share, log, seed):
    rng = np.random.default_rng(seed)
    span = Span(low=0.5, high=80.0, log=log, whole=False)
    value = span.sample(rng)
    for _ in range(5):
        value = span.near(value, rng, 0.5 * share)
        assert 0.5 <= value <= 80.0


@given(st.dates())
@settings(max_examples=300, deadline=None)
def test_parts_of_dates_are_those_of_the_calendar(day):
    number = np.array([float(day.toordinal() - 719_163)])
    parts = [float(part[0]) for part in date_parts(number, False)]
    assert parts == [number[0], day.year, day.month, day.day, day.weekday()]
