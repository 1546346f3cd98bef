"""The order in which the channels of each group would go, by any method of importance."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from modelkit.channels import importance
from modelkit.channels.elimination import Consumer, consumer_of, greedy_order
from modelkit.channels.importance import atom_members, reading_columns
from modelkit.data.dataset import Dataset
from modelkit.errors import UsageError
from modelkit.graph.channels import Group
from modelkit.linear.grams import LayerGram, collect
from modelkit.linear.layers import Linear, linear_layers, observable_layers
from modelkit.linear.matrix import Layer
from modelkit.progress import Progress, silent

Method = str
NEEDS_DATA = ("activation", "reconstruction")
# A layer with more columns than this is judged by its activations alone: its Gram matrix takes too long to invert.
MOST_COLUMNS = 5000


@dataclass(frozen=True)
class Ranking:
    """What a method thinks of the channels of one group.

    Attributes:
        method: The method that was used; another than asked for where that one cannot judge the group.
        order: All atoms, the first to go first.
        scores: Importance of each atom, above 0 (its unit is the method's own).
    """

    method: str
    order: np.ndarray
    scores: np.ndarray

    def of_channels(self, group: Group) -> np.ndarray:
        """Importance of each channel: its share of its atom's."""
        found = np.zeros(group.channels)
        for atom, members in enumerate(atom_members(group)):
            found[members] = self.scores[atom] / len(members)
        return found


class Observed:
    """What was seen of a model's layers on data: gathered once, used by every method.

    Args:
        model: The model.
        data: Inputs; None where there are none.
        limit: At most this many samples.
        ridge: Damping of Gram matrices, as a share of the mean of their diagonal.
        threads: Threads of the forward pass.
    """

    def __init__(
        self, model: ir.Model, data: Dataset | None, limit: int, ridge: float = 1e-3, threads: int = 0
    ) -> None:
        self.layers: dict[str, Layer] = observable_layers(model)
        self.linears: dict[str, Linear] = linear_layers(model)
        self._model, self.data, self._limit, self._ridge, self._threads = model, data, limit, ridge, threads
        self._grams: dict[str, LayerGram] | None = None

    def grams(self, groups: Sequence[Group], progress: Progress = silent) -> Mapping[str, LayerGram]:
        """Sums over the inputs of the layers that read some groups (those of the first call)."""
        if self._grams is None:
            assert self.data is not None
            names = {str(part.value.name) for group in groups for part, _ in reading_columns(group, self.layers)}
            wanted = [layer for name, layer in self.layers.items() if name in names]
            small = [layer for layer in wanted if layer.inputs <= MOST_COLUMNS]
            large = [layer for layer in wanted if layer.inputs > MOST_COLUMNS]
            options = {"limit": self._limit, "threads": self._threads, "progress": progress}
            self._grams = collect(self._model, small, self.data, **options)  # type: ignore[arg-type]
            self._grams |= collect(self._model, large, self.data, full=False, **options)  # type: ignore[arg-type]
        return self._grams

    def consumers(self, group: Group, grams: Mapping[str, LayerGram]) -> list[Consumer] | None:
        """The layers that read a group, ready for eliminations; None where none can be fitted."""
        found = []
        for part, columns in reading_columns(group, self.layers):
            name = str(part.value.name)
            gram = grams.get(name)
            if gram is None or gram.xtx is None or not gram.count:
                continue
            layer, linear = self.layers[name], self.linears.get(name)
            matrices = layer.matrices(layer.array()).astype(np.float64)
            centred = linear is not None and linear.takes_bias
            found.append(consumer_of(name, matrices, gram, columns, centred=centred, ridge=self._ridge))
        return found or None


def rank(
    groups: Sequence[Group],
    method: Method,
    observed: Observed,
    *,
    keep_at_least: float,
    seed: int,
    taylor: Callable[[Group], np.ndarray | None] | None = None,
    progress: Progress = silent,
) -> dict[str, Ranking]:
    """Rank the channels of every group.

    Args:
        groups: Groups that can be cut.
        method: One of the importances of the config, not "auto".
        observed: What was seen of the model.
        keep_at_least: Share of the channels whose order is of no interest, as they stay.
        seed: Seed of "random".
        taylor: Gives the Taylor scores of each channel's atom.
        progress: Told how far the work is.

    Raises:
        UsageError: The method needs data, labels or BatchNormalization, and there is none.
    """
    check_importance(method, groups, observed.data)
    grams = observed.grams(groups, progress) if method in NEEDS_DATA else {}
    found = {}
    for number, group in enumerate(groups):
        progress("ranking channels", number, len(groups))
        found[group.name] = _rank(group, method, observed, grams, keep_at_least, seed, taylor)
    return found


def _rank(
    group: Group,
    method: Method,
    observed: Observed,
    grams: Mapping[str, LayerGram],
    keep_at_least: float,
    seed: int,
    taylor: Callable[[Group], np.ndarray | None] | None,
) -> Ranking:
    scores: np.ndarray | None = None
    match method:
        case "reconstruction":
            consumers = observed.consumers(group, grams)
            if consumers is not None:
                atoms = len(atom_members(group))
                order, added = greedy_order(consumers, atoms, int((1 - keep_at_least) * atoms))
                scores = np.empty(atoms)
                # Later is never less important, whatever rounding says.
                scores[order] = np.maximum.accumulate(np.maximum(added, 1e-30))
                return Ranking(method, order, scores)
            method = "activation"
            scores = importance.activation(group, observed.layers, grams)
        case "activation":
            scores = importance.activation(group, observed.layers, grams)
        case "gamma":
            scores = importance.batchnorm_scale(group)
        case "geometric_median":
            scores = importance.geometric_median(group)
        case "taylor":
            scores = taylor(group) if taylor is not None else None
        case "random":
            scores = importance.random(group, seed)
        case "l1":
            scores = importance.magnitude(group, 1)
    if scores is None:
        method, scores = "l2", importance.magnitude(group, 2)
    return Ranking(method, np.argsort(scores, kind="stable"), np.maximum(scores, 1e-30))


def check_importance(method: Method, groups: Sequence[Group], data: Dataset | None) -> None:
    """Refuse a method that has nothing to go by.

    Raises:
        UsageError: It needs data, labels or BatchNormalization, and there is none.
    """
    if method in NEEDS_DATA and data is None:
        raise UsageError(
            f"importance {method} looks at what flows through the channels, and there is no data",
            "give inputs with --data, labels are not needed; l2 works without",
        )
    if method == "taylor" and (data is None or not data.has_labels):
        raise UsageError(
            "importance taylor follows the loss, which needs labelled data",
            "give inputs with labels, or use reconstruction or activation, which need none",
        )
    if method == "gamma" and all(importance.batchnorm_scale(group) is None for group in groups):
        raise importance.no_batchnorm(list(groups))
