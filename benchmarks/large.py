"""A model of more than 2 GB through `modelkit quantize` and `modelkit inspect`: does it work, peak memory, time.

Run: python benchmarks/large.py [folder with 8 GB free]
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from harness import table, verdict, write_section
from onnx import TensorProto, helper

from modelkit.report.units import factor, size

LAYERS, WIDE, NARROW = 4, 16384, 8192
MOST_MEMORY = 10e9


@dataclass(frozen=True)
class Ran:
    """One command that ran.

    Attributes:
        code: Exit code.
        out: What it printed on stdout.
        err: What it printed on stderr.
        seconds: Wall time.
        peak: Peak resident memory in bytes.
    """

    code: int
    out: str
    err: str
    seconds: float
    peak: int


def write_large(path: Path, layers: int = LAYERS, wide: int = WIDE, narrow: int = NARROW) -> int:
    """Write a stack of matrix products with external data, one weight in memory at a time; returns its bytes."""
    rng = np.random.default_rng(0)
    nodes, weights, source, offset = [], [], "x", 0
    with path.with_name(path.name + ".data").open("wb") as data:
        for index in range(layers):
            shape = (narrow, wide) if index % 2 == 0 else (wide, narrow)
            rows = (rng.standard_normal((1024, shape[1]), np.float32) / np.float32(shape[0] ** 0.5)).tobytes()
            tensor = TensorProto(name=f"w{index}", dims=shape, data_type=TensorProto.FLOAT)
            tensor.data_location = TensorProto.EXTERNAL
            length = shape[0] * shape[1] * 4
            for key, value in (("location", path.name + ".data"), ("offset", offset), ("length", length)):
                tensor.external_data.add(key=key, value=str(value))
            for _ in range(shape[0] // 1024):
                data.write(rows)
            offset += length
            weights.append(tensor)
            nodes.append(helper.make_node("MatMul", [source, f"w{index}"], [f"p{index}"], name=f"layer{index}"))
            nodes.append(helper.make_node("Relu", [f"p{index}"], [f"r{index}"], name=f"relu{index}"))
            source = f"r{index}"
    last = wide if layers % 2 else narrow
    graph = helper.make_graph(
        nodes,
        "large",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", narrow])],
        [helper.make_tensor_value_info(source, TensorProto.FLOAT, ["batch", last])],
        weights,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return offset + path.stat().st_size


def run(*argv: str) -> Ran:
    """Run modelkit in a process of its own and watch its memory."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "modelkit", *argv]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    peak = 0

    def watch() -> None:
        nonlocal peak
        while process.poll() is None:
            peak = max(peak, _own_memory(process.pid))
            if peak > 1.2 * MOST_MEMORY:  # before it takes the machine with it
                process.kill()
            time.sleep(0.05)

    watcher = threading.Thread(target=watch)
    watcher.start()
    out, err = process.communicate()
    watcher.join()
    return Ran(process.returncode, out, err, time.perf_counter() - began, peak)


def _own_memory(pid: int) -> int:
    """Resident memory of a process without the pages of files that it maps, which the system can drop."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))


def main() -> None:
    """Measure and write the section."""
    parent = sys.argv[1] if len(sys.argv) > 1 else None
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        model, artifact = Path(folder) / "large.onnx", Path(folder) / "large.int8.onnx"
        total = write_large(model)
        rows = []
        commands = {
            "modelkit inspect": ("inspect", str(model)),
            "modelkit quantize --dry-run": ("quantize", str(model), "--bits", "8", "--dry-run"),
            "modelkit quantize --bits 8": ("quantize", str(model), "--bits", "8", "--json"),
        }
        bar = ""
        for name, argv in commands.items():
            ran = run(*argv)
            print(name, ran.code, f"{ran.seconds:.0f} s", size(ran.peak), ran.err[-600:], file=sys.stderr)
            rows.append((name, ran.code, f"{ran.seconds:.0f} s", size(ran.peak)))
            if argv[-1] == "--json":
                ok = ran.code == 0 and ran.peak <= MOST_MEMORY
                bar = f"Bar: `--bits 8` works within {size(MOST_MEMORY)} of memory: {verdict(ok)}."
                if ran.code == 0:
                    report = json.loads(ran.out)
                    after = sum(f.stat().st_size for f in (artifact, Path(f"{artifact}.data")) if f.exists())
                    bar += (
                        f" {report['method']}: {size(total)} become {size(after)}, "
                        f"{factor(report['speedup']['value'])} as fast."
                    )
    head = ["command", "exit code", "time", "peak memory"]
    body = f"{bar} {LAYERS} products with weights of {NARROW} x {WIDE} in float32, external data.\n\n"
    body += f"{table(head, rows)}\n\nPeak memory without the pages of mapped files, which the system can drop."
    write_section("large", "A model of more than 2 GB", "python benchmarks/large.py", body)


if __name__ == "__main__":
    main()
