"""`modelkit compare`, and limits on `modelkit evaluate`: a build fails for a regression and not for noise."""

from __future__ import annotations

import json
from pathlib import Path

import cli_schemas as schemas
import jsonschema
import numpy as np
import onnx
import pytest
from cli_models import QUICK, Ran, cli, listing, mlp, samples

from modelkit import api
from modelkit.errors import BudgetError

Capsys = pytest.CaptureFixture[str]
CALM = ("--max-slowdown", "1000%")  # nothing may hang on times that short


def compare(capsys: Capsys, *argv: object) -> Ran:
    return cli(capsys, "compare", *argv, *QUICK)


def changed(name: str = "n.onnx", *, noise: float = 0.0, bias: float = 0.0) -> Path:
    """Write `mlp` with other weights."""
    model = onnx.load(mlp(name))
    for tensor in model.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        random = np.random.default_rng(3).standard_normal(array.shape)
        moved = array + noise * random + (bias if tensor.name == "b1" else 0.0)
        tensor.CopyFrom(onnx.numpy_helper.from_array(moved.astype("f4"), tensor.name))
    onnx.save(model, name)
    return Path(name)


def truth() -> Path:
    """Write samples with the labels that `mlp` itself gives: it is right about all of them."""
    import onnxruntime as ort

    x = np.random.default_rng(5).standard_normal((64, 16)).astype("f4")
    labels = ort.InferenceSession("m.onnx").run(None, {"x": x})[0].argmax(axis=1)
    np.savez("d.npz", x=x, labels=labels)
    return Path("d.npz")


def test_a_model_that_is_as_good_passes(capsys: Capsys, folder: Path) -> None:
    mlp()
    changed(noise=1e-6)
    truth()
    before = listing(folder)
    ran = compare(capsys, "m.onnx", "n.onnx", "--data", "d.npz", *CALM, "--max-drop", "0%")
    assert ran.code == 0, ran.err
    assert ran.err == "" and listing(folder) == before
    assert ran.out.count(" met") == 3 and "missed" not in ran.out


def test_a_worse_model_fails_with_a_line_for_each_gate(capsys: Capsys) -> None:
    mlp()
    changed(noise=0.5)
    truth()
    limits = ("--max-drop", "1%", "--min-agreement", "99%", "--min-sqnr", "30", "--min-ratio", "1.5x", *CALM)
    ran = compare(capsys, "m.onnx", "n.onnx", "--data", "d.npz", *limits)
    head, *lines = ran.err.splitlines()
    assert ran.code == 1 and head == "error: 4 gates are missed"
    assert [line.split("n.onnx: ")[1].split(" (asked")[0].rstrip("0123456789.-%x dB") for line in lines] == [
        "drop in accuracy",
        "smaller by",
        "same predictions",
        "output SQNR",
    ]
    assert "(asked ≥ 1.50x, 0.50x short)" in lines[1]
    assert ran.out.count("missed: ") == 4


def test_without_limits_safe_ones_hold(capsys: Capsys) -> None:
    mlp()
    changed(noise=0.5)
    samples(labels=False)
    truth()
    hint = "hint: no limit was set, so safe ones hold: set your own"
    for argv, gate in (
        (["--data", "d.npz"], "drop in accuracy"),
        ([], "output SQNR"),
    ):
        ran = compare(capsys, "m.onnx", "n.onnx", *argv)
        assert ran.code == 1 and gate in ran.err
        assert ran.err.splitlines()[-1] == hint
    np.savez("u.npz", x=np.load("d.npz")["x"])
    ran = compare(capsys, "m.onnx", "n.onnx", "--data", "u.npz")
    assert ran.code == 1 and "changed predictions" in ran.err


def test_growth_is_counted_with_external_data(capsys: Capsys) -> None:
    mlp()
    model = onnx.load(mlp("n.onnx", sizes=(16, 256, 10)))
    onnx.save_model(model, "n.onnx", save_as_external_data=True, location="n.bin", size_threshold=0)
    assert Path("n.onnx").stat().st_size < Path("m.onnx").stat().st_size
    ran = compare(capsys, "m.onnx", "n.onnx", "--max-size-growth", "50%")
    assert ran.code == 1 and "size growth" in ran.err and "(asked ≤ 50.00 %, " in ran.err


def test_outputs_that_break_are_always_a_miss(capsys: Capsys) -> None:
    mlp()
    changed(bias=np.nan)
    samples()
    ran = compare(capsys, "m.onnx", "n.onnx", "--data", "d.npz", "--min-ratio", "0.1x")
    assert ran.code == 1
    assert ran.err.endswith(
        "error: a gate is missed: n.onnx: broken outputs 640 became infinite or NaN (asked none)\n"
    )


def test_json_holds_the_gates(capsys: Capsys) -> None:
    mlp()
    changed(noise=0.5)
    ran = compare(capsys, "m.onnx", "n.onnx", "--json", "--min-ratio", "2x")
    found = json.loads(ran.out)
    jsonschema.validate(found, schemas.COMPARISON)
    assert ran.code == 1 and found["status"] == "budget not met"
    old, new = found["models"]
    assert old["gates"] == []
    assert [(gate["option"], gate["ok"]) for gate in new["gates"]] == [("min_ratio", False), ("finite_outputs", True)]
    assert new["gates"][0]["by"] == "1.00x short"
    assert found["origins"]["budget.min_ratio"] == "--min-ratio"


def test_the_library_raises_with_the_figures() -> None:
    mlp()
    changed(noise=0.5)
    config = {"measure.seconds": 0.001, "budget.max_slowdown": 10}
    assert api.compare("m.onnx", "n.onnx", config=config)["status"] == "done"
    with pytest.raises(BudgetError, match=r"a gate is missed: n\.onnx: smaller by 1\.00x") as missed:
        api.compare("m.onnx", "n.onnx", config={**config, "budget.min_ratio": 2})
    assert missed.value.report["models"][1]["name"] == "n.onnx"


def test_limits_on_several_models(capsys: Capsys) -> None:
    mlp()
    mlp("small.onnx", sizes=(16, 8, 10))
    changed("n.onnx")
    argv = ("evaluate", "m.onnx", "small.onnx", "n.onnx", *QUICK)
    assert cli(capsys, *argv).code == 0
    ran = cli(capsys, *argv, "--min-ratio", "2x")
    assert ran.code == 1
    assert ran.err == "error: a gate is missed: n.onnx: smaller by 1.00x (asked ≥ 2.00x, 1.00x short)\n"
    assert "Gates: small.onnx" in ran.out and "Gates: n.onnx" in ran.out


def test_limits_on_one_model(capsys: Capsys) -> None:
    mlp()
    ran = cli(capsys, "evaluate", "m.onnx", "--max-latency", "1us", *QUICK)
    assert ran.code == 1 and ran.err.startswith("error: a gate is missed: m.onnx: latency ")
    assert cli(capsys, "evaluate", "m.onnx", "--max-latency", "10s", *QUICK).code == 0
    for flag in ("--max-drop", "--min-ratio", "--min-speedup"):
        ran = cli(capsys, "evaluate", "m.onnx", flag, "1", *QUICK)
        assert (ran.code, ran.out) == (2, "")
        assert ran.err.splitlines() == [
            f"error: {flag} needs a model to compare with, and one is named",
            "hint: name the reference first",
        ]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["m.onnx"], "error: Missing argument 'NEW'"),
        (["m.onnx", "m.onnx"], "error: the same model is named twice"),
        (["m.onnx", "none.onnx"], "error: 'none.onnx' does not exist"),
        (["m.onnx", "w.onnx"], "error: the models do not take the same inputs"),
        (["m.onnx", "n.onnx", "--max-slowdown", "lots"], "error: --max-slowdown: 'lots' is not a share"),
        (["m.onnx", "n.onnx", "--min-agreement", "2"], "error: --min-agreement:"),
        (["m.onnx", "n.onnx", "--min-sqnr", "loud"], "error: --min-sqnr:"),
        (["m.onnx", "n.onnx", "--max-size-growth", "-2"], "error: --max-size-growth:"),
        (["m.onnx", "n.onnx", "--set", "budget.max_dorp=1"], "error: --set budget.max_dorp=1:"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_compared(capsys: Capsys, argv: list[str], said: str) -> None:
    mlp()
    mlp("n.onnx")
    mlp("w.onnx", sizes=(8, 10))
    ran = compare(capsys, *argv)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(said), ran.err
