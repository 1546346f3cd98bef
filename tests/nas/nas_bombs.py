"""What a worker does in place of a trial: some end their process, hang, eat memory, or learn until it explodes."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

from modelkit.nas import trial
from modelkit.progress import Progress


def perform(payload: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """See `modelkit.nas.trial.perform`."""
    match int(payload["folder"].name):
        case 1:
            os._exit(9)
        case 2:
            time.sleep(60)
        case 3:
            hoard = [bytearray(os.urandom(1 << 20) * 64) for _ in range(64)]  # 4 GiB
            time.sleep(len(hoard))
        case 4:
            payload = {**payload, "options": {**payload["options"], "learning_rate": 100.0, "clip": 0.0}}
            payload["options"]["weight_decay"] = 10.0
    return trial.perform(payload, progress)
