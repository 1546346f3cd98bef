"""What is pruned in the graph is pruned in the state dict, key by key, and nothing else changes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import checkpoint_nets as nets
import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch

from modelkit.checkpoint.container import Container, read
from modelkit.checkpoint.loading import Loading
from modelkit.checkpoint.open import open_source
from modelkit.checkpoint.write_back import write_back
from modelkit.cli.app import run
from modelkit.errors import ModelError
from modelkit.files import sniff
from modelkit.graph.load import load
from modelkit.graph.normalise import normalise
from modelkit.graph.save import save

FORMS = ("state", "nested", "legacy", "safetensors")


def state_of(path: Path) -> dict[str, torch.Tensor]:
    """The state dict in a file of any form, without prefixes."""
    if str(sniff(path)) == "safetensors":
        from safetensors.torch import load_file

        return dict(load_file(path))
    found = torch.load(path, weights_only=True)
    found = found.get("model_state_dict", found)
    return {key.removeprefix("module."): value for key, value in found.items()}


class Opened:
    """A checkpoint, and its graph before and after a change."""

    def __init__(self, name: str, path: Path, container: Container, before: ir.Model) -> None:
        self.name, self.path, self.container, self.before = name, path, container, before
        self.after = before.clone()

    def array(self, name: str) -> np.ndarray:
        tensor = self.after.graph.initializers[name].const_value
        assert tensor is not None
        return tensor.numpy().copy()

    def put(self, name: str, array: np.ndarray) -> None:
        value = self.after.graph.initializers[name]
        value.const_value = ir.tensor(array, name=name)
        value.shape = ir.Shape(array.shape)

    def write(self, **kept: Any) -> dict[str, Any]:
        return write_back(self.container, Path("out"), self.before, self.after, **kept)

    def agree(self) -> None:
        """The written state dict in its own class computes what the changed graph computes."""
        net = nets.make(self.name)
        missing, unexpected = net.load_state_dict(state_of(Path("out")), strict=False)
        assert not unexpected and all("right.weight" in key or "left.weight" in key for key in missing)
        save(self.after, Path("after.onnx"))
        feeds = nets.feeds(self.name)
        session = ort.InferenceSession("after.onnx")
        names = [arg.name for arg in session.get_inputs()]
        found = session.run(None, {n: x.numpy() for n, x in zip(names, feeds, strict=True)})
        with torch.no_grad():
            expected = net(*feeds)
        for a, b in zip(found, expected if isinstance(expected, tuple) else (expected,), strict=True):
            np.testing.assert_allclose(a, b.numpy(), atol=2e-5)


def opened(name: str, form: str, folder: Path, net: torch.nn.Module | None = None) -> Iterator[Opened]:
    path = nets.save(net or nets.make(name), form, folder / "given")
    with open_source(path, Loading(f"checkpoint_nets:{name}", nets.INPUTS[name])) as source:
        model = load(source.onnx).model
        normalise(model)
        assert source.container is not None
        yield Opened(name, path, source.container, model)


@pytest.fixture(params=FORMS)
def cnn(request: pytest.FixtureRequest, folder: Path) -> Iterator[Opened]:
    yield from opened("Cnn", request.param, folder)


@pytest.fixture
def state_cnn(folder: Path) -> Iterator[Opened]:
    yield from opened("Cnn", "state", folder)


def floats(model: ir.Model) -> list[str]:
    return [
        name
        for name, value in model.graph.initializers.items()
        if value.const_value is not None
        and value.const_value.dtype == ir.DataType.FLOAT
        and value.const_value.size > 2
    ]


def test_without_changes_every_number_is_the_same_byte(cnn: Opened) -> None:
    plan = cnn.write()
    assert plan["keys"] == {} and plan["unchanged"] == len(cnn.container.tensors)
    if cnn.container.kind == "safetensors":
        assert Path("out").read_bytes() == cnn.path.read_bytes()
        return
    before, after = torch.load(cnn.path, weights_only=True), torch.load("out", weights_only=True)
    assert list(before) == list(after) and type(before) is type(after)
    mine, theirs = state_of(cnn.path), state_of(Path("out"))
    assert list(mine) == list(theirs)
    for key, value in mine.items():
        assert value.dtype == theirs[key].dtype and value.numpy().tobytes() == theirs[key].numpy().tobytes()
    if "epoch" in before:
        assert (after["epoch"], after["name"], after["lr"]) == (3, "run", 0.1)
        assert torch.equal(after["optimizer"]["state"][0]["step"], torch.ones(2))
        assert before["model_state_dict"].keys() == after["model_state_dict"].keys()
    else:
        assert after._metadata == before._metadata  # the versions of the layers


def test_zeros_go_into_the_same_places(cnn: Opened) -> None:
    """BatchNorm is folded in the graph; in the state dict it stays as it is."""
    for name in floats(cnn.after):
        array = cnn.array(name)
        if array.ndim > 1:
            array[np.abs(array) < np.quantile(np.abs(array), 0.5)] = 0
            cnn.put(name, array)
    plan = cnn.write()
    cnn.agree()
    before, after = state_of(cnn.path), state_of(Path("out"))
    zeroed = {"stem.weight", "depth.weight", "up.weight", "head.weight"}
    assert {key.removeprefix("module.") for key in plan["keys"]} == zeroed
    for key, value in before.items():
        left = after[key] != 0
        # What is not zero is what it was, bit for bit.
        assert torch.equal(value[left], after[key][left])
        assert (key in zeroed) == (not torch.equal(value, after[key]))
    for entry in plan["keys"].values():
        assert entry["action"] == "zeroed" and 0.45 < entry["sparsity"] < 0.55
        assert entry["shape"] == entry["original_shape"]
    json.dumps(plan)


def test_new_weights_and_biases_are_taken_through_batchnorm(cnn: Opened) -> None:
    generator = np.random.default_rng(0)
    for name in floats(cnn.after):
        array = cnn.array(name)
        cnn.put(name, (array + generator.normal(0, 0.1, array.shape)).astype("f4"))
    plan = cnn.write()
    cnn.agree()
    changed = {key.removeprefix("module."): entry["action"] for key, entry in plan["keys"].items()}
    assert changed["stem.weight"] == changed["norm.bias"] == changed["norm3.bias"] == "updated"
    assert not {"norm.weight", "norm.running_mean", "norm.running_var"} & set(changed)


def test_channels(cnn: Opened) -> None:
    """Two channels of the residual sum go, in every tensor that follows it."""
    channels = [0, 1, 2, 4, 5, 7]
    weights = {"stem.weight": 0, "depth.weight": 0, "up.weight": 0}
    biases = {
        node.inputs[2].name: 0  # type: ignore[union-attr]
        for node in cnn.after.graph
        if node.op_type == "Conv" and node.inputs[1].name in weights  # type: ignore[union-attr]
    }
    kept: dict[str, dict[int, list[int]]] = {}
    for name, axis in {**weights, **biases}.items():
        cnn.put(str(name), np.take(cnn.array(str(name)), channels, axis))
        kept[str(name)] = {axis: channels}
    for node in cnn.after.graph:
        if node.op_type == "Conv" and "group" in node.attributes and node.attributes["group"].as_int() == 8:
            node.attributes["group"] = ir.AttrInt64("group", 6)
    plan = cnn.write(kept=kept)
    net = nets.make("Cnn")
    small = nets.Cnn(6).eval()
    small.load_state_dict(state_of(Path("out")))
    save(cnn.after, Path("after.onnx"))
    feeds = nets.feeds("Cnn")
    found = ort.InferenceSession("after.onnx").run(None, {cnn.after.graph.inputs[0].name: feeds[0].numpy()})[0]
    with torch.no_grad():
        np.testing.assert_allclose(found, small(*feeds).numpy(), atol=2e-5)
    short = {key.removeprefix("module."): entry for key, entry in plan["keys"].items()}
    for key in ("stem.weight", "norm.weight", "norm.bias", "norm.running_mean", "norm.running_var", "depth.bias"):
        assert short[key]["action"] == "cut" and short[key]["kept"] == {"0": channels}
        # What is left is what it was.
        assert torch.equal(state_of(Path("out"))[key], net.state_dict()[key][channels])
    assert short["up.weight"]["kept"] == {"0": channels} and "norm3.weight" not in short


def test_a_cut_that_is_not_explained(state_cnn: Opened) -> None:
    state_cnn.put("head.weight", state_cnn.array("head.weight")[:, :3])
    with pytest.raises(ModelError, match=r"'head.weight' has another shape, and what was cut is not known"):
        state_cnn.write()


def test_changes_that_no_key_holds(state_cnn: Opened) -> None:
    value = ir.Value(
        name="fresh", const_value=ir.tensor(np.ones(4, "f4"), name="fresh"), shape=ir.Shape([4]),
        type=ir.TensorType(ir.DataType.FLOAT),
    )  # fmt: skip
    state_cnn.after.graph.register_initializer(value)
    del state_cnn.after.graph.initializers["head.bias"]
    with pytest.raises(ModelError) as caught:
        state_cnn.write()
    assert "'fresh' is new" in caught.value.message and "'head.bias' is gone" in caught.value.message
    assert not Path("out").exists()


@pytest.mark.parametrize("form", ["state", "safetensors"])
def test_gates_of_a_gru_and_transposed_weights(form: str, folder: Path) -> None:
    for texts in opened("Texts", form, folder):
        for name in floats(texts.after):
            array = texts.array(name)
            if array.ndim > 1:
                array[np.abs(array) < np.quantile(np.abs(array), 0.4)] = 0
            texts.put(name, array)
        plan = texts.write()
        texts.agree()
        keys = set(plan["keys"])
        assert {
            "gru.weight_ih_l0",
            "gru.weight_hh_l0_reverse",
            "mix.weight",
            "head.weight",
            "embedding.weight",
        } <= keys


@pytest.mark.parametrize("form", ["state", "legacy", "safetensors"])
def test_tied_weights_stay_tied(form: str, folder: Path) -> None:
    for two in opened("Two", form, folder):
        name = next(key for key in ("left.weight", "right.weight") if key in two.after.graph.initializers)
        array = two.array(name)
        array[:2] = 0
        two.put(name, array)
        two.write()
        two.agree()
        if form != "safetensors":
            found = torch.load("out", weights_only=True)
            assert found["left.weight"].data_ptr() == found["right.weight"].data_ptr()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("form", ["state", "safetensors"])
def test_types_stay(form: str, dtype: torch.dtype, folder: Path) -> None:
    net = nets.make("Mlp").to(dtype)
    for mlp in opened("Mlp", form, folder, net):
        array = mlp.array("0.weight")
        array[0] = 0
        mlp.put("0.weight", array)
        mlp.write()
        found = state_of(Path("out"))
        assert {value.dtype for value in found.values()} == {dtype}
        assert torch.equal(found["0.weight"][1:], net.state_dict()["0.weight"][1:]) and not found["0.weight"][0].any()


def test_without_an_architecture_arrays_are_replaced(folder: Path) -> None:
    path = nets.save(nets.make("Cnn"), "nested", folder / "w.pt")
    held = read(path, sniff(path))
    array = held.array("module.head.weight").copy()
    array[0] = 0
    plan = held.save(folder / "out", {"module.head.weight": array}, {"module.head.weight": {"action": "zeroed"}})
    assert plan["keys"]["module.head.weight"]["sparsity"] == pytest.approx(0.1)
    assert torch.load(folder / "out", weights_only=True)["epoch"] == 3


def test_metadata_of_safetensors_stays_when_shapes_change(folder: Path) -> None:
    from safetensors import safe_open

    path = nets.save(nets.make("Mlp"), "safetensors", folder / "w")
    held = read(path, sniff(path))
    held.save(folder / "out", {"0.bias": held.array("0.bias")[:5]})
    with safe_open(folder / "out", "np") as file, safe_open(path, "np") as given:
        assert file.metadata() == given.metadata() and list(file.keys()) == list(given.keys())
        assert file.get_tensor("0.bias").shape == (5,)
        assert (file.get_tensor("2.weight") == given.get_tensor("2.weight")).all()


def test_prune_writes_the_state_dict_and_its_plan(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nets.save(nets.make("Cnn"), "nested", folder / "net.pt")
    argv = ["prune", "net.pt", "--arch", "checkpoint_nets:Cnn", "--input", "1x3x8x8", "--sparsity", "0.5"]
    quick = ["--set", "measure.seconds=0.001"]
    assert run([*argv, *quick]) == 0, capsys.readouterr().err
    report = json.loads(Path("net.pruned.report.json").read_text())
    assert report["before"]["file"]["name"] == "net.pt"
    assert any("checkpoint_nets:Cnn" in note for note in report["notes"])
    plan = json.loads(Path("net.pruned.plan.json").read_text())
    assert plan["artifact"] == "net.pruned.pt" and plan["schema"] == "modelkit.checkpoint-plan/1"
    net = nets.make("Cnn")
    net.load_state_dict(state_of(Path("net.pruned.pt")))
    feeds = nets.feeds("Cnn")
    session = ort.InferenceSession("net.pruned.onnx")
    found = session.run(None, {session.get_inputs()[0].name: feeds[0].numpy()})[0]
    with torch.no_grad():
        np.testing.assert_allclose(found, net(*feeds).numpy(), atol=2e-5)
    # Neither is overwritten unasked.
    Path("net.pruned.onnx").unlink()
    assert run([*argv, *quick]) == 2 and "net.pruned.pt" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["nested", "safetensors"])
def test_prune_channels_and_load_them_into_a_narrower_net(form: str, folder: Path) -> None:
    nets.save(nets.make("Mlp"), form, folder / "net.x")
    argv = ["prune", "net.x", "--arch", "checkpoint_nets:Mlp", "--input", "1x16", "--channels", "0.5"]
    assert run([*argv, "--set", "measure.seconds=0.001"]) == 0
    ending = "safetensors" if form == "safetensors" else "pt"
    plan = json.loads(Path("net.pruned.plan.json").read_text())
    entry = next(entry for key, entry in plan["keys"].items() if key.endswith("0.weight"))
    assert entry["action"] == "cut" and len(entry["kept"]["0"]) == entry["shape"][0] < 32
    small = nets.Mlp(entry["shape"][0]).eval()
    small.load_state_dict(state_of(Path(f"net.pruned.{ending}")))
    feeds = nets.feeds("Mlp")
    session = ort.InferenceSession("net.pruned.onnx")
    found = session.run(None, {session.get_inputs()[0].name: feeds[0].numpy()})[0]
    with torch.no_grad():
        np.testing.assert_allclose(found, small(*feeds).numpy(), atol=2e-5)
