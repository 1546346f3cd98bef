"""FLAML on one fold, run by benchmarks/automl.py in FLAML's own environment: prints its predictions as JSON."""

from __future__ import annotations

import json
import sys
import time

import numpy as np
import pandas as pd
from flaml import AutoML


def main(train_path: str, test_path: str, seconds: int, task: str) -> None:
    """Learn, predict, time one row."""
    train, test = pd.read_csv(train_path), pd.read_csv(test_path)
    target = train.columns[-1]
    for name in train.columns[:-1]:
        if train[name].dtype == object:
            train[name], test[name] = train[name].astype("category"), test[name].astype("category")
    began = time.monotonic()
    automl = AutoML()
    automl.fit(
        train.drop(columns=target),
        train[target],
        task=task,
        metric="log_loss" if task == "classification" else "rmse",
        time_budget=seconds,
        seed=0,
        verbose=0,
    )
    took = time.monotonic() - began
    rows = test.drop(columns=target)
    if task == "classification":
        values = automl.predict_proba(rows)
        columns = {f"probability_{name}": values[:, place].tolist() for place, name in enumerate(automl.classes_)}
    else:
        columns = {"prediction": automl.predict(rows).tolist()}
    one, times = rows.iloc[:1], []
    for _ in range(30):
        at = time.perf_counter()
        automl.predict(one)
        times.append(time.perf_counter() - at)
    print(json.dumps({"columns": columns, "seconds": took, "latency_ms": 1000 * float(np.median(times))}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
