"""Other tools' post-training quantization, each in one process. Runs in the peers' own environment.

Run: .venv-peers/bin/python benchmarks/quantize_peers.py WAY MODEL DATA TARGET (see `make bench-setup`)
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

Way = Callable[[Path, list[dict[str, np.ndarray]], Path], None]


def samples(path: Path, count: int = 16) -> list[dict[str, np.ndarray]]:
    """The first samples of a data set, one by one."""
    arrays = {key: value[:count] for key, value in np.load(path).items() if key != "labels"}
    total = len(next(iter(arrays.values())))
    return [{key: value[i : i + 1] for key, value in arrays.items()} for i in range(total)]


def _static(model: Path, data: list[dict[str, np.ndarray]], target: Path, **settings: object) -> None:
    from onnxruntime.quantization import CalibrationDataReader, quant_pre_process, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches: Iterator[dict[str, np.ndarray]] = iter(data)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.batches, None)

    cleaned = target.with_suffix(".pre.onnx")
    quant_pre_process(str(model), str(cleaned), skip_symbolic_shape=True)
    quantize_static(str(cleaned), str(target), Reader(), **settings)
    cleaned.unlink()


def static_defaults(model: Path, data: list[dict[str, np.ndarray]], target: Path) -> None:
    """quant_pre_process and quantize_static, nothing said."""
    _static(model, data, target)


def static_u8s8(model: Path, data: list[dict[str, np.ndarray]], target: Path) -> None:
    """Its best setting on x64: unsigned activations, signed weights, per channel."""
    from onnxruntime.quantization import QuantFormat, QuantType

    _static(
        model,
        data,
        target,
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )


def dynamic(model: Path, data: list[dict[str, np.ndarray]], target: Path) -> None:
    """quantize_dynamic, nothing said."""
    from onnxruntime.quantization import quantize_dynamic

    quantize_dynamic(str(model), str(target))


def dynamic_channel(model: Path, data: list[dict[str, np.ndarray]], target: Path) -> None:
    """quantize_dynamic with signed weights per channel."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(str(model), str(target), per_channel=True, weight_type=QuantType.QInt8)


def _nncf(model: Path, data: list[dict[str, np.ndarray]], target: Path, **settings: object) -> None:
    import nncf
    import onnx

    quantized = nncf.quantize(onnx.load(model), nncf.Dataset(data), subset_size=len(data), **settings)
    onnx.save(quantized, target)


def nncf_defaults(model: Path, data: list[dict[str, np.ndarray]], target: Path) -> None:
    """NNCF's quantize, nothing said."""
    _nncf(model, data, target)


def nncf_transformer(model: Path, data: list[dict[str, np.ndarray]], target: Path) -> None:
    """NNCF's quantize told that the model is a transformer."""
    import nncf

    _nncf(model, data, target, model_type=nncf.ModelType.TRANSFORMER)


def _blocks(model: Path, target: Path, bits: int, size: int, level: int) -> None:
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    quantizer = MatMulNBitsQuantizer(
        onnx.load(model), bits=bits, block_size=size, is_symmetric=False, accuracy_level=level
    )
    quantizer.process()
    quantizer.model.save_model_to_file(str(target))


def rtn4(model: Path, data: list[dict[str, np.ndarray]], target: Path) -> None:
    """4 bits in blocks of 32, rounded to nearest, as MatMulNBitsQuantizer does it."""
    _blocks(model, target, 4, 32, 0)


def nbits8(model: Path, data: list[dict[str, np.ndarray]], target: Path) -> None:
    """8 bits in blocks of 32, integer arithmetic (accuracy level 4)."""
    _blocks(model, target, 8, 32, 4)


WAYS: dict[str, Way] = {
    way.__name__: way
    for way in (
        static_defaults,
        static_u8s8,
        dynamic,
        dynamic_channel,
        nncf_defaults,
        nncf_transformer,
        rtn4,
        nbits8,
    )
}


if __name__ == "__main__":
    name, *paths = sys.argv[1:]
    source, given, output = (Path(path) for path in paths)
    WAYS[name](source, samples(given), output)
