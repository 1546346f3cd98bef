"""Workers on this machine: they stay warm, keep to limits, are replaced when they die, and leave nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import job_entries
import pytest

from modelkit.errors import ResourceError
from modelkit.jobs.local import LocalRunner
from modelkit.jobs.processes import families, resident
from modelkit.jobs.protocol import Event, Finished, Limits, Progressed, Started, Status, Task

HERE = Path(__file__).parent
REPO = HERE.parents[1]
TIGHT = Limits(seconds=1.0, memory_bytes=200 * job_entries.MIB)


def task(number: int, what: str, limits: Limits = TIGHT, **more: object) -> Task:
    return Task(f"{number} {what}", "job_entries:obey", {"what": what, **more}, limits)


def run(whats: Sequence[str], *, workers: int = 1, limits: Limits = TIGHT) -> dict[str, Finished]:
    with LocalRunner(workers) as runner:
        events = list(runner.run(task(number, what, limits) for number, what in enumerate(whats)))
    ends = [event for event in events if isinstance(event, Finished)]
    assert len({event.task.name for event in ends}) == len(ends) == len(whats)
    return {event.task.payload["what"]: event for event in ends}


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone(pids: Sequence[int], within: float = 5.0) -> bool:
    deadline = time.monotonic() + within
    while any(alive(pid) for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_a_worker_stays_warm_and_tells_its_progress(scratch: Path) -> None:
    with LocalRunner(1) as runner:
        events = list(runner.run(task(number, "good") for number in range(3)))
    assert [type(event) for event in events] == [Started, Progressed, Finished] * 3
    ends = [event for event in events if isinstance(event, Finished)]
    assert len({event.worker_pid for event in ends}) == 1
    assert all(event.status == Status.DONE and event.result is not None for event in ends)
    assert ends[0].result and Path(ends[0].result["temporary"]).is_relative_to(scratch)
    progressed = events[1]
    assert isinstance(progressed, Progressed) and (progressed.stage, progressed.done, progressed.total) == (
        "at it",
        1,
        2,
    )
    assert gone([ends[0].worker_pid]) and not list(scratch.iterdir())


def test_every_bomb_is_reported_and_the_rest_go_on(scratch: Path) -> None:
    found = run(["crash", "good", "hang", "eat", "demand", "leave", "abort"], workers=2)
    assert {what: str(end.status) for what, end in found.items()} == {
        "crash": "crashed",
        "good": "done",
        "hang": "timed out",
        "eat": "out of memory",
        "demand": "out of memory",
        "leave": "crashed",
        "abort": "crashed",
    }
    assert "SIGSEGV" in found["crash"].reason
    assert "SIGABRT" in found["abort"].reason and "terminate called" in found["abort"].reason
    assert "exit code 3" in found["leave"].reason
    assert found["hang"].reason == "it took longer than 1 s" and "--timeout" in (found["hang"].hint or "")
    assert "200 MiB are allowed" in found["eat"].reason and "--memory" in (found["eat"].hint or "")
    assert 1 <= found["hang"].seconds < 2
    assert all(end.exit_code == 5 for what, end in found.items() if what != "good")
    assert gone([end.worker_pid for end in found.values()]) and not list(scratch.iterdir())


def test_memory_of_children_counts_and_children_end_too() -> None:
    with LocalRunner(1) as runner:
        events = runner.run([task(0, "child", Limits(20, 200 * job_entries.MIB))])
        started = next(events)
        assert isinstance(started, Started)
        end = next(event for event in events if isinstance(event, Finished))
        family = families([end.worker_pid])[end.worker_pid]
    assert end.status == Status.OUT_OF_MEMORY and end.seconds < 15
    assert gone(family)
    assert "time.sleep(60)" not in subprocess.run(["ps", "-ef"], capture_output=True, text=True, check=False).stdout


def test_failures_keep_the_worker_and_say_what_a_single_run_would() -> None:
    found = run(["error", "problems", "defect", "noise", "good"])
    assert len({end.worker_pid for end in found.values()}) == 1
    error = found["error"]
    assert (error.status, error.reason, error.hint) == (Status.FAILED, "that is wrong", "make it right")
    assert error.exit_code == 2
    assert found["problems"].reason == "two problems; alpha; beta"
    assert found["defect"].reason == r"this is a defect in modelkit: KeyError: 'lost\nkey'"
    assert found["noise"].status == found["good"].status == Status.DONE


def test_two_workers_work_at_the_same_time() -> None:
    with LocalRunner(2) as runner:
        list(runner.run(task(number, "good") for number in range(2)))  # both are warm now
        began = time.monotonic()
        list(runner.run(task(number, "sleep", Limits(), seconds=0.5) for number in range(4)))
        assert 1.0 <= time.monotonic() - began < 1.6


def test_tasks_are_taken_as_workers_come_free() -> None:
    """A search decides what to try next from what came of the last."""
    taken: list[int] = []
    ended: list[str] = []

    def tasks() -> Iterator[Task]:
        for number in range(4):
            assert len(ended) >= number - 1
            taken.append(number)
            yield task(number, "good")

    with LocalRunner(2) as runner:
        for event in runner.run(tasks()):
            if isinstance(event, Finished):
                ended.append(event.task.name)
    assert taken == [0, 1, 2, 3] and len(ended) == 4


def test_workers_that_do_not_start_end_the_run(scratch: Path) -> None:
    with (
        pytest.raises(
            ResourceError, match="do not start: exit code 1: ModuleNotFoundError: No module named 'no_such"
        ),
        LocalRunner(1, warm=["no_such_module"]) as runner,
    ):
        list(runner.run([task(0, "good")]))
    assert not list(scratch.iterdir())


def test_ending_early_ends_the_workers(scratch: Path) -> None:
    with LocalRunner(2) as runner:
        pids: set[int] = set()
        for _ in runner.run(task(number, "hang", Limits()) for number in range(2)):
            pids = {worker.process.pid for worker in runner._workers if worker.process is not None}
            if len(pids) == 2:
                break
    assert len(pids) == 2 and gone(list(pids)) and not list(scratch.iterdir())


def test_a_runner_that_was_left_early_can_be_used_again() -> None:
    with LocalRunner(2) as runner:
        for _ in runner.run(task(number, "hang", Limits()) for number in range(2)):
            break
        ends = [event for event in runner.run([task(7, "good")]) if isinstance(event, Finished)]
    assert [(event.task.name, str(event.status)) for event in ends] == [("7 good", "done")]


def test_a_worker_that_dies_while_idle_fails_no_task() -> None:
    def tasks() -> Iterator[Task]:
        for number in range(3):
            yield task(number, "good")
            process = runner._workers[0].process
            assert process is not None
            os.kill(process.pid, signal.SIGKILL)
            process.wait()

    with LocalRunner(1) as runner:
        ends = [event for event in runner.run(tasks()) if isinstance(event, Finished)]
    assert [event.status for event in ends] == [Status.DONE] * 3
    assert len({event.worker_pid for event in ends}) == 3


def test_what_a_worker_prints_does_not_pile_up(scratch: Path) -> None:
    with LocalRunner(1) as runner:
        for event in runner.run(task(number, "noise") for number in range(5)):
            if isinstance(event, Finished):
                assert next(scratch.rglob("said")).stat().st_size < 11_000


PARENT = """
import sys
from modelkit.jobs.local import LocalRunner
from modelkit.jobs.protocol import Limits, Started, Task
with LocalRunner(2) as runner:
    tasks = [Task(str(n), "job_entries:obey", {"what": "hang"}, Limits(60, 10**9)) for n in range(2)]
    for event in runner.run(tasks):
        if isinstance(event, Started):
            print(*[worker.process.pid for worker in runner._workers if worker.process], flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_no_worker_outlives_its_parent(number: signal.Signals, scratch: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": f"{REPO}{os.pathsep}{HERE}"}
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    parent.stdout.readline()
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(pids) == 2 and all(alive(pid) for pid in pids)
    parent.send_signal(number)
    parent.communicate(timeout=10)
    assert gone(pids)
    if number == signal.SIGKILL:
        assert list(scratch.iterdir())
        run(["good"])  # the next run cleans up after it
    assert not list(scratch.iterdir())


def test_memory_is_told_with_and_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    me = os.getpid()
    assert me in families([os.getppid()])[os.getppid()]
    assert resident([me]) > 10 * job_entries.MIB and resident([2**22 + 1]) == 0
    from modelkit.jobs import processes

    if subprocess.run(["which", "ps"], capture_output=True, check=False).returncode == 0:
        told = resident([me])
        monkeypatch.setattr(processes, "_PROC", Path("/no/such/folder"))
        assert abs(resident([me]) - told) < 20 * job_entries.MIB
        assert me in families([os.getppid()])[os.getppid()]


def test_events_can_be_sent_elsewhere() -> None:
    import pickle

    event: Event = Started(task(0, "good"), 1)
    assert pickle.loads(pickle.dumps(event)) == event
