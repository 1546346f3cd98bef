"""Runs that are killed: what is done stays done, nothing is torn, nothing is done twice."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import job_models
import pytest
from job_inline import InlineRunner

from modelkit import api
from modelkit.batch.plan import Request
from modelkit.batch.run import run
from modelkit.jobs.journal import read

HERE = Path(__file__).parent
REPO = HERE.parents[1]
COUNT = 24

RUN = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_jobs_kill import request
from modelkit.batch.run import run
run(request(Path(sys.argv[2]), workers=2, resume=True))
print("complete")
"""


def request(folder: Path, *, workers: int = 1, resume: bool = False, pause: float = 0.02) -> Request:
    found = api.folder_request(
        "quantize",
        folder / "models",
        output=folder / "out",
        options={"workers": workers},
        resume=resume,
    )
    arguments = {"pause": pause, "log": str(folder / "log")}
    return replace(found, entry="job_entries:light", arguments=arguments, warm=())


def models(folder: Path, count: int) -> None:
    for number in range(count):
        (folder / "models" / f"sub {number % 3}").mkdir(parents=True, exist_ok=True)
        job_models.mlp(folder / "models" / f"sub {number % 3}" / f"m{number}.onnx", seed=number, width=4)


def ended(folder: Path) -> Counter[str]:
    return Counter((folder / "log").read_text().splitlines()) if (folder / "log").exists() else Counter()


def check_nothing_is_torn(folder: Path) -> None:
    """Every file that is there is whole; artifacts come with their reports."""
    for report in (folder / "out").rglob("m*.report.json"):
        if ".modelkit-" in str(report):
            continue
        document = json.loads(report.read_text())
        artifact = report.with_name(report.name.replace(".report.json", ".onnx"))
        source = folder / "models" / report.parent.name / document["before"]["file"]["name"]
        assert artifact.read_bytes() == source.read_bytes() * 50


def test_killed_at_random_moments_and_resumed(tmp_path: Path, scratch: Path) -> None:
    models(tmp_path, COUNT)
    moments = random.Random(4)
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    kills = 0
    for _ in range(40):
        process = subprocess.Popen(
            [sys.executable, "-c", RUN, HERE, tmp_path],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        # Some end while the run sets itself up, most in the middle of the work.
        wanted = sum(ended(tmp_path).values()) + moments.choice([0, 2, 3])
        deadline = time.monotonic() + 20
        while process.poll() is None and sum(ended(tmp_path).values()) < wanted and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(moments.random() * (0.06 if wanted else 0.6))
        process.send_signal(signal.SIGKILL)
        out, err = process.communicate()
        if out == "complete\n":
            break
        assert process.returncode == -signal.SIGKILL, err
        kills += 1
        time.sleep(0.05)  # workers end when they hear of it
        # Killed workers may leave hidden folders, which the next run removes, and sets half renamed, which it undoes.
    assert kills >= 5
    check_nothing_is_torn(tmp_path)
    assert not list((tmp_path / "out").rglob(".modelkit-*"))
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["counts"] == {"done": COUNT}
    assert set(ended(tmp_path).values()) == {1}, "a model was done twice"
    records = read(tmp_path / "out" / ".modelkit" / "quantize.jsonl")
    assert Counter(record["model"] for record in records if record["event"] == "end").most_common(1)[0][1] == 1


def test_a_result_that_the_journal_missed_is_found(tmp_path: Path) -> None:
    models(tmp_path, 3)
    first = run(request(tmp_path, pause=0), runner=InlineRunner())
    journal = tmp_path / "out" / ".modelkit" / "quantize.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    assert json.loads(lines[-1])["event"] == "end"
    journal.write_bytes(b"".join(lines[:-1]) + lines[-1][:30])  # as a kill after the last rename leaves it
    again = run(request(tmp_path, resume=True, pause=0), runner=InlineRunner())
    assert all(row.resumed for row in again.models)
    assert [row.figures for row in again.models] == [row.figures for row in first.models]
    assert set(ended(tmp_path).values()) == {1}
    third = run(request(tmp_path, resume=True, pause=0), runner=InlineRunner())
    assert all(row.resumed for row in third.models) and set(ended(tmp_path).values()) == {1}


@pytest.mark.parametrize("what", ["model", "result"])
def test_a_result_that_the_journal_missed_is_not_believed_after_a_change(what: str, tmp_path: Path) -> None:
    models(tmp_path, 1)
    run(request(tmp_path, pause=0), runner=InlineRunner())
    journal = tmp_path / "out" / ".modelkit" / "quantize.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    if what == "model":
        job_models.mlp(tmp_path / "models" / "sub 0" / "m0.onnx", seed=9)
        journal.write_bytes(b"".join(lines[:-1]))
    else:  # it was there before the model was begun
        started = json.loads(lines[1])
        report = tmp_path / "out" / "sub 0" / "m0.int8.report.json"
        info = {path.name: path.lstat() for path in report.parent.iterdir()}
        started["seen"] = {name: [i.st_ino, i.st_size, i.st_mtime_ns] for name, i in info.items()}
        journal.write_bytes(lines[0] + json.dumps(started).encode() + b"\n")
    again = run(request(tmp_path, resume=True, pause=0), runner=InlineRunner())
    assert not again.models[0].resumed and again.exit_code == 0
    check_nothing_is_torn(tmp_path)


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_an_interrupt_leaves_no_debris_and_can_be_resumed(
    number: signal.Signals, code: int, word: str, tmp_path: Path, scratch: Path
) -> None:
    job_models.mlp(tmp_path / "models" / "a.onnx")
    job_models.endless(tmp_path / "models" / "b" / "b.onnx")
    job_models.endless(tmp_path / "models" / "c" / "c.onnx")
    argv = [
        sys.executable,
        "-m",
        "modelkit",
        "quantize",
        "models",
        "-o",
        "out",
        "--workers",
        "2",
        "--mode",
        "weights",
    ]
    argv += ["--set", "measure.seconds=0.001", "--set", "objective=size"]
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    process = subprocess.Popen(
        argv,
        env=environment,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    journal = tmp_path / "out" / ".modelkit" / "quantize.jsonl"

    def begun() -> int:
        return journal.read_bytes().count(b'"event":"start"') if journal.exists() else 0

    deadline = time.monotonic() + 60
    while begun() < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.3)
    process.send_signal(number)
    try:
        out, err = process.communicate(timeout=20)
    finally:
        process.kill()
    assert (process.returncode, out) == (code, "")
    assert err.splitlines()[-1] == f"{word}; 1 of 3 models are done; --resume goes on", err
    assert "Traceback" not in err
    left = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*")}
    made = {f"a.int8.{suffix}" for suffix in ("onnx", "report.json", "report.md")}
    assert left == made | {".modelkit", ".modelkit/quantize.jsonl", ".modelkit/lock"}
    assert not list(scratch.iterdir())


def test_a_full_disk_stops_the_run_and_keeps_what_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    from modelkit.errors import ResourceError

    models(tmp_path, 6)
    real, calls = os.fsync, 0

    def full(descriptor: int) -> None:
        nonlocal calls
        calls += Path(f"/proc/self/fd/{descriptor}").readlink().name == "quantize.jsonl"
        if calls > 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ResourceError, match="no space left"):
        run(request(tmp_path, pause=0), runner=InlineRunner())
    monkeypatch.setattr(os, "fsync", real)
    check_nothing_is_torn(tmp_path)
    done_before = dict(ended(tmp_path))
    again = run(request(tmp_path, resume=True, pause=0), runner=InlineRunner())
    assert again.exit_code == 0 and sum(row.resumed for row in again.models) == len(done_before)


def test_a_full_disk_of_one_worker_is_the_failure_of_one_model(tmp_path: Path) -> None:
    """Limits on file sizes stand for a disk that is full for a large artifact and not for a small one."""
    models(tmp_path, 3)
    job_models.mlp(tmp_path / "models" / "large.onnx", width=2000)
    code = (
        "import resource, signal, sys\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n" + RUN
    )
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    done = subprocess.run(
        [sys.executable, "-c", code, HERE, tmp_path], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout == "complete\n", done.stderr
    rows: list[dict[str, Any]] = json.loads((tmp_path / "out" / "summary.json").read_text())["models"]
    assert {row["model"]: row["status"] for row in rows if row["status"] != "done"} == {"large.onnx": "failed"}
    reason = next(row["reason"] for row in rows if row["status"] == "failed")
    assert "a file grew larger than the limits" in reason
    assert not list((tmp_path / "out").rglob(".modelkit-*"))
