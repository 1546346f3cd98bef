"""One process of a tool, its wall time and its peak memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
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


# A process counts what its parent held when it began as its own peak: one that holds nothing stands between.
_BETWEEN = """
import json, os, subprocess, sys, time
began = time.perf_counter()
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
seconds = time.perf_counter() - began
cpu, peak = usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024
print(json.dumps([os.waitstatus_to_exitcode(status), seconds, cpu, peak]))
"""


def run(command: Sequence[str | Path], target: Path) -> Run:
    """Run a command that writes ``target``."""
    between = [sys.executable, "-S", "-c", _BETWEEN, *(str(part) for part in command)]
    done = subprocess.run(between, capture_output=True, text=True, check=True)
    code, seconds, cpu, peak = json.loads(done.stdout)
    if code or not target.exists():
        return Run(None, seconds, cpu, peak, (done.stderr.strip().splitlines() or ["?"])[-1][:200])
    return Run(target, seconds, cpu, peak)


def peer(way: str, model: Path, data: Path, target: Path) -> Run:
    """Run one way of ``quantize_peers.py``."""
    return run([PEERS, "-P", Path(__file__).with_name("quantize_peers.py"), way, model, data, target], target)


def modelkit(model: Path, data: Path, target: Path, *options: str) -> Run:
    """Run `modelkit quantize`."""
    command = [sys.executable, "-m", "modelkit", "quantize", model, "--data", data, "--output", target, "--force"]
    return run([*command, *options], target)
