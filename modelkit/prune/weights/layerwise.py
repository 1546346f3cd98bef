"""Pruning layer by layer, front to back: each makes up for its own zeros and for what earlier layers lost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import onnx_ir as ir

from modelkit.data.dataset import Dataset
from modelkit.decision import Decision
from modelkit.graph.tensors import attribute_float
from modelkit.linear.grams import LayerGram, collect_beside
from modelkit.linear.layers import Linear, linear_layers
from modelkit.linear.matrix import Layer, readings_of
from modelkit.progress import Progress, silent
from modelkit.prune.config import PruneConfig
from modelkit.prune.weights import magnitude, obs, wanda
from modelkit.prune.weights.goal import Goal
from modelkit.prune.weights.sparse import apply, comparable, prunable_layers, wanda_scores

DAMPING = 0.1
# A Gram matrix of this many inputs takes 2 GiB.
MOST_INPUTS = 16_384


def prune_by_obs(
    model: ir.Model, config: PruneConfig, data: Dataset, goal: Goal | None = None, progress: Progress = silent
) -> list[Decision]:
    """Zero weights and let those that stay make up for it, in place.

    Layers are taken front to back. Each is fitted to what the original's layer gave, from the inputs that the pruned
    model gives it now, its bias too. Layers whose inputs cannot be observed are pruned by magnitude, those with more
    than ``MOST_INPUTS`` inputs by ``modelkit.prune.weights.wanda``.

    Args:
        model: A normalised model.
        config: Says how many, and of which layers.
        data: Inputs.
        goal: Overrides what the config says of how many.
        progress: Told how many layers are done.

    Returns:
        A decision for every float tensor, pruned or kept.

    Raises:
        DataError: An activation is infinite or NaN.
        ModelError: A layer would lose all its weights.
    """
    layers, decisions = prunable_layers(model, config)
    run = _Run(model, config, data, layers, goal or Goal.of(config), progress)
    done = 0
    for group in _front_to_back(model, layers):
        progress("pruning layers", done, len(layers))
        decisions += run.prune(group)
        done += len(group)
    progress("pruning layers", len(layers), len(layers))
    return sorted(decisions, key=lambda decision: decision.target)


class _Run:
    """What the layers of one run share: the original, its weights, where biases are, each layer's goal."""

    def __init__(
        self,
        model: ir.Model,
        config: PruneConfig,
        data: Dataset,
        layers: Sequence[Layer],
        goal: Goal,
        progress: Progress,
    ) -> None:
        self._model, self._original, self._data = model, model.clone(), data
        self._limit = config.calibration.samples
        self._weights = {layer.name: _matrices(layer) for layer in layers}
        self._linear = {name: linear for name, linear in linear_layers(model).items() if _takes_shift(linear)}
        goals = [goal] * len(layers)
        if goal.together:
            scores = wanda_scores(model, layers, data, config, progress)
            goals = goal.for_each([comparable(score) for score in scores])
        self._goals = {layer.name: own for layer, own in zip(layers, goals, strict=True)}

    def prune(self, group: Sequence[Layer]) -> list[Decision]:
        """Prune layers that read the same columns."""
        first = group[0]
        why = readings_of(first, self._model)
        if isinstance(why, str):
            return [self._by_magnitude(layer, why) for layer in group]
        full = first.inputs <= MOST_INPUTS
        grams = collect_beside(
            self._model, self._original, group, self._weights, self._data, limit=self._limit, full=full
        )
        if not full:
            return [self._by_wanda(layer, grams[layer.name]) for layer in group]
        plain = [layer for layer in group if layer.name not in self._linear]
        biased = [layer for layer in group if layer.name in self._linear]
        moments = grams[first.name].xtx
        assert moments is not None
        found = self._solve(plain, grams, moments.copy() if biased else moments, False) if plain else []
        return found + (self._solve(biased, grams, moments, True) if biased else [])

    def _solve(
        self, members: Sequence[Layer], grams: dict[str, LayerGram], moments: np.ndarray, biased: bool
    ) -> list[Decision]:
        """Prune layers that share their moments, which are used up; they are factored once."""
        first = grams[members[0].name]
        if biased:
            _subtract_means(moments, first)
        hessians = [obs.Hessian.of(matrix, DAMPING) for matrix in moments]
        found = []
        for layer in members:
            gram, weights = grams[layer.name], self._weights[layer.name].astype(np.float64)
            assert gram.cross is not None
            cross, energy = gram.cross, gram.other_squares.sum(axis=1)
            if biased:
                cross = cross - gram.mean[:, :, None] * gram.other_total[:, None, :]
                energy = energy - gram.count * np.square(gram.other_mean).sum(axis=1)
            rights = [h.right(each, start) for h, each, start in zip(hessians, cross, weights, strict=True)]
            new, mask = _choose(layer, self._goals[layer.name], hessians, rights, weights != 0)
            lost = [obs.error(*each) for each in zip(hessians, rights, new, weights, energy, strict=True)]
            found.append(self._write(layer, gram, new, mask, float(np.average(lost, weights=energy + 1e-30))))
        return found

    def _write(self, layer: Layer, gram: LayerGram, new: np.ndarray, mask: np.ndarray, lost: float) -> Decision:
        decision = apply(layer, mask, "least costly, the others make up", new, output_error=lost)
        if layer.name in self._linear and decision.action == "pruned":
            shift = gram.other_mean - np.einsum("goi,gi->go", new, gram.mean)
            self._linear[layer.name].shift_bias(shift.reshape(-1))
        return decision

    def _by_magnitude(self, layer: Layer, why: str) -> Decision:
        mask = self._goals[layer.name].keep(layer, magnitude.scores(self._weights[layer.name]))
        return apply(layer, mask, f"by magnitude: {why}")

    def _by_wanda(self, layer: Layer, gram: LayerGram) -> Decision:
        scores = wanda.scores(self._weights[layer.name], gram.squares)
        mask = self._goals[layer.name].keep(layer, scores, by_row=True)
        return apply(layer, mask, f"by wanda: the moments of {layer.inputs} inputs take too much memory")


def _choose(
    layer: Layer, goal: Goal, hessians: Sequence[obs.Hessian], rights: Sequence[np.ndarray], alive: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Zeros and new weights of a layer, ``[groups, outputs, inputs]``.

    The zeros of a single matrix are chosen in the sweep, on weights that already make up for those further left;
    those of several groups, and blocks, by a ranking over the whole layer. Weights that are not ``alive`` were zero
    before: they stay zero and count.
    """
    best = [hessian.solve(right) for hessian, right in zip(hessians, rights, strict=True)]
    fixed: np.ndarray | None = None
    if len(hessians) > 1 or (goal.pattern is not None and goal.pattern.blocks):
        costs = np.stack([hessian.costs(weights) for hessian, weights in zip(hessians, best, strict=True)])
        fixed = goal.keep(layer, np.where(alive, costs, -1)) & alive
    weights: list[np.ndarray] = []
    masks: list[np.ndarray] = []
    for number, (hessian, right) in enumerate(zip(hessians, rights, strict=True)):
        keep = _chooser(goal, alive[number]) if fixed is None else _fixed(fixed[number])
        swept, mask = obs.sweep(best[number], hessian.upper, goal.ends(layer, obs.BLOCK), keep)
        exact = obs.refit(hessian, right, mask)
        weights.append(swept if exact is None else exact)
        masks.append(mask)
    return np.stack(weights), np.stack(masks)


def _chooser(goal: Goal, alive: np.ndarray) -> obs.Keep:
    choose = goal.chooser()

    def keep(costs: np.ndarray, start: int, end: int) -> np.ndarray:
        part = alive[:, start:end]
        return choose(np.where(part, costs, -1), start, end) & part

    return keep


def _fixed(mask: np.ndarray) -> obs.Keep:
    return lambda costs, start, end: mask[:, start:end]


def _subtract_means(moments: np.ndarray, gram: LayerGram) -> None:
    """Turn sums of x xᵀ into those about the mean, in place and in stripes."""
    for start in range(0, moments.shape[1], obs.STRIPE):
        part = slice(start, start + obs.STRIPE)
        moments[:, part] -= gram.total[:, part, None] * gram.mean[:, None, :]


def _front_to_back(model: ir.Model, layers: Sequence[Layer]) -> Iterator[list[Layer]]:
    """Layers in the order in which they run; those that read the same columns come together."""
    order = {node: number for number, node in enumerate(model.graph)}
    groups: dict[object, list[Layer]] = {}
    first: dict[object, tuple[int, int]] = {}
    for layer in layers:
        readings = readings_of(layer, model)
        key: object = layer.name if isinstance(readings, str) else tuple(reading.key for reading in readings)
        groups.setdefault(key, []).append(layer)
        # Layers in branches and loops cannot be observed: when they are pruned makes no difference.
        place = min((order.get(node, len(order)), index) for node, index in layer.use.consumers)
        first[key] = min(place, first.get(key, place))
    for key in sorted(groups, key=lambda key: first[key]):
        yield groups[key]


def _matrices(layer: Layer) -> np.ndarray:
    """A layer's weights now, at least float32."""
    array = layer.matrices(layer.array())
    return array if array.dtype == np.float64 else array.astype(np.float32)


def _takes_shift(linear: Linear) -> bool:
    """Whether what the matrices lack on average can be added to a bias as it is."""
    node = linear.node
    factors = (attribute_float(node, name, 1.0) for name in ("alpha", "beta"))
    return linear.takes_bias and all(factor == 1 for factor in factors)
