"""Which ways of zeroing single weights are tried."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir

from modelkit.algorithm.candidate import Candidate
from modelkit.data.dataset import Dataset
from modelkit.decision import Decision
from modelkit.progress import Progress
from modelkit.prune.config import Method, PruneConfig
from modelkit.prune.tuning import Tuner
from modelkit.prune.weights.goal import Goal
from modelkit.prune.weights.schedule import needs_data, prune_gradually, steps_of


def weight_candidates(config: PruneConfig, data: Dataset | None, tuner: Tuner | None = None) -> list[Candidate]:
    """Return one candidate for each method that is asked for, or that the data allows.

    Args:
        config: The resolved options.
        data: Inputs; None where there are none.
        tuner: Trains after each step; its epochs are shared out among the steps.

    Raises:
        UsageError: The method that is asked for needs data.
    """
    methods: tuple[Method, ...] = (config.method,)
    if config.method == "auto":
        only_sizes = data is None or config.threshold is not None
        methods = ("magnitude",) if only_sizes else ("magnitude", "wanda", "obs")
        if tuner is not None:
            # Training evens the methods out and takes longest: only the one that starts best is tried.
            methods = methods[-1:]
    elif config.method != "magnitude" and data is None:
        raise needs_data(config.method)
    found = []
    for method in methods:
        scopes = _scopes(config, data, method)
        for scope in scopes if tuner is None else scopes[-1:]:
            name = method if scope == "layer" or config.scope != "auto" else f"{method}, all layers together"
            own = config.model_copy(update={"scope": scope})
            found.append(Candidate(name, _way(own, data, tuner, method)))
    return found


def _scopes(config: PruneConfig, data: Dataset | None, method: Method) -> tuple[str, ...]:
    """Ranking all layers as one is bold: which layer can spare how much shows only on data."""
    if config.scope != "auto":
        return (config.scope,)
    bold = data is not None and method != "magnitude" and Goal.of(config).counts
    return ("layer", "global") if bold else ("layer",)


def _way(
    config: PruneConfig, data: Dataset | None, tuner: Tuner | None, method: Method
) -> Callable[[ir.Model, Progress], list[Decision]]:
    def apply(model: ir.Model, progress: Progress) -> list[Decision]:
        left = [] if tuner is None else tuner.share_out(steps_of(config))

        def train(model: ir.Model, masks: Mapping[str, np.ndarray]) -> list[Decision]:
            assert tuner is not None
            return tuner(model, progress, epochs=left.pop(0))

        finetune = None if tuner is None else train
        return prune_gradually(model, config, data, finetune, method=method, progress=progress)

    return apply
