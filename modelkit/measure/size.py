"""Size: bytes on disk, bytes after deflate, parameters and non-zero parameters of an ONNX file."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path

from modelkit.errors import ModelError, UsageError
from modelkit.measure.weights import find_weights
from modelkit.packing.restore import restore

_CHUNK = 1 << 18
# Deflating is slow: of more than this, one piece in so many is deflated and stands for the others.
_WHOLE = 1 << 23


@dataclass(frozen=True)
class SizeStats:
    """How large a model file is.

    Attributes:
        file_bytes: The file and its external data files together.
        deflated_bytes: The same after zlib level 6, as a download or an archive would hold it; beyond 8 MiB
            extrapolated from pieces of 256 KiB, spread evenly.
        parameters: Weights, by the rule of `modelkit.measure.weights`.
        nonzero_parameters: Those that are not zero.
        external_bytes: The part of `file_bytes` that is in external data files.
    """

    file_bytes: int
    deflated_bytes: int
    parameters: int
    nonzero_parameters: int
    external_bytes: int


def measure_size(path: Path) -> SizeStats:
    """Measure an ONNX file.

    External data is mapped into memory and read in pieces, so memory stays constant in its size.

    Args:
        path: The model file; external data files lie in its folder or below.

    Raises:
        UsageError: There is no such file.
        ModelError: The file is not an ONNX model, or external data is missing or too short.
        UnsafeError: External data points out of the model's folder.
    """
    import onnx

    if not path.is_file():
        raise UsageError(f"there is no file {path}")
    try:
        model = onnx.load_model(path, format="protobuf", load_external_data=False)
    except Exception as error:  # protobuf's error class depends on its implementation
        raise ModelError(f"{path} is not an ONNX model, or it is damaged") from error
    restore(model)
    weights, files = find_weights(model, path.parent)
    external_bytes = sum(file.stat().st_size for file in files)
    return SizeStats(
        file_bytes=path.stat().st_size + external_bytes,
        deflated_bytes=_deflated([path, *files]),
        parameters=sum(weight.count for weight in weights),
        nonzero_parameters=sum(weight.nonzero() for weight in weights),
        external_bytes=external_bytes,
    )


def _deflated(files: list[Path]) -> int:
    packer = zlib.compressobj(6)
    sizes = [file.stat().st_size for file in files]
    step = max(1, -(-sum(sizes) // _WHOLE))
    total = taken = 0
    for file in files:
        with file.open("rb") as stream:
            while piece := stream.read(_CHUNK):
                total += len(packer.compress(piece))
                taken += len(piece)
                if step > 1:
                    stream.seek((step - 1) * _CHUNK, 1)
    total += len(packer.flush())
    return total if step == 1 else round(total * sum(sizes) / taken)
