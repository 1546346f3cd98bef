"""What workers do in tests: good and evil."""
from __future__ import annotations
import ctypes, os, sys, time
from collections.abc import Mapping
from typing import Any
from modelkit.errors import UsageError

def obey(payload: Mapping[str, Any], progress: Any) -> dict[str, Any]:
    what = payload["what"]
    progress("at it", 1, 2)
    if what == "crash":
        ctypes.string_at(0)
    if what == "hang":
        while True: time.sleep(1)
    if what == "bomb":
        hoard = []
        while True: hoard.append(bytearray(os.urandom(1) * (20 << 20)))
    if what == "huge":
        hoard = bytearray(200 << 30)
    if what == "error":
        raise UsageError("no", "hint")
    return {"what": what, "pid": os.getpid()}
