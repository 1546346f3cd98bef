"""Packing real models: the same outputs, bit by bit, in a smaller file that is rebuilt while it is loaded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from modelkit import api
from modelkit.errors import ModelError, UsageError
from modelkit.graph.load import load, packed_names
from modelkit.graph.normalise import normalise
from modelkit.graph.save import save
from modelkit.pack.choose import Offer, choose
from modelkit.pack.proven import pack_model, unfolded
from modelkit.packing.dense import Dense
from modelkit.packing.encoding import Words
from modelkit.packing.fixed import Fixed
from modelkit.packing.prefix import Prefix
from modelkit.prune.config import PruneConfig
from modelkit.runtime import make_session

SAMPLES = Path(__file__).parents[2] / "sample_models"
NAMES = ["digits_mlp", "fashion_cnn", "language_transformer", "language_gru"]


@pytest.fixture(scope="module", params=NAMES)
def sparse(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sample model, its weights mostly zero and the others of 15 values."""
    path = tmp_path_factory.mktemp("sparse") / f"{request.param}.onnx"
    model = load(SAMPLES / f"{request.param}.onnx").model
    normalise(model)
    for name, value in model.graph.initializers.items():
        tensor = value.const_value
        if tensor is None or tensor.dtype != ir.DataType.FLOAT or len(tensor.shape) < 2:
            continue
        array = tensor.numpy()
        array = np.where(np.abs(array) < np.quantile(np.abs(array), 0.9), 0, array)
        step = np.float32(np.abs(array).max() / 7)
        value.const_value = ir.tensor((np.round(array / step) * step).astype(np.float32), name=name)
    save(model, path)
    return path


def outputs(path: Path) -> list[np.ndarray]:
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    feeds = {}
    for each in session.get_inputs():
        shape = [d if isinstance(d, int) else 4 for d in each.shape]
        feeds[each.name] = (
            rng.standard_normal(shape).astype(np.float32)
            if "float" in each.type
            else rng.integers(0, 20, shape).astype(np.int64 if "int64" in each.type else np.int32)
        )
    return list(session.run(None, feeds))


@pytest.mark.parametrize("effort", ["load", "auto", "size"])
def test_the_same_bits_in_a_smaller_file(sparse: Path, tmp_path: Path, effort: str) -> None:
    target = tmp_path / "packed.onnx"
    report = api.pack(sparse, output=target, config={"effort": effort, "measure.seconds": 0.01})
    assert report.status == "done" and report.fidelity is not None and report.fidelity["exact"]
    assert target.stat().st_size < sparse.stat().st_size / (4 if "mlp" in sparse.name else 8)
    onnx.checker.check_model(target, full_check=True)
    names = packed_names(target)
    assert names and not unfolded(target, names)
    for before, after in zip(outputs(sparse), outputs(target), strict=True):
        assert before.tobytes() == after.tobytes()
    plain, _ = api.unpack(target, output=tmp_path / "plain.onnx")
    first, second = load(sparse).model.graph.initializers, load(plain).model.graph.initializers
    assert first.keys() == second.keys()
    assert all(first[n].const_value.tobytes() == second[n].const_value.tobytes() for n in first)  # type: ignore[union-attr]


def test_size_is_smaller_than_load(sparse: Path, tmp_path: Path) -> None:
    sizes = {}
    for effort in ("load", "size"):
        model = load(sparse).model
        pack_model(model, effort)
        sizes[effort] = save(model, tmp_path / f"{effort}.onnx")[0].stat().st_size
    assert sizes["size"] <= sizes["load"]


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        model = load(SAMPLES / "fashion_cnn.onnx").model
        normalise(model)
        for each, value in model.graph.initializers.items():
            if value.const_value is not None and value.const_value.dtype == ir.DataType.FLOAT:
                value.const_value = ir.tensor(np.round(value.const_value.numpy(), 1), name=each)
        pack_model(model, "size")
        save(model, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_pruning_packs_what_it_made(tmp_path: Path) -> None:
    plain = api.prune(
        SAMPLES / "digits_mlp.onnx", output=tmp_path / "a.onnx", config={"sparsity": 0.9, "measure.seconds": 0.01}
    )
    packed = api.prune(
        SAMPLES / "digits_mlp.onnx",
        output=tmp_path / "b.onnx",
        config={"sparsity": 0.9, "pack": "auto", "measure.seconds": 0.01},
    )
    assert packed.after.size["file_bytes"] < plain.after.size["file_bytes"] / 2
    assert packed.after.size["nonzero_parameters"] == plain.after.size["nonzero_parameters"]
    for before, after in zip(outputs(tmp_path / "a.onnx"), outputs(tmp_path / "b.onnx"), strict=True):
        assert before.tobytes() == after.tobytes()


def test_packing_keeps_integer_kernels(tmp_path: Path) -> None:
    report = api.quantize(
        SAMPLES / "fashion_cnn.onnx",
        output=tmp_path / "a.onnx",
        data=SAMPLES / "fashion_cnn.calib.npz",
        config={"mode": "static", "pack": "size", "measure.seconds": 0.01},
    )
    assert packed_names(tmp_path / "a.onnx")
    assert report.audit is not None and report.audit["integer"] >= 10 and report.audit["float"] == 0


def test_a_packed_model_is_like_any_other(sparse: Path, tmp_path: Path) -> None:
    api.pack(sparse, output=tmp_path / "p.onnx", config={"measure.seconds": 0.01})
    assert set(load(tmp_path / "p.onnx").packed) == set(packed_names(tmp_path / "p.onnx"))
    report = api.prune(
        tmp_path / "p.onnx", output=tmp_path / "q.onnx", config={"sparsity": 0.95, "measure.seconds": 0.01}
    )
    assert report.status == "done"


def test_an_old_opset_is_raised(tmp_path: Path) -> None:
    model = load(SAMPLES / "digits_mlp.onnx").model
    old = onnx.version_converter.convert_version(ir.serde.serialize_model(model), 14)
    for tensor in old.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        if array.dtype == np.float32:
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.round(array, 1), tensor.name))
    onnx.save(old, tmp_path / "old.onnx")
    api.pack(tmp_path / "old.onnx", output=tmp_path / "p.onnx", config={"measure.seconds": 0.01})
    assert max(each.version for each in onnx.load(tmp_path / "p.onnx").opset_import if not each.domain) >= 18


def test_nothing_to_pack_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nothing to pack: no encoding takes less room"):
        api.pack(SAMPLES / "fashion_cnn.onnx", output=tmp_path / "x.onnx")
    assert not list(tmp_path.iterdir())


def test_a_pattern_that_matches_nothing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="include: the pattern 'nowhere' matches no weight"):
        api.pack(SAMPLES / "fashion_cnn.onnx", output=tmp_path / "x.onnx", config={"include": ["nowhere"]})


def test_a_model_without_packed_weights_cannot_be_unpacked(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"'fashion_cnn\.onnx' has no packed weights"):
        api.unpack(SAMPLES / "fashion_cnn.onnx", output=tmp_path / "x.onnx")


def test_a_function_that_one_small_weight_needs_is_given_up() -> None:
    words = Words.of(np.zeros(300, np.float32))
    slow = Offer("w", Dense(Prefix(1, 12)), 100, 200, 1.0, quick=False)
    fast = Offer("w", Dense(Fixed(1)), 110, 210, 0.01, quick=True)
    assert Offer.of("w", Dense(Fixed(1)), 38, words).quick
    assert choose({"w": [slow, fast]}, {"w": 300}) == {}
    many = {name: [replace(slow, name=name), replace(fast, name=name)] for name in (f"w{i}" for i in range(100))}
    plain = dict.fromkeys(many, 1200)
    assert {offer.encoding.name for offer in choose(many, plain).values()} == {"Dense_1"}
    assert len(choose(many, plain, seconds=1.005)) == 100
    assert len(choose(many, plain, seconds=0.505)) == 50


def test_what_buys_the_fewest_bytes_with_its_time_goes_first() -> None:
    offers = {
        name: [
            Offer(name, Dense(Prefix(1, 12)), 0, 100_000 - saved, 0.3, quick=False),
            Offer(name, Dense(Fixed(1)), 0, 100_000, 0.01, quick=True),
        ]
        for name, saved in (("a", 9_000), ("b", 50_000), ("c", 20_000))
    }
    plain = dict.fromkeys(offers, 200_000)
    for seconds, prefixed in ((1.0, {"a", "b", "c"}), (0.65, {"b", "c"}), (0.35, {"b"}), (0.05, set())):
        found = choose(offers, plain, seconds=seconds)
        assert {name for name, offer in found.items() if not offer.quick} == prefixed
        assert len(found) == 3 and sum(offer.seconds for offer in found.values()) <= seconds


def test_pack_is_off_by_default() -> None:
    assert PruneConfig().pack == "off"


def four_bit_model(path: Path, kind: int, *, skewed: bool = True) -> None:
    """A product with a weight of a 4-bit type, most of its numbers among the middle ones."""
    rng = np.random.default_rng(0)
    low = 0 if kind == onnx.TensorProto.UINT4 else -8
    drawn = rng.standard_normal((512, 96)) * 1.5 + 8 if skewed else rng.uniform(0, 16, (512, 96))
    numbers = np.clip(np.floor(drawn), 0, 15).astype(int) + low
    weight = onnx.helper.make_tensor("w", kind, [512, 96], numbers.reshape(-1).tolist())
    scale = onnx.numpy_helper.from_array(rng.random((16, 96)).astype(np.float32) + 0.1, "s")
    zero = onnx.helper.make_tensor("z", kind, [16, 96], [8 + low] * 1536)
    nodes = [
        onnx.helper.make_node("DequantizeLinear", ["w", "s", "z"], ["d"], axis=0, block_size=32),
        onnx.helper.make_node("MatMul", ["x", "d"], ["y"], name="product"),
    ]
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes,
        "g",
        [value("x", onnx.TensorProto.FLOAT, ["n", 512])],
        [value("y", onnx.TensorProto.FLOAT, ["n", 96])],
        [weight, scale, zero],
    )
    opset = [onnx.helper.make_opsetid("", 21)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=10), path)


@pytest.mark.parametrize("kind", [onnx.TensorProto.INT4, onnx.TensorProto.UINT4])
def test_weights_of_four_bits_take_fewer(tmp_path: Path, kind: int) -> None:
    source, target = tmp_path / "m.onnx", tmp_path / "p.onnx"
    four_bit_model(source, kind)
    report = api.pack(source, output=target, config={"effort": "size", "measure.seconds": 0.01})
    assert report.fidelity is not None and report.fidelity["exact"]
    assert "w" in packed_names(target)
    assert target.stat().st_size < source.stat().st_size
    onnx.checker.check_model(target, full_check=True)
    seen = tmp_path / "seen.onnx"
    make_session(target, optimized_path=seen)
    assert [node.op_type for node in onnx.load(seen).graph.node] == ["MatMulNBits"]
    for before, after in zip(outputs(source), outputs(target), strict=True):
        assert before.tobytes() == after.tobytes()
    api.unpack(target, output=tmp_path / "plain.onnx")
    first, second = (
        load(each).model.graph.initializers["w"].const_value for each in (source, tmp_path / "plain.onnx")
    )
    assert first is not None and second is not None
    assert first.dtype == second.dtype and first.tobytes() == second.tobytes()


def test_weights_of_four_bits_that_would_not_shrink_stay(tmp_path: Path) -> None:
    four_bit_model(tmp_path / "m.onnx", onnx.TensorProto.INT4, skewed=False)
    model = load(tmp_path / "m.onnx").model
    decision = next(each for each in pack_model(model, "size") if each.target == "w")
    assert decision.action == "kept" and decision.reason.startswith("no encoding takes less room")


def test_weights_of_four_bits_stay_where_an_older_onnxruntime_could_not_make_them(tmp_path: Path) -> None:
    four_bit_model(tmp_path / "m.onnx", onnx.TensorProto.INT4)
    model = load(tmp_path / "m.onnx").model
    kept = {each.target: each for each in pack_model(model, "auto")}
    assert kept["w"].action == "kept" and "before 1.23" in kept["w"].reason
    with pytest.raises(ModelError, match=r"nothing to pack: .*before 1\.23"):
        api.pack(tmp_path / "m.onnx", output=tmp_path / "p.onnx")
    cast = onnx.load(tmp_path / "m.onnx")
    del cast.graph.node[0]
    cast.graph.node.insert(0, onnx.helper.make_node("Cast", ["w"], ["d"], to=onnx.TensorProto.FLOAT))
    onnx.save(cast, tmp_path / "cast.onnx")
    packed = {each.target: each.action for each in pack_model(load(tmp_path / "cast.onnx").model, "auto")}
    assert packed["w"] == "packed"
