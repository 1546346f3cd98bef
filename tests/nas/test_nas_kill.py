"""Real processes: a search that is killed and resumed, and trials that die, hang, eat memory or give no numbers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from nas_inline import MLP, blobs, search

from modelkit.jobs.journal import read
from modelkit.jobs.local import LocalRunner
from modelkit.nas import session
from modelkit.nas import trial as work

REPO = Path(__file__).resolve().parents[2]


def command(folder: Path, *more: str) -> list[str]:
    config = folder / "nas.yaml"
    config.write_text(
        yaml.safe_dump(
            {
                "space": MLP,
                "trials": 5,
                "warmup": 3,
                "fidelity": {"method": "asha"},
                "training": {"epochs": 3},
                "timing": {"seconds": 0.001},
            }
        )
    )
    data = blobs(folder / "data.npz", 800)
    argv = ["nas", "--config", config, "--data", data, "-o", folder / "best.onnx", "--quiet", *more]
    return [sys.executable, "-m", "modelkit", *map(str, argv)]


def ended(folder: Path) -> list[tuple[int, int]]:
    """Trial and epochs of each training that has ended."""
    path = folder / "best.nas" / "study.jsonl"
    found = read(path) if path.exists() else []
    return [(each["number"], each["epochs"]) for each in found[1:] if each["status"] == "done"]


def test_a_killed_search_is_gone_on_with_to_the_same_end(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"}
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    subprocess.run(command(tmp_path / "whole"), env=environment, check=True, timeout=120)
    folder, resume = tmp_path / "killed", []
    before: list[tuple[int, int]] = []
    for wanted in (2, 6):
        process = subprocess.Popen(command(folder, *resume), env=environment, stderr=subprocess.PIPE)
        deadline = time.monotonic() + 60
        while process.poll() is None and len(ended(folder)) < wanted and time.monotonic() < deadline:
            time.sleep(0.002)
        process.kill()
        _, said = process.communicate()
        assert process.returncode == -signal.SIGKILL, said
        now = ended(folder)
        # What had ended has not been trained again, and is there.
        assert now[: len(before)] == before and len(set(now)) == len(now) >= wanted
        before, resume = now, ["--resume"]
    subprocess.run(command(folder, *resume), env=environment, check=True, timeout=120)
    reports = [json.loads((tmp_path / name / "best.report.json").read_text()) for name in ("whole", "killed")]
    whole, killed = ([_gist(trial) for trial in report["trials"]] for report in reports)
    assert killed == whole
    for path in sorted((tmp_path / "whole" / "best.pareto").iterdir()):
        assert (folder / "best.pareto" / path.name).read_bytes() == path.read_bytes()
    assert not (folder / "best.nas").exists()


def _gist(trial: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in trial.items() if name not in ("latency_ms", "seconds", "ended")}


def test_trials_that_die_hang_eat_memory_or_diverge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "ENTRY", "nas_bombs:perform")
    report = search(
        tmp_path,
        runner=LocalRunner(1, warm=session._WARM),
        trials=8,
        trial__timeout="6s",
        trial__memory="1500MB",
    )
    found = {trial["trial"]: (trial["status"], trial["reason"]) for trial in report["trials"]}
    assert found[1][0] == "crashed" and found[1][1].startswith("its process ended: exit code 9")
    assert found[2] == ("timed out", "it took longer than 6 s")
    assert found[3][0] == "out of memory" and "MiB of memory; " in found[3][1]
    assert found[4][0] == "failed" and "diverged" in found[4][1]
    assert [found[number][0] for number in (0, 5, 6, 7)] == ["done"] * 4
    assert report["counts"] == {"crashed": 1, "done": 4, "failed": 1, "out of memory": 1, "timed out": 1}
    assert report["notes"][0].startswith("4 trials failed; the first: its process ended")
