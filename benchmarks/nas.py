"""Strategies on the table of benchmarks/nas_table.py: regret, multi-fidelity, hypervolume, against random search.

python benchmarks/nas.py --seeds 200
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cache, cached_property

import numpy as np
from harness import table, verdict, write_section
from nas_table import EDGES, EPOCHS, TABLE, architecture

from modelkit.cores import usable_cores
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
    while (job := search.next()) is not None and spent + job.spent <= epochs:
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
    inside = [trial for trial in trials if trial.is_done and trial.ended <= epochs]
    chosen = max(inside, key=lambda t: (t.epochs, t.figures["quality"]) if t.epochs == EPOCHS else (0, 0.0))
    return float(test.max() - test[chosen.document["row"]])


def interval(values: np.ndarray) -> str:
    """Mean and 95 % interval by bootstrap."""
    rng = np.random.default_rng(0)
    draws = rng.choice(values, (2000, len(values))).mean(axis=1)
    return f"{values.mean():.2f} ({np.quantile(draws, 0.025):.2f} to {np.quantile(draws, 0.975):.2f})"


Job = tuple[str, int, int, str, int, tuple[str, ...]]
"""What ``_played`` is told: strategy, seed, epochs, scheduler, screening, objectives."""

_SCHEDULERS = {"": None, "asha": Asha(1, EPOCHS, 3), "hyperband": Hyperband(1, EPOCHS, 3)}
_ONE = ("quality",)


@cache
def _problem() -> Table:
    with np.load(TABLE) as stored:
        return Table({name: stored[name] for name in stored.files})


def _played(job: Job) -> list[Trial]:
    """One search."""
    name, seed, epochs, scheduler, screen, objectives = job
    return play(_problem(), name, seed, epochs, _SCHEDULERS[scheduler], screen, objectives)


def _play_all(
    pool: ProcessPoolExecutor,
    seeds: int,
    name: str,
    epochs: int,
    scheduler: str = "",
    screen: int = 1,
    objectives: tuple[str, ...] = _ONE,
) -> list[list[Trial]]:
    """The same search with many seeds."""
    return list(
        pool.map(_played, [(name, seed, epochs, scheduler, screen, objectives) for seed in range(seeds)], chunksize=5)
    )


def main() -> None:
    """Measure, and write the section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=200)
    options = parser.parse_args()
    with ProcessPoolExecutor(usable_cores()) as pool:
        regrets, random = _regret(pool, options.seeds)
        parts = [*regrets, *_fidelity(pool, options.seeds, random), *_volume(pool, options.seeds)]
    write_section(
        "nas", "Searching architectures", f"python benchmarks/nas.py --seeds {options.seeds}", "\n".join(parts)
    )


def _regret(pool: ProcessPoolExecutor, seeds: int) -> tuple[list[str], np.ndarray]:
    """Regret of every strategy, with parameter-count screening and without; and random's at the largest budget."""
    found: dict[str, np.ndarray] = {}
    names = ("random", "evolution", "local", "nsga2", "bayes", "random, screened", "evolution, screened")
    for name in names:
        strategy_name, _, screened = name.partition(", ")
        runs = _play_all(pool, seeds, strategy_name, BUDGETS[-1] * EPOCHS, screen=3 if screened else 1)
        found[name] = np.array([[regret(_problem(), run, b * EPOCHS) for b in BUDGETS] for run in runs])
        print(name, found[name].mean(axis=0).round(3), flush=True)
    rows = [[name, *(interval(values[:, place]) for place in range(len(BUDGETS)))] for name, values in found.items()]
    last = {name: float(values[:, -1].mean()) for name, values in found.items()}
    half = min(last["evolution"], last["local"]) <= last["random"] / 2
    better = [name for name in ("random", "evolution") if last[f"{name}, screened"] < last[name]]
    said = f"It lowers the regret at 150 of {' and '.join(better)}" if better else "It lowers no regret at 150"
    floor = np.mean([regret(_problem(), _exhaustive(seed), 10**9) for seed in range(3)])
    parts = [
        f"Mean regret in points of test accuracy over {seeds} runs each, 95 % intervals by bootstrap. Who trains all "
        f"{len(_problem().found['test'])} and takes the best by validation has {floor:.2f}.",
        "",
        table(["strategy", *(f"{b} evaluations" for b in BUDGETS)], rows),
        "",
        f"Evolution or local search at most half of random's regret at 150: {verdict(half)}.",
        "",
        f"Screened is the one with the most parameters of three suggestions. {said}.",
        "",
    ]
    return parts, found["random"][:, -1]


def _exhaustive(seed: int) -> list[Trial]:
    """All of the table as trials of one of its trainings."""
    best = _problem().found["validation"][:, seed].max(axis=1) / 1e4
    return [
        Trial(row, (row,), "", {"row": row}, "", status="done", epochs=EPOCHS, figures={"quality": float(quality)})
        for row, quality in enumerate(best)
    ]


def _fidelity(pool: ProcessPoolExecutor, seeds: int, random: np.ndarray) -> list[str]:
    """What a quarter of the epochs buys with rungs, and without."""
    quarter = BUDGETS[-1] * EPOCHS // 4
    rows, reached = [["random, full", BUDGETS[-1] * EPOCHS, interval(random)]], []
    for rungs in ("", "asha", "hyperband"):
        for who in ("random", "evolution", "local"):
            runs = _play_all(pool, seeds, who, quarter, rungs)
            values = np.array([regret(_problem(), run, quarter) for run in runs])
            rows.append([f"{who}, {rungs or 'full'}", quarter, interval(values)])
            if rungs and values.mean() <= random.mean():
                reached.append(f"{who}, {rungs}")
            print(who, rungs, values.mean().round(3), flush=True)
    who = f" ({'; '.join(reached)})" if reached else ""
    said = f"Multi-fidelity has at most random's regret at 150 with a quarter of its epochs: {verdict(bool(reached))}"
    return [table(["search", "epochs", "regret"], rows), "", f"{said}{who}.", ""]


def _volume(pool: ProcessPoolExecutor, seeds: int) -> list[str]:
    """Hypervolume of error and multiply-accumulates, by the test accuracies of all that was tried."""
    found = _problem().found
    macs = np.log(found["macs"].astype(float))
    test = found["test"].mean(axis=1) / 1e4

    def points(trials: list[Trial]) -> np.ndarray:
        mine = [t.document["row"] for t in trials if t.is_done]
        return np.array([[1 - test[row], (macs[row] - macs.min()) / np.ptp(macs)] for row in mine])

    rows, means = [], {}
    for name in ("random", "nsga2", "evolution", "local"):
        runs = _play_all(pool, seeds, name, 100 * EPOCHS, objectives=("quality", "macs"))
        values = np.array([100 * hypervolume(points(run), np.array([1.0, 1.1])) / 1.1 for run in runs])
        rows.append([name, interval(values)])
        means[name] = values.mean()
        print(name, "hypervolume", values.mean().round(2), flush=True)
    said = f"NSGA-II above random search: {verdict(means['nsga2'] > means['random'])}."
    return [table(["strategy, 100 evaluations", "hypervolume in percent"], rows), "", said]


if __name__ == "__main__":
    main()
