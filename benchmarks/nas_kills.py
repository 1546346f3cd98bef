"""Searches that are killed at random moments and resumed, against one that nothing disturbs; and two workers.

    python benchmarks/nas_kills.py            # 20 kills, then one worker and two where there are two cores
    python benchmarks/nas_kills.py --kills 3

The real command line in a process of its own is ended by SIGKILL, at a moment drawn evenly from its start to some
seconds later, and gone on with by `--resume`, over and over until it is done. What had ended must never be trained
again, and the study must end as the undisturbed one did: the same trials with the same figures, and the same bytes of
each network of the Pareto set.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from harness import ROOT, verdict, write_section

from modelkit.cores import usable_cores
from modelkit.jobs.journal import read

SPACE = {
    "family": "mlp",
    "activation": ["relu", "gelu", "silu"],
    "layers": [{"width": {"from": 8, "to": 64, "step": 8}}, {"width": [0, 16, 32, 64]}],
}
LATEST = 9.0
"""Seconds after its start by which a process is killed at the latest."""


def main() -> None:
    """Measure, and write the section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--trials", type=int, default=40)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write(folder, options.trials)
        whole = folder / "whole"
        whole.mkdir()
        subprocess.run(_command(folder, whole), env=_environment(), check=True)
        found = Killed()
        rng, number = random.Random(0), 0
        while found.kills < options.kills:
            number += 1
            study = folder / f"study {number}"
            study.mkdir()
            _disturb(folder, study, options.kills, rng, found)
            found.same.append(_result(study) == _result(whole))
            print(found, flush=True)
        parts = [_told(found, options.trials), "", _workers(folder)]
    write_section("nas_kills", "Searches that are killed", "python benchmarks/nas_kills.py", "\n".join(parts))


@dataclass
class Killed:
    """What came of killing.

    Attributes:
        kills: Processes that were ended by a kill.
        inside: Of these, while a trial ran.
        lost: Trials that ran at each kill: begun, and begun again later.
        again: Trainings that had ended and were done again: must stay 0.
        same: For each study whether it ended as the undisturbed one.
    """

    kills: int = 0
    inside: int = 0
    lost: list[int] = field(default_factory=list)
    again: int = 0
    same: list[bool] = field(default_factory=list)


def _disturb(folder: Path, study: Path, kills: int, rng: random.Random, found: Killed) -> None:
    """Kill and resume one study until it is done, or enough kills were made and it is left to its end."""
    before: list[tuple[int, int]] = []
    while True:
        resume = ["--resume"] if _records(study) else []
        process = subprocess.Popen(_command(folder, study, *resume), env=_environment())
        try:
            process.wait(LATEST * rng.random() if found.kills < kills else None)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
        if process.returncode != -signal.SIGKILL:
            if process.returncode:
                raise SystemExit(f"the search ended with {process.returncode}")
            return
        found.kills += 1
        records = _records(study)
        if not records and (study / "best.report.json").exists():
            return  # it was killed when all was written
        ended = [(each["number"], each["epochs"]) for each in records if each["status"] == "done"]
        running = {each["number"] for each in records if each["status"] == "running"}
        latest = {each["number"]: each["status"] for each in records}
        lost = sum(latest[number] == "running" for number in running)
        found.lost.append(lost)
        found.inside += lost > 0
        found.again += len(ended) - len(set(ended))
        assert ended[: len(before)] == before, "what had ended is not there any more"
        before = ended


def _records(study: Path) -> list[dict[str, Any]]:
    path = study / "best.nas" / "study.jsonl"
    return list(read(path)[1:]) if path.exists() else []


def _result(study: Path) -> tuple[object, ...]:
    """What must be the same of two studies."""
    report = json.loads((study / "best.report.json").read_text())
    free = ("latency_ms", "seconds", "ended")
    trials = [{name: value for name, value in each.items() if name not in free} for each in report["trials"]]
    files = {path.name: path.read_bytes() for path in sorted((study / "best.pareto").iterdir())}
    return trials, files


def _write(folder: Path, trials: int) -> None:
    """The samples and the config: short trainings, some of which go on from rung to rung."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    np.savez(folder / "data.npz", image=(digits.data / 16).astype(np.float32), labels=digits.target)
    config = {
        "space": SPACE,
        "trials": trials,
        "fidelity": {"method": "asha"},
        "training": {"epochs": 9},
        "timing": {"seconds": 0.01},
    }
    (folder / "nas.yaml").write_text(yaml.safe_dump(config))


def _command(folder: Path, study: Path, *more: str) -> list[str]:
    argv = ["nas", "--config", folder / "nas.yaml", "--data", folder / "data.npz", "-o", study / "best.onnx"]
    return [sys.executable, "-m", "modelkit", *map(str, argv), "--quiet", *more]


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def _told(found: Killed, trials: int) -> str:
    good = max(found.lost, default=0) <= 1 and not found.again and all(found.same)
    return (
        f"One worker, {trials} full trainings' worth of epochs, ASHA. {found.kills} kills within {LATEST:g} s of "
        f"a start, {found.inside} of them while a trial ran; at most {max(found.lost, default=0)} trial lost at a "
        f"kill, {found.again} trainings done twice; {sum(found.same)} of {len(found.same)} studies ended as the "
        f"undisturbed one, to the bytes of the Pareto set: {verdict(good)}."
    )


def _workers(folder: Path, seconds: int = 60) -> str:
    """Trials of one worker and of two in the same time, in turns."""
    if usable_cores() < 2:
        return "Two workers: not measured, only one core was free."
    rates: dict[int, list[float]] = {1: [], 2: []}
    for turn in range(2):
        for workers in (1, 2) if turn == 0 else (2, 1):
            study = folder / f"workers {workers} {turn}"
            study.mkdir()
            more = ["--workers", str(workers), "--fidelity", "full", "--time", f"{seconds}s", "--set", "trials=null"]
            began = time.monotonic()
            subprocess.run(_command(folder, study, *more), env=_environment(), check=True)
            took = time.monotonic() - began
            report = json.loads((study / "best.report.json").read_text())
            # From the end of the first trial on, so that starting the workers is not counted.
            ends = sorted(trial["ended"] for trial in report["trials"] if trial["status"] == "done")
            rates[workers].append((len(ends) - workers) / (ends[-1] - ends[workers - 1]))
            print(f"{workers} workers: {len(ends)} trials in {took:.0f} s", flush=True)
    one, two = (float(np.mean(rates[count])) for count in (1, 2))
    return (
        f"One worker makes {one:.2f} trials a second, two make {two:.2f} (mean of two runs of {seconds} s each): "
        f"{two / one:.2f} times as many, where 1.7 is asked for: {verdict(two / one >= 1.7)}."
    )


if __name__ == "__main__":
    main()
