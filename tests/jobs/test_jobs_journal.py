"""The journal and the lock of a folder: whole lines only, whatever happens; one run at a time."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelkit.errors import ResourceError, UsageError
from modelkit.jobs import lock as lock_module
from modelkit.jobs.journal import SCHEMA, Journal, read
from modelkit.jobs.lock import FolderLock

REPO = Path(__file__).parents[2]
ENV = {**os.environ, "PYTHONPATH": str(REPO)}


def numbers(path: Path) -> list[int]:
    return [record["n"] for record in read(path)]


def write(path: Path, *found: int, fresh: bool = False) -> None:
    with Journal(path, fresh=fresh) as journal:
        for number in found:
            journal.append({"n": number, "name": "ä \udc80\n"})


def test_lines_come_back(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    assert read(path) == []
    write(path, 1, 2)
    write(path, 3)
    assert numbers(path) == [1, 2, 3]
    assert read(path)[0]["name"] == "ä \udc80\n"
    assert json.loads(path.read_text().splitlines()[0]) == {"schema": SCHEMA}
    write(path, 4, fresh=True)
    assert numbers(path) == [4]


@settings(max_examples=25, deadline=None)
@given(cut=st.integers(0, 400))
def test_a_journal_cut_anywhere_goes_on(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = tmp_path_factory.mktemp("cut") / "journal.jsonl"
    write(path, *range(6))
    data = path.read_bytes()[:cut]
    path.write_bytes(data)
    whole = max(0, data.count(b"\n") - 1)
    assert numbers(path) == list(range(whole))
    write(path, 77)
    assert numbers(path) == [*range(whole), 77]
    assert all(json.loads(line) for line in path.read_bytes().splitlines())


def test_a_torn_line_longer_than_a_buffer(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    write(path, 1)
    with path.open("ab") as file:
        file.write(b'{"n": 2, "x": "' + b"y" * 200_000)
    write(path, 3)
    assert numbers(path) == [1, 3]


def test_a_line_of_nonsense_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    write(path, 1)
    with path.open("ab") as file:
        file.write(b'\0\0\0\n"text"\n' + b"[" * 100_000 + b"\n")
    write(path, 2)
    assert numbers(path) == [1, 2]


def test_another_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text('{"schema": "modelkit.journal/9"}\n')
    with pytest.raises(UsageError, match="not a journal that this version can read"):
        read(path)


def test_a_full_disk_is_an_error_and_what_was_written_stays(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    code = (
        "import resource, signal, sys\nfrom pathlib import Path\nfrom modelkit.jobs.journal import Journal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "with Journal(Path(sys.argv[1]), fresh=False) as journal:\n"
        "    journal.append({'n': 1})\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (60, 60))\n"
        "    journal.append({'n': 2, 'x': 'y' * 100})\n"
    )
    done = subprocess.run([sys.executable, "-c", code, path], env=ENV, capture_output=True, text=True, check=False)
    assert "ResourceError: cannot write the journal" in done.stderr and "no space left" in done.stderr
    assert path.stat().st_size == 60 and numbers(path) == [1]


def test_it_cannot_be_led_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "journal.jsonl").symlink_to("precious")
    (tmp_path / "lock").symlink_to("precious")
    with pytest.raises(ResourceError), Journal(tmp_path / "journal.jsonl", fresh=True):
        pass
    with pytest.raises(ResourceError), FolderLock(tmp_path / "lock", tmp_path):
        pass
    assert (tmp_path / "precious").read_text() == "precious"


# --- the lock -------------------------------------------------------------------------------------------------


def test_one_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with FolderLock(path, tmp_path):
        with pytest.raises(UsageError) as refused, FolderLock(path, tmp_path):
            pass
        assert f"in use by another run of modelkit: process {os.getpid()} on {socket.gethostname()}, since 2" in str(
            refused.value
        )
        with pytest.raises(UsageError), FolderLock(path, tmp_path):  # a refused one does not free it
            pass
    with FolderLock(path, tmp_path):
        pass
    assert path.read_bytes() == b""


HOLD = (
    "import sys\nfrom pathlib import Path\nfrom modelkit.jobs.lock import FolderLock\n"
    "with FolderLock(Path(sys.argv[1]), Path('out')):\n    print('held', flush=True)\n    sys.stdin.read()\n"
)


@pytest.mark.parametrize("flock", [True, False], ids=["flock", "no flock"])
def test_the_lock_of_a_killed_process_is_taken_over(
    flock: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, path], env=ENV, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    if not flock:
        monkeypatch.setattr(lock_module, "fcntl", None)
    with pytest.raises(UsageError, match=f"process {holder.pid} on"), FolderLock(path, tmp_path):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    assert path.read_bytes()  # it could not clean up
    with FolderLock(path, tmp_path):
        assert json.loads(path.read_bytes())["pid"] == os.getpid()


def test_the_workers_of_a_killed_run_are_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    code = (
        "import os, signal, subprocess, sys\nfrom pathlib import Path\nfrom modelkit.jobs.lock import FolderLock\n"
        "with FolderLock(Path(sys.argv[1]), Path('out')) as lock:\n"
        "    subprocess.Popen(['sleep', '1'], pass_fds=[lock.descriptor])\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code, path], env=ENV, check=False)
    began = time.monotonic()
    with FolderLock(path, tmp_path):
        assert 0.3 < time.monotonic() - began < 5


def test_without_flock_another_host_is_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "lock"
    path.write_text(json.dumps({"pid": 1, "host": "elsewhere", "since": "yesterday"}))
    with FolderLock(path, tmp_path):  # the system knows better
        pass
    path.write_text(json.dumps({"pid": 2**22 + 1, "host": "elsewhere", "since": "yesterday"}))
    monkeypatch.setattr(lock_module, "fcntl", None)
    with pytest.raises(UsageError, match="process 4194305 on elsewhere, since yesterday") as refused:
        FolderLock(path, tmp_path).__enter__()
    assert refused.value.hint is not None and "remove" in refused.value.hint


@pytest.mark.parametrize("content", [b"", b"\0\0", b"[1]", b'{"pid": "x"}', b'{"pid": 99999999999}', b"{" * 5000])
def test_a_damaged_lock_file_holds_nothing_where_flock_decides(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "lock").write_bytes(content)
    with FolderLock(tmp_path / "lock", tmp_path):
        pass
