"""The same run on a Ray cluster: same results, same reports of what goes wrong, nodes that die, files that travel."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import job_entries
import job_models
import pytest
from job_inline import InlineRunner
from job_ray import HERE, RayCluster, two_nodes

from modelkit.cli.app import run
from modelkit.errors import ResourceError, UsageError
from modelkit.files import sha256
from modelkit.jobs.cluster import ClusterRunner
from modelkit.jobs.connect import check_address, connected
from modelkit.jobs.protocol import Event, Finished, Limits, Progressed, Started, Status, Task

REPO = HERE.parents[1]
# One way to do it, so that what is chosen does not hang on what was timed.
QUICK = ("--set", "measure.seconds=0.001", "--mode", "float16")
TIGHT = Limits(seconds=1.5, memory_bytes=200 * job_entries.MIB)


class Ran(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


Cli = Callable[..., Ran]


@pytest.fixture(scope="module")
def nodes() -> Iterator[RayCluster]:
    pytest.importorskip("ray")
    with two_nodes() as found:
        yield found


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """The command line; without worker processes where it runs here."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("modelkit.batch.run.LocalRunner", InlineRunner)

    def call(*argv: object) -> Ran:
        capsys.readouterr()
        code = run([str(part) for part in argv])
        return Ran(code, *capsys.readouterr())

    return call


@pytest.fixture
def apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """The nodes see none of the files of this process, as if they had other disks."""
    from modelkit.jobs import parcel

    look, order = parcel.looks, parcel.Order
    monkeypatch.setattr(parcel, "looks", lambda path: f"{look(path)} elsewhere" if look(path) else "")
    monkeypatch.setattr(parcel, "Order", lambda *args, **more: order(*args, **{**more, "stage": "/no/such/stage"}))
    monkeypatch.setattr(parcel, "CHUNK", 50_000)


def task(number: int, what: str, limits: Limits = TIGHT, **more: object) -> Task:
    return Task(f"{number} {what}", "job_entries:obey", {"what": what, **more}, limits)


def ends_of(events: Sequence[Event]) -> dict[str, Finished]:
    ends = [event for event in events if isinstance(event, Finished)]
    assert len({event.task.name for event in ends}) == len(ends)
    return {event.task.payload["what"]: event for event in ends}


def tree(folder: Path) -> dict[str, str]:
    """Hashes of all artifacts below a folder."""
    return {path.relative_to(folder).as_posix(): sha256(path) for path in folder.rglob("*.onnx")}


def rows(folder: Path) -> list[dict[str, Any]]:
    """The summary's rows without what was timed."""
    found: list[dict[str, Any]] = json.loads((folder / "summary.json").read_text())["models"]
    return [{**row, "seconds": 0, "figures": {**row["figures"], "speedup": 0}} for row in found]


def hidden(folder: Path) -> list[Path]:
    return list(folder.rglob(".modelkit-*"))


def test_the_results_are_those_of_this_machine(nodes: RayCluster, cli: Cli) -> None:
    ends = job_models.zoo(Path("models"), good=4)
    argv = ["quantize", "models", *QUICK]
    there = cli(*argv, "-o", "there", "--on", "ray")
    assert there.code == 3, there
    here = cli(*argv, "-o", "here")
    assert here.code == 3
    assert tree(Path("there")) == tree(Path("here")) and len(tree(Path("here"))) == 5
    assert rows(Path("there")) == rows(Path("here"))
    assert {row["model"]: row["status"] for row in rows(Path("there"))} == ends
    told = [line.partition("] ")[2].partition(":")[0] for line in there.err.splitlines() if line.startswith("[")]
    assert sorted(told) == sorted(ends)
    assert not hidden(Path("there"))

    # The journal is the same too: what was done there need not be done here.
    again = cli(*argv, "-o", "there", "--resume", "--json")
    assert {line["model"] for line in again.lines[:-1] if line["resumed"]} == {
        name for name, end in ends.items() if end == "done"
    }


def test_bombs_are_reported_and_not_tried_again(nodes: RayCluster) -> None:
    whats = ["crash", "good", "hang", "eat", "leave", "error", "defect", "noise"]
    with ClusterRunner("ray") as runner:
        events = list(runner.run(task(number, what) for number, what in enumerate(whats)))
        ends = ends_of(events)
        left = [event for event in runner.run([task(9, "good")]) if isinstance(event, Finished)]
    assert {what: str(end.status) for what, end in ends.items()} == {
        "crash": "crashed",
        "good": "done",
        "hang": "timed out",
        "eat": "out of memory",
        "leave": "crashed",
        "error": "failed",
        "defect": "failed",
        "noise": "done",
    }
    assert "SIGSEGV" in ends["crash"].reason and ends["hang"].reason == "it took longer than 1.5 s"
    assert "200 MiB are allowed" in ends["eat"].reason
    assert (ends["error"].reason, ends["error"].hint, ends["error"].exit_code) == (
        "that is wrong",
        "make it right",
        2,
    )
    assert sum(isinstance(event, Started) for event in events) == len(whats)
    assert any(isinstance(event, Progressed) and event.stage == "at it" for event in events)
    assert left[0].status == Status.DONE
    for end in (ends["good"], left[0]):
        assert end.result is not None and not Path(end.result["temporary"]).exists()


def test_files_travel_where_nodes_do_not_see_them(nodes: RayCluster, cli: Cli, apart: None) -> None:
    import numpy as np

    job_models.zoo(Path("models"), good=2)
    np.savez("d.npz", x=np.random.default_rng(0).standard_normal((64, 16)).astype("f4"))
    argv = [
        "quantize",
        "models",
        "--data",
        "d.npz",
        "--match",
        "*m?.onnx",
        "--match",
        "*1.onnx",
        "--match",
        "cut*",
        *QUICK,
    ]
    assert cli(*argv, "-o", "there", "--on", "ray").code == 3
    assert cli(*argv, "-o", "here").code == 3
    assert tree(Path("there")) == tree(Path("here")) and len(tree(Path("here"))) == 2
    assert rows(Path("there")) == rows(Path("here"))
    assert {path.name for path in Path("there").rglob("*")} == {path.name for path in Path("here").rglob("*")}
    for done in Path("here").rglob("*.report.json"):
        reports = [json.loads((Path(top) / done.relative_to("here")).read_text()) for top in ("here", "there")]
        assert all(reports[0][part] == reports[1][part] for part in ("data", "decisions", "config"))

    shutil.rmtree("there/with space")
    Path("there/plain/m0.float16.onnx").write_bytes(b"mine")
    ran = cli(*argv, "-o", "there", "--on", "ray", "--resume", "--json")
    lines = {line["model"]: line for line in ran.lines[:-1]}
    assert lines["with space/ä 1.onnx"]["status"] == lines["plain/m0.onnx"]["status"] == "done", lines
    assert tree(Path("there")) == tree(Path("here"))


def test_a_budget_that_is_missed_leaves_its_report_only(nodes: RayCluster, cli: Cli, apart: None) -> None:
    job_models.mlp(Path("models/a.onnx"))
    argv = ["quantize", "models", "-o", "out", "--min-ratio", "100", "--json", *QUICK]
    assert cli(*argv).code == 1
    Path("out/.modelkit/quantize.jsonl").unlink()
    before = Path("out/a.float16.report.json").stat().st_mtime_ns
    ran = cli(*argv, "--on", "ray", "--resume")  # such a report may be replaced unasked
    assert ran.code == 1 and ran.lines[0]["status"] == "budget not met", ran
    assert Path("out/a.float16.report.json").stat().st_mtime_ns != before
    assert not list(Path("out").glob("*.onnx")) and not hidden(Path("out"))


def test_code_of_an_architecture_travels(nodes: RayCluster, cli: Cli, apart: None) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    Path("nets/parts").mkdir(parents=True)
    Path("nets/__init__.py").write_text("")
    Path("nets/mlp.py").write_text("import sizes\nfrom nets.parts.block import make\nmake = make\n")
    Path("nets/parts/block.py").write_text(
        "import torch, sizes\ndef make():\n    return torch.nn.Sequential(torch.nn.Linear(8, sizes.WIDTH))\n"
    )
    Path("sizes.py").write_text("WIDTH = 4\n")
    Path("models").mkdir()
    save_file({"0.weight": np.ones((4, 8), "f4"), "0.bias": np.ones(4, "f4")}, "models/a.safetensors")
    more = ["--arch", "nets.mlp:make", "--input", "1x8", "--on", "ray", "--json"]
    ran = cli("inspect", "models", *more)
    assert ran.code == 0 and ran.lines[0]["figures"]["parameters"] == 36, ran


class _Elsewhere(NamedTuple):
    code: int
    out: str
    err: str


def elsewhere(folder: Path, argv: Sequence[object], port: int) -> _Elsewhere:
    """Run modelkit where a folder has content that no other process sees, as on another machine."""
    script = (
        'set -e; cp -r "$1" "$1.copy"; mount -t tmpfs none "$1"; cp -r "$1.copy/." "$1"; rm -r "$1.copy"; '
        'cd "$1"; shift; code=0; "$@" || code=$?; find out -type f | sort >&2; tar cf - out; exit $code'
    )
    command = [sys.executable, "-m", "modelkit", *map(str, argv), "--on", f"ray://127.0.0.1:{port}"]
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script, "sh", str(folder), *command],
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(REPO)},
        check=False,
        timeout=100,
    )
    return _Elsewhere(done.returncode, done.stdout.decode("latin-1"), done.stderr.decode())


@pytest.mark.skipif(
    subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode != 0
    if shutil.which("unshare")
    else True,
    reason="this system has no mount namespaces for us",
)
def test_from_another_machine(nodes: RayCluster, cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "home"
    job_models.mlp(folder / "models/a.onnx")
    for suffix in ("", ".data"):
        shutil.copy(job_models.SAMPLES / "twins" / f"digits_mlp_external.onnx{suffix}", folder / "models")
    ran = elsewhere(folder, ["quantize", "models", "-o", "out", "-q", *QUICK], nodes.port)
    assert ran.code == 0, ran.err
    assert ran.err.splitlines() == [
        "out/.modelkit/lock",
        "out/.modelkit/quantize.jsonl",
        *(f"out/a.float16.{end}" for end in ("onnx", "report.json", "report.md")),
        *(f"out/digits_mlp_external.float16.{end}" for end in ("onnx", "report.json", "report.md")),
        "out/summary.json",
        "out/summary.md",
    ]
    assert not (folder / "out").exists()
    (tmp_path / "out.tar").write_bytes(ran.out.encode("latin-1"))
    shutil.unpack_archive(tmp_path / "out.tar", tmp_path / "back", filter="data")
    assert cli("quantize", folder / "models", "-o", tmp_path / "here", "-q", *QUICK).code == 0
    assert tree(tmp_path / "back" / "out") == tree(tmp_path / "here") != {}


def test_another_version_on_the_nodes(nodes: RayCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelkit.jobs.cluster.VERSION", "99.0")
    with ClusterRunner("ray") as runner, pytest.raises(UsageError, match=r"has modelkit .*, this is 99\.0"):
        list(runner.run([task(0, "good")]))


def test_no_node_has_room(nodes: RayCluster, cli: Cli) -> None:
    job_models.mlp(Path("models/a.onnx"))
    ran = cli("inspect", "models", "--on", "ray", "--gpus", 4, "--cpus", 1)
    assert ran.code == 2 and len(ran.err.splitlines()) == 2
    assert "no node of the Ray cluster has room for a model: 1 cpus, 4 gpus wanted, 1 cpus, 0 gpus" in ran.err


def test_a_node_that_dies_is_no_fault_of_the_model(nodes: RayCluster, tmp_path: Path) -> None:
    """Whoever worked there is done elsewhere; and what ends every node's work is given up."""
    dying = nodes.add_node()
    log = tmp_path / "log"
    tasks = [task(number, "log", Limits(), log=log, me=number, seconds=1.0) for number in range(6)]
    events: list[Event] = []
    with ClusterRunner("ray", workers=3) as runner:
        for event in runner.run(tasks):
            events.append(event)
            if dying is not None and sum(isinstance(each, Started) for each in events) == 3:
                nodes.kill(dying)
                dying = None
    ends = [event for event in events if isinstance(event, Finished)]
    assert [event.status for event in ends] == [Status.DONE] * 6
    again = [event.task.name for event in events if isinstance(event, Progressed) and "failed" in event.stage]
    assert len(again) == 1
    begun = log.read_text().split()
    assert sorted(begun) == sorted([*map(str, range(6)), again[0].split()[0]])

    with ClusterRunner("ray", workers=1) as runner:
        found = list(runner.run([task(0, "murder", Limits()), task(1, "good")]))
    ends = [event for event in found if isinstance(event, Finished)]
    assert [str(event.status) for event in ends] == ["crashed", "done"]
    assert ends[0].reason.startswith("its node failed 3 times: The actor died")


def test_a_local_ray_and_an_interrupt(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    for number in range(2):
        job_models.endless(tmp_path / f"models/{number}.onnx")
    command = ["evaluate", "models", "-o", "out", "--on", "ray", "--workers", "2", "-v", "--seconds", "0.001"]
    process = subprocess.Popen(
        [sys.executable, "-m", "modelkit", *command],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPO), "HOME": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if sum("started" in each for each in lines) == 2:
            break
    family = _family(process.pid)
    assert any("ray" in name for name in family.values())
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=30)
    assert process.returncode == 130, (lines, rest)
    assert all(line.startswith(("0.onnx: ", "1.onnx: ", "interrupted")) for line in [*lines, *rest.splitlines()])
    deadline = time.monotonic() + 10
    while (left := {pid: name for pid, name in family.items() if _alive(pid)}) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left
    assert not (tmp_path / ".ray").exists()  # nothing in the home folder
    assert not hidden(tmp_path) and not list((tmp_path / "scratch of the test").iterdir())


def _family(pid: int) -> Mapping[int, str]:
    from modelkit.jobs.processes import families

    return {each: Path(f"/proc/{each}/cmdline").read_text() for each in families([pid])[pid] if _alive(each)}


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_cluster_that_is_not_there(monkeypatch: pytest.MonkeyPatch, cli: Cli) -> None:
    pytest.importorskip("ray")
    job_models.mlp(Path("models/a.onnx"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    began = time.monotonic()
    ran = cli("inspect", "models", "--on", f"ray://127.0.0.1:{port}")
    assert (
        ran.code == 5 and f"the Ray cluster ray://127.0.0.1:{port} cannot be reached: Connection refused" in ran.err
    )
    assert time.monotonic() - began < 5 and len(ran.err.splitlines()) == 2


def test_without_ray(monkeypatch: pytest.MonkeyPatch, cli: Cli) -> None:
    job_models.mlp(Path("models/a.onnx"))
    monkeypatch.setitem(sys.modules, "ray", None)
    ran = cli("inspect", "models", "--on", "ray")
    assert ran.code == 2
    assert ran.err.splitlines() == [
        "error: --on needs Ray, which is not installed",
        "hint: pip install 'modelkit[ray]'",
    ]


def test_ray_is_imported_only_where_it_is_asked_for(tmp_path: Path) -> None:
    job_models.mlp(tmp_path / "models/a.onnx")
    code = (
        "import sys; from modelkit.cli.app import run; run(sys.argv[1:]); assert not {'ray', 'grpc'} & {*sys.modules}"
    )
    subprocess.run(
        [sys.executable, "-c", code, "inspect", "models", "-q"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPO)},
        check=True,
    )


@pytest.mark.parametrize(
    ("on", "found"), [("ray", "ray"), ("ray://a.b", "ray://a.b:10001"), ("ray://[::1]:7", "ray://[::1]:7")]
)
def test_addresses(on: str, found: str) -> None:
    assert check_address(on) == found


@pytest.mark.parametrize("on", ["", "slurm", "ray://", "ray://x:0", "ray://x:y", "ray://a/b:1", "http://x:1"])
def test_what_is_no_address(on: str) -> None:
    with pytest.raises(UsageError, match="no place to run models"):
        check_address(on)


def test_where_and_with_what_is_checked_before_any_work(cli: Cli) -> None:
    job_models.mlp(Path("models/a.onnx"))
    for argv, words in [
        (["--on", "slurm"], "--on: 'slurm' is no place to run models"),
        (["--gpus", "1"], "gpus are given out by a Ray cluster only"),
        (["--cpus", "0"], "--cpus"),
    ]:
        ran = cli("inspect", "models", *argv)
        assert ran.code == 2 and words in ran.err, ran


def test_a_program_that_is_connected_stays_so(nodes: RayCluster) -> None:
    import ray

    with connected("ray", 1) as found:
        assert found is ray
    assert ray.is_initialized()
    with pytest.raises(UsageError, match="connected to a Ray cluster already"), connected("ray://x:1", 1):
        pass


def test_a_cluster_that_speaks_another_language(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray")
    monkeypatch.setattr("ray.is_initialized", lambda: False)

    def refuse(**more: object) -> None:
        raise RuntimeError("Python minor versions differ between client and server:\nclient is 3.11")

    monkeypatch.setattr(ray, "init", refuse)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        address = f"ray://127.0.0.1:{server.getsockname()[1]}"
        with (
            pytest.raises(ResourceError, match=r"Python minor versions differ .* client is 3"),
            connected(address, 1),
        ):
            pass
