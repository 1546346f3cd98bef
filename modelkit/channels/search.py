"""How many channels each group keeps, so that a target is reached: equal shares, one ranking, or a search.

The search spends the error where it buys most: from tables that say what each group costs in error at each width, it
always takes the step with the least error for what it saves, then exchanges steps as long as that helps.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from modelkit.channels.costs import Costs
from modelkit.channels.importance import atom_members
from modelkit.errors import ModelError
from modelkit.graph.channels import Group

Plan = dict[str, int]  # group's name -> channels that it keeps

_FEWEST_STEPS = 3
_EXCHANGES = 200


@dataclass(frozen=True)
class Widths:
    """The widths that a group may have.

    Attributes:
        name: The group's name.
        channels: Its channels now.
        choices: Numbers of channels it may keep, ascending; the last is all of them.
    """

    name: str
    channels: int
    choices: tuple[int, ...]

    def nearest(self, wanted: float) -> int:
        """The choice nearest to a number; the larger one where two are."""
        return min(reversed(self.choices), key=lambda count: abs(count - wanted))


def widths_of(group: Group, multiple_of: int, keep_at_least: float) -> Widths:
    """Find the widths that a group may have.

    Channels are kept at multiples of ``multiple_of``. A group that would have fewer than three steps that way (a
    small layer) gets half of that multiple, and half again, until it has three or goes one atom at a time.

    Args:
        group: A group that can be cut.
        multiple_of: At least 1.
        keep_at_least: Share of the channels that stays, in [0, 1); one atom always does.
    """
    atoms = len(np.unique(group.atoms))
    size = group.channels / atoms
    multiple = multiple_of
    while multiple > 1 and (atoms * size) / multiple < _FEWEST_STEPS:
        multiple = -(-multiple // 2)
    fewest = max(1, math.ceil(keep_at_least * group.channels - 1e-9))
    counts = [round(number * size) for number in range(1, atoms + 1)]
    parts = partitions_of(group)
    allowed = [c for c in counts if c >= fewest and c % parts == 0]
    rounded = [c for c in allowed if c % multiple == 0]
    steps = rounded if len(rounded) > 1 or group.channels % multiple == 0 else allowed
    return Widths(group.name, group.channels, tuple(sorted({*steps, group.channels})))


def partitions_of(group: Group) -> int:
    """How many parts of a group must keep the same number of channels, such as a grouped convolution's; or 1."""
    return 1 if group.partition is None else len(np.unique(group.partition))


def equal(widths: Sequence[Widths], costs: Costs, limit: float) -> Plan:
    """Cut the same share of every group, the smallest that reaches the limit.

    Raises:
        ModelError: Not even the narrowest widths reach it.
    """
    plan = {each.name: each.channels for each in widths}
    # The share at which a group is nearer to its next narrower width; groups alike go one after the other.
    steps = sorted(
        (1 - (low + high) / 2 / each.channels, number, low)
        for number, each in enumerate(widths)
        for low, high in itertools.pairwise(each.choices)
    )
    for _, number, count in steps:
        if costs.of(plan) <= limit:
            break
        plan[widths[number].name] = count
    if costs.of(plan) > limit:
        raise out_of_reach(costs, plan)
    return plan


def ranked(widths: Sequence[Widths], scores: Mapping[str, np.ndarray], costs: Costs, limit: float) -> Plan:
    """Rank the channels of all groups together and drop the lowest, as many as reach the limit.

    Args:
        widths: The groups' widths.
        scores: For each group the importance of each channel; divided by the group's mean here.
        costs: What is counted.
        limit: Most that it may cost.

    Raises:
        ModelError: Not even the narrowest widths reach it.
    """
    normed = {name: np.sort(values / max(float(values.mean()), 1e-30)) for name, values in scores.items()}

    def plan(threshold: float) -> Plan:
        return {
            each.name: each.nearest(each.channels - int(np.searchsorted(normed[each.name], threshold)))
            for each in widths
        }

    thresholds = np.unique(np.concatenate([*normed.values(), [0.0, np.inf]]))
    return _first(plan, thresholds.tolist(), costs, limit)


def _first(plan: Callable[[float], Plan], steps: Sequence[float], costs: Costs, limit: float) -> Plan:
    """The first of ever harder plans that costs no more than the limit."""
    low, high = 0, len(steps) - 1
    if costs.of(plan(steps[high])) > limit:
        raise out_of_reach(costs, plan(steps[high]))
    while low < high:
        middle = (low + high) // 2
        if costs.of(plan(steps[middle])) <= limit:
            high = middle
        else:
            low = middle + 1
    return plan(steps[high])


def searched(widths: Sequence[Widths], errors: Mapping[str, Mapping[int, float]], costs: Costs, limit: float) -> Plan:
    """Spend the error where it buys most.

    Args:
        widths: The groups' widths.
        errors: For each group and width the error that it brings; 0 at the full width.
        costs: What is counted.
        limit: Most that it may cost.

    Raises:
        ModelError: Not even the narrowest widths reach it.
    """
    narrowest = {each.name: each.choices[0] for each in widths}
    if costs.of(narrowest) > limit:
        raise out_of_reach(costs, narrowest)
    plan = {each.name: each.channels for each in widths}
    now = costs.of(plan)
    while now > limit:
        best: tuple[float, str, int] | None = None
        for each in widths:
            for count in each.choices:
                if count >= plan[each.name]:
                    break
                saving = min(costs.saved(plan, each.name, count), now - limit)
                if saving <= 0:
                    continue
                price = (errors[each.name][count] - errors[each.name][plan[each.name]]) / saving
                if best is None or price < best[0]:
                    best = price, each.name, count
        if best is None:
            raise out_of_reach(costs, plan)
        now -= costs.saved(plan, best[1], best[2])
        plan[best[1]] = best[2]
    return _exchange(plan, widths, errors, costs, limit)


def _exchange(
    plan: Plan, widths: Sequence[Widths], errors: Mapping[str, Mapping[int, float]], costs: Costs, limit: float
) -> Plan:
    """Widen one group, if need be at the cost of another, as long as the error falls."""
    for _ in range(_EXCHANGES):
        best: tuple[float, Plan] | None = None
        for wider in widths:
            for count in (c for c in wider.choices if c > plan[wider.name]):
                gain = errors[wider.name][plan[wider.name]] - errors[wider.name][count]
                if gain <= 1e-12:
                    continue
                changed = {**plan, wider.name: count}
                if costs.of(changed) > limit:
                    changed, price = _pay(changed, wider.name, widths, errors, costs, limit)
                    gain -= price
                if gain > 1e-12 and (best is None or gain > best[0]):
                    best = gain, changed
        if best is None:
            return plan
        plan = best[1]
    return plan


def _pay(
    plan: Plan,
    spared: str,
    widths: Sequence[Widths],
    errors: Mapping[str, Mapping[int, float]],
    costs: Costs,
    limit: float,
) -> tuple[Plan, float]:
    """Narrow the one other group that brings a plan back under the limit with the least error."""
    found: tuple[Plan, float] = plan, math.inf
    over = costs.of(plan) - limit
    for other in widths:
        if other.name == spared:
            continue
        for count in reversed([c for c in other.choices if c < plan[other.name]]):
            if costs.saved(plan, other.name, count) >= over - 1e-6:
                price = errors[other.name][count] - errors[other.name][plan[other.name]]
                if price < found[1]:
                    found = {**plan, other.name: count}, price
                break
    return found


def out_of_reach(costs: Costs, narrowest: Plan) -> ModelError:
    """The error where even the narrowest widths cost too much."""
    share = 1 - costs.of(narrowest) / max(costs.total, 1e-30)
    return ModelError(
        f"that much cannot be taken out: at most {share:.1%} where every group keeps its fewest channels",
        "ask for less, lower structure.keep_at_least or structure.multiple_of, or include more layers",
    )


def choose(group: Group, order: np.ndarray, count: int) -> np.ndarray:
    """The channels that stay.

    Args:
        group: The group.
        order: Its atoms, the first to go first.
        count: How many channels stay; more where what belongs together does not allow it.

    Returns:
        Bool [channels], True for those that stay.
    """
    members = atom_members(group)
    parts = partitions_of(group)
    partition = np.zeros(group.channels, np.int64) if group.partition is None else group.partition
    left = np.bincount(partition)
    kept = np.ones(group.channels, bool)
    for atom in order:
        lost = np.bincount(partition[members[atom]], minlength=len(left))
        after = kept.copy()
        after[members[atom]] = False
        if ((left - lost)[lost > 0] < count / parts).any() or any(not after[piece].any() for piece in group.pieces):
            continue
        kept, left = after, left - lost
    return kept
