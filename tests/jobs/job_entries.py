"""What workers do in tests: good and evil. Workers import it by name, as they import modelkit's own entry."""

from __future__ import annotations

import ctypes
import os
import signal
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
    if what == "log":
        with Path(payload["log"]).open("a") as file:
            file.write(f"{payload['me']}\n")
        time.sleep(payload["seconds"])
    if what == "murder":  # of the process that looks after this one
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)
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


def light(payload: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """Publish an artifact with reports as a transform does, in milliseconds; each end is noted in a log."""
    from modelkit.batch.facts import facts_of
    from modelkit.files import Staging, file_record, write_json
    from modelkit.report.summary import figures_of

    model, output = Path(payload["model"]), Path(payload["output"])
    time.sleep(payload["arguments"]["pause"])
    size = {"file_bytes": model.stat().st_size, "external_bytes": 0}
    side = {"file": file_record(model), "size": size, "quality": None}
    after = {**side, "file": {"name": output.name}}
    document = {"schema": "modelkit.report/1", "status": "done", "before": side, "after": after}
    document |= {"method": "copy", "speedup": None, "fidelity": None}
    names = [path.name for path in payload["outputs"][1:]]
    with Staging(output.parent) as stage:
        stage.path(names[0]).write_bytes(model.read_bytes() * 50)
        write_json(stage.path(names[1]), document)
        stage.path(names[2]).write_text("page")
        stage.publish(names, force=payload["force"])
    with Path(payload["arguments"]["log"]).open("a") as file:
        file.write(f"{model.name}\n")
    written = [path for path in payload["outputs"] if path.exists()]
    facts = facts_of(model, [], written)
    done = {"status": "done", "reason": "", "hint": None, "output": output, "document": None}
    return {**done, "figures": figures_of(document), "facts": facts}
