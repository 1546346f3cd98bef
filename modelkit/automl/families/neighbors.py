"""k nearest neighbours, on features of comparable size."""

from __future__ import annotations

from typing import Any

from modelkit.automl.encode.dense import Dense
from modelkit.automl.families.family import Family, Fit
from modelkit.automl.families.nearest import Neighbors
from modelkit.automl.space import choice, span


def _fit(job: Fit) -> tuple[Any, None]:
    model = Neighbors(int(job.params["neighbors"]), job.params["weights"] == "distance", job.classes)
    return model.fit(job.x, job.y), None


FAMILY = Family(
    name="neighbors",
    about="k nearest neighbours",
    estimators=("Neighbors", "Neighbors"),
    space={"neighbors": span(1, 60, log=True, whole=True), "weights": choice("uniform", "distance")},
    first=({"neighbors": 15, "weights": "distance"},),
    encoder=lambda params: Dense(squash=True, one_hot=0.7),
    fit=_fit,
    most_rows=5000,
    takes_weights=False,
    has_zeros=True,
    complexity=3,
)
