"""Hostile and broken data sets: each is refused with one clear error before it gets memory or runs code."""

import io
import os
import pickle
import struct
import subprocess
import sys
import tracemalloc
import zipfile
import zlib

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from PIL import Image

from modelkit.data import npz
from modelkit.data.open import open_dataset
from modelkit.errors import DataError, ModelkitError, UnsafeError
from modelkit.runtime import TensorSpec

SPECS = [TensorSpec("x", np.dtype(np.float32), ("batch", 3))]
ANY_ROW = [TensorSpec("x", np.dtype(np.float32), ("batch", "wide"))]
IMAGES = [TensorSpec("x", np.dtype(np.float32), ("batch", 3, 8, 8))]


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


def refused(path, specs=SPECS, kind=DataError, **options):
    tracemalloc.start()
    with pytest.raises(kind) as caught:
        for batch in open_dataset(path, specs, **options).batches(8):
            assert batch
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 << 20
    assert type(caught.value) is kind
    assert "\n" not in caught.value.message
    return caught.value


def npy(array=None, header=None, body=b"", version=b"\x01\x00"):
    """npy bytes; with `header`, whatever it says."""
    stream = io.BytesIO()
    if header is None:
        np.save(stream, array)
    else:
        text = header.encode() + b" " * 8 + b"\n"
        stream.write(b"\x93NUMPY" + version + struct.pack("<H", len(text)) + text + body)
    return stream.getvalue()


def zipped(path, members, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def header(shape, descr="<f4", fortran=False):
    return f"{{'descr': {descr!r}, 'fortran_order': {fortran}, 'shape': {shape}, }}"


def test_pickled_array_in_npz_is_not_run(tmp_path):
    np.savez(tmp_path / "d.npz", x=np.array([[Bomb(tmp_path / "ran"), 1, 2]], object))
    error = refused(tmp_path / "d.npz", kind=UnsafeError)
    assert error.message == "'x' in d.npz would unpickle: it holds Python objects (dtype object)"
    assert "array.astype" in error.hint
    assert error.exit_code == 4
    assert not (tmp_path / "ran").exists()


def test_pickled_labels_in_a_folder_are_not_run(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    np.save(folder / "x.npy", np.zeros((1, 3), np.float32))
    np.save(folder / "labels.npy", np.array([Bomb(tmp_path / "ran")], object))
    error = refused(folder, kind=UnsafeError)
    assert error.message.startswith("set/labels.npy would unpickle")
    assert not (tmp_path / "ran").exists()


def test_objects_inside_a_structured_array(tmp_path):
    data = npy(header=header((1,), [("a", "|O")]), body=pickle.dumps([1]))
    error = refused(zipped(tmp_path / "d.npz", {"x.npy": data}), kind=UnsafeError)
    assert "would unpickle" in error.message


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_pickle_is_not_run(tmp_path, protocol):
    (tmp_path / "d.npz").write_bytes(pickle.dumps(Bomb(tmp_path / "ran"), protocol))
    error = refused(tmp_path / "d.npz", kind=UnsafeError)
    assert error.message == "d.npz is a pickle, which runs code when it is loaded"
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("shape", "descr"),
    [
        ("(10000000000, 3)", "<f4"),
        ("(2, 99999999999999999999999999)", "<f4"),
        ("(9223372036854775807, 9223372036854775807, 4)", "<f4"),
        ("(2, 3)", "<U1000000"),
        ("(1, 3)", "<f4"),
        ("()", "<f8"),
    ],
)
@pytest.mark.parametrize("folder", [False, True])
def test_headers_that_promise_more_or_less_than_is_there(tmp_path, shape, descr, folder):
    data = npy(header=header(shape, descr), body=bytes(24))
    path = tmp_path / "d.npz"
    if folder:
        path = tmp_path / "set"
        path.mkdir()
        (path / "x.npy").write_bytes(data)
    else:
        zipped(path, {"x.npy": data})
    error = refused(path)
    assert "is damaged: its header promises" in error.message
    assert "24 are there" in error.message


@pytest.mark.parametrize(
    "text",
    [
        header("(-1, 3)"),
        header("(True, 3)"),
        "{'descr': '<f4'}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': __import__('os').getcwd()}",
        "(" * 3000,
        "[" * 20000,
        "'" + "x" * 30000 + "'",
        header("(2, 3)", "nonsense"),
        header("'abc'"),
        "",
    ],
)
def test_headers_that_are_nonsense(tmp_path, text):
    data = npy(header=text, body=bytes(24))
    message = refused(zipped(tmp_path / "d.npz", {"x.npy": data})).message
    assert "is not a readable npy array" in message or "has the impossible shape" in message


def test_a_newer_npy_version_and_no_npy_at_all(tmp_path):
    data = npy(header=header("(2, 3)"), body=bytes(24), version=b"\x07\x00")
    message = refused(zipped(tmp_path / "d.npz", {"x.npy": data})).message
    assert "npy version 7.0, only 1.0 and 2.0 hold plain arrays" in message
    message = refused(zipped(tmp_path / "d.npz", {"x.npy": b"hello"})).message
    assert message.startswith("'x' in d.npz is not a readable npy array")


def test_a_decompression_bomb(tmp_path, monkeypatch):
    monkeypatch.setattr(npz, "_BOMB_BYTES", 64 << 20)
    path = tmp_path / "d.npz"
    rows = 10_000_000
    text = header(f"({rows}, 3)").encode() + b"\n"
    start = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("x.npy", "w") as member:
        member.write(start)
        for _ in range(rows * 12 >> 20):
            member.write(bytes(1 << 20))
        member.write(bytes(rows * 12 % (1 << 20)))
    error = refused(path, kind=UnsafeError)
    assert "d.npz looks like a decompression bomb" in error.message
    assert error.hint


def test_a_zip_whose_directory_lies_about_sizes(tmp_path):
    path = zipped(tmp_path / "d.npz", {"x.npy": npy(np.ones((4, 3), np.float32))})
    raw = bytearray(path.read_bytes())
    entry = raw.rfind(b"PK\x01\x02")
    for sizes in ((60, 1 << 30), (1 << 30, 176), (3, 176), (200, 160)):
        raw[entry + 20 : entry + 28] = struct.pack("<II", *sizes)
        path.write_bytes(raw)
        assert "damaged" in refused(path).message or "not a readable" in refused(path).message


def test_an_archive_of_thousands_and_one_twice(tmp_path):
    path = zipped(tmp_path / "d.npz", {f"{i}.npy": b"" for i in range(5000)})
    assert "holds 5000 entries" in refused(path, kind=UnsafeError).message
    with zipfile.ZipFile(path, "w") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("x.npy", npy(np.ones((4, 3), np.float32)))
        archive.writestr("x.npy", npy(np.ones((4, 3), np.float32)))
    assert refused(path).message == "d.npz holds 'x' twice"


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_packing_that_numpy_does_not_write(tmp_path, method):
    path = zipped(tmp_path / "d.npz", {"x.npy": npy(np.ones((4, 3), np.float32))}, method)
    assert "packed with a method that numpy does not write" in refused(path).message


def test_other_zips(tmp_path):
    path = zipped(tmp_path / "d.npz", {"model/data.pkl": b"x", "model/data/0": b"y"})
    assert refused(path).message == "d.npz is a PyTorch checkpoint, not a data set"
    assert refused(zipped(path, {"a.txt": b"x"})).message == "d.npz is a zip without arrays"
    members = {"x.npy": npy(np.ones((4, 3), np.float32)), "../../evil.txt": b"x"}
    assert refused(zipped(path, members)).message == "d.npz holds '../../evil.txt', which is not an npy array"
    assert not (tmp_path.parent.parent / "evil.txt").exists()
    assert refused(zipped(path, {})).message == "d.npz is a zip without arrays"


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(1, 700), save=st.sampled_from([np.savez, np.savez_compressed]))
def test_truncated_npz(tmp_path_factory, cut, save):
    path = tmp_path_factory.mktemp("cut") / "d.npz"
    save(path, x=np.random.default_rng(0).random((50, 3)).astype(np.float32), labels=np.arange(50))
    raw = path.read_bytes()
    path.write_bytes(raw[:-cut])
    assert refused(path).message


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_flipped_bytes_never_raise_anything_else(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("flip")
    kind = data.draw(st.sampled_from(["npz", "parquet", "csv", "set", "images"]))
    x = np.random.default_rng(0).random((20, 3)).astype(np.float32)
    target = path = folder / f"d.{kind}"
    specs = SPECS
    if kind == "npz":
        data.draw(st.sampled_from([np.savez, np.savez_compressed]))(path, x=x, labels=np.arange(20))
    elif kind == "parquet":
        pq.write_table(pa.table({c: x[:, i] for i, c in enumerate("abc")}), path)
    elif kind == "csv":
        path.write_text("a,b,c\n" + "\n".join(",".join(map(str, row)) for row in x))
    elif kind == "set":
        path.mkdir()
        target = path / "input_0.pb"
        target.write_bytes(numpy_helper.from_array(x).SerializeToString())
    else:
        path.mkdir()
        suffix = data.draw(st.sampled_from(["png", "jpg", "webp", "bmp", "gif", "tiff", "ppm"]))
        target, specs = path / f"a.{suffix}", IMAGES
        Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(target)
    raw = bytearray(target.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    target.write_bytes(raw[: data.draw(st.integers(1, len(raw)))])
    try:
        for batch in open_dataset(path, specs).batches(8):
            assert np.isfinite(batch.inputs["x"]).all()
    except ModelkitError as error:
        assert error.exit_code in (2, 4)


def test_a_flipped_value_is_caught_by_the_checksum_before_work(tmp_path):
    path = tmp_path / "d.npz"
    np.savez(path, x=np.ones((40_000, 3), np.float32))
    raw = path.read_bytes()
    place = raw.rfind(np.float32(1).tobytes())
    path.write_bytes(raw[:place] + np.float32(2).tobytes() + raw[place + 4 :])
    with pytest.raises(DataError, match=r"'x' in d.npz is damaged: Bad CRC-32"):
        open_dataset(path, SPECS)


def test_letters_that_are_no_characters(tmp_path):
    raw = npy(np.array(["ab", "cd"])).replace(b"c\0\0\0", b"\xff\xff\xff\xff")
    specs = [TensorSpec("x", np.dtype(object), ("batch",))]
    error = refused(zipped(tmp_path / "d.npz", {"x.npy": raw}), specs)
    assert error.problems == ["input 'x' has letters that are not Unicode at row 1 (counted from 0)"]


def test_links_out_of_a_folder(tmp_path):
    secret = tmp_path / "secret.npy"
    np.save(secret, np.ones((2, 3), np.float32))
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "x.npy").symlink_to(secret)
    error = refused(folder, kind=UnsafeError)
    assert error.message == f"{folder / 'x.npy'} is a link out of the data folder"
    assert error.exit_code == 4
    (folder / "x.npy").unlink()
    (folder / "x.npy").symlink_to("nowhere")
    assert refused(folder).message == f"{folder / 'x.npy'} is a link that leads nowhere"
    (folder / "x.npy").unlink()
    (folder / "x.npy").symlink_to("x.npy")
    assert refused(folder).message == f"{folder / 'x.npy'} is a link that leads nowhere"
    (folder / "x.npy").unlink()
    np.save(folder / "real.bin.npy", np.ones((2, 3), np.float32))
    (folder / "x.npy").symlink_to("real.bin.npy")
    assert "real.bin" in refused(folder).message


def test_links_out_of_class_folders_and_test_sets(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    Image.new("RGB", (8, 8)).save(outside / "a.png")
    (outside / "input_0.pb").write_bytes(numpy_helper.from_array(np.ones((1, 3), np.float32)).SerializeToString())
    images = tmp_path / "images"
    (images / "cat").mkdir(parents=True)
    (images / "cat" / "a.png").symlink_to(outside / "a.png")
    refused(images, IMAGES, UnsafeError)
    (images / "cat" / "a.png").unlink()
    (images / "dog").symlink_to(outside)
    refused(images, IMAGES, UnsafeError)
    sets = tmp_path / "sets"
    (sets / "test_data_set_0").mkdir(parents=True)
    (sets / "test_data_set_0" / "input_0.pb").symlink_to(outside / "input_0.pb")
    refused(sets, kind=UnsafeError)
    (images / "dog").unlink()
    (images / "labels.csv").symlink_to(outside / "a.png")
    refused(images, IMAGES, UnsafeError)


def test_a_folder_that_contains_itself(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "loop").symlink_to(".")
    error = refused(tmp_path, IMAGES)
    assert "'loop/loop' is a folder within a class; images belong one level deep" in error.problems


def test_tensors_with_values_elsewhere(tmp_path):
    (tmp_path / "test_data_set_0").mkdir()
    tensor = onnx.TensorProto(name="x", data_type=1, dims=[1, 3], data_location=onnx.TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../../../etc/passwd")
    (tmp_path / "test_data_set_0" / "input_0.pb").write_bytes(tensor.SerializeToString())
    error = refused(tmp_path, kind=UnsafeError)
    assert error.message == "test_data_set_0/input_0.pb points to another file for its values"


@pytest.mark.parametrize("dims", [[10**12, 3], [-1, 3], [2**62, 2**62]])
def test_tensors_whose_shape_lies(tmp_path, dims):
    (tmp_path / "test_data_set_0").mkdir()
    tensor = onnx.TensorProto(name="x", data_type=1, dims=dims, raw_data=bytes(8))
    (tmp_path / "test_data_set_0" / "input_0.pb").write_bytes(tensor.SerializeToString())
    assert "test_data_set_0/input_0.pb is not a plain tensor" in refused(tmp_path).message


@pytest.mark.parametrize(
    "text",
    [
        "a,b,c\n1,2,3\n4,5\n",
        "a,b,c\n1,2,3\n4,5,6,7\n",
        'a,b,c\n1,2,"3\n',
        "a,b,c\n1,2,3\n\0\0,5,6\n",
        "a,b\n",
    ],
)
def test_ragged_csv(tmp_path, text):
    (tmp_path / "d.csv").write_text(text)
    assert "d.csv" in refused(tmp_path / "d.csv").message


def test_csv_that_is_not_utf8_or_has_no_end(tmp_path):
    (tmp_path / "d.csv").write_bytes(b"a,b,c\n" + b"1,2,3\n" * 2000 + b"\xff\xfe,1,2\n")
    assert "d.csv cannot be read" in refused(tmp_path / "d.csv").message
    (tmp_path / "d.csv").write_bytes(b"a" * (20 << 20))
    assert "d.csv" in refused(tmp_path / "d.csv").message


@pytest.mark.parametrize("content", [b"PAR1", b"PAR1" + bytes(100) + b"PAR1", b"PAR1\xff\xff\xff\x7fPAR1"])
def test_broken_parquet(tmp_path, content):
    (tmp_path / "d.parquet").write_bytes(content)
    assert "d.parquet cannot be read" in refused(tmp_path / "d.parquet").message


def test_files_that_are_no_images(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"not an image")
    (tmp_path / "c.jpg").write_bytes(b"")
    (tmp_path / "d.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n")
    (tmp_path / ".hidden").write_bytes(b"left alone")
    problems = refused(tmp_path, IMAGES).problems
    formats = "PNG, JPEG, WEBP, BMP, GIF, TIFF, PPM"
    assert problems == [f"'{name}' is not an image ({formats})" for name in ("b.png", "c.jpg", "d.png")]


def test_an_image_cut_off_is_named(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    for name in ("a.png", "b.png", "c.jpg"):
        Image.fromarray(noise).save(tmp_path / name)
    raw = (tmp_path / "b.png").read_bytes()
    (tmp_path / "b.png").write_bytes(raw[: len(raw) // 2])
    error = refused(tmp_path, IMAGES)
    assert error.message.startswith("'b.png' cannot be decoded: ")
    assert error.hint == "the file is damaged; copy it again or remove it"


def png(width, height):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [10_000, 60_000])
def test_an_image_of_absurd_size(tmp_path, side):
    (tmp_path / "a.png").write_bytes(png(side, side))
    error = refused(tmp_path, IMAGES, UnsafeError)
    assert error.message == "'a.png' looks like a decompression bomb: more than 89478485 pixels"


def test_labels_that_point_outside(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "labels.csv").write_text("file,label\n../../etc/passwd,1\na.png,99999999999999999999\n")
    assert refused(tmp_path, IMAGES).problems == [
        f"labels.csv:2: there is no image '../../etc/passwd' in {tmp_path.name}",
        "labels.csv:3: label '99999999999999999999' is not a whole number from 0",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "d is empty"),
        (npy(np.ones(3)), "d is a single npy array without a name"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
            "d is a Git LFS pointer, not the data itself",
        ),
        (b"\x89PNG\r\n\x1a\n", "d is a single image"),
        (b'{"x": [1]}', "d is JSON, not a table"),
        (b"<!DOCTYPE html>", "d is HTML or XML, not a table"),
        (b"\xff\xfea\0,\0b\0", "d is text in UTF-16"),
        (b"\x1f\x8b\x08", "d is gzip-compressed"),
        (b"\x00\x01\x02\x03", "d is in no format that is known here"),
        (b"\x08\x0a\x12\x07pytorch\xff", "d is in no format that is known here"),
    ],
)
def test_other_files(tmp_path, content, message):
    (tmp_path / "d").write_bytes(content)
    error = refused(tmp_path / "d")
    assert error.message == message
    assert error.hint


def test_what_is_no_file(tmp_path):
    assert refused(tmp_path / "none.npz").message == f"{tmp_path / 'none.npz'} does not exist"
    os.mkfifo(tmp_path / "pipe")
    assert refused(tmp_path / "pipe").message == f"{tmp_path / 'pipe'} is neither a file nor a folder"
    (tmp_path / "images").mkdir()
    os.mkfifo(tmp_path / "images" / "a.png")
    assert refused(tmp_path / "images", IMAGES).problems == ["'a.png' is not a plain file"]
    assert refused(tmp_path / "images", []).message == "the model has no inputs, so there is nothing to feed it"


def test_a_column_wider_than_memory_is_not_believed(tmp_path):
    data = npy(header=header("(1, 20000000000)"), body=b"")
    assert "damaged" in refused(zipped(tmp_path / "d.npz", {"x.npy": data}), ANY_ROW).message


def test_opening_data_imports_nothing_heavy(tmp_path):
    np.savez(tmp_path / "d.npz", x=np.ones((2, 3), np.float32))
    code = (
        "import sys, numpy as np; from pathlib import Path; from modelkit.runtime import TensorSpec\n"
        "from modelkit.data.open import open_dataset; from modelkit.data.synthetic import synthetic_dataset\n"
        f"open_dataset(Path({str(tmp_path / 'd.npz')!r}), [TensorSpec('x', np.dtype('f4'), ('n', 3))])\n"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'onnx_ir', 'pyarrow', 'PIL', 'pydantic'}\n"
        "heavy &= sys.modules.keys()\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
