"""Saving: same bytes, small memory, a model that stays valid."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from graph_builders import cnn, info, init, model, run, write
from onnx import helper

from modelkit.errors import ModelError, ResourceError
from modelkit.graph import save as save_module
from modelkit.graph.load import load
from modelkit.graph.normalise import normalise
from modelkit.graph.save import save


def wide(seed: int = 0) -> onnx.ModelProto:
    g = np.random.default_rng(seed)
    inits = [
        init("a", g.standard_normal((64, 64)).astype(np.float32)),
        init("b", g.standard_normal(64).astype("f")),
    ]
    nodes = [helper.make_node("MatMul", ["x", "a"], ["m"]), helper.make_node("Add", ["m", "b"], ["y"])]
    return model(nodes, [info("x", [1, 64])], [info("y", [1, 64])], inits)


X = {"x": np.linspace(-1, 1, 64, dtype=np.float32).reshape(1, 64)}


@pytest.mark.parametrize("external", [None, True])
def test_same_input_same_bytes(tmp_path: Path, external: bool | None) -> None:
    source = write(cnn(), tmp_path / "m.onnx")
    contents = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        loaded = load(source)
        normalise(loaded.model)
        contents.append([p.read_bytes() for p in save(loaded.model, tmp_path / name / "o.onnx", external=external)])
    assert contents[0] == contents[1]


def test_small_tensors_stay_inside(tmp_path: Path) -> None:
    loaded = load(write(wide(), tmp_path / "m.onnx"))
    assert save(loaded.model, tmp_path / "o.onnx", external=True) == [
        tmp_path / "o.onnx",
        tmp_path / "o.onnx.data",
    ]
    proto = onnx.load(tmp_path / "o.onnx", load_external_data=False)
    where = {t.name: t.data_location for t in proto.graph.initializer}
    assert where == {"a": onnx.TensorProto.EXTERNAL, "b": onnx.TensorProto.DEFAULT}
    assert (tmp_path / "o.onnx.data").stat().st_size == 64 * 64 * 4
    np.testing.assert_array_equal(run(tmp_path / "m.onnx", X)[0], run(tmp_path / "o.onnx", X)[0])


def test_large_tensors_start_on_a_page(tmp_path: Path) -> None:
    big = init("a", np.ones((600, 600), dtype=np.float32))
    nodes = [helper.make_node("MatMul", ["x", "s"], ["m"]), helper.make_node("MatMul", ["m", "a"], ["y"])]
    inits = [init("s", np.ones((600, 600), dtype=np.float32)[:, :600]), big]
    loaded = load(write(model(nodes, [info("x", [1, 600])], [info("y", [1, 600])], inits), tmp_path / "m.onnx"))
    save(loaded.model, tmp_path / "o.onnx", external=True)
    proto = onnx.load(tmp_path / "o.onnx", load_external_data=False)
    offsets = [int(e.value) for t in proto.graph.initializer for e in t.external_data if e.key == "offset"]
    assert offsets[0] == 0
    assert offsets[1] % 4096 == 0


def test_the_model_survives_replacing_its_own_files(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    save(load(write(wide(), path)).model, path, external=True)
    before = run(path, X)[0]
    loaded = load(path)
    graph = loaded.model.graph
    # A tensor in front moves the offsets of those behind it, before any of them was read.
    extra = ir.tensor(np.zeros(4096, dtype=np.float32), name="extra")
    front = ir.Value(name="extra", shape=ir.Shape([4096]), type=ir.TensorType(ir.DataType.FLOAT), const_value=extra)
    values = [front, *graph.initializers.values()]
    graph.initializers.clear()
    for value in values:
        graph.register_initializer(value)
    save(loaded.model, path, external=True)
    np.testing.assert_array_equal(run(path, X)[0], before)
    save(loaded.model, tmp_path / "later.onnx", external=False)
    np.testing.assert_array_equal(run(tmp_path / "later.onnx", X)[0], before)


def test_four_bit_weights_and_text(tmp_path: Path) -> None:
    four = helper.make_tensor("q", onnx.TensorProto.INT4, [3001], np.arange(3001) % 16 - 8)
    inits = [
        four,
        init("s", np.float32(0.5)),
        helper.make_tensor("t", onnx.TensorProto.STRING, [1], [b"text"]),
    ]
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "s"], ["y"]),
        helper.make_node("Identity", ["t"], ["u"]),
    ]
    outputs = [info("y", [3001]), info("u", [1], onnx.TensorProto.STRING)]
    path = write(model(nodes, [], outputs, inits, opset=21, ir_version=10), tmp_path / "m.onnx")
    written = save(load(path).model, tmp_path / "o.onnx", external=True)
    assert written[1].stat().st_size == 1501
    for expected, found in zip(run(path, {}), run(written[0], {}), strict=True):
        np.testing.assert_array_equal(expected, found)


def test_no_room_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load(write(wide(), tmp_path / "m.onnx"))
    monkeypatch.setattr(save_module, "INLINE_LIMIT_BYTES", 1000)
    with pytest.raises(ModelError, match="more than fits into one ONNX file") as caught:
        save(loaded.model, tmp_path / "o.onnx", external=False)
    assert caught.value.hint == "write them to external data"
    assert len(save(loaded.model, tmp_path / "o.onnx")) == 2


@pytest.mark.parametrize("external", [False, True])
def test_a_full_disk_leaves_the_old_file_and_no_debris(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, external: bool
) -> None:
    loaded = load(write(wide(), tmp_path / "m.onnx"))
    out = tmp_path / "out"
    out.mkdir()
    save(loaded.model, out / "o.onnx", external=external)
    old = {p.name: p.read_bytes() for p in out.iterdir()}

    def full(self: Path, data: bytes) -> int:
        self.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ResourceError, match=r"cannot write '.*o\.onnx': No space left on device"):
        save(loaded.model, out / "o.onnx", external=external)
    assert {p.name: p.read_bytes() for p in out.iterdir()} == old


def test_a_missing_folder(tmp_path: Path) -> None:
    loaded = load(write(wide(), tmp_path / "m.onnx"))
    with pytest.raises(ResourceError, match="cannot write"):
        save(loaded.model, tmp_path / "nowhere" / "o.onnx")


LARGE = """
import resource, sys
from pathlib import Path
from modelkit.graph.load import load
from modelkit.graph.facts import describe
from modelkit.graph.normalise import normalise
from modelkit.graph.opset import ensure_opset
from modelkit.graph.save import save
from modelkit.runtime import make_session
start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
loaded = load(Path(sys.argv[1]))
side = int(sys.argv[3])
assert describe(loaded.model).parameters == 2 * side * side
normalise(loaded.model)
assert ensure_opset(loaded.model, 18).numbers == {"from": 17, "to": 18}
if sys.argv[2]:
    written = save(loaded.model, Path(sys.argv[2]), external=True)
    assert written[1].stat().st_size >= 2 * 4 * side * side
    assert load(written[0]).size_bytes > 2 * 4 * side * side
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start)
"""


@pytest.mark.parametrize(("side", "saved"), [(17000, False), (6000, True)])
def test_large_models_take_little_memory(tmp_path: Path, side: int, saved: bool) -> None:
    """2.3 GB are described and upgraded, 288 MB also saved; the files have holes only and take no disk.

    A memory-mapped weight is never copied, so that the limit is that of onnx's code, not of the weights.
    """
    size = side * side * 4
    nodes = [helper.make_node("MatMul", ["x", "a"], ["m"]), helper.make_node("MatMul", ["m", "b"], ["y"])]
    proto = model(nodes, [info("x", ["N", side])], [info("y", ["N", side])])
    for index, name in enumerate("ab"):
        tensor = proto.graph.initializer.add(
            name=name,
            dims=[side, side],
            data_type=onnx.TensorProto.FLOAT,
            data_location=onnx.TensorProto.EXTERNAL,
        )
        for key, value in (("location", "big.bin"), ("offset", index * size), ("length", size)):
            entry = tensor.external_data.add()
            entry.key, entry.value = key, str(value)
    write(proto, tmp_path / "big.onnx")
    with (tmp_path / "big.bin").open("wb") as file:
        file.truncate(2 * size)
    target = str(tmp_path / "out.onnx") if saved else ""
    command = [sys.executable, "-c", LARGE, str(tmp_path / "big.onnx"), target, str(side)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 120 * 1024
