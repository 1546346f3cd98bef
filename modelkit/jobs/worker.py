"""The process that does tasks one after another: a runner starts ``python -m modelkit.jobs.worker FD PARENT``.

What it is sent over the socket: ("warm", modules), then for each task ("task", entry, payload, memory limit). What it
answers: ("ready",), ("progress", stage, done, total), ("done", result), ("failed", kind, reason, hint, exit code).
"""

from __future__ import annotations

import ctypes
import importlib
import os
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from modelkit.errors import ModelkitError, defect, refusal
from modelkit.jobs.protocol import imported
from modelkit.progress import Progress

_EVERY = 0.1  # seconds between messages of progress
_PR_SET_PDEATHSIG = 1
# How native code says it, where it has no class of its own for it.
_NO_MEMORY = ("Failed to allocate memory", "bad_alloc", "out of memory")


def main(descriptor: int, parent: int) -> None:
    """Serve tasks from a socket until it is closed."""
    os.set_inheritable(descriptor, False)
    # The runner alone decides when a worker ends; an interrupt of the terminal is its business.
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    die_with(parent)
    channel = Connection(descriptor)
    with suppress(EOFError, OSError):
        _, modules = channel.recv()
        for name in modules:
            importlib.import_module(name)
        channel.send(("ready",))
        while True:
            _, entry, payload, memory = channel.recv()
            _limit_memory(memory)
            answer = do(entry, payload, _Reporter(channel))
            channel.send(answer)


def do(entry: str, payload: Mapping[str, Any], progress: Progress) -> tuple[Any, ...]:
    """Do one task; returns the message about its end."""
    try:
        return ("done", imported(entry)(payload, progress))
    except ModelkitError as error:
        reason = "; ".join([error.message, *_more(error)])
        kind = "memory" if any(words in reason for words in _NO_MEMORY) else "error"
        return ("failed", kind, reason, error.hint, error.exit_code)
    except MemoryError:
        return ("failed", "memory", "out of memory", "give it more with --memory", 5)
    except OSError as error:
        return ("failed", "error", refusal(error), None, 5)
    except Exception as error:
        return ("failed", "error", defect(error), "run it alone with --debug and report what it shows", 5)


def _more(error: ModelkitError) -> list[str]:
    """The single problems of an error that has several, as far as its line does not tell them."""
    return [problem for problem in getattr(error, "problems", []) if problem not in error.message]


class _Reporter:
    """Progress over the socket: what changes more often than a person reads is left out."""

    def __init__(self, channel: Connection) -> None:
        self._channel, self._last = channel, 0.0

    def __call__(self, stage: str, done: float, total: float) -> None:
        now = time.monotonic()
        if now - self._last < _EVERY:
            return
        self._last = now
        self._channel.send(("progress", stage, float(done), float(total)))


def die_with(parent: int) -> None:
    """Have the system end this process with its parent, even by SIGKILL, and before it where memory runs out."""
    if sys.platform != "linux":
        return
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:  # noqa: PTH123
        file.write("1000")


def _limit_memory(limit: int | None) -> None:
    """Refuse single allocations far beyond the limit at once; up to there the runner watches what is really used.

    The data segment counts what is writable and private. The address space would count what onnxruntime and torch
    only map, so a limit on it ends healthy work.
    """
    try:
        import resource
    except ImportError:  # Windows
        return
    with suppress(ValueError, OSError):
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        soft = hard if limit is None else 2 * limit + (4 << 30)
        if hard != resource.RLIM_INFINITY:
            soft = min(soft, hard) if soft != resource.RLIM_INFINITY else hard
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
