"""Strategies on the table of benchmarks/nas_table.py: regret, multi-fidelity, hypervolume, against random search.

python benchmarks/nas.py --seeds 200
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from harness import table, verdict, write_section
from nas_table import EDGES, EPOCHS, TABLE, architecture

from modelkit.nas.asha import Asha
from modelkit.nas.config import Limits
from modelkit.nas.feasible import Candidate
from modelkit.nas.hyperband import Hyperband
from modelkit.nas.pareto import hypervolume
from modelkit.nas.parse import parse_space
from modelkit.nas.rungs import Full, Scheduler
from modelkit.nas.search import Search
from modelkit.nas.space import Genome, Space
from modelkit.nas.strategies.known import strategy
from modelkit.nas.trials import Trial

BUDGETS = (30, 100, 150)


@dataclass
class Table:
    """The table as a problem that is searched (see `modelkit.nas.feasible.Problem`)."""

    found: dict[str, np.ndarray]
    known: dict[Genome, Candidate] = field(default_factory=dict)

    @cached_property
    def space(self) -> Space:
        """Cells with the table's operations on each edge."""
        return parse_space(architecture({edge: list(ops) for edge, ops in EDGES.items()}))

    def row(self, genome: Genome) -> int:
        """Where an architecture stands in the table."""
        by_name = {v.path[-1]: v.values[p] for v, p in zip(self.space.variables, genome, strict=True)}
        places = [ops.index(by_name[edge]) for edge, ops in EDGES.items()]
        return int(np.ravel_multi_index(places, [len(ops) for ops in EDGES.values()]))

    def look(self, genome: Genome) -> Candidate:
        """See `Problem.look`."""
        if genome not in self.known:
            row = self.row(genome)
            taken = int(self.found["parameters"][row]), int(self.found["macs"][row])
            self.known[genome] = Candidate({"row": row}, *taken)
        return self.known[genome]


def play(
    problem: Table,
    name: str,
    seed: int,
    epochs: int,
    scheduler: Scheduler | None = None,
    screen: int = 1,
    objectives: tuple[str, ...] = ("quality",),
) -> list[Trial]:
    """Search with so many epochs; each run sees the validation accuracy of one of the table's trainings."""
    search = Search(problem, strategy(name), scheduler or Full(EPOCHS), objectives, Limits(), 10, screen, seed)
    validation = problem.found["validation"][:, seed % problem.found["validation"].shape[1]] / 1e4
    spent = 0
    while spent < epochs and (job := search.next()) is not None:
        spent += job.spent
        trial, row = job.trial, job.trial.document["row"]
        quality = float(validation[row, : job.epochs].max())
        trial.status, trial.epochs, trial.errors[job.epochs] = "done", job.epochs, 1 - quality
        trial.figures = {"error": 1 - quality, "quality": quality, "macs": float(trial.macs)}
        trial.ended = spent
        search.ended(trial)
    return search.trials


def regret(problem: Table, trials: list[Trial], epochs: int) -> float:
    """Test accuracy of the best architecture less that of the one whose validation looked best, in points."""
    test = problem.found["test"].mean(axis=1) / 100
    inside = [trial for trial in trials if trial.ended <= epochs]
    chosen = max(inside, key=lambda t: (t.epochs, t.figures["quality"]) if t.epochs == EPOCHS else (0, 0.0))
    return float(test.max() - test[chosen.document["row"]])


def interval(values: np.ndarray) -> str:
    """Mean and 95 % interval by bootstrap."""
    rng = np.random.default_rng(0)
    draws = rng.choice(values, (2000, len(values))).mean(axis=1)
    return f"{values.mean():.2f} ({np.quantile(draws, 0.025):.2f} to {np.quantile(draws, 0.975):.2f})"


def main() -> None:
    """Measure, and write the section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--bayes-seeds", type=int, default=50)
    options = parser.parse_args()
    with np.load(TABLE) as stored:
        problem = Table({name: stored[name] for name in stored.files})
    most = BUDGETS[-1]
    found: dict[str, np.ndarray] = {}
    for name in ("random", "evolution", "local", "nsga2", "bayes"):
        seeds = options.bayes_seeds if name == "bayes" else options.seeds
        runs = [play(problem, name, seed, most * EPOCHS) for seed in range(seeds)]
        found[name] = np.array([[regret(problem, run, b * EPOCHS) for b in BUDGETS] for run in runs])
        print(name, found[name].mean(axis=0).round(3), flush=True)
    screened = [play(problem, "evolution", seed, most * EPOCHS, screen=3) for seed in range(options.seeds)]
    found["evolution, screened"] = np.array([[regret(problem, r, b * EPOCHS) for b in BUDGETS] for r in screened])
    rows = [
        [name, len(values), *(interval(values[:, place]) for place in range(len(BUDGETS)))]
        for name, values in found.items()
    ]
    parts = ["Mean regret in points of test accuracy, 95 % intervals by bootstrap over the runs.", ""]
    parts += [table(["strategy", "runs", *(f"{b} evaluations" for b in BUDGETS)], rows), ""]
    half = min(found[name][:, -1].mean() for name in ("evolution", "local")) <= found["random"][:, -1].mean() / 2
    parts += [f"Evolution or local search at most half of random's regret at 150: {verdict(half)}.", ""]
    parts += _fidelity(problem, options.seeds, found["random"][:, -1])
    parts += _volume(problem, options.seeds)
    write_section(
        "nas", "Searching architectures", f"python benchmarks/nas.py --seeds {options.seeds}", "\n".join(parts)
    )


def _fidelity(problem: Table, seeds: int, random: np.ndarray) -> list[str]:
    """What a quarter of the epochs buys with rungs."""
    quarter = BUDGETS[-1] * EPOCHS // 4
    rows, reached = [["random, full", BUDGETS[-1] * EPOCHS, interval(random)]], False
    for name, scheduler in (("asha", Asha(1, EPOCHS, 3)), ("hyperband", Hyperband(1, EPOCHS, 3))):
        for who in ("random", "evolution", "local"):
            runs = [play(problem, who, seed, quarter, scheduler) for seed in range(seeds)]
            values = np.array([regret(problem, run, quarter + EPOCHS) for run in runs])
            rows.append([f"{who}, {name}", quarter, interval(values)])
            reached |= bool(values.mean() <= random.mean())
            print(who, name, values.mean().round(3), flush=True)
    said = f"Random's regret at 150 full trainings, with a quarter of its epochs: {verdict(reached)}."
    return [table(["search", "epochs", "regret"], rows), "", said, ""]


def _volume(problem: Table, seeds: int) -> list[str]:
    """Hypervolume of error and multiply-accumulates, on the test accuracies of what the validation set kept."""
    macs = np.log(problem.found["macs"].astype(float))
    test = problem.found["test"].mean(axis=1) / 1e4

    def points(trials: list[Trial]) -> np.ndarray:
        mine = [t.document["row"] for t in trials]
        return np.array([[1 - test[row], (macs[row] - macs.min()) / np.ptp(macs)] for row in mine])

    rows, means = [], {}
    for name in ("random", "nsga2", "evolution", "local"):
        runs = [play(problem, name, seed, 100 * EPOCHS, objectives=("quality", "macs")) for seed in range(seeds)]
        values = np.array([100 * hypervolume(points(run), np.array([1.0, 1.1])) / 1.1 for run in runs])
        rows.append([name, interval(values)])
        means[name] = values.mean()
        print(name, "hypervolume", values.mean().round(2), flush=True)
    said = f"NSGA-II above random search: {verdict(means['nsga2'] > means['random'])}."
    return [table(["strategy, 100 evaluations", "hypervolume in percent"], rows), "", said]


if __name__ == "__main__":
    main()
