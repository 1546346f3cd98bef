"""Packed models of others: how small they are, how long their sessions take to create, and how fast they run.

Run: python benchmarks/packing.py; the models are those that ship inside the package onnx, with seeded random weights,
of which nine of ten are set to zero. Bytes and times are what is looked at here; packing changes no output.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from statistics import median

import onnx
from corpus import dataset, read
from harness import table, verdict, write_section

from modelkit.graph.normalise import normalise
from modelkit.graph.save import save
from modelkit.measure.latency import compare
from modelkit.pack.proven import pack_model
from modelkit.prune.config import PruneConfig
from modelkit.prune.weights.sparse import prune_by_magnitude
from modelkit.report.units import size
from modelkit.runtime import make_session, ready_run

MODELS = ("resnet50", "densenet121", "squeezenet")
EFFORTS = ("load", "auto", "size")
RUNS = 7
ALLOWED = 0.5


def main() -> None:
    """Measure all models and write the section."""
    rows, slowest, longest = [], 0.0, 0.0
    for name in MODELS:
        path = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light" / f"light_{name}.onnx"
        with tempfile.TemporaryDirectory(prefix="packing-") as folder:
            model = read(path)
            normalise(model)
            prune_by_magnitude(model, PruneConfig(sparsity=0.9))
            inputs = next(iter(dataset(model).batches(1))).inputs
            files = {"plain": save(model, Path(folder) / "plain.onnx")[0]}
            for effort in EFFORTS:
                packed = model.clone()
                pack_model(packed, effort)
                files[effort] = save(packed, Path(folder) / f"{effort}.onnx")[0]
            created: dict[str, list[float]] = {kind: [] for kind in files}
            for _ in range(RUNS):
                for kind, file in files.items():
                    began = time.perf_counter()
                    make_session(file, threads=1)
                    created[kind].append(time.perf_counter() - began)
            runs = {kind: ready_run(make_session(file, threads=1), inputs, kind) for kind, file in files.items()}
            latency = compare(runs, baseline="plain", seconds=3.0, seed=0)
            for kind, file in files.items():
                ratio = latency.ratios[kind] if kind != "plain" else None
                said = "" if ratio is None else f"{1 / ratio.value:.2f}x [{1 / ratio.high:.2f}, {1 / ratio.low:.2f}]"
                spread = f"{min(created[kind]):.2f} to {max(created[kind]):.2f}"
                taken = size(file.stat().st_size)
                rows.append([name, kind, taken, f"{median(created[kind]):.2f} s", spread, said])
                if ratio is not None:
                    slowest = max(slowest, 1 / ratio.value)
            longest = max(longest, median(created["auto"]) - median(created["plain"]))
    body = (
        f"Bars: with `auto` a session is created at most {ALLOWED} s later: +{longest:.2f} s at most, "
        f"{verdict(longest <= ALLOWED)}. Run time at most 1.03 of the plain model's: {slowest:.2f}x at most, "
        f"{verdict(slowest <= 1.03)}. Medians of {RUNS} sessions, created in turn; run times are of one sample, "
        "interleaved, with their interval.\n\n"
    )
    body += table(["model", "form", "file", "session", "spread, s", "run time"], rows)
    write_section("packing", "Packed models", "python benchmarks/packing.py", body)


if __name__ == "__main__":
    main()
