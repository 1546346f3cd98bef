"""Every model of onnx's own test suite that onnxruntime can run survives load, normalise, save, reload."""

from __future__ import annotations

import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx.backend.test
import pytest
from onnx import numpy_helper

from modelkit.errors import ModelError, ModelkitError
from modelkit.graph.facts import describe
from modelkit.graph.load import load
from modelkit.graph.normalise import normalise
from modelkit.graph.save import save
from modelkit.runtime import make_session

DATA = Path(onnx.backend.test.__file__).parent / "data"
FOLDERS = sorted(p.parent for p in DATA.glob("*/*/model.onnx"))
# Of the operator tests each fortieth, and all of these, which cleaning touches.
TOUCHED = (
    "batchnorm",
    "dropout",
    "identity",
    "if_",
    "loop",
    "scan",
    "constant",
    "transpose",
    "reshape",
    "sequence",
)


def stored(path: Path, declared: onnx.TypeProto) -> object:
    content = path.read_bytes()
    if declared.WhichOneof("value") == "sequence_type":
        sequence = onnx.SequenceProto()
        sequence.ParseFromString(content)
        return numpy_helper.to_list(sequence)
    tensor = onnx.TensorProto()
    tensor.ParseFromString(content)
    return numpy_helper.to_array(tensor)


def agree(a: object, b: object) -> None:
    if isinstance(a, list):
        assert isinstance(b, list)
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            agree(x, y)
    elif a is None or np.asarray(a).dtype.kind in "OSU":
        assert np.array_equal(a, b)  # type: ignore[arg-type]
    else:
        left, right = np.asarray(a), np.asarray(b)
        assert left.shape == right.shape
        largest = float(np.abs(np.nan_to_num(left.astype(np.float64), posinf=0, neginf=0)).max(initial=0))
        np.testing.assert_allclose(right.astype(np.float64), left.astype(np.float64), 1e-3, 1e-5 * max(1, largest))


def clean(path: Path, out: Path) -> Path:
    loaded = load(path)
    describe(loaded.model)
    normalise(loaded.model)
    describe(loaded.model)
    save(loaded.model, out)
    load(out)
    return out


def outcome(path: Path, sets: list[tuple[list, list | None]], out: Path) -> str:
    """Clean a model and compare it with the original and with the stored outputs."""
    try:
        before = make_session(path)
    except ModelkitError:
        clean(path, out)
        return "onnxruntime cannot load it"
    after = make_session(clean(path, out))
    assert [v.name for v in after.get_outputs()] == [v.name for v in before.get_outputs()]
    names = [v.name for v in before.get_inputs()]
    kept = {v.name for v in after.get_inputs()}
    compared = 0
    for inputs, outputs in sets:
        feeds = dict(zip(names, inputs, strict=False))
        try:
            expected = before.run(None, feeds)
        except Exception:
            continue
        found = after.run(None, {name: value for name, value in feeds.items() if name in kept})
        agree(expected, found)
        compared += 1
        if outputs is not None:
            agree(outputs, found)
    return "same" if compared else "onnxruntime cannot run it"


def test_stored_models(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    counts: Counter[str] = Counter()
    for folder in FOLDERS:
        graph = onnx.load(folder / "model.onnx").graph
        sets = []
        for data in sorted(folder.glob("test_data_set_*")):
            inputs, outputs = (
                [
                    stored(data / f"{kind}_{i}.pb", declared.type)
                    for i, declared in enumerate(entries)
                    if (data / f"{kind}_{i}.pb").exists()
                ]
                for kind, entries in (("input", graph.input), ("output", graph.output))
            )
            sets.append((inputs, outputs if folder.parent.name != "simple" else None))
        counts[outcome(folder / "model.onnx", sets, tmp_path / "out.onnx")] += 1
    with capsys.disabled():
        print(f"\nstored models: {dict(sorted(counts.items()))}")
    assert counts["same"] >= 100


@pytest.mark.parametrize("name", ["densenet121", "inception_v2", "shufflenet", "squeezenet", "resnet50"])
def test_light_models(tmp_path: Path, name: str) -> None:
    """Well-known nets whose weights are made by ConstantOfShape: they stay a few kilobytes."""
    path = DATA / "light" / f"light_{name}.onnx"
    loaded = load(path)
    normalise(loaded.model)
    save(loaded.model, tmp_path / "out.onnx")
    assert (tmp_path / "out.onnx").stat().st_size < 1.25 * path.stat().st_size
    # The stored weights are listed as inputs or made by nodes: the runtime has to agree that all is in place.
    assert [v.name for v in make_session(tmp_path / "out.onnx").get_outputs()] == [
        v.name for v in loaded.model.graph.outputs
    ]


def test_operators(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from onnx.backend.test.case.node import collect_testcases

    counts: Counter[str] = Counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = collect_testcases(None)
    for number, case in enumerate(sorted(cases, key=lambda c: c.name)):
        if (number % 40 and not any(word in case.name for word in TOUCHED)) or "expanded" in case.name:
            continue
        path = tmp_path / "case.onnx"
        path.write_bytes(case.model.SerializeToString())
        try:
            counts[outcome(path, [(inputs, None) for inputs, _ in case.data_sets], tmp_path / "out.onnx")] += 1
        except ModelError as error:
            raise AssertionError(f"{case.name}: {error}") from error
    with capsys.disabled():
        print(f"\noperator models: {dict(sorted(counts.items()))}")
    assert counts["same"] >= 90
