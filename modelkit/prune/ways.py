"""Which ways of zeroing single weights are tried."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from modelkit.candidate import Candidate
from modelkit.data.dataset import Dataset
from modelkit.decision import Decision
from modelkit.progress import Progress
from modelkit.prune.config import Method, PruneConfig
from modelkit.prune.goal import Goal
from modelkit.prune.schedule import Finetune, needs_data, prune_gradually


def weight_candidates(config: PruneConfig, data: Dataset | None, finetune: Finetune | None = None) -> list[Candidate]:
    """Return one candidate for each method that is asked for, or that the data allows.

    Args:
        config: The resolved options.
        data: Inputs; None where there are none.
        finetune: Trains after each step, see ``prune_gradually``.

    Raises:
        UsageError: The method that is asked for needs data.
    """
    methods: tuple[Method, ...] = (config.method,)
    if config.method == "auto":
        only_sizes = data is None or config.threshold is not None
        methods = ("magnitude",) if only_sizes else ("magnitude", "wanda", "obs")
    elif config.method != "magnitude" and data is None:
        raise needs_data(config.method)
    found = []
    for method in methods:
        for scope in _scopes(config, data, method):
            name = method if scope == "layer" or config.scope != "auto" else f"{method}, all layers together"
            own = config.model_copy(update={"scope": scope})
            found.append(Candidate(name, _way(own, data, finetune, method)))
    return found


def _scopes(config: PruneConfig, data: Dataset | None, method: Method) -> tuple[str, ...]:
    """Ranking all layers as one is bold: which layer can spare how much shows only on data."""
    if config.scope != "auto":
        return (config.scope,)
    bold = data is not None and method != "magnitude" and Goal.of(config).counts
    return ("layer", "global") if bold else ("layer",)


def _way(
    config: PruneConfig, data: Dataset | None, finetune: Finetune | None, method: Method
) -> Callable[[ir.Model, Progress], list[Decision]]:
    return lambda model, progress: prune_gradually(model, config, data, finetune, method=method, progress=progress)
