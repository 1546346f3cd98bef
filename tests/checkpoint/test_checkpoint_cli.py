"""Checkpoints on the command line: listing, JSON, notes, and torch only where it is needed."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import checkpoint_nets as nets
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modelkit import api
from modelkit.checkpoint.loading import Loading
from modelkit.checkpoint.tensors import Storage, TensorRef, check
from modelkit.cli.app import run
from modelkit.errors import ModelkitError, UnsafeError

Capsys = pytest.CaptureFixture[str]
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("form", ["state", "nested", "legacy", "safetensors"])
def test_weights_are_listed_without_an_architecture(form: str, capsys: Capsys) -> None:
    net = nets.make("Cnn")
    with torch.no_grad():
        net.head.weight[:, :3] = 0
    path = nets.save(net, form, Path("w.onnx"))
    assert run(["inspect", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == "modelkit.state/1" and found["kind"] == (
        "safetensors" if form == "safetensors" else "state dict"
    )
    assert found["state_dict"] == ("model_state_dict" if form == "nested" else "")
    tensors = {entry["name"].removeprefix("module."): entry for entry in found["tensors"]}
    state = dict(net.state_dict())
    assert set(tensors) == set(state)
    for key, value in state.items():
        entry = tensors[key]
        assert entry["shape"] == list(value.shape) and f"torch.{entry['dtype']}" == str(value.dtype)
        assert entry["bytes"] == value.numel() * value.element_size()
        assert entry["zeros"] == pytest.approx(float((value == 0).float().mean()))
    assert tensors["head.weight"]["zeros"] == 0.5
    assert found["parameters"] == sum(value.numel() for value in state.values())
    assert run(["inspect", str(path), "--layers", "2"]) == 0
    out = capsys.readouterr().out
    assert "The 2 largest of" in out and "--arch and --input show the graph" in out


def test_listing_and_onnx_never_import_torch() -> None:
    for form in ("state", "legacy", "safetensors"):
        nets.save(nets.make("Mlp"), form, Path(form))
    sample = ROOT / "sample_models" / "digits_mlp.onnx"
    code = (
        "import sys\nfrom modelkit.cli.app import run\n"
        "assert all(run(['inspect', name, '--json']) == 0 for name in sys.argv[1:])\n"
        "quick = ['--set', 'measure.seconds=0.01']\n"
        "assert run(['prune', sys.argv[-1], '--sparsity', '0.5', '-o', 'x.onnx', *quick]) == 0\n"
        "assert not {'torch', 'safetensors.torch'} & set(sys.modules)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code, "state", "legacy", "safetensors", str(sample)],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_evaluate_compares_a_checkpoint_with_an_onnx_file(capsys: Capsys) -> None:
    nets.save(nets.make("Mlp"), "safetensors", Path("m.safetensors"))
    given_ = ["--arch", "checkpoint_nets:Mlp", "--input", "1x16"]
    assert run(["quantize", "m.safetensors", *given_, "--mode", "weights", "--set", "measure.seconds=0.001"]) == 0
    report = json.loads(Path("m.int8.report.json").read_text())
    assert report["before"]["file"]["name"] == "m.safetensors"
    assert any("checkpoint_nets:Mlp" in note for note in report["notes"])
    capsys.readouterr()
    assert run(["evaluate", "m.safetensors", "m.int8.onnx", *given_, "--seconds", "0.01", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [model["name"] for model in found["models"]] == ["m.safetensors", "m.int8.onnx"]
    assert found["models"][1]["fidelity"]["top1_agreement"] > 0.9
    assert run(["evaluate", "m.int8.onnx", *given_]) == 2
    assert "is for checkpoints" in capsys.readouterr().err


def test_trust_is_in_the_report_and_the_exporter_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    nets.save(nets.make("Mlp"), "module", Path("m.pt"))
    capfd.readouterr()
    assert (
        run(
            [
                "prune",
                "m.pt",
                "--trust",
                "--input",
                "1x16",
                "--sparsity",
                "0.5",
                "-q",
                "--set",
                "measure.seconds=0.001",
            ]
        )
        == 0
    )
    assert capfd.readouterr() == ("", "")
    assert any("--trust was given" in note for note in json.loads(Path("m.pruned.report.json").read_text())["notes"])
    assert not Path("m.pruned.pt").exists()


def test_the_library_takes_the_same(tmp_path: Path) -> None:
    path = nets.save(nets.make("Mlp"), "state", tmp_path / "m.pt")
    found = api.inspect(path, loading=Loading("checkpoint_nets:Mlp", ("1x16",)))
    assert found["facts"]["parameters"] == sum(p.numel() for p in nets.make("Mlp").parameters())
    with pytest.raises(ModelkitError, match="no architecture"):
        api.quantize(path)


@given(
    shape=st.lists(st.integers(0, 4), max_size=4).map(tuple),
    steps=st.lists(st.integers(-1, 12), min_size=4, max_size=4),
    offset=st.integers(0, 3),
    count=st.integers(0, 60),
)
@settings(max_examples=400, deadline=None)
def test_what_is_accepted_lies_inside_and_repeats_nothing(
    shape: tuple[int, ...], steps: list[int], offset: int, count: int
) -> None:
    ref = TensorRef(Storage("0", "float32", count), "float32", offset, shape, tuple(steps[: len(shape)]))
    try:
        check(ref, "w")
    except UnsafeError:
        return
    places = [offset + int(np.dot(index, ref.strides)) for index in np.ndindex(*shape)] if math.prod(shape) else []
    assert len(set(places)) == len(places) and all(0 <= place < count for place in places)


@given(shape=st.lists(st.integers(1, 5), max_size=4), order=st.randoms(use_true_random=False))
@settings(max_examples=200, deadline=None)
def test_contiguous_and_permuted_tensors_are_accepted(shape: list[int], order: object) -> None:
    axes = list(range(len(shape)))
    order.shuffle(axes)  # type: ignore[attr-defined]
    tensor = torch.zeros(shape).permute(axes)
    ref = TensorRef(Storage("0", "float32", tensor.numel()), "float32", 0, tuple(tensor.shape), tensor.stride())
    check(ref, "w")
