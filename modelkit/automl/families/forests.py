"""Random forests and extremely randomised trees."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from modelkit.automl.encode.split import Split
from modelkit.automl.families.family import Family, Fit
from modelkit.automl.space import choice, span

_LEAVES = 1_000_000  # in all trees; more make a file of hundreds of megabytes


def _fit(kind: str) -> Callable[[Fit], tuple[Any, None]]:
    def fit(job: Fit) -> tuple[Any, None]:
        import sklearn.ensemble

        trees = int(job.params["trees"])
        make = getattr(sklearn.ensemble, f"{kind}{'Classifier' if job.classes else 'Regressor'}")
        leaf = max(int(job.params["leaf"]), len(job.x) * trees // _LEAVES)
        more = {"criterion": job.params["criterion"]} if job.classes else {}
        model = make(
            trees,
            max_features=float(job.params["features"]),
            min_samples_leaf=leaf,
            bootstrap=kind == "RandomForest",
            random_state=job.seed,
            n_jobs=1,
            **more,
        )
        return model.fit(job.x, job.y, sample_weight=job.weight), None

    return fit


_SPACE = {
    "trees": span(60, 300, log=True, whole=True),
    "features": span(0.1, 1.0),
    "leaf": span(1, 20, log=True, whole=True),
    "criterion": choice("gini", "entropy"),
}

RANDOM_FOREST = Family(
    name="random_forest",
    about="trees on resampled rows",
    estimators=("RandomForestClassifier", "RandomForestRegressor"),
    space=_SPACE,
    first=({"trees": 150, "features": 0.4, "leaf": 2, "criterion": "entropy"},),
    encoder=lambda params: Split(codes=False, most=30),
    fit=_fit("RandomForest"),
    most_rows=200_000,
    has_zeros=True,
    complexity=6,
)

EXTRA_TREES = Family(
    name="extra_trees",
    about="trees with random thresholds",
    estimators=("ExtraTreesClassifier", "ExtraTreesRegressor"),
    space=_SPACE,
    first=(
        {"trees": 150, "features": 0.6, "leaf": 1, "criterion": "gini"},
        {"trees": 150, "features": 0.9, "leaf": 3, "criterion": "entropy"},
    ),
    encoder=lambda params: Split(codes=False, most=30),
    fit=_fit("ExtraTrees"),
    most_rows=200_000,
    has_zeros=True,
    complexity=6,
)
