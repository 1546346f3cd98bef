"""Models that are not ours, through every mode: they work, or are refused in one line; nothing crashes.

The whole sweep is benchmarks/corpus.py; here are the small models of it, every mode on a few.
"""

import importlib.util
import sys
from pathlib import Path

import onnx
import pytest

ROOT = Path(__file__).resolve().parents[2]


def load_corpus():
    spec = importlib.util.spec_from_file_location("corpus", ROOT / "benchmarks" / "corpus.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["corpus"] = module
    spec.loader.exec_module(module)
    return module


corpus = load_corpus()
DATA = Path(onnx.__file__).parent / "backend" / "test" / "data"
LAYERS = [
    *("Conv1d_groups", "Conv2d_depthwise_with_multiplier", "Conv2d_groups_thnn", "Conv3d_dilated_strided"),
    *("ConvTranspose2d", "Embedding", "PReLU_2d_multiparam", "MaxPool2d_stride_padding_dilation"),
]
SMALL = [DATA / "pytorch-converted" / f"test_{name}" / "model.onnx" for name in LAYERS]
SAMPLES = sorted((ROOT / "sample_models").glob("*.onnx"))


@pytest.mark.parametrize("mode", corpus.MODES)
@pytest.mark.parametrize("path", [*SMALL, *SAMPLES], ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_mode(path, mode):
    outcome = corpus.attempt(path, mode)
    if mode.startswith("prune channels") and outcome.status == "refused":
        # Of one layer alone all channels are the model's own inputs or outputs; some have no weight, or do not run.
        reasons = ("no channels can be taken out", "no channels to take out", "onnxruntime has no kernel for PRelu")
        assert outcome.detail.startswith(reasons)
        return
    assert outcome.status in ("works", "idle"), outcome.detail


@pytest.mark.parametrize(
    ("mode", "least"),
    [
        ("weights 8, at load", 35),
        ("static minmax, uint8", 33),
        ("weights 4 in blocks, at load", 12),
        ("dynamic", None),
        ("float16", 60),
    ],
)
def test_a_real_architecture(mode, least):
    outcome = corpus.attempt(DATA / "light" / "light_squeezenet.onnx", mode)
    assert outcome.status == ("idle" if least is None else "works"), outcome.detail
    if least is not None:
        assert float(outcome.detail.split(" dB")[0]) > least
    if mode.startswith("static"):
        assert ", 34 integer, 0 float, 2 conversions" in outcome.detail


def test_refusals_are_one_line(tmp_path):
    model = onnx.load(SMALL[6])
    model.graph.node[0].op_type, model.graph.node[0].domain = "Special", "my.own"
    model.opset_import.append(onnx.helper.make_opsetid("my.own", 1))
    onnx.save(model, tmp_path / "custom.onnx")
    outcome = corpus.attempt(tmp_path / "custom.onnx", "static minmax, uint8")
    assert outcome.status == "refused" and "my.own" in outcome.detail


def test_a_crash_is_seen(monkeypatch):
    def broken(model):
        raise KeyError("oops")

    monkeypatch.setitem(corpus.MODES, "broken", broken)
    outcome = corpus.attempt(SMALL[6], "broken")
    assert outcome.status == "crash" and "KeyError in test_quantize_corpus.py" in outcome.detail
