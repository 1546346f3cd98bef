"""Every family, fitted on tables with gaps and categories, computes the same in onnxruntime, at the edges too."""

import numpy as np
import pytest
from automl_tables import iris, mixed, write_csv

from modelkit.automl.artifact import to_onnx
from modelkit.automl.blend import Blend
from modelkit.automl.families.known import FAMILIES
from modelkit.automl.member import fit_member
from modelkit.automl.prepare import Roles, prepare
from modelkit.automl.verify import disagreement, probes
from modelkit.data.framefiles import read_frame


@pytest.fixture(scope="module", params=["two classes", "three classes", "numbers"])
def problem(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    if request.param == "three classes":
        path = mixed(folder / "m.csv", 240, target="y", regression=True)
        found = prepare(read_frame(path), Roles("color"), None, 0).problem
        assert found.width == 4
        return found
    path = mixed(folder / "m.csv", 240, target="y", regression=request.param == "numbers")
    return prepare(read_frame(path), Roles("y"), None, 0).problem


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_members_agree(problem, family):
    known = FAMILIES[family]
    for params in known.first:
        member = fit_member(family, params, problem)
        blend = Blend((member,), (1.0,))
        model = to_onnx(blend, problem)
        content = model.SerializeToString()
        gap, wrong = disagreement(content, blend, problem, problem.frame.columns())
        assert gap < 1e-9, f"{family} {params} on its own rows"
        assert wrong == 0
        gap, wrong = disagreement(content, blend, problem, probes(model, problem))
        assert gap < 1e-6, f"{family} {params} at the edges"
        assert wrong == 0


def test_a_class_that_a_fold_lacks(tmp_path):
    problem = prepare(read_frame(iris(tmp_path / "i.csv")), Roles("species"), None, 0).problem
    member = fit_member("linear", FAMILIES["linear"].first[0], problem.take(np.arange(100)))
    blend = Blend((member,), (1.0,))
    assert blend.predict(problem.frame.columns()).shape == (150, 3)
    content = to_onnx(blend, problem).SerializeToString()
    assert disagreement(content, blend, problem, problem.frame.columns()) == (pytest.approx(0, abs=1e-12), 0)


@pytest.mark.parametrize("family", ["lightgbm", "histogram", "random_forest", "extra_trees"])
@pytest.mark.parametrize("regression", [False, True])
def test_many_categories_and_early_stopping(tmp_path, family, regression):
    """Sets of categories, sides learned for missing values, and the number of rounds found on the way."""
    rng = np.random.default_rng(3)
    effect = rng.normal(size=60)
    rows = []
    for _ in range(900):
        level, number, plain = int(rng.integers(60)), float(rng.normal()), float(rng.normal())
        gone = rng.random() < 0.2
        y = effect[level] + (1.5 if gone else number) + 0.3 * rng.normal()
        rows.append([f"level {level}" if rng.random() < 0.9 else "", "" if gone else number, plain, y])
    if not regression:
        cuts = np.quantile([row[-1] for row in rows], [0.3, 0.7])
        rows = [[*row[:-1], "abc"[int(np.searchsorted(cuts, row[-1]))]] for row in rows]
    path = write_csv(tmp_path / "t.csv", ["level", "number", "plain", "y"], rows)
    problem = prepare(read_frame(path), Roles("y"), None, 0).problem
    member = fit_member(family, FAMILIES[family].first[0], problem)
    if family in ("lightgbm", "histogram"):
        assert member.encoder.categorical == (2,)
        assert 5 < member.rounds < 1500
    blend = Blend((member,), (1.0,))
    model = to_onnx(blend, problem)
    gap, wrong = disagreement(model.SerializeToString(), blend, problem, problem.frame.columns())
    assert (gap < 1e-9, wrong) == (True, 0)
    gap, wrong = disagreement(model.SerializeToString(), blend, problem, probes(model, problem))
    assert (gap < 1e-6, wrong) == (True, 0)
