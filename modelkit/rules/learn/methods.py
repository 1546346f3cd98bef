"""The learners, by name: each makes rule sets of several sizes from rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from modelkit.rules.learn.additive import AdditiveSettings, additive_path
from modelkit.rules.learn.atoms import Atoms, make_atoms
from modelkit.rules.learn.beam import Beam
from modelkit.rules.learn.compose import rescaled
from modelkit.rules.learn.config import LearnConfig
from modelkit.rules.learn.cover import CoverSettings, cover_path
from modelkit.rules.learn.lists import ListSettings, list_path
from modelkit.rules.learn.optimal import optimal_path
from modelkit.rules.learn.problem import Problem
from modelkit.rules.learn.ripper import ripper_path
from modelkit.rules.learn.rulefit import rulefit_path
from modelkit.rules.learn.sums import with_sums
from modelkit.rules.learn.tree import tree_path
from modelkit.rules.model import RuleSet

Path = Callable[[Problem, Atoms, Sequence[int]], dict[int, RuleSet]]
"""Rows, comparisons and sizes -> a rule set of at most each size that could be reached."""

LISTS = ("list", "tree", "optimal", "ripper", "cover")
"""Methods whose rules are asked in order; the others add up."""

_DEEP_RIDGE = 2.0


def methods(problem: Problem, config: LearnConfig) -> dict[str, Path]:
    """The learners that fit a problem and a config, by name.

    Args:
        problem: The rows.
        config: Names, policy, depth and seed.
    """
    depth = config.depth
    least = max(1, len(problem) // 200)
    found: dict[str, Path] = {
        "additive": lambda p, a, sizes: additive_path(p, a, sizes, _additive(min(2, depth))),
        "scorecard": lambda p, a, sizes: additive_path(p, a, sizes, _additive(1)),
        "sums": lambda p, a, sizes: additive_path(
            p, with_sums(p, a, config.sum_columns, config.bins), sizes, _additive(1)
        ),
        "rulefit": lambda p, a, sizes: rulefit_path(p, a, sizes, _additive(min(3, depth)), config.seed),
        "tree": lambda p, a, sizes: tree_path(p.decided(), a, sizes, least),
    }
    if not problem.is_numeric:
        found["list"] = lambda p, a, sizes: list_path(
            p.decided(), a, sizes, ListSettings(Beam(depth=depth, price=0.5))
        )
        found["optimal"] = lambda p, a, sizes: optimal_path(p.decided(), a, sizes)
        found["ripper"] = lambda p, a, sizes: ripper_path(p.decided(), a, sizes, config.seed)
        found["cover"] = lambda p, a, sizes: cover_path(
            p.decided(), a, sizes, CoverSettings(Beam(depth=depth, price=0.5), config.precision)
        )
    kinds = {"auto": found.keys(), "first": LISTS, "additive": found.keys() - set(LISTS)}
    wanted = [name for name in found if name in kinds[config.policy]]
    if config.methods is None:
        # Rules of a minimum precision are for those who ask for them, and so are sums, which take more to be read.
        return {name: found[name] for name in wanted if name not in ("cover", "sums")}
    return {name: found[name] for name in wanted if name in config.methods}


def _additive(depth: int) -> AdditiveSettings:
    return AdditiveSettings(_DEEP_RIDGE, Beam(depth=depth, price=0.5))


def sizes(most: int) -> list[int]:
    """Numbers of rules to try, up to the most allowed."""
    steps = [2, 3, 4, 6, 8, 10, 13, 16, 20, 26, 32, 40, 50, 64]
    return [*(size for size in steps if size < most), most]


def scaled(problem: Problem) -> tuple[Problem, float, float]:
    """Numbers brought to mean 0 and variance 1, with mean and scale: penalties of learners are absolute."""
    if not problem.is_numeric:
        return problem, 0.0, 1.0
    mean, scale = float(problem.target.mean()), float(problem.target.std()) or 1.0
    return problem.aimed_at((problem.target - mean) / scale), mean, scale


class Fitter:
    """Makes rule sets of rows, in the units of the data; the comparisons are listed once for all learners.

    Args:
        problem: The rows.
        bins: Thresholds of a column at most.
        splits: Thresholds that take the place of values (see `make_atoms`).
    """

    def __init__(self, problem: Problem, bins: int, splits: Mapping[str, np.ndarray] | None = None) -> None:
        self._unit, self._mean, self._scale = scaled(problem)
        self._atoms = make_atoms(self._unit, bins, splits)

    def fit(self, path: Path, wanted: Sequence[int]) -> dict[int, RuleSet]:
        """Rule sets of several sizes."""
        if not len(self._atoms.literals):
            return {}
        found = path(self._unit, self._atoms, wanted)
        return {size: rescaled(rules, self._mean, self._scale) for size, rules in found.items()}
