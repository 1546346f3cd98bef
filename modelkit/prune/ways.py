"""Which ways of zeroing single weights are tried."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from modelkit.candidate import Candidate
from modelkit.data.dataset import Dataset
from modelkit.decision import Decision
from modelkit.progress import Progress
from modelkit.prune.config import Method, PruneConfig
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
    return [Candidate(method, _way(config, data, finetune, method), alike=True) for method in methods]


def _way(
    config: PruneConfig, data: Dataset | None, finetune: Finetune | None, method: Method
) -> Callable[[ir.Model, Progress], list[Decision]]:
    return lambda model, progress: prune_gradually(model, config, data, finetune, method=method, progress=progress)
