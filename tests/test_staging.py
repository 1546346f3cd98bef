"""Writes are all or none, whatever ends them: errors, interrupts, kills, full disks, races."""

import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import pytest

from modelkit import staging
from modelkit.errors import ModelkitError, ResourceError, UnsafeError, UsageError
from modelkit.files import Staging, write_json

SET = ["m.onnx.data", "m.onnx", "m.report.json"]


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write_set(stage: Staging, version: bytes) -> None:
    for name in SET:
        stage.path(name).write_bytes(version * 1000)


def publish_set(folder: Path, version: bytes, *, force: bool) -> list[Path]:
    with Staging(folder) as stage:
        write_set(stage, version)
        return stage.publish(SET, force=force)


OLD = dict.fromkeys(SET, b"old" * 1000)
NEW = dict.fromkeys(SET, b"new" * 1000)


def put_old(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for name, content in OLD.items():
        (folder / name).write_bytes(content)


def test_publish_makes_folders(tmp_path):
    folder = tmp_path / "a" / "b"
    assert publish_set(folder, b"new", force=False) == [folder / name for name in SET]
    assert tree(tmp_path) == {f"a/b/{name}": content for name, content in NEW.items()}
    assert (folder / "m.onnx").stat().st_nlink == 1


def test_publish_replaces_only_with_force(tmp_path):
    put_old(tmp_path)
    with pytest.raises(UsageError, match=r"m.onnx.data' exists already"):
        publish_set(tmp_path, b"new", force=False)
    assert tree(tmp_path) == OLD
    publish_set(tmp_path, b"new", force=True)
    assert tree(tmp_path) == NEW
    assert names(tmp_path) == sorted(SET)


def test_a_relative_folder_survives_a_change_of_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Staging(Path()) as stage:
        write_set(stage, b"new")
        monkeypatch.chdir("/")
        assert stage.publish(SET, force=False)[1] == Path("m.onnx")
    assert tree(tmp_path) == NEW


def test_publish_twice(tmp_path):
    with Staging(tmp_path) as stage:
        for version in (b"old", b"mid", b"new"):
            write_set(stage, version)
            stage.publish(SET, force=True)
    assert tree(tmp_path) == NEW


def test_outputs_get_the_usual_permissions(tmp_path):
    publish_set(tmp_path, b"new", force=False)
    (tmp_path / "plain").touch()
    assert (tmp_path / "m.onnx").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_linked_output_is_replaced_not_followed(tmp_path):
    (tmp_path / "precious").write_bytes(b"precious")
    (tmp_path / "m.onnx").symlink_to("precious")
    with Staging(tmp_path) as stage:
        write_set(stage, b"new")
        stage.publish(SET, force=True)
    assert tree(tmp_path) == {**NEW, "precious": b"precious"}


def test_a_folder_in_the_way(tmp_path):
    (tmp_path / "m.onnx").mkdir()
    with pytest.raises(UsageError, match=r"m.onnx' is a folder"):
        publish_set(tmp_path, b"new", force=True)
    assert names(tmp_path) == ["m.onnx"]


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/x", "../x", "a\0b"])
def test_staged_names_are_plain(tmp_path, name):
    with Staging(tmp_path) as stage, pytest.raises(UnsafeError, match="not a plain file name"):
        stage.path(name)


def test_what_was_never_written(tmp_path):
    with (
        pytest.raises(ResourceError, match=r"cannot write in the folder .*No such file"),
        Staging(tmp_path) as stage,
    ):
        stage.publish(["m.onnx"], force=True)
    assert names(tmp_path) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError, UsageError("x")])
def test_nothing_is_left_after_an_error(tmp_path, error):
    put_old(tmp_path / "there")
    kind = error if isinstance(error, type) else type(error)
    for folder in (tmp_path / "there", tmp_path / "fresh" / "deep"):
        with pytest.raises(kind), Staging(folder) as stage:
            write_set(stage, b"new")
            raise error
    assert tree(tmp_path) == {f"there/{name}": content for name, content in OLD.items()}
    assert names(tmp_path) == ["there"]


def test_folders_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "x", tmp_path / ("x" * 300)):
        with pytest.raises(ResourceError) as caught, Staging(folder):
            pass
        assert str(caught.value).startswith(f"cannot write in the folder '{folder}': ")

    def refuse(self, *args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)  # root may write everywhere
    with (
        pytest.raises(ResourceError, match=f"folder '{tmp_path}': Permission denied") as caught,
        Staging(tmp_path),
    ):
        pass
    assert caught.value.exit_code == 5


def test_a_race_without_force_overwrites_nothing(tmp_path, monkeypatch):
    link = os.link

    def late(source, target, **kwargs):
        if Path(target).name == "m.onnx":
            Path(target).write_bytes(b"theirs")
        link(source, target, **kwargs)

    monkeypatch.setattr(os, "link", late)
    with pytest.raises(UsageError, match=r"m.onnx' exists already"):
        publish_set(tmp_path, b"new", force=False)
    assert tree(tmp_path) == {"m.onnx": b"theirs"}


def test_two_runs_at_once_one_wins(tmp_path):
    with Staging(tmp_path) as first, Staging(tmp_path) as second:
        write_set(first, b"old")
        write_set(second, b"new")
        second.publish(SET, force=False)
        with pytest.raises(UsageError, match="exists already"):
            first.publish(SET, force=False)
    assert tree(tmp_path) == NEW


@pytest.mark.parametrize("force", [False, True])
def test_file_systems_without_hard_links(tmp_path, monkeypatch, force):
    def refuse(*args, **kwargs):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    if force:
        put_old(tmp_path)
    publish_set(tmp_path, b"new", force=force)
    assert tree(tmp_path) == NEW
    with pytest.raises(UsageError, match="exists already"):
        publish_set(tmp_path, b"old", force=False)


def steps(monkeypatch, act):
    """Call ``act(number, name)`` before and after every system call by which a publish changes something."""
    count = 0

    def wrap(owner, name):
        original = getattr(owner, name)

        def wrapped(*args, **kwargs):
            nonlocal count
            count += 1
            act(count, name)
            result = original(*args, **kwargs)
            count += 1
            act(count, name)
            return result

        monkeypatch.setattr(owner, name, wrapped)

    for owner, name in (
        (os, "link"),
        (os, "fsync"),
        (Path, "replace"),
        (Path, "unlink"),
        (Path, "write_text"),
    ):
        wrap(owner, name)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.EIO, "Input/output error")], ids=["^C", "EIO"])
@pytest.mark.parametrize("force", [False, True])
def test_an_error_at_every_step_leaves_old_or_new(tmp_path, monkeypatch, force, error):
    before = OLD if force else {}
    outcomes = []
    for stop in range(1, 100):
        folder = tmp_path / str(stop)
        folder.mkdir()
        if force:
            put_old(folder)

        reached = []

        def act(number, name, stop=stop, reached=reached):
            if number == stop:
                reached.append(name)
                raise error

        with monkeypatch.context() as patch:
            steps(patch, act)
            with suppress(KeyboardInterrupt, ModelkitError):
                publish_set(folder, b"new", force=force)
        assert tree(folder) in (before, NEW), stop
        assert not [name for name in names(folder) if name.startswith(".")]
        outcomes.append(tree(folder) == NEW)
        if not reached:
            break
    assert outcomes.count(False) > 10 and outcomes[-1]


def forked(work) -> int:
    """Run something in a forked process; returns its wait status."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(0)
    return os.waitpid(pid, 0)[1]


def hidden(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.name.startswith("."))


def age(folder: Path) -> None:
    """Make what killed processes left look an hour old."""
    for path in hidden(folder):
        os.utime(path, (time.time() - 3600,) * 2)


def visible(folder: Path) -> dict[str, bytes]:
    return {name: content for name, content in tree(folder).items() if not name.startswith(".")}


@pytest.mark.parametrize("force", [False, True])
def test_a_kill_at_every_step_leaves_old_or_new(tmp_path, monkeypatch, force):
    before = OLD if force else {}
    mixed = 0
    for stop in range(1, 100):
        folder = tmp_path / str(stop)
        folder.mkdir()
        if force:
            put_old(folder)

        def act(number, name, stop=stop):
            if number == stop:
                os.kill(os.getpid(), signal.SIGKILL)

        def work(folder=folder, act=act):
            with monkeypatch.context() as patch:
                steps(patch, act)
                publish_set(folder, b"new", force=force)

        status = forked(work)
        after = visible(folder)
        # Each file is whole at once; one that existed is never missing.
        assert all(content in (OLD[name], NEW[name]) for name, content in after.items())
        assert not force or set(after) == set(SET)
        if after not in (before, NEW):
            mixed += 1
            assert hidden(folder)
        else:
            age(folder)  # nothing to put back, so the leftover waits until it is old enough
        with Staging(folder):
            pass
        assert tree(folder) in (before, NEW), stop
        assert tree(folder) == after or after not in (before, NEW)
        if status == 0:
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
    assert status == 0 and stop > 15 and mixed > 2 and tree(folder) == NEW


def test_a_complete_set_is_kept_after_a_kill(tmp_path, monkeypatch):
    put_old(tmp_path)

    def work():
        unlink = Path.unlink

        def die(self, missing_ok=False):
            if self.name == "journal.json":
                os.kill(os.getpid(), signal.SIGKILL)
            unlink(self, missing_ok)

        monkeypatch.setattr(Path, "unlink", die)
        publish_set(tmp_path, b"new", force=True)

    assert os.WTERMSIG(forked(work)) == signal.SIGKILL
    assert visible(tmp_path) == NEW and hidden(tmp_path)
    with Staging(tmp_path):
        pass
    assert tree(tmp_path) == NEW


def test_recovery_leaves_alone_what_was_changed_since(tmp_path, monkeypatch):
    put_old(tmp_path)

    def act(number, name):
        if (tmp_path / "m.onnx").read_bytes() == NEW["m.onnx"]:
            os.kill(os.getpid(), signal.SIGKILL)

    def work():
        steps(monkeypatch, act)
        publish_set(tmp_path, b"new", force=True)

    assert os.WTERMSIG(forked(work)) == signal.SIGKILL
    (tmp_path / "m.onnx").unlink()
    (tmp_path / "m.onnx").write_bytes(b"theirs")
    with Staging(tmp_path):
        pass
    assert tree(tmp_path) == {**OLD, "m.onnx": b"theirs"}


def run_script(script: str, *args) -> subprocess.Popen:
    root = str(Path(staging.__file__).parents[1])
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": root},
    )


LOOP = """
import sys
from pathlib import Path
from modelkit.files import Staging
names = sys.argv[2:]
for turn in range(10**6):
    with Staging(Path(sys.argv[1])) as stage:
        for name in names:
            stage.path(name).write_bytes(b"%09d" % turn * 1000)
        stage.publish(names, force=True)
    if turn == 0:
        print("ready", flush=True)
"""


def test_kills_at_any_time_leave_one_version(tmp_path):
    for delay in (0.001, 0.004, 0.009, 0.015, 0.022):
        process = run_script(LOOP, tmp_path, *SET)
        assert process.stdout.readline() == "ready\n"
        time.sleep(delay)
        process.kill()
        process.communicate()
        for content in visible(tmp_path).values():
            assert len(content) == 9000 and content == content[:9] * 1000
        age(tmp_path)
        with Staging(tmp_path):
            pass
        assert names(tmp_path) == sorted(SET)
        assert len(set(tree(tmp_path).values())) == 1


WAIT = """
import sys, time
from pathlib import Path
from modelkit.files import Staging
with Staging(Path(sys.argv[1])) as stage:
    stage.path("m.onnx").write_bytes(b"new")
    print("ready", flush=True)
    time.sleep(60)
"""


def test_ctrl_c_leaves_no_debris(tmp_path):
    put_old(tmp_path)
    process = run_script(WAIT, tmp_path)
    assert process.stdout.readline() == "ready\n"
    assert hidden(tmp_path)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=20)
    assert "KeyboardInterrupt" in stderr
    assert tree(tmp_path) == OLD and not hidden(tmp_path)


def test_a_second_ctrl_c_while_cleaning_up(tmp_path, monkeypatch):
    rmtree = shutil.rmtree
    calls = []

    def interrupted(*args, **kwargs):
        calls.append(1)
        if len(calls) == 1:
            raise KeyboardInterrupt
        rmtree(*args, **kwargs)

    monkeypatch.setattr(shutil, "rmtree", interrupted)
    with pytest.raises(KeyboardInterrupt), Staging(tmp_path) as stage:
        write_set(stage, b"new")
        raise KeyboardInterrupt
    assert names(tmp_path) == [] and len(calls) == 2


def test_backups_are_kept_where_they_cannot_be_put_back(tmp_path, monkeypatch):
    put_old(tmp_path)
    replace = Path.replace

    def failing(self, target):
        if Path(target).name == "m.report.json" or self.parent.name == "old":
            raise OSError(errno.EIO, "Input/output error")
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", failing)
        with pytest.raises(ResourceError, match=r"cannot put the old files back in .*: Input/output error") as caught:
            publish_set(tmp_path, b"new", force=True)
    (stage,) = hidden(tmp_path)
    assert caught.value.hint == f"they are kept in '{stage / 'old'}'"
    with Staging(tmp_path):  # the disk works again
        pass
    assert tree(tmp_path) == OLD


@pytest.mark.parametrize("wrap", ["bare", "cause", "context", "text", "resource error", "quota"])
def test_no_space_left_in_the_body(tmp_path, wrap):
    put_old(tmp_path)
    full = OSError(errno.EDQUOT if wrap == "quota" else errno.ENOSPC, "whatever")
    with pytest.raises(ResourceError) as caught, Staging(tmp_path) as stage:
        write_set(stage, b"new")
        if wrap == "text":
            raise RuntimeError("[ONNXRuntimeError] : write failed: No space left on device")
        if wrap in ("bare", "quota"):
            raise full
        try:
            raise full
        except OSError as error:
            if wrap == "context":
                raise ValueError("could not save")  # noqa: B904 - the case
            raise (ResourceError if wrap == "resource error" else ValueError)("could not save") from error
    assert caught.value.message == f"no space left on the disk of '{tmp_path}'"
    assert caught.value.hint == "nothing was changed; free some space there or choose another folder with -o"
    assert caught.value.exit_code == 5
    assert tree(tmp_path) == OLD and not hidden(tmp_path)


def test_an_interrupt_stays_an_interrupt_on_a_full_disk(tmp_path):
    with pytest.raises(KeyboardInterrupt), Staging(tmp_path):
        raise KeyboardInterrupt from OSError(errno.ENOSPC, "No space left on device")


def test_a_device_that_is_full(tmp_path):
    put_old(tmp_path)
    with pytest.raises(ResourceError, match="no space left on the disk"), Staging(tmp_path) as stage:
        stage.path("m.onnx").symlink_to("/dev/full")
        stage.path("m.onnx").write_bytes(b"new")
    assert tree(tmp_path) == OLD and not hidden(tmp_path)


def test_no_space_left_at_any_flush(tmp_path, monkeypatch):
    put_old(tmp_path)
    fsync = os.fsync
    for stop in range(1, 20):
        calls = []

        def full(descriptor, stop=stop, calls=calls):
            calls.append(1)
            if len(calls) == stop:
                raise OSError(errno.ENOSPC, "No space left on device")
            fsync(descriptor)

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            try:
                publish_set(tmp_path, b"new", force=True)
                break
            except ResourceError as error:
                assert str(error) == f"no space left on the disk of '{tmp_path}'"
        assert tree(tmp_path) == OLD and not hidden(tmp_path)
    assert stop > 5 and tree(tmp_path) == NEW


def test_a_limit_on_the_size_of_files(tmp_path):
    put_old(tmp_path)

    def work():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        try:
            with Staging(tmp_path) as stage:
                stage.path("m.onnx").write_bytes(b"x" * 20_000)
        except ResourceError as error:
            if str(error) == f"a file grew larger than the limits of '{tmp_path}' allow":
                os._exit(42)

    assert os.waitstatus_to_exitcode(forked(work)) == 42
    assert tree(tmp_path) == OLD and not hidden(tmp_path)


def can_mount() -> bool:
    """Whether this user may mount a file system of one megabyte to fill."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True)
        if done.returncode == 0:
            subprocess.run(["umount", folder], check=True)
        return done.returncode == 0


if can_mount():

    @pytest.fixture
    def small_disk(tmp_path):
        folder = tmp_path / "disk"
        folder.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], check=True)
        yield folder
        subprocess.run(["umount", folder], check=True)

    def test_a_disk_that_fills_up(small_disk):
        put_old(small_disk)
        with pytest.raises(ResourceError, match="no space left on the disk"), Staging(small_disk) as stage:
            write_set(stage, b"new")
            stage.path("m.onnx").write_bytes(bytes(2_000_000))
        assert tree(small_disk) == OLD and not hidden(small_disk)
        with pytest.raises(ResourceError, match="no space left on the disk"):
            write_json(small_disk / "m.report.json", ["x" * 2_000_000])
        assert tree(small_disk) == OLD and not hidden(small_disk)
        filler = small_disk / "filler"
        with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
            while True:
                file.write(bytes(4096))
        with pytest.raises(ResourceError, match="no space left on the disk"):
            publish_set(small_disk, b"new", force=True)
        filler.unlink()
        assert tree(small_disk) == OLD and not hidden(small_disk)
        publish_set(small_disk, b"new", force=True)
        assert tree(small_disk) == NEW


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def leave(folder: Path, pid: int, *, old: bool = True) -> Path:
    stage = folder / f".modelkit-{pid}-0123abcd"
    stage.mkdir()
    (stage / "new").mkdir()
    (stage / "new" / "m.onnx").write_bytes(b"half")
    if old:
        os.utime(stage, (time.time() - 3600,) * 2)
    return stage


def test_leftovers_of_dead_processes_are_removed(tmp_path):
    dead = leave(tmp_path, dead_pid())
    alive = leave(tmp_path, os.getppid())
    with Staging(tmp_path):
        assert not dead.exists() and alive.exists()
    young = leave(tmp_path, dead_pid(), old=False)
    foreign = tmp_path / ".modelkit-cache"
    foreign.mkdir()
    with Staging(tmp_path):
        pass
    assert young.exists() and foreign.exists()


def test_a_lock_tells_who_lives_even_where_process_numbers_repeat(tmp_path):
    """In a container every run may have the same number."""
    with Staging(tmp_path) as stage:
        write_set(stage, b"new")
        age(tmp_path)
        with Staging(tmp_path):
            pass
        stage.publish(SET, force=False)
    assert tree(tmp_path) == NEW
    left = leave(tmp_path, os.getpid())
    (left / "lock").touch()
    age(tmp_path)
    with Staging(tmp_path):
        assert not left.exists()
