"""What modelkit is compared with, on one fold, in an environment of its own; prints its predictions as JSON.

Run: python automl_peers.py SYSTEM TRAIN TEST SECONDS TASK
SYSTEM is flaml, autogluon, or linear: logistic or ridge regression with its penalty tuned by cross-validation.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

Fitted = tuple[Callable[[pd.DataFrame], Any], list[Any]]
"""Predicts probabilities [N, K] or values [N]; the classes in their order."""


def flaml(rows: pd.DataFrame, target: pd.Series, seconds: int, is_classes: bool) -> Fitted:
    """FLAML as it comes, with one thread."""
    from flaml import AutoML

    model = AutoML()
    metric = "log_loss" if is_classes else "rmse"
    task = "classification" if is_classes else "regression"
    model.fit(
        rows, target, task=task, metric=metric, time_budget=seconds, seed=0, verbose=0, n_jobs=1, log_file_name=""
    )
    return (model.predict_proba if is_classes else model.predict), list(model.classes_ if is_classes else [])


def autogluon(rows: pd.DataFrame, target: pd.Series, seconds: int, is_classes: bool) -> Fitted:
    """AutoGluon's preset ``medium_quality``, with one thread."""
    from autogluon.tabular import TabularPredictor

    kind = ("binary" if target.nunique() == 2 else "multiclass") if is_classes else "regression"
    metric = "log_loss" if is_classes else "root_mean_squared_error"
    model = TabularPredictor("target", problem_type=kind, eval_metric=metric, path=tempfile.mkdtemp(), verbosity=0)
    model.fit(
        rows.assign(target=target), time_limit=seconds, presets="medium_quality", num_cpus=1, num_gpus=0, verbosity=0
    )
    if not is_classes:
        return model.predict, []
    return lambda some: model.predict_proba(some).to_numpy(), list(model.class_labels)


def linear(rows: pd.DataFrame, target: pd.Series, seconds: int, is_classes: bool) -> Fitted:
    """Medians, standardised numbers, one-hot categories; the penalty of least cross-validated loss of 25."""
    from sklearn.compose import make_column_selector, make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegressionCV, RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    features = make_column_transformer(
        (
            make_pipeline(SimpleImputer(strategy="median"), StandardScaler()),
            make_column_selector(dtype_include="number"),
        ),
        (OneHotEncoder(handle_unknown="ignore"), make_column_selector(dtype_exclude="number")),
    )
    strengths = np.logspace(-4, 4, 25)
    last: Any = (
        LogisticRegressionCV(Cs=strengths, cv=5, scoring="neg_log_loss", max_iter=1000, use_legacy_attributes=False)
        if is_classes
        else RidgeCV(alphas=strengths)
    )
    model = make_pipeline(features, last).fit(rows, target)
    return (model.predict_proba if is_classes else model.predict), list(model.classes_ if is_classes else [])


SYSTEMS = {"flaml": flaml, "autogluon": autogluon, "linear": linear}


def main(system: str, train_path: str, test_path: str, seconds: int, task: str) -> None:
    """Learn, predict, time one row."""
    train, test = pd.read_csv(train_path), pd.read_csv(test_path)
    is_classes = task == "classification"
    for name in train.columns[:-1]:
        if not pd.api.types.is_numeric_dtype(train[name]):
            train[name], test[name] = train[name].astype("category"), test[name].astype("category")
    target = train.pop("target")
    rows = test.drop(columns="target")
    began = time.monotonic()
    predict, classes = SYSTEMS[system](train, target, seconds, is_classes)
    took = time.monotonic() - began
    values = np.asarray(predict(rows))
    columns = (
        {f"probability_{name}": values[:, place].tolist() for place, name in enumerate(classes)}
        if is_classes
        else {"prediction": values.tolist()}
    )
    one, times = rows.iloc[:1], []
    for _ in range(30):
        at = time.perf_counter()
        predict(one)
        times.append(time.perf_counter() - at)
    print(json.dumps({"columns": columns, "seconds": took, "latency_ms": 1000 * float(np.median(times))}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5])
