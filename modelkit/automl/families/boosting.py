"""Gradient boosting of trees: LightGBM, and scikit-learn's histogram boosting.

On tables that are large enough, the number of rounds is found by early stopping on a part of the training rows; the
final fit, on all rows, takes the number that the folds found.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from modelkit.automl.encode.split import Split
from modelkit.automl.families.family import Family, Fit
from modelkit.automl.space import span

_ENOUGH = 600  # rows; with fewer, the part to stop by says nothing
_PART = 0.15
_MOST = 1500


def _parts(job: Fit) -> tuple[np.ndarray, np.ndarray] | None:
    """Rows to fit and rows to stop by; None where the number of rounds is given or there are too few rows."""
    if job.rounds is not None or len(job.x) < _ENOUGH:
        return None
    order = np.random.default_rng(job.seed).permutation(len(job.x))
    count = int(_PART * len(job.x))
    fit, stop = order[count:], order[:count]
    if job.classes and len(np.unique(job.y[fit])) < job.classes:
        return None
    return fit, stop


def _some(values: np.ndarray | None, rows: np.ndarray) -> np.ndarray | None:
    return None if values is None else values[rows]


def _lightgbm(job: Fit) -> tuple[Any, int | None]:
    import lightgbm

    params = job.params
    kind: Any = lightgbm.LGBMClassifier if job.classes else lightgbm.LGBMRegressor
    parts = _parts(job)
    model = kind(
        n_estimators=_MOST if parts is not None else job.rounds or int(params["rounds"]),
        learning_rate=float(params["rate"]),
        num_leaves=int(params["leaves"]),
        min_child_samples=int(params["leaf"]),
        colsample_bytree=float(params["features"]),
        subsample=float(params["rows"]),
        subsample_freq=1,
        reg_lambda=float(params["l2"]),
        cat_smooth=float(params["smooth"]),
        random_state=job.seed,
        n_jobs=1,
        verbose=-1,
        deterministic=True,
        force_row_wise=True,
    )
    named: dict[str, Any] = {"categorical_feature": list(job.categorical)} if job.categorical else {}
    if parts is None:
        model.fit(job.x, job.y, sample_weight=job.weight, **named)
        return model, job.rounds or int(params["rounds"])
    fit, stop = parts
    model.fit(
        job.x[fit],
        job.y[fit],
        sample_weight=_some(job.weight, fit),
        eval_set=[(job.x[stop], job.y[stop])],
        eval_sample_weight=None if job.weight is None else [job.weight[stop]],
        callbacks=[lightgbm.early_stopping(40, verbose=False)],
        **named,
    )
    return model, max(1, int(model.best_iteration_ or model.n_estimators))


def _histogram(job: Fit) -> tuple[Any, int | None]:
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    params = job.params
    kind = HistGradientBoostingClassifier if job.classes else HistGradientBoostingRegressor
    parts = _parts(job)
    model = kind(
        max_iter=600 if parts is not None else job.rounds or int(params["rounds"]),
        learning_rate=float(params["rate"]),
        max_leaf_nodes=int(params["leaves"]),
        min_samples_leaf=int(params["leaf"]),
        max_features=float(params["features"]),
        l2_regularization=float(params["l2"]),
        categorical_features=list(job.categorical) or None,
        early_stopping=parts is not None,
        n_iter_no_change=20,
        validation_fraction=_PART,
        random_state=job.seed,
    )
    model.fit(job.x, job.y, sample_weight=job.weight)
    return model, int(model.n_iter_)


LIGHTGBM = Family(
    name="lightgbm",
    about="gradient boosting by LightGBM",
    estimators=("LGBMClassifier", "LGBMRegressor"),
    space={
        "rate": span(0.01, 0.2, log=True),
        "rounds": span(20, 300, log=True, whole=True),
        "leaves": span(3, 127, log=True, whole=True),
        "leaf": span(2, 100, log=True, whole=True),
        "features": span(0.3, 1.0),
        "rows": span(0.5, 1.0),
        "l2": span(1e-3, 30, log=True),
        "smooth": span(2, 100, log=True),
    },
    first=(
        {"rate": 0.05, "rounds": 80, "leaves": 15, "leaf": 10, "features": 0.8, "rows": 0.8, "l2": 1.0, "smooth": 10},
        {"rate": 0.04, "rounds": 120, "leaves": 5, "leaf": 20, "features": 0.5, "rows": 0.8, "l2": 3.0, "smooth": 20},
        {
            "rate": 0.03,
            "rounds": 150,
            "leaves": 60,
            "leaf": 20,
            "features": 0.6,
            "rows": 0.9,
            "l2": 3.0,
            "smooth": 30,
        },
    ),
    encoder=lambda params: Split(codes=True),
    fit=_lightgbm,
    least_rows=50,
    complexity=7,
)

HISTOGRAM = Family(
    name="histogram",
    about="gradient boosting by scikit-learn",
    estimators=("HistGradientBoostingClassifier", "HistGradientBoostingRegressor"),
    space={
        "rate": span(0.02, 0.3, log=True),
        "rounds": span(20, 200, log=True, whole=True),
        "leaves": span(3, 63, log=True, whole=True),
        "leaf": span(2, 100, log=True, whole=True),
        "features": span(0.3, 1.0),
        "l2": span(1e-3, 30, log=True),
    },
    first=({"rate": 0.08, "rounds": 60, "leaves": 15, "leaf": 15, "features": 0.7, "l2": 1.0},),
    encoder=lambda params: Split(codes=True, most=250),
    fit=_histogram,
    least_rows=50,
    complexity=7,
)
