"""Hostile and broken model files: each is refused with one line that says why, and opens nothing outside."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from modelkit.errors import ModelError, ModelkitError, UnsafeError, UsageError
from modelkit.graph.load import load

SECRET = b"0123456789abcdef" * 4


def plain(weight: onnx.TensorProto | None = None) -> onnx.ModelProto:
    weight = weight or numpy_helper.from_array(np.eye(4, dtype=np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])],
        [weight],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def external(location: str, **entries: object) -> onnx.TensorProto:
    tensor = TensorProto(name="w", dims=[4, 4], data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, **entries}.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, str(value)
    return tensor


def write(folder: Path, proto: onnx.ModelProto | bytes, name: str = "model.onnx") -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_bytes(proto if isinstance(proto, bytes) else proto.SerializeToString())
    return path


def refused(path: Path, kind: type[ModelkitError], message: str, hint: str = "") -> None:
    with pytest.raises(kind, match=message) as caught:
        load(path)
    assert "\n" not in caught.value.message
    assert hint in (caught.value.hint or "")


# What is no model at all


def test_missing(tmp_path: Path) -> None:
    refused(tmp_path / "none.onnx", UsageError, r"none\.onnx' does not exist")


def test_a_folder(tmp_path: Path) -> None:
    refused(tmp_path, UsageError, "folder")


def test_empty(tmp_path: Path) -> None:
    refused(write(tmp_path, b""), ModelError, r"model\.onnx' is empty", "cut off")


def test_text(tmp_path: Path) -> None:
    path = write(tmp_path, b"404: Not Found, this is not the model that you look for\n")
    refused(path, ModelError, "is a text file", "a failed download")


def test_an_error_page(tmp_path: Path) -> None:
    path = write(tmp_path, b"<!DOCTYPE html><html><body>Sign in</body></html>")
    refused(path, ModelError, "is a text file", "a failed download")


def test_a_git_lfs_pointer(tmp_path: Path) -> None:
    text = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 123\n"
    refused(write(tmp_path, text), ModelError, "is a Git LFS pointer", "run git lfs pull")


def test_safetensors(tmp_path: Path) -> None:
    header = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    path = write(tmp_path, struct.pack("<Q", len(header)) + header + b"\0\0\0\0")
    refused(path, ModelError, "is a safetensors file; this command reads only ONNX files", "export")


def test_a_zip(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("model.onnx", plain().SerializeToString())
    refused(write(tmp_path, buffer.getvalue()), ModelError, "is a zip file; this command reads only ONNX files")


def test_noise(tmp_path: Path) -> None:
    path = write(tmp_path, np.random.default_rng(0).bytes(5000))
    refused(path, ModelError, "is not an ONNX model")


@pytest.mark.parametrize("fraction", [0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99])
def test_truncated(tmp_path: Path, fraction: float) -> None:
    content = plain(numpy_helper.from_array(np.ones((4, 4), dtype=np.float32), "w")).SerializeToString()
    refused(write(tmp_path, content[: max(1, int(len(content) * fraction))]), ModelError, "truncated|not an ONNX")


def test_every_truncation_is_an_error_of_ours(tmp_path: Path) -> None:
    content = plain().SerializeToString()
    for end in range(1, len(content)):
        path = write(tmp_path, content[:end])
        with pytest.raises(ModelError):
            load(path)


def test_every_changed_byte_is_survived(tmp_path: Path) -> None:
    """A damaged file either still says something valid or is refused in one line."""
    content = plain().SerializeToString()
    for place in range(0, len(content)):
        for value in (0x00, 0x7F, 0xFF):
            changed = bytearray(content)
            changed[place] = value
            path = write(tmp_path, bytes(changed))
            try:
                load(path)
            except ModelkitError as error:
                assert "\n" not in error.message


# External data


@pytest.mark.parametrize(
    "location",
    [
        "/etc/passwd",
        "../secret.bin",
        "a/../../secret.bin",
        "..\\secret.bin",
        "C:\\secret.bin",
        "link.bin",
        "folder/secret.bin",
        ".",
        "./",
        "a\0b",
    ],
)
def test_external_data_outside(tmp_path: Path, location: str) -> None:
    (tmp_path / "secret.bin").write_bytes(SECRET)
    folder = tmp_path / "in"
    path = write(folder, plain(external(location)))
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    (folder / "folder").symlink_to(tmp_path)
    refused(path, UnsafeError, "the location '.*'", "")


@pytest.mark.parametrize("where", ["subgraph", "attribute", "function", "sparse", "training"])
def test_external_data_outside_is_found_everywhere(tmp_path: Path, where: str) -> None:
    (tmp_path / "secret.bin").write_bytes(SECRET)
    bad = external("../secret.bin")
    proto = plain()
    constant = helper.make_node("Constant", [], ["k"])
    attribute = constant.attribute.add(name="value", type=onnx.AttributeProto.TENSOR)
    attribute.t.CopyFrom(bad)
    if where == "attribute":
        proto.graph.node.append(constant)
    elif where == "subgraph":
        out = [helper.make_tensor_value_info("w", TensorProto.FLOAT, [4, 4])]
        branch = helper.make_graph([helper.make_node("Neg", ["w"], ["z"])], "b", [], out, [bad])
        proto.graph.node.append(helper.make_node("If", ["x"], ["z"], then_branch=branch, else_branch=branch))
    elif where == "function":
        proto.functions.append(helper.make_function("f", "F", [], ["k"], [constant], [helper.make_opsetid("", 17)]))
    elif where == "sparse":
        sparse = proto.graph.sparse_initializer.add(dims=[4, 4])
        sparse.values.CopyFrom(bad)
    else:
        proto.training_info.add().algorithm.initializer.append(bad)
    refused(write(tmp_path / "in", proto), UnsafeError, "leaves its folder by '..'")


def test_a_hard_link(tmp_path: Path) -> None:
    (tmp_path / "secret.bin").write_bytes(SECRET)
    folder = tmp_path / "in"
    path = write(folder, plain(external("data.bin")))
    os.link(tmp_path / "secret.bin", folder / "data.bin")
    refused(path, UnsafeError, "the external data file 'data.bin' has 2 hard links", "copy")


def test_a_pipe_is_not_opened(tmp_path: Path) -> None:
    path = write(tmp_path, plain(external("pipe")))
    os.mkfifo(tmp_path / "pipe")
    refused(path, UnsafeError, "the external data 'pipe' of 'model.onnx' is not a plain file")


def test_missing_external_data(tmp_path: Path) -> None:
    path = write(tmp_path, plain(external("weights.bin")))
    refused(path, ModelError, "the external data file 'weights.bin' of 'model.onnx' is missing", str(tmp_path))


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"offset": 1}, "needs 64 bytes; it points to 64 bytes at 1 of 'data.bin', which has 64"),
        ({"offset": -64}, "points to 64 bytes at -64"),
        ({"offset": 2**70}, "which has 64"),
        ({"length": 65}, "points to 65 bytes"),
        ({"length": 3}, "needs 64 bytes; it points to 3 bytes"),
        ({"length": -1}, "points to -1 bytes"),
        ({"offset": "zero"}, "an offset or length that is no number"),
        ({"length": "9" * 5000}, "an offset or length that is no number"),
    ],
)
def test_offsets_beyond_the_file(tmp_path: Path, entries: dict, message: str) -> None:
    (tmp_path / "data.bin").write_bytes(SECRET)
    refused(write(tmp_path, plain(external("data.bin", **entries))), ModelError, message)


def test_regions_that_overlap_in_part(tmp_path: Path) -> None:
    (tmp_path / "data.bin").write_bytes(SECRET * 2)
    proto = plain(external("data.bin", offset=0))
    second = external("data.bin", offset=32)
    second.name = "v"
    proto.graph.initializer.append(second)
    refused(write(tmp_path, proto), ModelError, "the tensors 'w' and 'v' overlap in 'data.bin'")
    second.external_data[1].value = "0"
    proto.graph.initializer[1].CopyFrom(second)
    assert load(write(tmp_path, proto)).size_bytes > 128


def test_external_data_without_a_name(tmp_path: Path) -> None:
    refused(write(tmp_path, plain(external(""))), ModelError, "the tensor 'w' is external but names no file")


def test_external_text(tmp_path: Path) -> None:
    (tmp_path / "data.bin").write_bytes(SECRET)
    tensor = external("data.bin")
    tensor.data_type = TensorProto.STRING
    refused(write(tmp_path, plain(tensor)), ModelError, "the tensor 'w' holds text")


# Tensors that are not what they say


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dims": [2**40, 2**20]}, "needs 4611686018427387904 bytes and has 64"),
        ({"dims": [2**62, 2**62, 4]}, "and has 64"),
        ({"dims": [-4, -4]}, "declares a negative dimension"),
        ({"dims": [4, 5]}, "needs 80 bytes and has 64"),
        ({"data_type": 99}, "has the unknown data type 99"),
        ({"data_type": 0}, "has the unknown data type 0"),
        ({"raw_data": b""}, "needs 64 bytes and has 0"),
        ({"raw_data": None}, "needs 16 elements and has 0"),
    ],
)
def test_tensors_that_do_not_fit_their_shape(tmp_path: Path, change: dict, message: str) -> None:
    tensor = numpy_helper.from_array(np.eye(4, dtype=np.float32), "w")
    for name, value in change.items():
        if name == "dims":
            del tensor.dims[:]
            tensor.dims.extend(value)
        elif value is None:
            tensor.ClearField(name)
        else:
            setattr(tensor, name, value)
    refused(write(tmp_path, plain(tensor)), ModelError, message)


def test_a_sparse_tensor_that_would_fill_the_memory(tmp_path: Path) -> None:
    proto = plain()
    values = numpy_helper.from_array(np.ones(1, dtype=np.float32), "huge")
    indices = numpy_helper.from_array(np.zeros(1, dtype=np.int64), "i")
    proto.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [2**20, 2**20]))
    refused(write(tmp_path, proto), ModelError, r"the sparse tensor 'huge' of shape .* is too large")


@pytest.mark.parametrize("index", [[16], [-1], [2**62]])
def test_a_sparse_tensor_with_indices_outside(tmp_path: Path, index: list[int]) -> None:
    proto = plain()
    values = numpy_helper.from_array(np.ones(1, dtype=np.float32), "s")
    indices = numpy_helper.from_array(np.array(index, dtype=np.int64), "i")
    proto.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [4, 4]))
    refused(write(tmp_path, proto), ModelError, "has indices that do not fit its shape")


# Functions that do not end


def function(name: str, calls: str, times: int) -> onnx.FunctionProto:
    nodes = [helper.make_node(calls, [f"v{i}"], [f"v{i + 1}"], domain="f") for i in range(times)]
    return helper.make_function(
        "f", name, ["v0"], [f"v{times}"], nodes, [helper.make_opsetid("f", 1), helper.make_opsetid("", 17)]
    )


def with_functions(functions: list[onnx.FunctionProto], first: str) -> onnx.ModelProto:
    proto = plain()
    proto.graph.node.append(helper.make_node(first, ["y"], ["z"], domain="f"))
    proto.functions.extend(functions)
    proto.opset_import.append(helper.make_opsetid("f", 1))
    proto.ir_version = 9
    return proto


def test_functions_that_multiply(tmp_path: Path) -> None:
    leaf = helper.make_function(
        "f", "F0", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])], [helper.make_opsetid("", 17)]
    )
    functions = [leaf, *(function(f"F{i}", f"F{i - 1}", 10) for i in range(1, 12))]
    refused(write(tmp_path, with_functions(functions, "F11")), UnsafeError, r"expand to 1e\+11 nodes")


def test_functions_that_call_each_other(tmp_path: Path) -> None:
    functions = [function("A", "B", 1), function("B", "A", 1)]
    refused(write(tmp_path, with_functions(functions, "A")), UnsafeError, "calls itself")


def test_a_long_chain_of_functions(tmp_path: Path) -> None:
    functions = [function(f"F{i}", f"F{i + 1}", 1) for i in range(5000)]
    refused(write(tmp_path, with_functions(functions, "F0")), UnsafeError, "calls itself|deep")


def test_graphs_nested_beyond_reason(tmp_path: Path) -> None:
    graph = plain().graph
    for _ in range(200):
        outer = helper.make_graph([], "g", [], [])
        node = outer.node.add(op_type="If")
        attribute = node.attribute.add(name="then_branch", type=onnx.AttributeProto.GRAPH)
        attribute.g.CopyFrom(graph)
        graph = outer
    proto = plain()
    proto.graph.CopyFrom(graph)
    refused(write(tmp_path, proto), ModelError, "truncated or damaged")


def test_a_huge_declared_weight_takes_no_memory(tmp_path: Path) -> None:
    """A terabyte of holes is described from its declaration alone."""
    side = 2**19
    tensor = external("holes.bin")
    del tensor.dims[:]
    tensor.dims.extend([side, side])
    proto = plain(tensor)
    proto.graph.input[0].type.tensor_type.shape.dim[1].dim_value = side
    proto.graph.output[0].type.tensor_type.shape.dim[1].dim_value = side
    path = write(tmp_path, proto)
    with (tmp_path / "holes.bin").open("wb") as file:
        try:
            file.truncate(side * side * 4)
        except OSError:
            file.truncate(0)
    program = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from modelkit.errors import ModelError\n"
        "from modelkit.graph.load import load\n"
        "from modelkit.graph.facts import describe\n"
        "resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))\n"
        "try:\n"
        "    print(describe(load(Path(sys.argv[1])).model).parameters)\n"
        "except ModelError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(side * side) or "needs" in done.stdout
