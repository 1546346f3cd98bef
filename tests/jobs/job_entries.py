"""What workers do in tests: good and evil. Workers import it by name, as they import modelkit's own entry."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelkit.errors import DataError, UsageError
from modelkit.progress import Progress

MIB = 1 << 20


def obey(payload: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """Do what is said."""
    what = payload["what"]
    progress("at it", 1, 2)
    evil(what)
    if what == "error":
        raise UsageError("that is wrong", "make it right")
    if what == "problems":
        raise DataError("two problems", ["alpha", "beta"])
    if what == "defect":
        raise KeyError("lost\nkey")
    if what == "leave":
        sys.exit(3)
    if what == "noise":
        print("x" * 10_000, flush=True)
        os.write(2, b"\xff\x00 noise\n")
    if what == "sleep":
        time.sleep(payload["seconds"])
    return {"what": what, "pid": os.getpid(), "temporary": os.environ["TMPDIR"]}


def evil(what: str) -> None:
    """Crash, hang or eat memory."""
    if what == "crash":
        ctypes.string_at(0)
    elif what == "abort":
        os.write(2, b"terminate called\n")
        os.abort()
    elif what == "hang":
        ctypes.PyDLL(None).sleep(1000)  # native code that keeps the interpreter's lock
    elif what == "eat":
        hoard = []
        while True:
            hoard.append(b"\1" * (16 * MIB))
    elif what == "demand":
        bytearray(1 << 40)
    elif what == "child":
        # What a child takes counts for its parent.
        eater = "import time; hoard = b'\\1' * (400 << 20); time.sleep(60)"
        subprocess.run([sys.executable, "-c", eater], check=False)


def perform(payload: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """Do what modelkit does, unless the model's name asks for something evil; note in the model's folder each begin."""
    from modelkit import task

    model = Path(payload["model"])
    log = payload["arguments"].get("log")
    if log is not None:
        with Path(log).open("a") as file:
            file.write(f"{model.name}\n")
    for what in ("crash", "hang", "eat"):
        if what in model.stem:
            evil(what)
    arguments = {key: value for key, value in payload["arguments"].items() if key not in ("log", "pause")}
    time.sleep(payload["arguments"].get("pause", 0))
    return task.perform({**payload, "arguments": arguments}, progress)
