"""Other tools, so that results stand side by side. Each is a function from model, data and target to a file."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Tool:
    """A tool and one way of using it.

    Attributes:
        name: Tool, version and setting.
        run: Writes the quantized model; takes model, calibration npz and target.
    """

    name: str
    run: Callable[[Path, Path, Path], None]

    def timed(self, model: Path, data: Path, target: Path) -> float:
        """Run the tool and return how many seconds it took."""
        began = time.perf_counter()
        self.run(model, data, target)
        return time.perf_counter() - began


def modelkit_static(model: Path, data: Path, target: Path) -> None:
    """Static int8 as `modelkit quantize --mode static --data` does it."""
    from modelkit.api import quantize

    quantize(model, output=target, data=data, config={"mode": "static"}, force=True)


def runtime_static(model: Path, data: Path, target: Path) -> None:
    """Onnxruntime's quantize_static in its U8S8 QDQ per-channel setting, after its own preprocessing."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quant_pre_process,
        quantize_static,
    )

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            arrays = {k: v for k, v in np.load(data).items() if k != "labels"}
            count = len(next(iter(arrays.values())))
            self.batches: Iterator[dict] = iter([{k: v[i : i + 1] for k, v in arrays.items()} for i in range(count)])

        def get_next(self) -> dict | None:
            return next(self.batches, None)

    cleaned = target.with_suffix(".pre.onnx")
    quant_pre_process(str(model), str(cleaned), skip_symbolic_shape=True)
    quantize_static(
        str(cleaned),
        str(target),
        Reader(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    cleaned.unlink()


def runtime_dynamic(model: Path, data: Path, target: Path) -> None:
    """Onnxruntime's quantize_dynamic in its default setting."""
    from onnxruntime.quantization import quantize_dynamic

    quantize_dynamic(str(model), str(target))


def static_tools() -> list[Tool]:
    """Tools that make static int8."""
    import onnxruntime

    return [
        Tool("modelkit static", modelkit_static),
        Tool(f"onnxruntime {onnxruntime.__version__} quantize_static U8S8", runtime_static),
    ]
