"""What a file is, told by its content."""

import io
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from PIL import Image

from modelkit.files import Kind, sniff
from modelkit.sniff import kind_of


def model_bytes(**kwargs) -> bytes:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])
    weight = helper.make_tensor("w", TensorProto.FLOAT, [4, 4], np.eye(4, dtype=np.float32).ravel())
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [x], [y], [weight])
    return helper.make_model(graph, **kwargs).SerializeToString()


def saved(write) -> bytes:
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()


def zipped(*names) -> bytes:
    def write(buffer):
        with zipfile.ZipFile(buffer, "w") as archive:
            for name in names:
                archive.writestr(name, b"x" * 50)

    return saved(write)


def image(form) -> bytes:
    return saved(lambda buffer: Image.new("RGB", (5, 4)).save(buffer, form))


KINDS = {
    "onnx": (model_bytes(), Kind.ONNX),
    "onnx-named": (
        model_bytes(producer_name="pytorch", producer_version="2.13", doc_string="a\nb"),
        Kind.ONNX,
    ),
    "onnx-bells": (model_bytes(producer_name="tool\x07\x08"), Kind.ONNX),
    "npy": (saved(lambda b: np.save(b, np.ones(3))), Kind.NPY),
    "npz": (saved(lambda b: np.savez(b, x=np.ones(3), y=np.ones(2))), Kind.NPZ),
    "npz-deflated": (saved(lambda b: np.savez_compressed(b, x=np.ones(3))), Kind.NPZ),
    "zip": (zipped("a.txt", "b.npy"), Kind.ZIP),
    "zip-empty": (zipped(), Kind.ZIP),
    "torch-zip": (zipped("archive/data.pkl", "archive/version", "archive/data/0"), Kind.TORCH_ZIP),
    "torchscript": (zipped("m/data.pkl", "m/constants.pkl", "m/code/__torch__.py"), Kind.TORCHSCRIPT),
    "torchscript-code": (zipped("m/data.pkl", "m/code/__torch__.py"), Kind.TORCHSCRIPT),
    "pt2": (zipped("m/archive_format", "m/models/model.json", "m/data/weights/0.pt"), Kind.PT2),
    "pt2-old": (zipped("serialized_exported_program.json", "version"), Kind.PT2),
    "safetensors": (struct.pack("<Q", 2) + b"{}", Kind.SAFETENSORS),
    "parquet": (saved(lambda b: pa.parquet.write_table(pa.table({"a": [1]}), b)), Kind.PARQUET),
    "gif": (image("GIF"), Kind.IMAGE),
    "png": (image("PNG"), Kind.IMAGE),
    "jpeg": (image("JPEG"), Kind.IMAGE),
    "bmp": (image("BMP"), Kind.IMAGE),
    "tiff": (image("TIFF"), Kind.IMAGE),
    "webp": (image("WEBP"), Kind.IMAGE),
    "ppm": (image("PPM"), Kind.IMAGE),
    "csv": (b"a,b\n1,2\n", Kind.CSV),
    "csv-quoted": (b'a;b\n"x;y";2\n', Kind.CSV),
    "csv-tabs": (b"a\tb\n1\t2\n", Kind.CSV),
    "json": (b' {"a": 1}', Kind.JSON),
    "json-list": (b"[1, 2]", Kind.JSON),
    "json-long": (b"[" + b"1, " * 50_000 + b"1]", Kind.JSON),
    "json-deep": (b"[" * 60_000, Kind.JSON),
    "yaml": (b"# c\na: 1\nb:\n  - 2\n", Kind.YAML),
    "ini": (b"[section]\na=1\n", Kind.TEXT),
    "html": (b"<!DOCTYPE html>\n<html>", Kind.HTML),
    "html-bare": (b"\n<html><body>", Kind.HTML),
    "text": (b"this is not a model", Kind.TEXT),
    "text-latin": (b"\xe4\xf6\xfc is latin-1", Kind.UNKNOWN),
    "text-utf16": ("hello there".encode("utf-16"), Kind.TEXT),
    "text-bom": ("\ufeffhello".encode(), Kind.TEXT),
    "one-column": (b"cat\ndog\n3\n", Kind.TEXT),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", Kind.LFS_POINTER),
    "empty": (b"", Kind.EMPTY),
    "hdf5": (b"\x89HDF\r\n\x1a\n\0\0\0\0", Kind.HDF5),
    "tflite": (b"\x1c\0\0\0TFL3\0\0", Kind.TFLITE),
    "gguf": (b"GGUF\x03\0\0\0", Kind.GGUF),
    "ort": (b"\x1c\0\0\0ORTM\0\0", Kind.ORT),
    "gzip": (b"\x1f\x8b\x08\0", Kind.GZIP),
    "noise": (bytes(range(256)), Kind.UNKNOWN),
    "zeros": (bytes(100), Kind.UNKNOWN),
    # Protobuf files that begin like a model: TensorFlow (saved, frozen), Core ML, an ONNX tensor.
    "saved-model": (b"\x08\x01\x12\x80\x02\x0a\xfd\x01" + b"\x0a\x05x\0\0\0\0" * 30, Kind.UNKNOWN),
    "frozen-graph": (b"\x0a\x20\x0a\x05input\x12\x0bPlaceholder*\x06\x0a\x01a\x12\x010", Kind.UNKNOWN),
    "core-ml": (b"\x08\x04\x12\x10\x0a\x06\x0a\x01x\x1a\x01\0\x52\x03\x0a\x01y", Kind.UNKNOWN),
    "tensor": (
        helper.make_tensor("t", TensorProto.FLOAT, [2], [1.0, 2.0]).SerializeToString(),
        Kind.UNKNOWN,
    ),
}
KINDS |= {f"pickle-{n}": (pickle.dumps({"w": [1, 2.5], "n": "x"}, n), Kind.PICKLE) for n in range(6)}
KINDS |= {f"pickled-object-{n}": (pickle.dumps(Path("x"), n), Kind.PICKLE) for n in range(6)}


@pytest.mark.parametrize("name", KINDS)
def test_sniff(tmp_path, name):
    content, kind = KINDS[name]
    path = tmp_path / "model.onnx"  # the name never counts
    path.write_bytes(content)
    assert sniff(path) is kind


def test_sniff_what_torch_writes(tmp_path):
    import torch

    net = torch.nn.Linear(2, 2)
    torch.save(net.state_dict(), tmp_path / "zip")
    torch.save(net.state_dict(), tmp_path / "old", _use_new_zipfile_serialization=False)
    torch.export.save(torch.export.export(net, (torch.ones(1, 2),)), tmp_path / "m.pt2")
    assert sniff(tmp_path / "zip") is Kind.TORCH_ZIP
    assert sniff(tmp_path / "old") is Kind.PICKLE
    assert sniff(tmp_path / "m.pt2") is Kind.PT2


@pytest.mark.parametrize("name", ["npz", "torch-zip", "parquet", "png", "npy", "pickle-4"])
def test_truncated_files_keep_their_kind(name):
    content, kind = KINDS[name]
    assert kind_of(io.BytesIO(content[: len(content) // 2])) is kind


def test_a_truncated_model_is_a_model():
    content = model_bytes(producer_name="pytorch")
    assert all(kind_of(io.BytesIO(content[:cut])) is Kind.ONNX for cut in range(13, len(content)))


def test_fields_in_any_order_are_a_model():
    model = onnx.load_model_from_string(model_bytes())
    graph = onnx.ModelProto(graph=model.graph).SerializeToString()
    rest = onnx.ModelProto(ir_version=10, opset_import=model.opset_import).SerializeToString()
    assert kind_of(io.BytesIO(graph + rest)) is Kind.ONNX
    assert kind_of(io.BytesIO(graph)) is Kind.UNKNOWN  # a model must have an IR version
    onnx.load_model_from_string(graph + rest)


@given(st.binary(max_size=200) | st.binary(max_size=60).map(lambda tail: b"PK\x03\x04" + tail)
       | st.binary(max_size=60).map(lambda tail: b"\x08\x0a\x12" + tail))  # fmt: skip
@settings(max_examples=300, deadline=None)
def test_sniff_never_fails(content):
    assert kind_of(io.BytesIO(content)) in Kind


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from("\n\t,;:")))
@settings(max_examples=200, deadline=None)
def test_text_is_never_taken_for_something_that_runs_or_loads(text):
    kind = kind_of(io.BytesIO(text.encode()))
    assert kind in (Kind.TEXT, Kind.CSV, Kind.YAML, Kind.JSON, Kind.HTML, Kind.EMPTY) or not text.isalnum()
    assert kind not in (Kind.ONNX, Kind.SAFETENSORS, Kind.TORCH_ZIP, Kind.NPZ)
