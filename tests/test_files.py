"""Files from outside, outputs that may not be written, and JSON."""

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest

from modelkit.errors import ResourceError, UsageError
from modelkit.files import Kind, check_outputs, file_record, require_file, sha256, shown, sniff, write_json


def test_sniff_says_what_cannot_be_read(tmp_path):
    with pytest.raises(ResourceError, match=r"cannot read '.*no': No such file"):
        sniff(tmp_path / "no")


def test_require_file(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"x")
    (tmp_path / "link").symlink_to(path)
    assert require_file(path) == path
    assert require_file(tmp_path / "link") == tmp_path / "link"


def test_require_file_names_near_ones(tmp_path):
    (tmp_path / "model.onnx").touch()
    (tmp_path / "Model_v2.onnx").touch()
    with pytest.raises(UsageError, match=r"modle.onnx' does not exist") as caught:
        require_file(tmp_path / "modle.onnx")
    assert caught.value.hint == "did you mean 'model.onnx' or 'Model_v2.onnx'?"
    with pytest.raises(UsageError) as caught:
        require_file(tmp_path / "zzz")
    assert caught.value.hint is None
    with pytest.raises(UsageError) as caught:
        require_file(tmp_path / "no" / "m.onnx")
    assert caught.value.hint == f"the folder '{tmp_path / 'no'}' cannot be opened"
    with pytest.raises(UsageError, match="does not exist"):
        require_file(tmp_path / "model.onnx" / "x")


def test_require_file_refuses_what_is_no_file(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="is a folder; a file is expected"):
        require_file(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="is not a regular file"):
        require_file(tmp_path / "pipe")
    with pytest.raises(UsageError, match="is not a regular file"):
        require_file(Path("/dev/zero"))
    (tmp_path / "dangling").symlink_to("gone")
    with pytest.raises(UsageError, match="is a link to 'gone', which does not exist"):
        require_file(tmp_path / "dangling")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(ResourceError, match=r"cannot read '.*loop'"):
        require_file(tmp_path / "loop")
    with pytest.raises(UsageError, match="path of that length"):
        require_file(tmp_path / ("x" * 300))
    with pytest.raises(UsageError, match=r"a\\x00b' does not exist"):
        require_file(tmp_path / "a\0b")
    (tmp_path / "locked").touch()

    def refuse(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # root may read everything
    with pytest.raises(ResourceError, match=r"cannot read '.*locked': Permission denied"):
        require_file(tmp_path / "locked")


def test_hashes(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256(path) == digest
    assert file_record(path) == {"name": "a", "bytes": 3, "sha256": digest}
    with pytest.raises(ResourceError, match="cannot read"):
        sha256(tmp_path / "no")


def test_check_outputs(tmp_path):
    source, out = tmp_path / "m.onnx", tmp_path / "m.int8.onnx"
    source.touch()
    check_outputs([out, tmp_path / "no" / "x"], [source], force=False)
    out.touch()
    with pytest.raises(UsageError, match=r"m.int8.onnx' exists already") as caught:
        check_outputs([out], [source], force=False)
    assert caught.value.hint == "--force replaces what is there, -o chooses another name"
    check_outputs([out], [source], force=True)
    with pytest.raises(UsageError, match=r"'.*', '.*' exist already"):
        check_outputs([out, source], [], force=False)
    with pytest.raises(UsageError, match="is a folder"):
        check_outputs([tmp_path], [source], force=True)
    with pytest.raises(UsageError, match="two outputs"):
        check_outputs([tmp_path / "a", tmp_path / "x" / ".." / "a"], [source], force=True)
    (tmp_path / "dangling").symlink_to("gone")
    with pytest.raises(UsageError, match="dangling' exists already"):
        check_outputs([tmp_path / "dangling"], [source], force=False)


@pytest.mark.parametrize("alias", ["same", "symlink", "hardlink", "folder link", "dots"])
def test_an_output_is_never_an_input(tmp_path, alias):
    source = tmp_path / "m.onnx"
    source.touch()
    out = {
        "same": source,
        "symlink": tmp_path / "s",
        "hardlink": tmp_path / "h",
        "folder link": tmp_path / "d" / "m.onnx",
        "dots": tmp_path / "x" / ".." / "m.onnx",
    }[alias]
    (tmp_path / "s").symlink_to(source)
    (tmp_path / "h").hardlink_to(source)
    (tmp_path / "d").symlink_to(tmp_path)
    with pytest.raises(UsageError, match=r"the output '.*' is the input '.*m.onnx'"):
        check_outputs([out], [tmp_path / "other", source], force=True)


def test_write_json(tmp_path):
    path = tmp_path / "r.json"
    write_json(
        path,
        {
            "b": 1,
            "a": [float("nan"), float("-inf"), np.float32(2), np.int64(3), Path("x")],
            "é": "\udc80",
            "kind": Kind.ONNX,
            "t": (True, None),
            "i": {3: np.float64("nan")},
        },
    )
    assert (
        path.read_bytes()
        == (
            '{\n  "b": 1,\n  "a": [\n    null,\n    null,\n    2.0,\n    3,\n    "x"\n  ],\n  "é": "\\udc80",'
            '\n  "kind": "onnx",\n  "t": [\n    true,\n    null\n  ],\n  "i": {\n    "3": null\n  }\n}\n'
        ).encode()
    )
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text())["b"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["r.json"]


def test_shown_is_one_printable_line():
    assert shown(Path("a\nb\x1b[2J/\udc80é")) == "a\\nb\\x1b[2J/\\udc80é"
