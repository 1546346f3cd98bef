"""Support vector machines with a radial kernel, on small tables; probabilities by Platt's sigmoid."""

from __future__ import annotations

from typing import Any

import numpy as np

from modelkit.automl.encode.dense import Dense
from modelkit.automl.families.family import Family, Fit
from modelkit.automl.space import span


def _fit(job: Fit) -> tuple[Any, None]:
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.svm import SVC, SVR

    spread = float(job.x.var()) * job.x.shape[1] or 1.0
    gamma = float(job.params["gamma"]) / spread
    if not job.classes:
        model: Any = SVR(
            C=float(job.params["cost"]), gamma=gamma, epsilon=float(job.params["epsilon"]), cache_size=200
        )
        return model.fit(job.x, job.y, sample_weight=job.weight), None
    machine: Any = SVC(C=float(job.params["cost"]), gamma=gamma, cache_size=200, random_state=job.seed)
    if job.classes > 2:
        machine = OneVsRestClassifier(machine)
    least = int(np.bincount(job.y).min())
    folds = max(2, min(5, least))
    return CalibratedClassifierCV(machine, method="sigmoid", ensemble=False, cv=folds).fit(
        job.x, job.y, sample_weight=job.weight
    ), None


FAMILY = Family(
    name="svm",
    about="support vectors with a radial kernel",
    estimators=("CalibratedClassifierCV", "SVR"),
    space={
        "cost": span(0.05, 200, log=True),
        "gamma": span(0.05, 5, log=True),
        "epsilon": span(0.01, 0.5, log=True),
    },
    first=({"cost": 2.0, "gamma": 1.0, "epsilon": 0.1}, {"cost": 20.0, "gamma": 0.2, "epsilon": 0.05}),
    encoder=lambda params: Dense(squash=True),
    fit=_fit,
    most_rows=3000,
    complexity=4,
)
