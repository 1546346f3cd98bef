"""What a terminal shows while a folder is worked on, at 80 and 120 columns."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import sys
import termios
from pathlib import Path

import job_models
import pytest

REPO = Path(__file__).parents[2]


def on_a_terminal(columns: int, argv: list[str], cwd: Path, **more: str) -> tuple[int, str]:
    """Run modelkit on a terminal of that width; returns its exit code and all that it sent there."""
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(cwd)
        environment = {**os.environ, "PYTHONPATH": str(REPO), "TERM": "xterm-256color", **more}
        os.execve(sys.executable, [sys.executable, "-m", "modelkit", *argv], environment)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
    sent = b""
    while True:
        try:
            piece = os.read(terminal, 1 << 16)
        except OSError:  # how Linux tells that the other end is closed
            break
        if not piece:
            break
        sent += piece
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), sent.decode()


def lines(sent: str) -> list[str]:
    """Everything that was ever written to a line, without the codes that move and colour."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "\0", sent).replace("\r\n", "\n").replace("\r", "\n")
    return [line.replace("\0", "").rstrip() for line in text.split("\n")]


@pytest.mark.parametrize(("columns", "colour"), [(80, True), (120, False)])
def test_a_live_table_and_the_lines(columns: int, colour: bool, tmp_path: Path) -> None:
    name = "a folder with a long name/and [red]one[/red] more below it, for good measure/m.onnx"
    job_models.mlp(tmp_path / "models" / name)
    job_models.mlp(tmp_path / "models" / "z.onnx")
    (tmp_path / "models" / "empty.onnx").write_bytes(b"")
    argv = ["evaluate", "models", "--seconds", "0.5"]
    code, sent = on_a_terminal(columns, argv, tmp_path, **({} if colour else {"NO_COLOR": "1"}))
    assert code == 3, sent
    seen = lines(sent)
    assert any(line.startswith("0 of 3") and "stage" in line for line in seen), "no live table"
    assert any(re.match(r"2 of 3, 1 failed, about", line) for line in seen)
    assert any("timing" in line and line.startswith("…/m.onnx") for line in seen)
    assert any(line.startswith("[3/3] z.onnx: done") for line in seen)
    assert "3 models: 2 done, 1 failed" in seen
    assert "[red]one[/red]" in "".join(seen), "a name was taken for markup"
    assert max(map(len, seen)) <= columns
    assert ("\x1b[31m" in sent) == colour
    assert sent.count("\x1b[?25l") == sent.count("\x1b[?25h"), "the cursor stays hidden"
