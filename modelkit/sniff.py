"""Tell what a file is from its content, never from its name, reading a bounded part of it.

Nothing is unpickled, decompressed or executed: zip archives are judged by their list of members, pickles by
their opcodes' first bytes, ONNX by a walk over the top-level protobuf fields that seeks past their payloads.
"""

from __future__ import annotations

import csv
import json
import re
import zipfile
from enum import StrEnum
from typing import IO

_HEAD = 64 * 1024
_MAX_ZIP_DIRECTORY = 64 * 1024 * 1024
_MAX_FIELDS = 4096


class Kind(StrEnum):
    """What a file holds.

    The kinds from ``hdf5`` on are known only so that an error can name them.
    """

    ONNX = "onnx"
    SAFETENSORS = "safetensors"
    TORCH_ZIP = "torch_zip"  # torch.save: a zip with data.pkl
    TORCHSCRIPT = "torchscript"  # torch.jit.save: a zip with constants.pkl or code/
    PT2 = "pt2"  # torch.export.save
    PICKLE = "pickle"  # also torch.save before 1.6
    NPZ = "npz"
    NPY = "npy"
    ZIP = "zip"
    PARQUET = "parquet"
    IMAGE = "image"
    CSV = "csv"
    JSON = "json"
    YAML = "yaml"
    HTML = "html"
    TEXT = "text"
    LFS_POINTER = "lfs_pointer"
    EMPTY = "empty"
    UNKNOWN = "unknown"
    HDF5 = "hdf5"
    TFLITE = "tflite"
    GGUF = "gguf"
    ORT = "ort"
    GZIP = "gzip"


_MAGIC: tuple[tuple[int, bytes, Kind], ...] = (
    (0, b"\x93NUMPY", Kind.NPY),
    (0, b"PAR1", Kind.PARQUET),
    (0, b"PARE", Kind.PARQUET),
    (0, b"\x89PNG\r\n\x1a\n", Kind.IMAGE),
    (0, b"\xff\xd8\xff", Kind.IMAGE),
    (0, b"GIF87a", Kind.IMAGE),
    (0, b"GIF89a", Kind.IMAGE),
    (0, b"II*\x00", Kind.IMAGE),
    (0, b"MM\x00*", Kind.IMAGE),
    (0, b"\x89HDF\r\n\x1a\n", Kind.HDF5),
    (4, b"TFL3", Kind.TFLITE),
    (0, b"GGUF", Kind.GGUF),
    (4, b"ORTM", Kind.ORT),
    (0, b"\x1f\x8b", Kind.GZIP),
    (0, b"version https://git-lfs.github.com/spec/", Kind.LFS_POINTER),
)


def kind_of(file: IO[bytes]) -> Kind:
    """Tell what an open binary file holds, whatever its position. Its position afterwards is undefined.

    A truncated file gets the kind that it was meant to be.

    Raises:
        OSError: The file cannot be read.
    """
    file.seek(0)
    head = file.read(_HEAD)
    if not head:
        return Kind.EMPTY
    for offset, magic, kind in _MAGIC:
        if head.startswith(magic, offset):
            return kind
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _zip_kind(file, head)
    if _is_other_image(head):
        return Kind.IMAGE
    if _is_pickle(head):
        return Kind.PICKLE
    if _is_safetensors(head):
        return Kind.SAFETENSORS
    if _is_onnx(file):
        return Kind.ONNX
    return _text_kind(head, whole=len(head) < _HEAD)


def _is_other_image(head: bytes) -> bool:
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return True
    if head.startswith(b"BM") and len(head) >= 18 and head[6:10] == bytes(4):
        return int.from_bytes(head[14:18], "little") in (12, 40, 52, 56, 64, 108, 124)
    return re.match(rb"P[56]\s+(#[^\n]*\n\s*)*\d+\s+\d+\s+\d+\s", head) is not None


def _is_pickle(head: bytes) -> bool:
    if re.match(rb"\x80[\x02-\x05]", head):
        return True
    # Protocols 0 and 1 have no header; these openings cover objects and the usual containers.
    return (
        re.match(rb"\(?c[A-Za-z_][\w.]*\n[A-Za-z_][\w.]*\n([pg]\d+\n|[q(\)])|\([dlt]p\d+\n|[}\]]q.", head) is not None
    )


def _is_safetensors(head: bytes) -> bool:
    # 100 MB is the format's own limit on its header.
    return head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= 100_000_000


class _BoundedReader:
    """A file whose single reads are limited, because zipfile reads a whole archive directory at once."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _MAX_ZIP_DIRECTORY:
            position = self.tell()
            rest = self._file.seek(0, 2) - position
            self._file.seek(position)
            if rest > _MAX_ZIP_DIRECTORY:
                raise zipfile.BadZipFile("the archive's directory is too large")
        return self._file.read(size)


def _zip_kind(file: IO[bytes], head: bytes) -> Kind:
    try:
        with zipfile.ZipFile(_BoundedReader(file)) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError):
        # Cut short: the first member's own header still tells what it was meant to be.
        length = int.from_bytes(head[26:28], "little")
        names = [head[30 : 30 + length].decode("utf-8", "replace")]
    # torch puts everything in one folder named after the file.
    inner = {name.split("/", 1)[-1] for name in names}
    if len(names) == 1 and re.match(r"data/(weights/|\d)", next(iter(inner))):
        # What these two begin with: of a file that was cut short nothing else is known.
        return Kind.PT2 if "weights" in names[0] else Kind.TORCHSCRIPT
    if inner & {"archive_format", "serialized_exported_program.json", "models/model.json"}:
        return Kind.PT2
    if any(name in ("constants.pkl", "code") or name.startswith("code/") for name in inner):
        return Kind.TORCHSCRIPT
    if "data.pkl" in inner:
        return Kind.TORCH_ZIP
    if names and all(name.endswith(".npy") for name in names):
        return Kind.NPZ
    return Kind.ZIP


# ModelProto in onnx.proto: field number -> wire type (0 varint, 2 length-delimited).
_MODEL_FIELDS = {1: 0, 2: 2, 3: 2, 4: 2, 5: 0, 6: 2, 7: 2, 8: 2, 14: 2, 20: 2, 25: 2, 26: 2}
# GraphProto's fields; all of them are length-delimited.
_GRAPH_FIELDS = frozenset({1, 2, 5, 10, 11, 12, 13, 14, 15, 16})


def _varint(file: IO[bytes]) -> int | None:
    """Read one base-128 number; None at the end of the file or where it is longer than 64 bits."""
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            return None
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    return None


def _is_onnx(file: IO[bytes]) -> bool:
    """Walk over the top-level fields of a ModelProto, up to its graph or the end.

    Other protobuf files begin alike (TensorFlow, Core ML), so strings must be text, every field must be
    one of ModelProto's, and the IR version must be there and small.
    """
    size = file.seek(0, 2)
    file.seek(0)
    seen: set[int] = set()
    for _ in range(_MAX_FIELDS):
        position = file.tell()
        if position >= size:
            break
        tag = _varint(file)
        value = _varint(file) if tag is not None else None
        if tag is None or value is None:
            return len(seen) > 1 and 1 in seen and size - position < 20  # cut within a field's first bytes
        number, wire = tag >> 3, tag & 7
        if _MODEL_FIELDS.get(number) != wire:
            return False
        if number == 1 and not 1 <= value <= 1000:
            return False
        start = file.tell()
        if wire == 2:
            if number in (2, 3, 4, 6) and not _is_words(file.read(min(value, 4096)), bells=True):
                return False
            if number == 7:
                inner = file.read(1)
                if inner and (inner[0] & 7 != 2 or inner[0] >> 3 not in _GRAPH_FIELDS):
                    return False
            if start + value > size:
                seen.add(number)
                break
            file.seek(start + value)
        seen.add(number)
        if {1, 7} <= seen:
            return True
    return 1 in seen and bool(seen & {2, 7, 8})


def _is_words(data: bytes, *, bells: bool = False) -> bool:
    """True for UTF-8 (perhaps cut within a character) without control characters; bell and backspace may pass."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        if len(data) - error.start > 3 or error.reason != "unexpected end of data":
            return False
        text = data[: error.start].decode("utf-8")
    if bells:
        text = re.sub(r"[\x07\x08]", "", text)
    return re.search(r"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]", text) is None


def _text_kind(head: bytes, *, whole: bool) -> Kind:
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) and len(head) % 2 == 0:
        return Kind.TEXT if _is_words(head.decode("utf-16", "ignore").encode("utf-8", "ignore")) else Kind.UNKNOWN
    if not _is_words(head):
        return Kind.UNKNOWN
    text = head.decode("utf-8-sig", "ignore")
    if re.match(r"\s*(<\?xml[^>]*>\s*)?<(!doctype\s+html|html)\b", text, re.IGNORECASE):
        return Kind.HTML
    if _is_json(text, whole=whole):
        return Kind.JSON
    lines = text.splitlines()
    if not whole:
        lines = lines[:-1]  # the last one is cut
    if _is_csv(lines):
        return Kind.CSV
    if _is_yaml(lines):
        return Kind.YAML
    return Kind.TEXT


def _is_json(text: str, *, whole: bool) -> bool:
    if not re.match(r'\s*(\{\s*["}]|\[\s*[\[{"\]\d.tfn-])', text):
        return False
    if not whole:
        return True
    try:
        json.loads(text)
    except RecursionError:
        return True
    except ValueError:
        return False
    return True


def _is_csv(lines: list[str]) -> bool:
    """True where the first lines hold the same number of fields, two or more, for one delimiter."""
    lines = [line for line in lines[:20] if line.strip()]
    if len(lines) < 2:
        return False
    for delimiter in ",;\t|":
        try:
            widths = {len(row) for row in csv.reader(lines, delimiter=delimiter)}
        except csv.Error:
            continue
        if len(widths) == 1 and widths.pop() > 1:
            return True
    return False


def _is_yaml(lines: list[str]) -> bool:
    """True where every unindented line is a key, a list item or a document mark."""
    heads = [line for line in lines[:200] if line.strip() and not line.startswith((" ", "\t", "#"))]
    return bool(heads) and all(re.match(r"""(['"]?[\w./-]+['"]?:(\s|$)|-\s|---|\.\.\.|%YAML)""", h) for h in heads)
