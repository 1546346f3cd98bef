"""Processes of this machine: how much memory one uses with its children, how one is ended, how it ended."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_PROC = Path("/proc")


def resident(pids: Iterable[int]) -> int:
    """Bytes of resident memory of processes together; those that are gone count nothing."""
    if not _PROC.is_dir():
        table = _listed()
        return sum(table[pid][1] for pid in pids if pid in table)
    page, total = os.sysconf("SC_PAGESIZE"), 0
    for pid in pids:
        with suppress(OSError, ValueError, IndexError):
            total += int((_PROC / str(pid) / "statm").read_bytes().split()[1]) * page
    return total


def families(roots: Iterable[int]) -> dict[int, list[int]]:
    """For each process, itself and everything that it started, directly or not."""
    parents = _parents() if _PROC.is_dir() else {pid: parent for pid, (parent, _) in _listed().items()}
    children: dict[int, list[int]] = {}
    for pid, parent in parents.items():
        children.setdefault(parent, []).append(pid)
    found = {}
    for root in roots:
        family, todo = [], [root]
        while todo:
            pid = todo.pop()
            family.append(pid)
            todo += children.get(pid, [])
        found[root] = family
    return found


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill a process that leads a group of its own, with the group, and wait for it."""
    with suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(OSError):
        process.kill()
    process.wait()


def ending(code: int) -> str:
    """How a process ended, in words: ``killed by SIGSEGV``, ``exit code 3``."""
    if code >= 0:
        return f"exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    # Nobody else sends this signal to a worker, but for a person.
    return f"killed by {name}{', as the system does when memory runs out' if name == 'SIGKILL' else ''}"


def _parents() -> dict[int, int]:
    found = {}
    for entry in os.listdir(_PROC):  # noqa: PTH208 - names are wanted, many times a minute
        if entry.isdecimal():
            with suppress(OSError, ValueError, IndexError):
                # The name in parentheses may hold blanks and parentheses itself.
                found[int(entry)] = int((_PROC / entry / "stat").read_bytes().rpartition(b")")[2].split()[1])
    return found


def _listed() -> dict[int, tuple[int, int]]:
    """Parent and resident bytes of every process, where there is no /proc (macOS)."""
    with suppress(OSError, ValueError, subprocess.SubprocessError):
        out = subprocess.run(
            ["ps", "-A", "-o", "pid=,ppid=,rss="],  # noqa: S607 - wherever this system keeps it
            capture_output=True,
            check=True,
            timeout=5,
        ).stdout
        rows = [[int(part) for part in line.split()] for line in out.splitlines()]
        return {pid: (parent, kilobytes * 1024) for pid, parent, kilobytes in rows}
    return {}
