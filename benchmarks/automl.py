"""Side by side with FLAML: same sets, same outer folds, same seconds; writes its section of docs/benchmarks.md.

FLAML runs in an environment of its own, because it wants other versions: ``--flaml ENV/bin/python``. Sets are those
of scikit-learn that need no network, and every csv in ``--sets FOLDER``: the last column is the target.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from harness import table, write_section

from modelkit.automl.losses import Metric, loss
from modelkit.automl.predict import predict
from modelkit.automl.prepare import guess_task
from modelkit.automl.problem import Task
from modelkit.data.framefiles import read_frame

FOLDS = 3
PEER = Path(__file__).with_name("automl_flaml.py")


@dataclass(frozen=True)
class Set:
    """A table whose last column is the target."""

    name: str
    header: list[str]
    rows: list[list[Any]]
    is_classes: bool


def built_in() -> list[Set]:
    """The sets that scikit-learn brings."""
    from sklearn import datasets

    found = []
    for name, load, is_classes in (
        ("iris", datasets.load_iris, True),
        ("wine", datasets.load_wine, True),
        ("breast cancer", datasets.load_breast_cancer, True),
        ("digits", datasets.load_digits, True),
        ("diabetes", datasets.load_diabetes, False),
    ):
        data = load()
        names = [str(each).replace(" ", "_") for each in getattr(data, "feature_names", range(data.data.shape[1]))]
        target = [f"class {value}" for value in data.target] if is_classes else data.target.tolist()
        body = [[*row, value] for row, value in zip(data.data.tolist(), target, strict=True)]
        found.append(Set(name, [*names, "target"], body, is_classes))
    return found


def of_folder(folder: Path) -> list[Set]:
    """The csv files of a folder."""
    found = []
    for path in sorted(folder.glob("*.csv")):
        frame = read_frame(path)
        target = frame.fields[list(frame.fields)[-1]]
        with path.open(newline="", encoding="utf-8") as file:
            header, *rows = list(csv.reader(file))
        found.append(Set(path.stem, header, rows, guess_task(target) is Task.classification))
    return found


def split(given: Set, folder: Path) -> list[tuple[Path, Path]]:
    """Files to learn from and to judge on, for each outer fold; the same for everybody."""
    rng = np.random.default_rng(0)
    order = rng.permutation(len(given.rows))
    order = (
        order[np.argsort([str(given.rows[row][-1]) for row in order], kind="stable")] if given.is_classes else order
    )
    part = np.empty(len(order), int)
    part[order] = np.arange(len(order)) % FOLDS
    found = []
    for fold in range(FOLDS):
        paths = []
        for kind, mine in (("train", part != fold), ("test", part == fold)):
            path = folder / f"{given.name.replace(' ', '_')}.{fold}.{kind}.csv"
            with path.open("w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows([given.header, *(given.rows[row] for row in np.flatnonzero(mine))])
            paths.append(path)
        found.append((paths[0], paths[1]))
    return found


def judged(predictions: dict[str, np.ndarray], test: Path, is_classes: bool) -> float:
    """Log-loss or RMSE of predictions by column."""
    truth = list(read_frame(test).fields.values())[-1].values
    if not is_classes:
        return loss(Metric.rmse, truth.astype(float), predictions["prediction"][:, None])
    names = [name for name in predictions if name.startswith("probability_")]
    place = {name.removeprefix("probability_"): number for number, name in enumerate(names)}
    y = np.array([place[_plain(value)] for value in truth])
    return loss(Metric.log_loss, y, np.stack([predictions[name] for name in names], axis=1))


def _plain(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) else str(value)


def ours(train: Path, test: Path, target: str, seconds: int, is_classes: bool) -> dict[str, Any]:
    """Learn by `modelkit automl`, judge by `modelkit predict`."""
    out = train.with_suffix(".onnx")
    task = "classification" if is_classes else "regression"
    argv = ["automl", str(train), "--target", target, "--task", task, "--time", f"{seconds}s", "-o", str(out), "-f"]
    argv += ["--test", str(test)]  # for the reported figures only: nothing is chosen by it
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "modelkit", *argv, "--json"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{train.name}: {done.stderr}")
    took = time.monotonic() - began
    report = json.loads(done.stdout)
    value = judged(predict(out, test).columns, test, is_classes)
    return {"loss": value, "seconds": took, "latency_ms": report["artifact"]["latency_ms"], "report": report}


def flaml(python: str, train: Path, test: Path, seconds: int, is_classes: bool) -> dict[str, Any]:
    """The same by FLAML."""
    # -P: the other files of this folder must not be taken for modules of the same names.
    argv = [
        python,
        "-P",
        str(PEER),
        str(train),
        str(test),
        str(seconds),
        "classification" if is_classes else "regression",
    ]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"FLAML on {train.name}: {done.stderr[-2000:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    columns = {name: np.array(values) for name, values in found["columns"].items()}
    return {"loss": judged(columns, test, is_classes), "seconds": found["seconds"], "latency_ms": found["latency_ms"]}


def linear(train: Path, test: Path, is_classes: bool) -> float:
    """The tuned linear model: what must not be beaten by."""
    from modelkit.automl.families.linear import FAMILY
    from modelkit.automl.folds import make_folds
    from modelkit.automl.member import fit_member
    from modelkit.automl.prepare import Roles, prepare

    frame = read_frame(train)
    task = Task.classification if is_classes else Task.regression
    problem = prepare(frame, Roles(list(frame.fields)[-1]), task, 0).problem
    metric = Metric.log_loss if is_classes else Metric.rmse
    best = (float("inf"), 1.0)
    for strength in 10.0 ** np.arange(-3, 3.5, 0.5):
        params = {"strength": float(strength), "squash": False}
        found = [
            loss(
                metric,
                problem.y[f.valid],
                fit_member("linear", params, problem.take(f.fit)).predict(problem.frame.take(f.valid).columns()),
            )
            for f in make_folds(problem, 5, 1, 0)
        ]
        best = min(best, (float(np.mean(found)), float(strength)))
    member = fit_member(FAMILY.name, {"strength": best[1], "squash": False}, problem)
    kinds = {name: field.kind for name, field in problem.frame.fields.items()}
    values = member.predict(read_frame(test, kinds).columns())
    if not is_classes:
        return judged({"prediction": values[:, 0]}, test, False)
    return judged({f"probability_{c}": values[:, k] for k, c in enumerate(problem.classes.tolist())}, test, True)


def main() -> None:
    """Run everything and write the section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--flaml", help="python of an environment that has FLAML")
    parser.add_argument("--sets", type=Path, help="a folder of more csv files")
    parser.add_argument("--only", nargs="*", help="names of sets")
    parser.add_argument("--dry", action="store_true", help="print, and write no section")
    options = parser.parse_args()
    rows = []
    wins = total = 0
    for given in [*built_in(), *(of_folder(options.sets) if options.sets else [])]:
        if options.only and given.name not in options.only:
            continue
        with tempfile.TemporaryDirectory() as folder:
            results: dict[str, list[dict[str, Any]]] = {"ours": [], "flaml": [], "linear": []}
            for train, test in split(given, Path(folder)):
                results["ours"].append(ours(train, test, given.header[-1], options.seconds, given.is_classes))
                results["linear"].append({"loss": linear(train, test, given.is_classes)})
                if options.flaml:
                    results["flaml"].append(flaml(options.flaml, train, test, options.seconds, given.is_classes))
        mean = {name: float(np.mean([r["loss"] for r in found])) for name, found in results.items() if found}
        longest = max(r["seconds"] for r in results["ours"])
        fast = [r["latency_ms"] for r in results["ours"]]
        row = [given.name, "log-loss" if given.is_classes else "RMSE", f"{mean['ours']:.4f}", f"{mean['linear']:.4f}"]
        if options.flaml:
            wins, total = wins + (mean["ours"] < mean["flaml"]), total + 1
            slow = float(np.mean([r["latency_ms"] for r in results["flaml"]]))
            row += [f"{mean['flaml']:.4f}", f"{slow / float(np.mean(fast)):.0f}x"]
        rows.append([*row, f"{float(np.mean(fast)):.3f} ms", f"{longest:.1f} s"])
        print(" | ".join(rows[-1]), flush=True)
    head = ["set", "", "modelkit", "tuned linear", *(["FLAML", "one row faster"] if options.flaml else [])]
    body = table([*head, "one row", "longest run"], rows)
    if options.flaml:
        body += f"\n\nBetter than FLAML on {wins} of {total} sets."
    if not options.dry:
        command = f"python benchmarks/automl.py --seconds {options.seconds} --flaml ENV/bin/python"
        write_section("automl", f"automl, {options.seconds} s for each of {FOLDS} outer folds", command, body)


if __name__ == "__main__":
    main()
