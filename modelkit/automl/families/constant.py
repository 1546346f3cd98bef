"""The constant: the shares of the classes, or the mean. What every other model must beat."""

from __future__ import annotations

from typing import Any

from modelkit.automl.encode.dense import Dense
from modelkit.automl.families.family import Family, Fit


def _fit(job: Fit) -> tuple[Any, None]:
    from sklearn.dummy import DummyClassifier, DummyRegressor

    made = DummyClassifier(strategy="prior") if job.classes else DummyRegressor()
    return made.fit(job.x, job.y, sample_weight=job.weight), None


FAMILY = Family(
    name="constant",
    about="the shares of the classes, or the mean",
    estimators=("DummyClassifier", "DummyRegressor"),
    space={},
    first=({},),
    encoder=lambda params: Dense(),
    fit=_fit,
)
