"""Small neural networks: one or two hidden layers, with early stopping on tables that are large enough."""

from __future__ import annotations

from typing import Any

from modelkit.automl.encode.dense import Dense
from modelkit.automl.families.family import Family, Fit
from modelkit.automl.space import choice, span


def _fit(job: Fit) -> tuple[Any, None]:
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    kind: Any = MLPClassifier if job.classes else MLPRegressor
    width, layers = int(job.params["width"]), int(job.params["layers"])
    model = kind(
        hidden_layer_sizes=(width,) * layers,
        activation=job.params["activation"],
        alpha=float(job.params["penalty"]),
        learning_rate_init=float(job.params["rate"]),
        batch_size=min(len(job.x), 32 if len(job.x) < 2000 else 256),
        max_iter=int(min(200, max(10, 200_000 / len(job.x)))),
        early_stopping=len(job.x) >= 600,
        n_iter_no_change=12,
        random_state=job.seed,
    )
    return model.fit(job.x, job.y, sample_weight=job.weight), None


FAMILY = Family(
    name="mlp",
    about="a small neural network",
    estimators=("MLPClassifier", "MLPRegressor"),
    space={
        "width": span(8, 128, log=True, whole=True),
        "layers": span(1, 3, whole=True),
        "activation": choice("relu", "tanh"),
        "penalty": span(1e-5, 3, log=True),
        "rate": span(3e-4, 2e-2, log=True),
    },
    first=({"width": 32, "layers": 2, "activation": "relu", "penalty": 0.1, "rate": 3e-3},),
    encoder=lambda params: Dense(squash=True),
    fit=_fit,
    most_rows=100_000,
    complexity=5,
)
