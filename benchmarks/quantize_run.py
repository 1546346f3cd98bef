"""One process of a tool, its wall time and its peak memory."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import ROOT

PEERS = Path(os.environ.get("PEERS", ROOT / ".venv-peers")) / "bin" / "python"


@dataclass(frozen=True)
class Run:
    """What came of one process.

    Attributes:
        path: What it wrote; None where it failed.
        seconds: Wall time, start-up included.
        cpu: Processor time, which other processes do not lengthen.
        peak: Peak resident memory in bytes.
        error: Last line of its errors, where it failed.
    """

    path: Path | None
    seconds: float
    cpu: float
    peak: int
    error: str = ""


def run(command: Sequence[str | Path], target: Path) -> Run:
    """Run a command that writes ``target``."""
    began = time.perf_counter()
    with subprocess.Popen(
        [str(part) for part in command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        errors = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds, cpu = time.perf_counter() - began, usage.ru_utime + usage.ru_stime
    if process.returncode or not target.exists():
        return Run(None, seconds, cpu, usage.ru_maxrss * 1024, (errors.strip().splitlines() or ["?"])[-1][:200])
    return Run(target, seconds, cpu, usage.ru_maxrss * 1024)


def peer(way: str, model: Path, data: Path, target: Path) -> Run:
    """Run one way of ``quantize_peers.py``."""
    return run([PEERS, "-P", Path(__file__).with_name("quantize_peers.py"), way, model, data, target], target)


def modelkit(model: Path, data: Path, target: Path, *options: str) -> Run:
    """Run `modelkit quantize`."""
    command = [sys.executable, "-m", "modelkit", "quantize", model, "--data", data, "--output", target, "--force"]
    return run([*command, *options], target)
