"""The shipped models, trained on real data: accuracy after each mode, and the same bytes every time."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from quantize_nets import batches, run

from modelkit.graph.load import load
from modelkit.graph.normalise import normalise
from modelkit.graph.opset import ensure_opset
from modelkit.graph.save import save
from modelkit.quantize.audit import audit
from modelkit.quantize.calibrate import observe
from modelkit.quantize.canonical import canonicalise
from modelkit.quantize.config import WeightOptions
from modelkit.quantize.dynamic import quantize_dynamic
from modelkit.quantize.plan import make_plan
from modelkit.quantize.ranges import choose_range
from modelkit.quantize.static import ActivationType, apply_static
from modelkit.quantize.weights import quantize_weights

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"
NAMES = sorted(path.stem for path in SAMPLES.glob("*.onnx"))
NONE = {"include": [], "exclude": []}


def read(name):
    model = load(SAMPLES / f"{name}.onnx").model
    normalise(model)
    return model


def arrays(name, part, count):
    """The first rows of a data set; it is shuffled."""
    with np.load(SAMPLES / f"{name}.{part}.npz") as data:
        return {key: data[key][:count] for key in data.files}


def accuracy(model, name):
    data = arrays(name, "eval", 500)
    labels = data.pop("labels")
    return float((run(model, data)[0].argmax(axis=-1) == labels).mean())


def static(model, name, method):
    ensure_opset(model, 13)
    canonicalise(model)
    plan = make_plan(model, **NONE)
    data = arrays(name, "calib", 128)
    data.pop("labels", None)
    seen = observe(
        model, [str(v.name) for v in plan.activations], batches(data), count=len(next(iter(data.values())))
    )
    ranges = {key: choose_range(histogram, method) for key, histogram in seen.items()}
    apply_static(model, plan, ranges, ActivationType(False, 8), WeightOptions())
    return plan.decisions


def weights(model, fuse, **options):
    bits = options.pop("bits", 8)
    ensure_opset(model, 21 if bits < 5 else 13)
    return quantize_weights(model, bits=bits, options=WeightOptions(**options), fuse_matmul=fuse, **NONE)


def dynamic(model):
    ensure_opset(model, 13)
    return quantize_dynamic(model, weight_bits=8, options=WeightOptions(), **NONE)


MODES = {
    "weights": lambda model, name: weights(model, False),
    "weights at run time": lambda model, name: weights(model, True),
    "weights 4 blocks": lambda model, name: weights(model, True, bits=4, granularity="block", scale="mse"),
    "dynamic": lambda model, name: dynamic(model),
    "static minmax": lambda model, name: static(model, name, "minmax"),
    "static mse": lambda model, name: static(model, name, "mse"),
    "static entropy": lambda model, name: static(model, name, "entropy"),
    "static percentile": lambda model, name: static(model, name, "percentile"),
}
# What a mode may cost in accuracy, in parts of one.
COST = {"weights 4 blocks": 0.03, "static entropy": 0.03, "static percentile": 0.02}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", NAMES)
def test_accuracy_on_real_data(name, mode):
    model = read(name)
    before = accuracy(model, name)
    MODES[mode](model, name)
    assert accuracy(model, name) >= before - COST.get(mode, 0.01)


@pytest.mark.parametrize("name", [name for name in NAMES if "cnn" in name or "mlp" in name])
def test_every_layer_of_a_cnn_runs_in_integers(name, tmp_path):
    model = read(name)
    decisions = static(model, name, "minmax")
    save(model, tmp_path / "m.onnx")
    counts = audit(tmp_path / "m.onnx", decisions)
    assert counts["float"] == 0 and counts["integer"] >= 3 and counts["conversions"] == 1


def test_the_same_input_gives_the_same_bytes(tmp_path):
    """Across processes with other hash seeds too: nothing may depend on the order of a set."""
    script = (
        "import sys, json, hashlib; from pathlib import Path\n"
        "sys.path.insert(0, sys.argv[1]); import test_quantize_samples as t\n"
        "print(json.dumps(t.digests(Path(sys.argv[2]))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(Path(__file__).parent), str(tmp_path)],
        env={**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": os.pathsep.join(["", *sys.path])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    here = digests(tmp_path)
    assert json.loads(done.stdout) == here


def digests(folder):
    """Hash of every mode's artifact of two samples, quantized anew."""
    found = {}
    for name in (NAMES[0], NAMES[-1]):
        for mode, apply in MODES.items():
            model = read(name)
            apply(model, name)
            save(model, folder / "artifact.onnx")
            found[f"{name} {mode}"] = hashlib.sha256((folder / "artifact.onnx").read_bytes()).hexdigest()
    return found
