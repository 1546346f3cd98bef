"""Folders of models: overhead of workers, scaling, bombs, kills, memory and resuming.

Run: python benchmarks/batch.py [PART ...]; the parts are overhead, scaling, bombs, thousand, kills.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx
from harness import ROOT, table, verdict, write_section
from onnx import TensorProto, helper, numpy_helper

from modelkit import api, task
from modelkit.batch.plan import Request
from modelkit.batch.run import Listener, run
from modelkit.jobs.journal import read
from modelkit.jobs.processes import families, resident
from modelkit.jobs.protocol import Progressed, Started
from modelkit.progress import Progress, silent
from modelkit.report.summary import Row
from modelkit.report.units import size

CONFIG = {"mode": "weights", "objective": "size", "measure.seconds": 0.01}
FLAGS = ["--mode", "weights", "--set", "objective=size", "--set", "measure.seconds=0.01"]
BOMBS = ("crash", "crash", "hang", "hang", "memory", "memory", "cut", "pointer", "custom", "empty")
ENV = {**os.environ, "PYTHONPATH": str(ROOT)}
MODELKIT = [sys.executable, "-m", "modelkit"]


def perform(payload: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """What workers do: a model named so crashes its worker, as a defect in native code would."""
    if "crash" in Path(payload["model"]).name:
        os.abort()
    return task.perform(payload, progress)


# --- models ---------------------------------------------------------------------------------------------------


def small(
    path: Path, seed: int, nodes: Sequence[onnx.NodeProto] = (), extra: Sequence[onnx.TensorProto] = ()
) -> None:
    """Write a multilayer perceptron of 1,700 weights; nodes given go between its layers, from h to m."""
    draw = np.random.default_rng(seed)
    weights = [
        numpy_helper.from_array((draw.standard_normal((16, 64)) / 4).astype("f4"), "w0"),
        numpy_helper.from_array((draw.standard_normal((64, 10)) / 8).astype("f4"), "w1"),
    ]
    middle = list(nodes) or [helper.make_node("Relu", ["h"], ["m"], name="relu")]
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w0"], ["h"], name="first"),
            *middle,
            helper.make_node("MatMul", ["m", "w1"], ["y"], name="second"),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 10])],
        [*weights, *extra],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.example", 1)]
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), str(path))


def bomb(folder: Path, number: int, kind: str) -> None:
    """Write something that must not stop the others."""
    path = folder / f"{number:03d} {kind}.onnx"
    if kind in ("crash", "cut"):
        small(path, number)
    if kind == "cut":
        path.write_bytes(path.read_bytes()[:2000])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "pointer":
        path.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 1\n")
    elif kind == "custom":
        small(path, number, [helper.make_node("Secret", ["h"], ["m"], domain="com.example")])
    elif kind == "memory":
        shape = numpy_helper.from_array(np.array([25 << 30], "i8"), "shape")  # 100 GiB of floats
        axes = numpy_helper.from_array(np.array([0], "i8"), "axes")
        nodes = [
            helper.make_node("ReduceMax", ["h"], ["top"], keepdims=0),
            helper.make_node("Unsqueeze", ["top", "axes"], ["one"]),
            helper.make_node("Expand", ["one", "shape"], ["large"]),
            helper.make_node("ReduceMean", ["large"], ["mean"], keepdims=0),
            helper.make_node("Add", ["h", "mean"], ["m"]),
        ]
        small(path, number, nodes, [shape, axes])
    elif kind == "hang":
        value = helper.make_tensor_value_info
        body = helper.make_graph(
            [helper.make_node("Identity", ["c"], ["c2"]), helper.make_node("Tanh", ["s"], ["s2"])],
            "body",
            [
                value("t", TensorProto.INT64, []),
                value("c", TensorProto.BOOL, []),
                value("s", TensorProto.FLOAT, None),
            ],
            [value("c2", TensorProto.BOOL, []), value("s2", TensorProto.FLOAT, None)],
        )
        turns = numpy_helper.from_array(np.array(2**62, "i8"), "turns")
        go = numpy_helper.from_array(np.array(True), "go")
        loop = helper.make_node("Loop", ["turns", "go", "h"], ["m"], body=body)
        small(path, number, [loop], [turns, go])


def fill(folder: Path, count: int, bombs: Sequence[str] = ()) -> Path:
    """Fill a folder with small models, ten in a folder, and bombs spread among them."""
    for number in range(count - len(bombs)):
        small(folder / f"{number // 10:03d}" / f"m{number:04d}.onnx", number)
    for position, kind in enumerate(bombs):
        bomb(folder / f"{position * 2:03d}", position, kind)
    return folder


# --- measuring ------------------------------------------------------------------------------------------------


class Clock(Listener):
    """Notes when the first model began and when each ended."""

    def __init__(self) -> None:
        self.began, self.ends = 0.0, []

    def event(self, event: Started | Progressed) -> None:
        """See Listener."""
        self.began = self.began or time.perf_counter()

    def row(self, row: Row) -> None:
        """See Listener."""
        self.ends.append(time.perf_counter())


def request(models: Path, output: Path, command: str = "quantize", **options: Any) -> Request:
    """A run over a folder with a config that keeps measuring short."""
    config = CONFIG if command == "quantize" else None
    return api.folder_request(command, models, output=output, config=config, options=options, force=True)


def overhead(folder: Path) -> str:
    """Time of a model in a warm worker, against the same work in this process."""
    models, rows, met = fill(folder / "models", 60), [], True
    for command in ("inspect", "quantize"):
        asked = request(models, folder / command, command)
        alone = folder / f"{command} alone"
        paths = sorted(models.rglob("*.onnx"))
        seconds = []
        for path in paths:
            output, files = asked.files_of(path, alone / asked.name_of(path))
            payload = {"command": command, "model": path, "output": output, "outputs": files}
            began = time.perf_counter()
            task.perform({**payload, "force": False, "arguments": asked.arguments}, silent)
            seconds.append(time.perf_counter() - began)
        clock = Clock()
        run(asked, clock)
        here = median(seconds[1:])
        there = median(later - earlier for earlier, later in pairwise(clock.ends))
        met = met and there - here <= 0.05
        first = clock.ends[0] - clock.began
        rows.append((command, *[f"{1000 * each:.1f} ms" for each in (here, there, there - here, first)]))
    head = ["command", "in one process", "in a worker", "overhead of each", "the first in a worker"]
    bar = f"Bar: at most 50 ms of overhead for each of 60 models after the first (medians): {verdict(met)}."
    return f"### Overhead\n\n{bar}\n\n{table(head, rows)}"


def scaling(folder: Path) -> str:
    """Two workers against one, on the same models."""
    models = fill(folder / "models", 80)
    seconds = {}
    for workers in (1, 2):
        clock = Clock()
        began = time.perf_counter()
        run(request(models, folder / f"out{workers}", workers=workers), clock)
        seconds[workers] = (clock.ends[-1] - clock.began, time.perf_counter() - began)
    ratio, whole = (seconds[1][part] / seconds[2][part] for part in (0, 1))
    load = os.getloadavg()[0]
    return (
        f"### Two workers\n\nBar: 80 models at least 1.7x as fast with two workers as with one: {ratio:.2f}x, "
        f"{verdict(ratio >= 1.7)} ({seconds[1][0]:.1f} s and {seconds[2][0]:.1f} s from the first model's start; "
        f"with the start and the end of everything {whole:.2f}x). Load of the machine at the end: {load:.1f}."
    )


def bombs(folder: Path) -> str:
    """200 models, 10 of them bombs."""
    models = fill(folder / "models", 200, BOMBS)
    asked = request(models, folder / "out", workers=2, timeout=5.0, memory=1_000_000_000)
    began = time.perf_counter()
    found = run(replace(asked, entry="batch:perform", warm=("batch", *asked.warm)))
    seconds = time.perf_counter() - began
    done = found.counts.get("done", 0)
    left = list((folder / "out").rglob(".modelkit-*"))
    rows = [
        (row.model.split("/")[1], row.status, row.reason.replace(f"{models}/", "")[:90].replace("|", "/"))
        for row in found.models
        if row.failed
    ]
    bar = (
        f"Bar: of 200 models 190 are done and 10 reported, in bounded time: {done} done, {len(rows)} reported, "
        f"{seconds:.0f} s with two workers, {len(left)} hidden folders left: "
        f"{verdict(done == 190 and len(rows) == 10 and not left)}. Limits: 5 s and 1 GB."
    )
    return f"### 200 models, 10 bombs\n\n{bar}\n\n{table(['model', 'status', 'reason'], rows)}"


class Watch:
    """The largest resident memory of this process and of its workers while a block runs."""

    def __init__(self) -> None:
        self.own = self.workers = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def _look(self) -> None:
        me = os.getpid()
        while not self._stop.wait(0.2):
            self.own = max(self.own, resident([me]))
            self.workers = max(self.workers, resident(set(families([me])[me]) - {me}))

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()


def thousand(folder: Path) -> str:
    """1,000 models: memory against 100, and the time of a resume that finds all done."""
    rows, peaks = [], {}
    for count in (100, 1000):
        models = fill(folder / f"models{count}", count)
        with Watch() as watch:
            began = time.perf_counter()
            found = run(request(models, folder / f"out{count}", workers=2))
            seconds = time.perf_counter() - began
        assert found.counts == {"done": count}, found.counts
        peaks[count] = (watch.own, watch.workers)
        rows.append((count, size(watch.own), size(watch.workers), f"{seconds:.0f} s"))
    growth = [peaks[1000][part] / peaks[100][part] - 1 for part in (0, 1)]
    argv = [*MODELKIT, "quantize", str(folder / "models1000"), "-o", str(folder / "out1000"), *FLAGS]
    times = []
    for _ in range(3):
        began = time.perf_counter()
        done = subprocess.run([*argv, "--resume", "--json"], env=ENV, capture_output=True, text=True, check=True)
        times.append(time.perf_counter() - began)
        assert done.stdout.count('"resumed": true') == 1000
    again = sorted(times)[1]
    head = ["models", "peak of this process", "peak of two workers", "time"]
    return (
        f"### 1,000 models\n\nBar: 1,000 models take at most 20 % more memory than 100: "
        f"{100 * growth[0]:+.0f} % in this process, {100 * growth[1]:+.0f} % in the workers, "
        f"{verdict(max(growth) <= 0.2)}.\n\n{table(head, rows)}\n\n"
        f"Bar: `--resume` of the finished 1,000 within 2 s, the start of the program included: {again:.2f} s, "
        f"{verdict(again <= 2)}."
    )


def kills(folder: Path) -> str:
    """A run that is killed at 30 random moments and resumed each time."""
    count, moments, killed = 200, random.Random(0), 0
    models, output = fill(folder / "models", count), folder / "out"
    argv = [*MODELKIT, "quantize", str(models), "-o", str(output), *FLAGS, "--workers", "2", "--resume", "-q"]
    journal = output / ".modelkit" / "quantize.jsonl"

    def ends() -> int:
        return journal.read_bytes().count(b'"event":"end"') if journal.exists() else 0

    while killed < 30:
        process = subprocess.Popen(argv, env=ENV)
        wanted = ends() + moments.choice([0, 1, 2, 3])
        while process.poll() is None and ends() < wanted:
            time.sleep(0.005)
        time.sleep(moments.random() * 0.5)
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        killed += 1
    subprocess.run(argv, env=ENV, check=True)
    whole = all(_is_whole(output / row["output"]) for row in _summary(output)["models"])
    records = [record for record in read(journal) if record["event"] == "end"]
    twice = [name for name, often in Counter(record["model"] for record in records).items() if often > 1]
    hidden = list(output.rglob(".modelkit-*"))
    good = killed == 30 and whole and not twice and not hidden and _summary(output)["counts"] == {"done": count}
    return (
        f"### Kills\n\nBar: {count} models, kill -9 at 30 random moments, `--resume` after each: no torn file, no "
        f"model done twice: {killed} kills, {len(records)} models done, {len(twice)} twice, every artifact "
        f"{'is' if whole else '**is not**'} what its report says, {len(hidden)} hidden folders left, {verdict(good)}."
    )


def _summary(output: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((output / "summary.json").read_text(encoding="utf-8"))
    return found


def _is_whole(artifact: Path) -> bool:
    from modelkit.files import sha256

    report = artifact.with_name(artifact.name.replace(".onnx", ".report.json"))
    return bool(json.loads(report.read_text(encoding="utf-8"))["after"]["file"]["sha256"] == sha256(artifact))


PARTS: dict[str, Callable[[Path], str]] = {
    "overhead": overhead,
    "scaling": scaling,
    "bombs": bombs,
    "thousand": thousand,
    "kills": kills,
}


def main() -> None:
    """Measure the parts that were asked for, and write the section where it was all of them."""
    asked = sys.argv[1:] or list(PARTS)
    bodies = []
    for name in asked:
        folder = Path(tempfile.mkdtemp(prefix="batch-"))
        try:
            bodies.append(PARTS[name](folder))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        print(bodies[-1], "\n", flush=True)
    if asked == list(PARTS):
        models = "Models are multilayer perceptrons of 1,700 weights, quantized in mode `weights` unless said."
        write_section("batch", "Folders of models", "python benchmarks/batch.py", "\n\n".join([models, *bodies]))


if __name__ == "__main__":
    main()
