"""All strategies by name. Adding one is adding a file and a line here."""

from __future__ import annotations

from typing import Literal

from modelkit.nas.strategies.base import Strategy
from modelkit.nas.strategies.bayes import Bayes
from modelkit.nas.strategies.evolution import Evolution
from modelkit.nas.strategies.local import Local
from modelkit.nas.strategies.nsga2 import Nsga2
from modelkit.nas.strategies.random import Random


def strategy(name: str, sampler: Literal["tpe", "gp"] = "tpe") -> Strategy:
    """Make a strategy.

    Args:
        name: As a config names it.
        sampler: What Bayesian optimisation uses.
    """
    match name:
        case "evolution":
            return Evolution()
        case "local":
            return Local()
        case "nsga2":
            return Nsga2()
        case "bayes":
            return Bayes(sampler)
    return Random()
