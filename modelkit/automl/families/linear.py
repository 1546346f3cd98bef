"""Linear models: logistic regression, or ridge regression, along the strength of their penalty."""

from __future__ import annotations

from typing import Any

from modelkit.automl.encode.dense import Dense
from modelkit.automl.families.family import Family, Fit
from modelkit.automl.space import choice, span


def _fit(job: Fit) -> tuple[Any, None]:
    from sklearn.linear_model import LogisticRegression, Ridge

    strength = float(job.params["strength"])
    if job.classes:
        model = LogisticRegression(C=strength, max_iter=int(min(400, max(60, 4e6 / max(job.x.size, 1)))), tol=1e-5)
    else:
        model = Ridge(alpha=1 / (2 * strength))
    return model.fit(job.x, job.y, sample_weight=job.weight), None


FAMILY = Family(
    name="linear",
    about="logistic or ridge regression",
    estimators=("LogisticRegression", "Ridge"),
    space={"strength": span(1e-4, 1e3, log=True), "squash": choice(False, True)},
    first=(
        {"strength": 1.0, "squash": False},
        {"strength": 0.03, "squash": False},
        {"strength": 0.3, "squash": True},
        {"strength": 30.0, "squash": False},
        {"strength": 0.2, "squash": False},
        {"strength": 0.006, "squash": False},
        {"strength": 5.0, "squash": False},
        {"strength": 200.0, "squash": False},
    ),
    encoder=lambda params: Dense(squash=bool(params["squash"])),
    fit=_fit,
    eager=4,
    complexity=1,
)
