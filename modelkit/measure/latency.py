"""Latency: compares runners side by side and says how sure it is which one is faster.

How a comparison is made, and what each part is for:

* **Blocks.** Two onnxruntime sessions of one and the same model can differ by several percent for as long
  as they live, depending on where their memory landed. No number of runs averages that away, so
  `compare_fresh` makes new sessions in every block, in a shuffled order, and a block counts as one
  observation. (Measured on a busy 2-core AVX512 machine, three MLPs against themselves, 60 times each:
  `compare_fresh` called 3 of 180 different, `compare` on one pair of sessions 62. A bootstrap over single
  rounds, blind to sessions, held its promised 95 % in 36 % to 98 % of cases, depending on the model.)
* **Rounds.** In a round each runner gets one turn, in a shuffled order, and its time is divided by that
  of the baseline in the same round: what slows the whole machine down for a while cancels out.
* **Turns.** The runner before has filled the caches with its own weights, which made small models up to
  2.5 times slower than they are when they run alone. Unless all runners are slow, every turn therefore
  begins with a run that is not timed, or a millisecond of them; then runs are timed for about as long.
* **Intervals.** Per block the median log ratio of its rounds; over the blocks the pseudo-median (Hodges and
  Lehmann, 1963) and the interval that the Wilcoxon signed-rank test gives. For a model against itself the
  block values are symmetric around 0 whatever the noise, so the test is exact there: "faster" or "slower" is
  wrongly said in 5 % of cases at most. The interval is widened to a two-stage bootstrap (blocks, then rounds
  within them) where that one is wider, which keeps single noisy rounds in few blocks from looking certain.
"""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from modelkit.errors import UsageError
from modelkit.progress import Progress, silent

Runner = Callable[[], object]

MIN_BLOCKS = 6  # with fewer, no outcome of the signed-rank test reaches 95 %
MIN_ROUNDS = 2 * MIN_BLOCKS
MAX_BLOCKS = 10
_DRAWS = 600
_TIMING_NS = 100_000  # a timing this long is read to better than 0.1 % by any clock
_TURN_NS = 1_000_000  # as long as it takes to have a small model's weights in the caches again
_REWARM_BELOW_NS = 50_000_000  # refilling the caches is nothing next to runs as long as this
_FASTEST_NS = 100.0  # no run is shorter
_MOST_REWARM = int(_TURN_NS / _FASTEST_NS)


@dataclass(frozen=True)
class LatencyStats:
    """What one runner took.

    Attributes:
        median_ms: Median in milliseconds.
        p95_ms: 95th percentile in milliseconds. Models that run in less than 0.1 ms are timed several
            runs at a time, so theirs is the percentile of means over those runs.
        min_ms: Shortest timing in milliseconds.
        runs: Number of timings behind these figures.
    """

    median_ms: float
    p95_ms: float
    min_ms: float
    runs: int


@dataclass(frozen=True)
class Ratio:
    """A speed-up against the baseline: 2.0 is twice as fast, 0.5 takes twice as long.

    Attributes:
        value: Typical baseline time divided by candidate time.
        low: Lower end of the 95 % interval.
        high: Upper end of the 95 % interval.
    """

    value: float
    low: float
    high: float

    @property
    def faster(self) -> bool:
        """Whether the candidate is faster beyond the interval."""
        return self.low > 1.0

    @property
    def slower(self) -> bool:
        """Whether the candidate is slower beyond the interval."""
        return self.high < 1.0


@dataclass(frozen=True)
class Latency:
    """Result of a comparison.

    Attributes:
        baseline: Name of the runner that the others are compared with.
        stats: Times of each runner, baseline included.
        ratios: Speed-up of each runner except the baseline.
        blocks: Blocks measured; with `compare_fresh`, sessions made for each runner.
        rounds: Rounds measured in all blocks together.
    """

    baseline: str
    stats: dict[str, LatencyStats]
    ratios: dict[str, Ratio]
    blocks: int
    rounds: int


@dataclass(frozen=True)
class _Turn:
    """How a runner is timed in one turn: `timings` times, each over `loops` runs that take `took_ns`."""

    loops: int
    timings: int
    took_ns: float

    @property
    def cost_ns(self) -> float:
        return self.loops * self.timings * self.took_ns


def compare(
    runners: Mapping[str, Runner],
    *,
    baseline: str,
    seconds: float = 2.0,
    min_runs: int = 15,
    max_runs: int = 400,
    warmup: int = 3,
    seed: int = 0,
    progress: Progress = silent,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> Latency:
    """Time given runners against a baseline.

    The answer is about these very objects. Where they are sessions, a difference of a few percent may be one
    of memory layout and not of the models: use `compare_fresh` to judge models.

    Args:
        runners: What to time, by name; each call is one run.
        baseline: Name of the runner to compare with.
        seconds: Time to spend on each runner, roughly.
        min_runs: Fewest rounds (12 or more), kept even if that takes longer than `seconds`.
        max_runs: Most rounds.
        warmup: Runs of each runner before anything is timed.
        seed: Seed of the order in each round and of the bootstrap.
        progress: Told after each block.
        clock: Nanosecond clock.

    Raises:
        UsageError: The baseline is not among the runners, or a number is out of range.
    """
    _check(runners, baseline, seconds, min_runs, max_runs, warmup)

    def keep(runner: Runner) -> Callable[[], Runner]:
        return lambda: runner

    factories = {name: keep(runner) for name, runner in runners.items()}
    return _measure(factories, False, baseline, seconds, min_runs, max_runs, warmup, seed, progress, clock)


def compare_fresh(
    factories: Mapping[str, Callable[[], Runner]],
    *,
    baseline: str,
    seconds: float = 2.0,
    min_runs: int = 15,
    max_runs: int = 400,
    warmup: int = 3,
    seed: int = 0,
    progress: Progress = silent,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> Latency:
    """Time models against a baseline, with new sessions in each of 6 to 10 blocks.

    Args:
        factories: For each name, a function that makes a fresh runner (loads a session and binds inputs).
            All runners of a block are alive at the same time; those of the block before are let go first.
        baseline: Name of the runner to compare with.
        seconds: Time to spend on running each runner, roughly. Loading comes on top; where it takes longer
            than this, fewer blocks are made.
        min_runs: Fewest rounds (12 or more), kept even if that takes longer than `seconds`.
        max_runs: Most rounds.
        warmup: Runs of each new runner before it is timed (fewer of long runs after the first block).
        seed: Seed of the order of loading and running, and of the bootstrap.
        progress: Told after each block.
        clock: Nanosecond clock.

    Raises:
        UsageError: The baseline is not among the factories, or a number is out of range.
    """
    _check(factories, baseline, seconds, min_runs, max_runs, warmup)
    return _measure(factories, True, baseline, seconds, min_runs, max_runs, warmup, seed, progress, clock)


def paired_ratio(baseline: np.ndarray, candidate: np.ndarray, *, seed: int = 0) -> Ratio:
    """Estimate a speed-up and its 95 % interval from paired times.

    Args:
        baseline: Times [blocks, rounds], any unit, above 0; at least 6 blocks.
        candidate: Times of the candidate in the same rounds, same shape and unit.
        seed: Seed of the bootstrap.

    Returns:
        The pseudo-median ratio and its interval, as the module explains.
    """
    logs = np.log(baseline) - np.log(candidate)
    blocks, rounds = logs.shape
    medians = np.median(logs, axis=1)
    walsh = _walsh(medians[None])[0]
    value = float(np.median(walsh))
    cut = _signed_rank_cut(blocks)
    low, high = float(walsh[cut - 1]), float(walsh[-cut])
    rng = np.random.default_rng(seed)
    block_draw = rng.integers(0, blocks, (_DRAWS, blocks, 1))
    round_draw = rng.integers(0, rounds, (_DRAWS, blocks, rounds))
    drawn = np.median(logs[block_draw, round_draw], axis=2)
    spread = np.percentile(np.median(_walsh(drawn), axis=1), [2.5, 97.5])
    return Ratio(math.exp(value), math.exp(min(low, value, spread[0])), math.exp(max(high, value, spread[1])))


def _walsh(values: np.ndarray) -> np.ndarray:
    """Averages of all pairs in each row, each value with itself included, sorted: [rows, n(n+1)/2]."""
    first, second = np.triu_indices(values.shape[1])
    return np.sort((values[:, first] + values[:, second]) / 2, axis=1)


def _signed_rank_cut(count: int) -> int:
    """Which Walsh average of `count` values, counted from either end, bounds the 95 % interval."""
    ways = np.zeros(count * (count + 1) // 2 + 1)
    ways[0] = 1.0
    for rank in range(1, count + 1):
        ways[rank:] += ways[:-rank].copy()
    tail = np.cumsum(ways) / 2.0**count
    return int(np.searchsorted(tail, 0.025, side="right"))


def _check(
    names: Mapping[str, object], baseline: str, seconds: float, min_runs: int, max_runs: int, warmup: int
) -> None:
    if baseline not in names:
        raise UsageError(f"the baseline '{baseline}' is not among the runners: {', '.join(sorted(names))}")
    if not (math.isfinite(seconds) and seconds > 0):
        raise UsageError(f"seconds is {seconds}; expected a number above 0")
    if min_runs < MIN_ROUNDS or max_runs < min_runs:
        raise UsageError(
            f"runs are {min_runs} to {max_runs}; expected {MIN_ROUNDS} <= min_runs <= max_runs",
            "an interval needs that many rounds",
        )
    if warmup < 1:
        raise UsageError(f"warmup is {warmup}; expected 1 or more", "the first run of a session allocates")


def _measure(
    factories: Mapping[str, Callable[[], Runner]],
    fresh: bool,
    baseline: str,
    seconds: float,
    min_runs: int,
    max_runs: int,
    warmup: int,
    seed: int,
    progress: Progress,
    clock: Callable[[], int],
) -> Latency:
    rng = np.random.default_rng(seed)
    names = list(factories)
    budget_ns = seconds * 1e9
    started = clock()
    runners = _make(factories, rng)
    making_ns = (clock() - started) / len(names)
    turns = {name: _settle(runner, warmup, clock) for name, runner in runners.items()}
    rewarm = min(turn.took_ns for turn in turns.values()) < _REWARM_BELOW_NS
    turn_ns = sum(turn.cost_ns + rewarm * max(turn.took_ns, _TURN_NS) for turn in turns.values())
    rounds = _clamp(int(budget_ns * len(names) / turn_ns), min_runs, max_runs)
    blocks = _clamp(rounds // 2, MIN_BLOCKS, MAX_BLOCKS)
    if fresh and making_ns > 0:
        blocks = _clamp(int(budget_ns / making_ns), MIN_BLOCKS, blocks)
    per_block = rounds // blocks

    typical = {name: np.empty((blocks, per_block)) for name in names}
    timings: dict[str, list[float]] = {name: [] for name in names}
    with _no_collection():
        for block in range(blocks):
            if block > 0:
                if fresh:
                    runners.clear()
                    runners = _make(factories, rng)
                # How a runner is timed is found out anew, so that one bad guess spoils one block only.
                turns = {
                    name: _settle(runner, warmup if fresh else 0, clock, quick=True)
                    for name, runner in runners.items()
                }
            for row in range(per_block):
                for index in rng.permutation(len(names)):
                    name = names[index]
                    times = _take(runners[name], turns[name], rewarm, clock)
                    typical[name][block, row] = statistics.median(times)
                    timings[name] += times
            progress("timing", block + 1, blocks)

    ratios = {name: paired_ratio(typical[baseline], typical[name], seed=seed) for name in names if name != baseline}
    stats = {name: _stats(np.array(times)) for name, times in timings.items()}
    return Latency(baseline, stats, ratios, blocks, blocks * per_block)


def _make(factories: Mapping[str, Callable[[], Runner]], rng: np.random.Generator) -> dict[str, Runner]:
    """Make all runners in a random order, so that none is always given the better memory."""
    names = list(factories)
    return {names[index]: factories[names[index]]() for index in rng.permutation(len(names))}


def _settle(runner: Runner, warmup: int, clock: Callable[[], int], quick: bool = False) -> _Turn:
    """Warm a runner up and see how long it takes; `quick` leaves warm-up runs out where a run is long."""
    start = clock()
    for done in range(1, warmup + 1):
        runner()
        if quick and clock() - start > 10 * _TURN_NS * done:
            break
    took = math.inf
    spent = 0.0
    while spent < _TURN_NS:
        start = clock()
        runner()
        passed = max(clock() - start, _FASTEST_NS)  # a coarse clock may show no time at all
        took = min(took, passed)
        spent += passed
    loops = math.ceil(_TIMING_NS / took)
    return _Turn(loops, max(1, math.ceil(_TURN_NS / (loops * took))), took)


def _take(runner: Runner, turn: _Turn, rewarm: bool, clock: Callable[[], int]) -> list[float]:
    """Take one turn; returns the timings in nanoseconds for each run."""
    if rewarm:
        runs = 0
        start = clock()
        while clock() - start < _TURN_NS and runs < _MOST_REWARM:
            runner()
            runs += 1
    repeats = range(turn.loops)
    times = []
    for _ in range(turn.timings):
        start = clock()
        for _ in repeats:
            runner()
        times.append(max(clock() - start, 1) / turn.loops)
    return times


def _stats(times: np.ndarray) -> LatencyStats:
    median, p95 = np.percentile(times, [50, 95]) / 1e6
    return LatencyStats(float(median), float(p95), float(times.min() / 1e6), times.size)


def _clamp(value: int, low: int, high: int) -> int:
    return max(low, min(value, high))


@contextmanager
def _no_collection() -> Iterator[None]:
    """Keep Python's garbage collector from running inside a timing; sessions are freed without it."""
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
