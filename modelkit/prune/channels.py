"""Which cuts of channels are tried: a few ways at the share asked for, or ever closer shares inside a budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import onnx_ir as ir

from modelkit.algorithm.candidate import Candidate, Trial
from modelkit.channels.cutting import Finetune, prune_channels, ways
from modelkit.channels.survey import Survey
from modelkit.channels.targets import Way
from modelkit.data.dataset import Dataset
from modelkit.decision import Decision
from modelkit.errors import UsageError
from modelkit.progress import Progress
from modelkit.prune.config import PruneConfig

_FIRST = 0.5
_MOST_TRIALS = 7
_CLOSE = 0.03  # shares nearer than this are not told apart


class ChannelMode:
    """Makes the candidates that take channels out.

    Args:
        model: The normalised model.
        config: The resolved options.
        data: Inputs; None where there are none.
        finetune: Trains a cut model in place; None where nothing is trained.
    """

    def __init__(
        self, model: ir.Model, config: PruneConfig, data: Dataset | None, finetune: Finetune | None = None
    ) -> None:
        self._model, self._config, self._data, self._finetune = model, config, data, finetune
        self._ratios: dict[str, float] = {}

    def candidates(self) -> list[Candidate]:
        """Return what to try first.

        Raises:
            UsageError: A pattern matches nothing, the importance needs what is not there, or auto has no budget.
            ModelError: No channel can be taken out; says why for each group.
        """
        config = self._config
        found = ways(config, self._data)
        if config.channels == "auto" and config.budget.max_drop is None:
            raise UsageError(
                "channels: auto takes out as much as the budget allows, and none is set",
                "say what may be lost, as with --max-drop 1%; --min-speedup and --max-latency may come on top",
            )
        # What is wrong with the options should be known before anything runs for long.
        self._survey.check(found[0].importance)
        if config.channels == "auto":
            return [self._at(found[0], _FIRST)]
        ratio = config.channels
        if self._finetune is not None:
            # Training evens the ways out and takes longest: only the most promising one is tried.
            found = found[:1]
        return [Candidate(way.name, self._apply(way, ratio)) for way in found]

    def refine(self, trials: Sequence[Trial]) -> list[Candidate]:
        """Return the next share to try, between the largest that fits the budget and the smallest that does not."""
        tried = [(self._ratios[trial.name], trial) for trial in trials if trial.name in self._ratios]
        if self._config.channels != "auto" or len(tried) >= _MOST_TRIALS:
            return []
        low = max((ratio for ratio, trial in tried if not _too_much(trial)), default=0.0)
        high = min((ratio for ratio, trial in tried if _too_much(trial)), default=1.0)
        if high - low <= _CLOSE:
            return []
        return [self._at(ways(self._config, self._data)[0], round((low + high) / 2, 3))]

    @cached_property
    def _survey(self) -> Survey:
        """What all candidates share: they start from the same weights."""
        return Survey(self._model.clone(), self._config, self._data)

    def _at(self, way: Way, ratio: float) -> Candidate:
        name = f"{way.name}, {ratio:.1%}"
        self._ratios[name] = ratio
        return Candidate(name, self._apply(way, ratio))

    def _apply(self, way: Way, ratio: float | None) -> Callable[[ir.Model, Progress], list[Decision]]:
        def apply(model: ir.Model, progress: Progress) -> list[Decision]:
            return prune_channels(
                model,
                self._config,
                ratio,
                self._data,
                way=way,
                survey=self._survey,
                finetune=self._finetune,
                progress=progress,
            )

        return apply


def _too_much(trial: Trial) -> bool:
    """Whether less must be cut: it could not be made, or lost too much; where it is too large or slow, more must."""
    return trial.status == "failed" or trial.missed == "quality"
