"""Every format feeds a real model in onnxruntime and gives the results of plain numpy."""

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from modelkit.data.open import open_dataset
from modelkit.data.preprocess import Preprocess
from modelkit.data.synthetic import synthetic_dataset
from modelkit.runtime import input_specs, make_session

COUNT = 23


def linear(batch):
    """A model x [batch, 4] -> y = x @ w [batch, 2]."""
    w = np.arange(8, dtype=np.float32).reshape(4, 2)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 2])],
        [numpy_helper.from_array(w, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return make_session(model.SerializeToString()), w


def pooling(batch):
    """A model x [batch, 3, 6, 6] -> mean of each channel [batch, 3, 1, 1]."""
    graph = helper.make_graph(
        [helper.make_node("GlobalAveragePool", ["x"], ["y"])],
        "pooling",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, 6, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 3, 1, 1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return make_session(model.SerializeToString())


def save(kind, folder, x, labels):
    table = pa.table({"label": labels} | {f"f{i}": x[:, i] for i in range(4)})
    path = folder / f"d.{kind}"
    if kind == "npz":
        np.savez_compressed(path, x=x, labels=labels)
    elif kind == "npy":
        path.mkdir()
        np.save(path / "x.npy", x)
        np.save(path / "labels.npy", labels)
    elif kind == "parquet":
        pq.write_table(table, path)
    else:
        rows = [",".join(table.column_names)]
        rows += [",".join(repr(float(v)) for v in row) for row in np.column_stack([labels, x]).tolist()]
        path.write_text("\n".join(rows).replace(".0,", ",", 0))
    return path


@pytest.mark.parametrize("kind", ["npz", "npy", "csv", "parquet"])
@pytest.mark.parametrize("batch", ["batch", 1, 5])
def test_arrays_and_tables(tmp_path, kind, batch):
    session, w = linear(batch)
    random = np.random.default_rng(0)
    x, labels = random.random((COUNT, 4)).astype(np.float32), random.integers(0, 2, COUNT)
    dataset = open_dataset(save(kind, tmp_path, x, labels), input_specs(session), need_labels=True)
    outputs, seen = [], []
    for one in dataset.batches(6):
        outputs.append(session.run(None, one.inputs)[0][: one.valid])
        seen.append(one.labels)
    np.testing.assert_allclose(np.concatenate(outputs), x @ w, rtol=1e-5)
    np.testing.assert_array_equal(np.concatenate(seen), labels)


@pytest.mark.parametrize("batch", ["batch", 1, 5])
def test_images(tmp_path, batch):
    session = pooling(batch)
    pixels = np.random.default_rng(0).integers(0, 256, (COUNT, 12, 12, 3), np.uint8)
    for i, image in enumerate(pixels):
        (tmp_path / str(i % 2)).mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / str(i % 2) / f"{i:03}.png")
    dataset = open_dataset(tmp_path, input_specs(session), preprocess=Preprocess(crop=(6, 6)), classes=2)
    outputs = [session.run(None, one.inputs)[0][: one.valid] for one in dataset.batches(4)]
    order = sorted(range(COUNT), key=lambda i: (i % 2, i))
    wanted = pixels[order, 3:9, 3:9].mean(axis=(1, 2)) / 255
    np.testing.assert_allclose(np.concatenate(outputs)[:, :, 0, 0], wanted, rtol=1e-4)


@pytest.mark.parametrize("batch", ["batch", 1, 5])
def test_test_sets_and_synthetic(tmp_path, batch):
    session, w = linear(batch)
    for i in range(3):
        folder = tmp_path / f"test_data_set_{i}"
        folder.mkdir()
        x = np.full((batch if isinstance(batch, int) else i + 1, 4), i, np.float32)
        (folder / "input_0.pb").write_bytes(numpy_helper.from_array(x).SerializeToString())
        (folder / "output_0.pb").write_bytes(numpy_helper.from_array(x @ w).SerializeToString())
    for i, one in enumerate(open_dataset(tmp_path, input_specs(session)).batches(1)):
        np.testing.assert_allclose(session.run(None, one.inputs)[0], np.full((one.valid, 4), i) @ w)
    batches = list(synthetic_dataset(input_specs(session), count=7).batches(3))
    assert sum(one.valid for one in batches) == 7
    assert all(np.isfinite(session.run(None, one.inputs)[0]).all() for one in batches)
