"""Hostile paths, archives and folders: nothing escapes, nothing is followed, nothing takes long."""

import io
import json
import os
import struct
import time
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelkit.errors import UnsafeError
from modelkit.files import Kind, Staging, contained
from modelkit.sniff import kind_of


@pytest.fixture
def base(tmp_path):
    """A folder with links of all sorts, beside a secret."""
    base = tmp_path / "model"
    (base / "sub").mkdir(parents=True)
    (base / "weights.data").write_bytes(b"w")
    (base / "sub" / "more.data").write_bytes(b"m")
    (tmp_path / "secret").write_bytes(b"s")
    (base / "inside").symlink_to("sub/more.data")
    (base / "outside").symlink_to("../secret")
    (base / "absolute").symlink_to(tmp_path / "secret")
    (base / "up").symlink_to("..")
    (base / "chain").symlink_to("outside")
    (base / "loop").symlink_to("loop")
    return base


@pytest.mark.parametrize(
    "location", ["weights.data", "./weights.data", "sub/more.data", "sub//more.data", "new", "a b"]
)
def test_locations_inside(base, location):
    assert contained(base, location) == base / location


def test_links_inside_are_followed(base, monkeypatch):
    assert contained(base, "inside") == base / "sub" / "more.data"
    (base.parent / "alias").symlink_to(base)
    assert contained(base.parent / "alias", "weights.data") == base / "weights.data"
    monkeypatch.chdir(base)
    assert contained(Path(), "weights.data") == base / "weights.data"


@pytest.mark.parametrize(("location", "reason"), [
    ("/etc/passwd", "the location '/etc/passwd' is absolute"),
    ("//server/share", "the location '//server/share' is absolute"),
    ("\\\\server\\share", "is absolute"),
    ("C:\\x", "is absolute"),
    ("c:x", "is absolute"),
    ("..", "leaves its folder by '..'"),
    ("../secret", "the location '../secret' leaves its folder by '..'"),
    ("sub/../weights.data", "leaves its folder by '..'"),
    ("sub\\..\\..\\secret", "leaves its folder by '..'"),
    ("sub\\more.data", "is not a plain relative file name"),
    ("", "is not a plain relative file name"),
    (".", "is not a plain relative file name"),
    ("./", "is not a plain relative file name"),
    ("a\0b", "the location 'a\\x00b' is not a plain relative file name"),
    ("outside", "leads out of its folder, to '"),
    ("absolute", "leads out of its folder, to '"),
    ("up/secret", "leads out of its folder, to '"),
    ("up/model/weights.data/../../secret", "leaves its folder by '..'"),
    ("chain", "leads out of its folder, to '"),
    ("loop", "cannot be resolved"),
    ("up", "leads out of its folder"),
])  # fmt: skip
def test_locations_outside(base, location, reason):
    with pytest.raises(UnsafeError) as caught:
        contained(base, location)
    assert reason in str(caught.value)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 500
    assert caught.value.exit_code == 4
    assert caught.value.hint.startswith("a model may only refer to files in its own folder")


parts = st.sampled_from(
    ["..", ".", "", "sub", "up", "outside", "absolute", "inside", "chain", "loop", "weights.data",
     "secret", "model", "/", "\\", "C:", "~", "$HOME", "\0", "\n", "%2e%2e", "\uff0e\uff0e",
     "..\u200b", " .. ", "..."]
) | st.text(max_size=4)  # fmt: skip


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(parts, max_size=6), st.sampled_from(["/", "\\", ""]))
def test_no_location_ever_escapes(base, segments, separator):
    try:
        path = contained(base, separator.join(segments))
    except UnsafeError:
        return
    root = os.path.realpath(base)
    assert os.path.realpath(path).startswith(root + os.sep)
    assert path == Path(os.path.realpath(path))


def test_zip_bombs_are_not_opened():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.npy", "w") as member:
        for _ in range(64):
            member.write(bytes(1 << 20))
    started = time.monotonic()
    assert kind_of(buffer) is Kind.NPZ
    assert time.monotonic() - started < 1


def test_a_zip_that_claims_a_huge_directory(tmp_path):
    path = tmp_path / "z"
    with path.open("wb") as file:
        file.write(b"PK\x03\x04" + bytes(26))
        file.truncate(6 << 30)  # sparse
        file.seek(0, 2)
        size = 5 << 30
        file.write(b"PK\x06\x06" + struct.pack("<QHHLLQQQQ", 44, 45, 45, 0, 0, 1, 1, size, 0))
        file.write(b"PK\x06\x07" + struct.pack("<LQL", 0, 6 << 30, 1))
        file.write(b"PK\x05\x06" + struct.pack("<HHHHLLH", 0, 0, 65535, 65535, 0xFFFFFFFF, 0xFFFFFFFF, 0))
    started = time.monotonic()
    with path.open("rb") as file:
        assert kind_of(file) is Kind.ZIP
    assert time.monotonic() - started < 1


@pytest.mark.parametrize("content", [
    b"\x08\x08" + b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\x7f",  # a name of 2^63 bytes
    b"\x08\x08" + b"\x42\x00" * 100_000,  # endless empty fields
    b"\x08" + b"\xff" * 1000,  # an endless number
    b"PK\x03\x04" + b"\xff" * 100,
    b"PK\x05\x06" + b"\xff" * 18,
    struct.pack("<Q", 1 << 63) + b"{",
    b"{" * 70_000,
    b'"' * 70_000,
    b"," * 70_000,
    b"P6 " + b"#" * 60_000,
    b"P6" + b" \n#" * 20_000,
])  # fmt: skip
def test_hostile_openings_end_soon(content):
    started = time.monotonic()
    assert kind_of(io.BytesIO(content)) in Kind
    assert time.monotonic() - started < 1


def test_a_planted_staging_folder_reaches_nothing_outside(tmp_path):
    """Its journal names files by paths that leave the folder, and links lead out of it."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"v")
    folder = tmp_path / "out"
    folder.mkdir()
    info = victim.stat()
    mark = [info.st_ino, info.st_size, info.st_mtime_ns]
    for number, journal in enumerate((
        json.dumps({"../victim": mark, str(victim): mark}),
        json.dumps({"": mark, ".": mark, "..": mark}), "[1]", "{", "null",
        '{"x": 3}', '{"": [1]}', '{"\\u0000": [1]}', '{"..": [1, 2, 3]}', "\xff", "[" * 50_000,
    )):  # fmt: skip
        stage = folder / f".modelkit-999999{number}-0123abcd"
        (stage / "old").mkdir(parents=True)
        (stage / "old" / "victim").write_bytes(b"evil")
        (stage / "lock").touch()
        (stage / "journal.json").write_text(journal)
        (stage / "way out").symlink_to(tmp_path)
        os.utime(stage, (time.time() - 3600,) * 2)
    (folder / ".modelkit-999-aaaaaaaa").symlink_to(tmp_path)
    with Staging(folder) as staging:
        staging.path("a").touch()
        staging.publish(["a"], force=False)
    assert victim.read_bytes() == b"v"
    assert (folder / "a").exists()
    assert not (folder / "victim").exists()
