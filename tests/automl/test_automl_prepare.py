"""What is predicted, from which columns, and what is said about them."""

import numpy as np
import pytest
from automl_tables import mixed, write_csv

from modelkit.automl.folds import held_out, how_many, make_folds
from modelkit.automl.prepare import Roles, prepare
from modelkit.automl.problem import Task
from modelkit.data.framefiles import read_frame
from modelkit.errors import DataError, UsageError


def prepared(tmp_path, header, rows, roles=None, task=None):
    return prepare(read_frame(write_csv(tmp_path / "t.csv", header, rows)), roles or Roles("y"), task, 0)


def test_columns_are_used_or_left_out_with_a_reason(tmp_path):
    found = prepare(read_frame(mixed(tmp_path / "m.csv")), Roles("churn"), None, 0)
    actions = {decision.target: (decision.action, decision.reason) for decision in found.decisions}
    assert actions["key"] == ("left out", "an identifier: it has another value in every row")
    assert actions["fixed"][0] == "left out"
    assert "constant" in actions["fixed"][1]
    assert [name for name, (action, _) in actions.items() if action == "used"] == [
        "size",
        "color",
        "flag",
        "day",
        "at",
    ]
    assert found.problem.classes.tolist() == ["no", "yes"]


@pytest.mark.parametrize(
    ("values", "task", "classes"),
    [
        (["a", "b"] * 30, Task.classification, ["a", "b"]),
        ([0, 1, 2] * 20, Task.classification, [0, 1, 2]),
        (["true", "false"] * 30, Task.classification, [0, 1]),
        ([x / 7 for x in range(60)], Task.regression, []),
        (list(range(60)), Task.regression, []),
    ],
)
def test_the_task_is_told_by_the_target(tmp_path, values, task, classes):
    rows = [[x % 7 + x / 100, y] for x, y in enumerate(values)]
    found = prepared(tmp_path, ["x", "y"], rows)
    assert found.problem.task is task
    assert found.problem.classes.tolist() == classes


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([[1, "a"], [2, "a"], [3, "a"]], "has one class only: 'a'"),
        ([[1, ""], [2, ""]], "has no values"),
        ([[1, "a"], [1, "b"]], "no column of t.csv is of use"),
    ],
)
def test_targets_and_columns_that_are_of_no_use(tmp_path, rows, said):
    with pytest.raises(DataError) as caught:
        prepared(tmp_path, ["x", "y"], rows)
    assert said in caught.value.message


def test_a_target_that_is_not_there_names_near_ones(tmp_path):
    with pytest.raises(UsageError) as caught:
        prepared(tmp_path, ["species", "size"], [["a", 1], ["b", 2]], Roles("specie"))
    assert "no column 'specie'" in caught.value.message
    assert caught.value.hint.startswith("did you mean 'species'")


def test_leaks_are_warned_of_with_their_correlation(tmp_path):
    rng = np.random.default_rng(0)
    rows = [[f"{x:.6f}", f"{3 * x + 1:.6f}", f"{x:.6f}"] for x in rng.normal(size=60)]
    found = prepared(tmp_path, ["a", "b", "y"], rows)
    assert sum("correlation 1.0000" in note for note in found.notes) == 2
    rows = [[x, {"p": "u", "q": "v"}[y], y] for x, y in zip(rng.normal(size=60), "pq" * 30, strict=True)]
    found = prepared(tmp_path, ["a", "b", "y"], rows)
    assert [note.split("'")[1] for note in found.notes] == ["b"]


def test_rare_classes_are_said(tmp_path):
    rows = [[x / 9, "rare" if x < 3 else "common"] for x in range(200)]
    assert any("is rare (3 rows" in note for note in prepared(tmp_path, ["x", "y"], rows).notes)


def test_folds_are_stratified_and_complete(tmp_path):
    problem = prepare(read_frame(mixed(tmp_path / "m.csv")), Roles("churn"), None, 0).problem
    folds = make_folds(problem, 5, 2, 0)
    assert len(folds) == 10
    counts = np.zeros(problem.rows)
    for fold in folds:
        assert not set(fold.fit) & set(fold.valid)
        counts[fold.valid] += 1
        assert abs(problem.y[fold.valid].mean() - problem.y.mean()) < 0.03
    assert (counts == 2).all()


def test_groups_are_never_split(tmp_path):
    rng = np.random.default_rng(1)
    rows = [[rng.normal(), f"g{rng.integers(12)}", "ab"[x % 2]] for x in range(120)]
    problem = prepared(tmp_path, ["x", "g", "y"], rows, Roles("y", group="g")).problem
    assert list(problem.frame.fields) == ["x"]
    apart = held_out(problem, 0.2, 0)
    assert not set(problem.groups[apart]) & set(problem.groups[~apart])
    for fold in make_folds(problem, 4, 1, 0):
        assert not set(problem.groups[fold.fit]) & set(problem.groups[fold.valid])


def test_time_goes_forward(tmp_path):
    rng = np.random.default_rng(1)
    rows = [[rng.normal(), f"2024-{1 + x % 12:02d}-{1 + x % 28:02d}", "ab"[x % 2]] for x in range(120)]
    problem = prepared(tmp_path, ["x", "t", "y"], rows, Roles("y", time="t")).problem
    apart = held_out(problem, 0.2, 0)
    assert problem.order[apart].min() > problem.order[~apart].max()
    for fold in make_folds(problem, 4, 1, 0):
        assert problem.order[fold.fit].max() <= problem.order[fold.valid].min()


def test_fewer_rows_than_folds(tmp_path):
    problem = prepared(tmp_path, ["x", "y"], [[1, "a"], [2, "b"], [3, "a"]]).problem
    with pytest.raises(DataError) as caught:
        how_many(problem, 5)
    assert "3 rows are fewer than 5 folds" in caught.value.message


def test_weights_that_are_none(tmp_path):
    with pytest.raises(DataError):
        prepared(tmp_path, ["x", "w", "y"], [[1, -1, "a"], [2, 1, "b"]], Roles("y", weight="w"))
