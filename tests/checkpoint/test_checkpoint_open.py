"""Checkpoints of every form become ONNX files that compute the same, with parameters called as they were."""

from __future__ import annotations

from pathlib import Path

import checkpoint_nets as nets
import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from modelkit.checkpoint.loading import Loading
from modelkit.checkpoint.open import open_source
from modelkit.errors import ModelError, UnsafeError, UsageError

TRUSTED = ("module", "script")


def loading(name: str, form: str) -> Loading:
    """What each form needs, and no more."""
    if form == "pt2":
        return Loading()
    arch = None if form in TRUSTED else f"checkpoint_nets:{name}"
    inputs = nets.INPUTS[name]
    if form == "script":
        inputs = tuple(text.rpartition("=")[2] for text in inputs)
    return Loading(arch, inputs, form in TRUSTED)


def outputs(onnx_path: Path, feeds: tuple[torch.Tensor, ...]) -> list[np.ndarray]:
    session = ort.InferenceSession(onnx_path)
    names = [arg.name for arg in session.get_inputs()]
    return session.run(None, dict(zip(names, (x.numpy() for x in feeds), strict=True)))


def expected(net: torch.nn.Module, feeds: tuple[torch.Tensor, ...]) -> list[np.ndarray]:
    with torch.no_grad():
        found = net(*feeds)
    return [each.numpy() for each in (found if isinstance(found, tuple) else (found,))]


CASES = [
    *(("Cnn", form) for form in ("state", "nested", "legacy", "safetensors", "module", "script", "pt2")),
    *(("Texts", form) for form in ("state", "pt2")),
    *(("Two", form) for form in ("safetensors", "script")),
]


@pytest.mark.parametrize(("name", "form"), CASES)
def test_every_form_computes_the_same_with_any_batch(name: str, form: str, folder: Path) -> None:
    net = nets.make(name)
    # The ending never counts.
    path = nets.save(net, form, folder / "weights.bin")
    with open_source(path, loading(name, form)) as source:
        for batch in (1, 5):
            feeds = nets.feeds(name, batch)
            for a, b in zip(outputs(source.onnx, feeds), expected(net, feeds), strict=True):
                np.testing.assert_allclose(a, b, atol=1e-5)
        names = {init.name for init in onnx.load(source.onnx).graph.initializer}
        assert any("trust" in note for note in source.notes) == (form in TRUSTED)
        assert (source.container is not None) == (form in ("state", "nested", "legacy", "safetensors"))
        kept = source.onnx
    assert not kept.exists()
    state = dict(net.state_dict())
    if form != "script" and name == "Cnn":
        assert {key for key in state if "num_batches" not in key} <= names


def test_nothing_of_the_machine_is_in_the_graph(folder: Path) -> None:
    path = nets.save(nets.make("Cnn"), "state", folder / "w.pt")
    with open_source(path, loading("Cnn", "state")) as source:
        content = source.onnx.read_bytes()
    assert (
        str(folder).encode() not in content and b"site-packages" not in content and b"checkpoint_nets" not in content
    )


def test_an_onnx_file_is_passed_on(folder: Path) -> None:
    path = folder / "x.pt"
    path.write_bytes((Path(__file__).parents[2] / "sample_models" / "digits_mlp.onnx").read_bytes())
    with open_source(path) as source:
        assert source.onnx == path and source.container is None and not source.notes
    for given in (Loading(arch="a:b"), Loading(inputs=("1x3",))):
        with pytest.raises(UsageError, match="is for checkpoints"), open_source(path, given):
            pass


@pytest.mark.parametrize("form", ["state", "safetensors", "legacy"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_types_are_cast_to_the_module(form: str, dtype: torch.dtype, folder: Path) -> None:
    net = nets.make("Mlp").to(dtype)
    path = nets.save(net, form, folder / "w")
    with open_source(path, loading("Mlp", form)) as source:
        feeds = nets.feeds("Mlp")
        for a, b in zip(outputs(source.onnx, feeds), expected(net.float(), feeds), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)


def test_tensors_saved_on_a_gpu_are_read_on_the_cpu(folder: Path) -> None:
    """The same file as a GPU writes, but for the name of the place."""
    import zipfile

    path = nets.save(nets.make("Mlp"), "state", folder / "w.pt")
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(folder / "cuda.pt", "w") as copy:
        for info in archive.infolist():
            content = archive.read(info)
            if info.filename.endswith("data.pkl"):
                assert b"X\x03\x00\x00\x00cpu" in content
                content = content.replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0")
            copy.writestr(info.filename, content)
    with open_source(folder / "cuda.pt", loading("Mlp", "state")) as source:
        assert len(outputs(source.onnx, nets.feeds("Mlp"))) == 1


def test_a_compiled_and_wrapped_state_dict_fits(folder: Path) -> None:
    net = nets.make("Cnn")
    renamed = {f"_orig_mod.module.{key}": value for key, value in net.state_dict().items()}
    torch.save({"model": renamed, "ema": dict(net.state_dict())}, folder / "w.pt")
    with open_source(folder / "w.pt", loading("Cnn", "state")) as source:
        assert source.container is not None
        assert source.container.place.path == ("model",) and source.container.place.others == ["ema"]
        assert any("'model'" in note for note in source.notes)


def test_tied_weights_may_be_stored_once(folder: Path) -> None:
    net = nets.make("Two")
    path = nets.save(net, "safetensors", folder / "w")
    from safetensors import safe_open

    with safe_open(path, "np") as file:
        assert len(set(file.keys()) & {"left.weight", "right.weight"}) == 1
    with open_source(path, loading("Two", "safetensors")) as source:
        feeds = nets.feeds("Two")
        np.testing.assert_allclose(outputs(source.onnx, feeds)[0], expected(net, feeds)[0], atol=1e-5)


def test_a_fixed_batch_stays_fixed(folder: Path) -> None:
    path = nets.save(nets.make("Fixed"), "state", folder / "w.pt")
    with open_source(path, Loading("checkpoint_nets:Fixed", ("2x4:float32:fixed",))) as source:
        assert ort.InferenceSession(source.onnx).get_inputs()[0].shape == [2, 4]
    with (
        pytest.raises(ModelError, match=r"batch|cannot be exported|does not run") as caught,
        open_source(path, Loading("checkpoint_nets:Fixed", ("2x4",))),
    ):
        pass
    assert ":fixed" in (caught.value.hint or "")


WRONG = [
    ("checkpoint_nets:Gone", UsageError, "has no 'Gone'", None),
    ("checkpoint_nets:Cmn", UsageError, "has no 'Cmn'", "Cnn"),
    ("no_such_module_here:make", UsageError, "no module 'no_such_module_here'", "folder"),
    ("checkpoint_nets.sub:make", UsageError, "there is no module 'checkpoint_nets.sub'|importing it failed", None),
    ("checkpoint_nets", UsageError, "is not package.module:factory", None),
    ("os.path:..", UsageError, "is not package.module:factory", None),
    ("checkpoint_nets:not_callable", UsageError, "is a str, which cannot be called", None),
    ("checkpoint_nets:number", UsageError, "returned a int, not a torch.nn.Module", None),
    ("checkpoint_nets:needs_width", UsageError, r"failed: TypeError: .*width", None),
    (
        "checkpoint_nets:broken",
        UsageError,
        r"failed: ValueError: no such width: -1 \(checkpoint_nets.py:\d+: raise",
        None,
    ),
    ("bad_syntax:make", UsageError, r"importing it failed: SyntaxError.*bad_syntax.py:1", None),
    ("raises:make", UsageError, r"importing it failed: RuntimeError: no licence \(raises.py:1", None),
    ("checkpoint_nets:Texts", ModelError, "missing: .*unexpected: ", "the factory that made this file"),
]


@pytest.mark.parametrize(("arch", "kind", "message", "hint"), WRONG, ids=lambda value: str(value)[:30])
def test_factories_that_do_not_work(arch: str, kind: type, message: str, hint: str | None, folder: Path) -> None:
    (folder / "bad_syntax.py").write_text("def make(:\n")
    (folder / "raises.py").write_text("raise RuntimeError('no licence')\n")
    path = nets.save(nets.make("Mlp"), "state", folder / "w.pt")
    with pytest.raises(kind, match=message) as caught, open_source(path, Loading(arch, ("1x16",))):
        pass
    assert "\n" not in caught.value.message
    assert hint is None or hint in (caught.value.hint or "")


def test_keys_that_do_not_fit_are_listed_all_at_once(folder: Path) -> None:
    state = dict(nets.make("Mlp").state_dict())
    state["0.weight"] = torch.zeros(32, 15)
    state["extra.weight"] = state.pop("2.bias")
    torch.save(state, folder / "w.pt")
    with pytest.raises(ModelError) as caught, open_source(folder / "w.pt", Loading("checkpoint_nets:Mlp", ("1x16",))):
        pass
    for part in (
        "1 missing: 2.bias",
        "1 unexpected: extra.weight",
        "0.weight (32x15 in the file, 32x16 in the module)",
    ):
        assert part in caught.value.message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("3x32y32", "is no shape"),
        ("", "is no shape"),
        ("1x-3", "is no shape"),
        ("1x0x3", "is not possible"),
        ("1x99999x99999x99999", "is not possible"),
        ("1x3:float33", "is no type"),
        ("1x3:float32:dynamic", "too many parts"),
        ("1x3:fixed:fixed", "too many parts"),
        ("a b=1x3", "is not the name of a parameter"),
        ("1x15", "does not run on inputs of shape 2x15: RuntimeError"),
        ("1x16:int64", "does not run on inputs"),
        ("nope=1x16", "does not run on inputs of shape 2x16: TypeError"),
    ],
)
def test_inputs_that_do_not_fit(text: str, message: str, folder: Path) -> None:
    path = nets.save(nets.make("Mlp"), "state", folder / "w.pt")
    with (
        pytest.raises((UsageError, ModelError), match=message) as caught,
        open_source(path, Loading("checkpoint_nets:Mlp", (text,))),
    ):
        pass
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("form", "given", "kind", "message"),
    [
        ("state", Loading(), UsageError, "no architecture"),
        ("safetensors", Loading(), UsageError, "no architecture"),
        ("state", Loading("checkpoint_nets:Mlp"), UsageError, "--input is missing"),
        ("module", Loading(inputs=("1x16",)), UnsafeError, r"whole pickled object \(checkpoint_nets.Mlp\)"),
        ("module", Loading(trust=True), UsageError, "--input is missing"),
        ("module", Loading("checkpoint_nets:Mlp", ("1x16",), True), UsageError, "--arch is for state dicts"),
        ("script", Loading(inputs=("1x16",)), UnsafeError, "is TorchScript"),
        ("script", Loading(trust=True), UsageError, "--input is missing"),
        ("pt2", Loading(inputs=("1x16",)), UsageError, "brings its own graph"),
        ("pt2", Loading("checkpoint_nets:Mlp"), UsageError, "brings its own graph"),
    ],
)
def test_what_is_missing_or_too_much(form: str, given: Loading, kind: type, message: str, folder: Path) -> None:
    path = nets.save(nets.make("Mlp"), form, folder / "w.pt")
    with pytest.raises(kind, match=message), open_source(path, given):
        pass


@pytest.mark.parametrize("form", ["state", "legacy", "safetensors", "script", "pt2"])
@pytest.mark.parametrize("part", [0.05, 0.5, 0.97])
def test_truncated_files(form: str, part: float, folder: Path) -> None:
    whole = nets.save(nets.make("Mlp"), form, folder / "w.pt").read_bytes()
    path = folder / "cut.pt"
    path.write_bytes(whole[: int(len(whole) * part)])
    given = Loading("checkpoint_nets:Mlp", ("1x16",)) if form not in ("script", "pt2") else Loading()
    with pytest.raises(ModelError, match=r"truncated|damaged|cut off|no data.pkl"), open_source(path, given):
        pass


@pytest.mark.parametrize(
    "saved",
    [{}, {"epoch": 3}, [1, 2], {"a": {"b": {}}}, torch.ones(3), {"optimizer": {"x": torch.ones(2)}}],
    ids=str,
)
def test_no_state_dict_in_the_file(saved: object, folder: Path) -> None:
    torch.save(saved, folder / "w.pt")
    with (
        pytest.raises(ModelError, match="holds no state dict"),
        open_source(folder / "w.pt", Loading("checkpoint_nets:Mlp", ("1x16",))),
    ):
        pass


def test_several_dictionaries_without_a_telling_name(folder: Path) -> None:
    state = nets.make("Mlp").state_dict()
    torch.save({"left": dict(state), "right": dict(state)}, folder / "w.pt")
    with (
        pytest.raises(ModelError, match=r"several dictionaries of tensors \('left', 'right'\)"),
        open_source(folder / "w.pt", Loading("checkpoint_nets:Mlp", ("1x16",))),
    ):
        pass


def test_other_objects_beside_the_tensors_take_trust(folder: Path) -> None:
    import argparse

    saved = {"state_dict": nets.make("Mlp").state_dict(), "args": argparse.Namespace(lr=0.1)}
    torch.save(saved, folder / "w.pt")
    with (
        pytest.raises(UnsafeError, match=r"more than tensors \(argparse.Namespace\)"),
        open_source(folder / "w.pt", Loading("checkpoint_nets:Mlp", ("1x16",))),
    ):
        pass
    with open_source(folder / "w.pt", Loading("checkpoint_nets:Mlp", ("1x16",), True)) as source:
        assert any("--trust" in note for note in source.notes)
