"""Rules extracted from models: trees give their own thresholds, networks are asked; fidelity is what is said."""

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from modelkit.cli.app import run
from modelkit.rules.columns import Column, ColumnType
from modelkit.rules.evaluate import evaluate
from modelkit.rules.extract.near import rows_near
from modelkit.rules.extract.splits import teacher_splits
from modelkit.rules.extract.teacher import Teacher
from modelkit.rules.load import load
from modelkit.rules.table import read_table

NAMES = ("a", "b", "c")
RNG = np.random.default_rng(0)
ROWS = RNG.normal(0, 1, (400, 3)).round(3)
SET = ["--set", "methods=[additive,tree]", "--set", "queries=2"]


def network(path):
    """Two layers: class 1 where a or b is large."""
    w1 = np.array([[4, 0, 0], [0, 4, 0], [0, 0, 0.1]], np.float32)
    w2 = np.array([[-3, 3], [-3, 3], [0, 0]], np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "w2"], ["s"]),
        helper.make_node("Add", ["s", "bias"], ["logits"]),
    ]
    weights = {"w1": w1, "w2": w2, "bias": np.array([4, -4], np.float32)}
    return save(path, nodes, [("logits", TensorProto.FLOAT, ["N", 2])], weights)


def trees(path, double=False):
    """One tree: label yes where a <= 0.25 and b > -0.5."""
    node = helper.make_node(
        "TreeEnsembleClassifier",
        ["x"],
        ["label", "probabilities"],
        domain="ai.onnx.ml",
        nodes_treeids=[0] * 5,
        nodes_nodeids=[0, 1, 2, 3, 4],
        nodes_featureids=[0, 1, 0, 0, 0],
        nodes_values=[0.25, -0.5, 0.0, 0.0, 0.0],
        nodes_modes=["BRANCH_LEQ", "BRANCH_LEQ", "LEAF", "LEAF", "LEAF"],
        nodes_truenodeids=[1, 3, 0, 0, 0],
        nodes_falsenodeids=[2, 4, 0, 0, 0],
        class_treeids=[0] * 6,
        class_nodeids=[2, 2, 3, 3, 4, 4],
        class_ids=[0, 1] * 3,
        class_weights=[0.9, 0.1, 0.8, 0.2, 0.1, 0.9],
        classlabels_strings=["no", "yes", "perhaps"],
        post_transform="NONE",
    )
    outputs = [("label", TensorProto.STRING, ["N"]), ("probabilities", TensorProto.FLOAT, ["N", 3])]
    return save(path, [node], outputs, {})


def save(path, nodes, outputs, weights):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])],
        [helper.make_tensor_value_info(*each) for each in outputs],
        [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    return path


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "rows.csv"
    label = np.where((ROWS[:, 0] <= 0.25) & (ROWS[:, 1] > -0.5), "yes", "no")
    lines = [",".join([*map(str, row), text]) for row, text in zip(ROWS, label, strict=True)]
    path.write_text("\n".join(["a,b,c,y", *lines]))
    return path


def test_a_tree_is_found_again_with_its_own_thresholds(tmp_path, data, capsys):
    model = trees(tmp_path / "m.onnx")
    assert run(["rules", "extract", str(model), "--data", str(data), "-y", "y", "--json", *SET]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["fidelity"]["held_out"] == 1.0
    assert report["fidelity"]["made_up"] >= 0.99
    assert report["accuracy"] == {"rules": 1.0, "teacher": 1.0}
    assert report["teacher_splits"] == ["a", "b"]
    text = (tmp_path / "m.rules.yaml").read_text()
    assert "0.25" in text
    assert "-0.5" in text


def test_fidelity_is_that_of_the_file_that_was_written(tmp_path, data, capsys):
    model = network(tmp_path / "n.onnx")
    assert run(["rules", "extract", str(model), "--data", str(data), "--without", "y", "--json", *SET]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["rules"] <= 8
    assert report["fidelity"]["held_out"] > 0.9
    assert report["accuracy"] is None
    rules = load(tmp_path / "n.rules.yaml")
    table, _ = read_table(rules, data)
    columns = tuple(Column(name, ColumnType.NUMBER) for name in NAMES)
    teacher = Teacher(model, columns)
    whole = {name: ROWS[:, i] for i, name in enumerate(NAMES)}
    teacher.learn_classes(whole)
    said = teacher.ask(whole).labels
    assert (evaluate(rules, table).result == said).mean() > 0.9


def test_a_minimum_precision_is_kept_on_what_was_learned_from(tmp_path, data, capsys):
    model = trees(tmp_path / "m.onnx")
    args = ["--min-precision", "0.99", "--json"]
    assert run(["rules", "extract", str(model), "--data", str(data), "--without", "y", *args]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["chosen"]["method"] == "cover"


def test_splits_are_those_of_the_nodes(tmp_path):
    assert {k: v.tolist() for k, v in teacher_splits(trees(tmp_path / "m.onnx"), NAMES).items()} == {
        "a": [0.25],
        "b": [-0.5],
    }
    assert teacher_splits(network(tmp_path / "n.onnx"), NAMES) == {}


def test_made_up_rows_lie_between_rows():
    columns = (
        Column("x", ColumnType.NUMBER, missing=True),
        Column("n", ColumnType.INTEGER),
        Column("g", ColumnType.CATEGORY, values=("a", "b"), missing=True),
    )
    x = ROWS[:, 0].copy()
    x[::7] = np.nan
    table = {"x": x, "n": np.rint(ROWS[:, 1] * 5), "g": np.array(["a", "b", ""] * 133 + ["a"], object)}
    found = rows_near(columns, table, 500, np.random.default_rng(1))
    assert np.nanmin(x) <= np.nanmin(found["x"]) <= np.nanmax(found["x"]) <= np.nanmax(x)
    assert (found["n"] == np.rint(found["n"])).all()
    assert set(found["g"]) == {"a", "b", ""}
    assert np.isnan(found["x"]).any()
    again = rows_near(columns, table, 500, np.random.default_rng(1))
    assert all((found[name].astype(str) == again[name].astype(str)).all() for name in found)


def test_models_that_do_not_fit(tmp_path, data, capsys):
    model = network(tmp_path / "n.onnx")
    assert run(["rules", "extract", str(model), "--data", str(data)]) != 0
    assert "text: y" in capsys.readouterr().err
    assert run(["rules", "extract", str(model), "--data", str(data), "--without", "y", "--without", "a"]) != 0
    assert "takes 3 columns, and the data has 2" in capsys.readouterr().err
    (tmp_path / "junk.onnx").write_bytes(b"junk")
    assert run(["rules", "extract", str(tmp_path / "junk.onnx"), "--data", str(data)]) != 0
