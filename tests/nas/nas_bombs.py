"""What a worker does in place of a trial: some end their process, hang, eat memory, or learn weights of NaN."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any
from unittest import mock

import numpy as np
import onnx_ir as ir

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
            with mock.patch("modelkit.train.finetune.finetune", _explode):
                return trial.perform(payload, progress)
    return trial.perform(payload, progress)


def _explode(model: ir.Model, *_: Any, **__: Any) -> None:
    """In place of a training: the weights are no numbers afterwards."""
    for value in model.graph.initializers.values():
        if value.const_value is not None and value.const_value.dtype == ir.DataType.FLOAT:
            value.const_value = ir.tensor(np.full(value.const_value.shape.numpy(), np.nan, np.float32))
