"""Architectures: what is counted before, what is built, what onnxruntime and the trainable graph compute."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modelkit.architectures.build import build, cost, parse, read
from modelkit.architectures.config import CellOp, CnnOp
from modelkit.architectures.signature import Signature, spread
from modelkit.errors import ConfigError, ModelError, UsageError
from modelkit.graph.facts import describe
from modelkit.graph.normalise import normalise
from modelkit.graph.run import session_of
from modelkit.graph.save import save
from modelkit.train.module import to_torch

IMAGE = Signature((1, 8, 8), 10, mean=(4.0,), scale=(0.2,))
ROW = Signature((16,), 3, mean=(0.5,) * 16, scale=(2.0,) * 16)
TOKENS = Signature((12,), 4, tokens=True, vocabulary=30)
CASES = [
    (ROW, {"family": "mlp", "dropout": 0.1, "layers": [{"width": 8}, {"width": 0}, {"width": 5}]}),
    (IMAGE, {"family": "mlp", "activation": "silu"}),
    (ROW, {"family": "cnn", "image": [1, 4, 4], "activation": "relu6", "pool": "flatten", "head": 6}),
    (ROW, {"family": "transformer", "layers": 1, "width": 8, "heads": 2}),
    (IMAGE, {"family": "transformer", "layers": 1, "width": 8, "heads": 2, "patch": 4}),
    (TOKENS, {"family": "transformer", "pool": "first", "activation": "relu"}),
    (Signature((6, 5), 1, vector=True), {"family": "transformer", "width": 8, "heads": 1}),
]


def rows(signature: Signature, count: int = 3) -> np.ndarray:
    rng = np.random.default_rng(0)
    if signature.tokens:
        return rng.integers(0, signature.vocabulary, (count, *signature.shape))
    return rng.normal(size=(count, *signature.shape)).astype(np.float32)


def check(signature: Signature, document: dict) -> None:
    """A network is valid ONNX, costs what was counted, and computes the same three times."""
    architecture = parse(document, "x")
    counted = cost(architecture, signature)
    model = build(architecture, signature, seed=3)
    facts = describe(model)
    assert (counted.parameters, counted.macs) == (facts.parameters, facts.macs)
    samples = rows(signature)
    before = session_of(model).run(None, {"input": samples})[0]
    assert before.shape == ((3,) if signature.vector else (3, signature.outputs))
    assert np.isfinite(before).all()
    module = to_torch(model).eval()
    found = module({"input": torch.from_numpy(samples)})["output"].detach().numpy()
    np.testing.assert_allclose(found, before, atol=2e-4, rtol=1e-4)
    normalise(model)
    after = session_of(model).run(None, {"input": samples})[0]
    np.testing.assert_allclose(after, before, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize(("signature", "document"), CASES)
def test_families(signature: Signature, document: dict) -> None:
    check(signature, document)


stage = st.fixed_dictionaries(
    {
        "op": st.sampled_from(CnnOp.__args__),
        "depth": st.integers(0, 2),
        "width": st.integers(1, 9),
        "kernel": st.sampled_from([1, 3, 5]),
        "stride": st.integers(1, 2),
        "expand": st.sampled_from([0.5, 1.0, 3.0]),
        "residual": st.booleans(),
        "squeeze": st.sampled_from([0, 0.25]),
    }
)


@settings(max_examples=12, deadline=None)
@given(st.lists(stage, min_size=1, max_size=3))
def test_any_stages(stages: list[dict]) -> None:
    check(IMAGE, {"family": "cnn", "stem": {"width": 5}, "stages": stages})


@settings(max_examples=12, deadline=None)
@given(st.lists(st.sampled_from(CellOp.__args__), min_size=6, max_size=6))
def test_any_cell(ops: list[str]) -> None:
    edges = dict(zip(("0-1", "0-2", "1-2", "0-3", "1-3", "2-3"), ops, strict=True))
    document = {"family": "cell", "width": 4, "stages": 1, "edges": edges}
    if edges["0-3"] == "none" and not any(
        all(edges[edge] != "none" for edge in path)
        for path in (("0-1", "1-3"), ("0-2", "2-3"), ("0-1", "1-2", "2-3"))
    ):
        with pytest.raises(ModelError, match="no path leads through the cell"):
            build(parse(document, "x"), IMAGE)
        return
    check(IMAGE, document)


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    for number, seed in enumerate((1, 1, 2)):
        save(build(parse({"family": "mlp"}, "x"), ROW, seed=seed), tmp_path / f"{number}.onnx")
    first, second, third = ((tmp_path / f"{n}.onnx").read_bytes() for n in range(3))
    assert first == second != third
    onnx.checker.check_model(str(tmp_path / "0.onnx"), full_check=True)


def test_spread_of_images_is_by_channel() -> None:
    images = np.zeros((50, 2, 3, 3), np.float32)
    images[:, 0] = np.random.default_rng(0).normal(5, 2, (50, 3, 3))
    mean, scale = spread(images)
    assert len(mean) == 2 and abs(mean[0] - 5) < 0.5 and abs(scale[0] - 0.5) < 0.1 and scale[1] == 1


@pytest.mark.parametrize(
    ("document", "signature", "message"),
    [
        ({"family": "cnn"}, ROW, "a cnn reads images [channels, height, width], and a sample of 'input' is 16"),
        (
            {"family": "cnn", "image": [1, 5, 5]},
            ROW,
            "image [1, 5, 5] has 25 numbers, and a sample of 'input' has 16",
        ),
        ({"family": "mlp"}, TOKENS, "an mlp reads numbers, and 'input' holds tokens"),
        ({"family": "transformer", "patch": 9}, IMAGE, "a patch of 9 pixels is larger than the image of 8 x 8"),
    ],
)
def test_what_does_not_fit_the_samples(document: dict, signature: Signature, message: str) -> None:
    with pytest.raises(ModelError) as caught:
        build(parse(document, "x"), signature)
    assert caught.value.message == message


def test_wrong_yaml(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("family: cnn\nstages: [{op: convv, kernel: 4}]\n")
    with pytest.raises(ConfigError) as caught:
        read(path)
    assert any("convv" in line for line in caught.value.problems)
    path.write_text("family: resnet\n")
    with pytest.raises(UsageError, match="is no architecture: it needs family, one of mlp, cnn, transformer, cell"):
        read(path)
    with pytest.raises(ConfigError) as caught:
        parse({"family": "transformer", "width": 10, "heads": 4}, "student")
    assert "width 10 cannot be divided among 4 heads" in caught.value.problems[0]
    with pytest.raises(ConfigError) as caught:
        parse({"family": "cell", "edges": {"2-1": "skip"}}, "student")
    assert "edge '2-1' must be FROM-TO with FROM below TO" in caught.value.problems[0]
