"""Calibration memory against the number of samples: 16 and 512, each in a process of its own.

Run: python benchmarks/memory.py
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from harness import SAMPLES, table, verdict, write_section

from modelkit.report.units import size

_CHILD = """
import resource, sys
from pathlib import Path
from modelkit.data.open import open_dataset
from modelkit.graph.load import load
from modelkit.graph.normalise import normalise
from modelkit.quantize.calibrate import observe
from modelkit.quantize.plan import make_plan
from modelkit.runtime import input_specs, make_session
path, data = Path(sys.argv[1]), Path(sys.argv[2])
model = load(path).model
normalise(model)
plan = make_plan(model, include=[], exclude=[])
dataset = open_dataset(data, input_specs(make_session(path)))
observe(model, [v.name for v in plan.activations], lambda: dataset.batches(8), count=dataset.count)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def main() -> None:
    """Measure and write the section."""
    rows, worst = [], 0.0
    for name, folder in (("fashion_cnn", SAMPLES), ("article_cnn", SAMPLES / "made")):
        model = folder / f"{name}.onnx"
        if not model.exists():
            print(f"{model} is missing: run python sample_models/make.py {name}", file=sys.stderr)
            continue
        arrays = dict(np.load(folder / f"{name}.calib.npz"))
        peaks = []
        with tempfile.TemporaryDirectory() as temporary:
            for count in (16, 512):
                data = Path(temporary) / f"{count}.npz"
                np.savez(data, **{key: np.resize(value, (count, *value.shape[1:])) for key, value in arrays.items()})
                runs = [
                    int(
                        subprocess.run(
                            [sys.executable, "-c", _CHILD, str(model), str(data)],
                            capture_output=True,
                            text=True,
                            check=True,
                        ).stdout
                    )
                    for _ in range(3)
                ]
                peaks.append(sorted(runs)[1])
        growth = peaks[1] / peaks[0] - 1
        worst = max(worst, growth)
        rows.append((name, size(peaks[0]), size(peaks[1]), f"{100 * growth:+.1f} %"))
    body = (
        f"Bar: 512 samples take at most 10 % more than 16: {verdict(worst <= 0.10)}. Peak resident memory of the "
        "process, median of three.\n\n" + table(["model", "16 samples", "512 samples", "growth"], rows)
    )
    write_section("memory", "Calibration memory", "python benchmarks/memory.py", body)


if __name__ == "__main__":
    main()
