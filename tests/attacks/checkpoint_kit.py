"""What attacks by checkpoints share: pickles that call things, the files they hide in, and what must come of them."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path

import pytest

from modelkit.cli.app import run

Capsys = pytest.CaptureFixture[str]
COMMAND = "echo ran > ran.txt"
CODE = "open('ran.txt', 'w').write('ran')"


class Call:
    """Pickles as a call of something."""

    def __init__(self, function: object, *arguments: object, state: object = None) -> None:
        self.parts = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self) -> object:
        return self.parts


def as_pickle(made: bytes | object) -> bytes:
    if isinstance(made, bytes):
        return made
    return pickle.dumps(made, 2)


def in_zip(content: bytes, name: str = "x/data.pkl", **more: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, content)
        archive.writestr("x/version", b"3\n")
        for member, data in more.items():
            archive.writestr(f"x/{member}", data)
    return buffer.getvalue()


def in_legacy(content: bytes) -> bytes:
    head = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + pickle.dumps({"little_endian": True}, 2)
    return head + content + pickle.dumps([], 2)


def zip_of(*entries: tuple[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return buffer.getvalue()


GOOD = pickle.dumps({"a": 1}, 2)
COMMANDS = (
    ["inspect", "hostile.pt"],
    ["inspect", "hostile.pt", "--arch", "net:make", "--input", "1x4"],
    ["quantize", "hostile.pt", "--arch", "net:make", "--input", "1x4"],
    ["prune", "hostile.pt", "--sparsity", "0.5"],
)


def attack(capsys: Capsys, content: bytes, commands: tuple[list[str], ...] = COMMANDS) -> list[str]:
    """Feed a file to the commands; each must refuse it in one line, and nothing may have happened."""
    Path("hostile.pt").write_bytes(content)
    before = sorted(Path().iterdir())
    said = []
    for argv in commands:
        capsys.readouterr()
        code = run(list(argv))
        err = capsys.readouterr().err
        assert not Path("ran.txt").exists(), f"{argv[0]} ran it"
        assert sorted(Path().iterdir()) == before
        assert "defect" not in err and "Traceback" not in err, err
        # What only lists tensors may list those of a file that also holds other things.
        listed = argv == ["inspect", "hostile.pt"] and code == 0
        assert code in (2, 4) or listed, f"{argv}: {code}: {err}"
        assert listed or err.startswith("error: ")
        said.append(err)
    return said
