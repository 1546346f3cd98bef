"""Hostile archives, tensors and safetensors headers: nothing absurd is allocated, one line says why."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from pathlib import Path

import pytest
import torch
from checkpoint_kit import COMMANDS, GOOD, Capsys, attack, zip_of

from modelkit.cli.app import run

pytestmark = pytest.mark.usefixtures("checkpoint_folder")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (zip_of(("x/data.pkl", GOOD), ("x/data/0", bytes(1 << 24)), compression=zipfile.ZIP_DEFLATED), "compressed"),
        (zip_of(("x/data.pkl", GOOD), ("x/data.pkl", GOOD)), "twice"),
        (zip_of(("x/data.pkl", GOOD), ("y/data.pkl", GOOD)), "several folders"),
        (zip_of(("x/data.pkl", GOOD), ("x/../../evil", b"x")), "a member named"),
        (zip_of(("x/data.pkl", GOOD), ("/etc/x", b"x")), "several folders|a member named"),
        (zip_of(("x\\data.pkl", GOOD), ("x/data.pkl", GOOD)), "a member named|several folders"),
    ],
    ids=["bomb", "twice", "two folders", "dots", "absolute", "backslash"],
)
def test_archives_that_torch_would_not_write(content: bytes, message: str, capsys: Capsys) -> None:
    import re

    for said in attack(capsys, content):
        assert re.search(message, said), said


def test_overlapping_members(capsys: Capsys) -> None:
    content = bytearray(zip_of(("x/data.pkl", GOOD), ("x/data/0", bytes(4000))))
    # The first member's size in the archive's list becomes that of both together.
    start = content.index(b"PK\x01\x02")
    size = struct.unpack("<I", content[start + 24 : start + 28])[0] + 2000
    content[start + 20 : start + 28] = struct.pack("<II", size, size)
    assert all("overlap" in said for said in attack(capsys, bytes(content)))


def test_a_list_that_differs_from_the_members(capsys: Capsys) -> None:
    content = zip_of(("x/data.pkl", GOOD), ("x/data/0", b"0123"))
    at = content.index(b"x/data/0")
    attack(capsys, content[:at] + b"x/data/1" + content[at + 8 :])


# Tensors that cannot be


def state(shape: object, strides: object, *, count: int = 4, stored: bytes = bytes(16), offset: object = 0) -> bytes:
    """A state dict with one tensor, described at will."""

    def number(value: object) -> bytes:
        return b"\x8a\x08" + struct.pack("<q", value)

    def numbers(values: object) -> bytes:
        return b"(" + b"".join(number(value) for value in values) + b"t"  # type: ignore[attr-defined]

    storage = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu"
    storage += number(count) + b"tQ"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + number(offset) + numbers(shape) + numbers(strides)
    tensor += b"\x89ccollections\nOrderedDict\n)RtR"
    content = b"\x80\x02}X\x01\x00\x00\x00w" + tensor + b"s."
    return zip_of(("x/data.pkl", content), ("x/version", b"3\n"), ("x/data/0", stored))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (state((1 << 40, 1 << 20), (0, 0)), "repeats its numbers"),
        (state((1 << 20, 4), (0, 1)), "repeats its numbers"),
        (state((3, 2), (1, 1)), "repeats its numbers"),
        (state((1 << 40,), (1,)), "reaches beyond"),
        (state((2, 2), (2, 1), offset=1), "reaches beyond"),
        (state((4,), (-1,)), "cannot be"),
        (state((4,), (1,), offset=-1), "cannot be"),
        (state((4,), (1, 1)), "cannot be"),
        (state((4,), (1,), count=1 << 50), "says that a storage has"),
        (state((4,), (1,), count=3), "says that a storage has"),
        (state((4,), (1,), count=-1), "not one that torch wrote"),
    ],
)
def test_tensors_that_cannot_be(content: bytes, message: str, capsys: Capsys) -> None:
    for said in attack(capsys, content):
        assert message in said, said


def test_the_same_tensor_as_it_should_be() -> None:
    Path("good.pt").write_bytes(state((2, 2), (2, 1)))
    assert run(["inspect", "good.pt"]) == 0


def test_an_older_file_that_announces_more_than_it_has(capsys: Capsys) -> None:
    buffer = io.BytesIO()
    torch.save({"w": torch.ones(4)}, buffer, _use_new_zipfile_serialization=False)
    content = buffer.getvalue()
    # BININT1 4 of the storage becomes 2**40 numbers.
    at = content.index(b"cpu") + 3
    assert b"K\x04" in content[at : at + 8]
    position = content.index(b"K\x04", at)
    huge = b"\x8a\x08" + struct.pack("<q", 1 << 40)
    attack(capsys, content[:position] + huge + content[position + 2 :])
    attack(capsys, content[:-8])


# Safetensors


def safetensors(header: object, data: bytes = bytes(16), length: int | None = None) -> bytes:
    text_ = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text_) if length is None else length) + text_ + data


def entry(begin: int = 0, end: int = 16, shape: tuple[int, ...] = (4,), dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    "content",
    [
        safetensors({"a": entry(), "b": entry(8, 24)}, bytes(24)),
        safetensors({"a": entry(0, 16), "b": entry(0, 16)}),
        safetensors({"a": entry(0, 1 << 50, (1 << 48,))}),
        safetensors({"a": entry(shape=(1 << 62, 4))}),
        safetensors({"a": entry(shape=(2**32, 2**32))}),
        safetensors({"a": entry(16, 0)}),
        safetensors({"a": entry(4, 20)}, bytes(20)),
        safetensors({"a": entry(dtype="F99")}),
        safetensors({"a": entry()}, bytes(3)),
        safetensors({"a": entry()}, bytes(64)),
        safetensors({"a": entry()}, length=90_000_000),
        safetensors({"a": entry()}, length=99_999_999_999),
        safetensors(b"{" * 50_000),
        safetensors(b'{"a":' * 20_000),
        safetensors({"a": {"dtype": "F32"}}),
        safetensors({"a": entry(), "__metadata__": {"x": {"y": 1}}}),
        safetensors(b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},"a":{"dtype":"F32","shape":[4],'
                    b'"data_offsets":[0,16]}}'),
        safetensors({"__metadata__": {"x": "y"}}, b""),
        safetensors({}, b""),
    ],
)  # fmt: skip
def test_hostile_safetensors(content: bytes, capsys: Capsys) -> None:
    Path("hostile.pt").write_bytes(content)
    for argv in COMMANDS:
        code = run(list(argv))
        err = capsys.readouterr().err
        assert code in (2, 4) and err.startswith("error: ") and "defect" not in err, err
