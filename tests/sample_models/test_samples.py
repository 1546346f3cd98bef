"""The shipped models load, are as accurate as samples.json says, and the twins agree with their parents."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

FOLDER = Path(__file__).parents[2] / "sample_models"
SAMPLES = json.loads((FOLDER / "samples.json").read_text())
TWINS = json.loads((FOLDER / "twins.json").read_text())
SHIPPED = sorted(name for name, entry in SAMPLES.items() if entry["shipped"])
SHIPPED_TWINS = sorted(name for name, entry in TWINS.items() if entry["shipped"])
_logits: dict[Path, np.ndarray] = {}


def arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as archive:
        return dict(archive)


def logits(path: Path, x: np.ndarray) -> np.ndarray:
    """Outputs of a model for an evaluation set; batch by batch where the model's batch is fixed."""
    if path not in _logits:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        (spec,) = session.get_inputs()
        (output,) = session.get_outputs()
        assert output.name == "logits"
        batch = spec.shape[0] if isinstance(spec.shape[0], int) else 250
        parts = [session.run(None, {spec.name: x[i : i + batch]})[0] for i in range(0, len(x), batch)]
        _logits[path] = np.concatenate(parts)
    return _logits[path]


@pytest.mark.parametrize("name", SHIPPED)
def test_sample_is_valid_and_as_accurate_as_published(name: str) -> None:
    entry = SAMPLES[name]
    path = FOLDER / entry["file"]
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    (graph_input,) = model.graph.input
    assert graph_input.name == entry["input"]
    assert graph_input.type.tensor_type.shape.dim[0].dim_param == "batch"
    assert path.stat().st_size == entry["bytes"]
    assert entry["test_accuracy"] > 0.9
    data = arrays(FOLDER / f"{name}.eval.npz")
    labels = data["labels"]
    assert len(labels) == entry["eval_samples"]
    right = int((logits(path, data[entry["input"]]).argmax(1) == labels).sum())
    # Another processor sums in another order, which may turn a tie.
    assert abs(right - entry["eval_accuracy"] * len(labels)) <= 1.01


@pytest.mark.parametrize("name", SHIPPED)
def test_calibration_and_evaluation_sets_fit_the_model_and_share_nothing(name: str) -> None:
    entry = SAMPLES[name]
    spec = onnx.load(FOLDER / entry["file"]).graph.input[0].type.tensor_type
    dtype = onnx.helper.tensor_dtype_to_np_dtype(spec.elem_type)
    rows: dict[str, set[bytes]] = {}
    for kind in ("calib", "eval"):
        data = arrays(FOLDER / f"{name}.{kind}.npz")
        assert set(data) == {entry["input"], "labels"}
        x, labels = data[entry["input"]], data["labels"]
        assert x.dtype == dtype
        assert list(x.shape[1:]) == entry["input_shape"] == [dim.dim_value for dim in spec.shape.dim[1:]]
        assert labels.dtype == np.int64 and labels.shape == (len(x),)
        assert set(np.unique(labels)) == set(range(len(entry["classes"])))
        assert len(x) == entry[f"{kind}_samples"] <= (512 if kind == "calib" else 2500)
        assert np.isfinite(x).all() and x.min() >= 0 and x.max() <= (256 if dtype == np.int64 else 1)
        rows[kind] = {row.tobytes() for row in x}
    assert not rows["calib"] & rows["eval"]


@pytest.mark.parametrize("name", SHIPPED_TWINS)
def test_twin_gives_what_its_parent_gives(name: str) -> None:
    entry = TWINS[name]
    path, parent = FOLDER / entry["file"], SAMPLES[entry["parent"]]
    onnx.checker.check_model(str(path), full_check=True)
    data = arrays(FOLDER / entry["eval"])
    x = data[parent["input"]]
    mine, parents = logits(path, x), logits(FOLDER / parent["file"], x)
    if entry["quantized"]:
        assert (mine.argmax(1) == parents.argmax(1)).mean() >= 0.97
    else:
        np.testing.assert_allclose(mine, parents, atol=1e-4, rtol=0)
    accuracy = (mine.argmax(1) == data["labels"]).mean()
    slack = 10 if entry["quantized"] else 1.01
    assert abs(accuracy - entry["eval_accuracy"]) * len(x) <= slack


def graph_of(name: str) -> onnx.GraphProto:
    return onnx.load(FOLDER / TWINS[name]["file"], load_external_data=False).graph


def ops(graph: onnx.GraphProto) -> list[str]:
    return [node.op_type for node in graph.node]


def uses(graph: onnx.GraphProto, weight: str) -> list[str]:
    return [node.op_type for node in graph.node if weight in node.input]


def test_each_twin_is_as_awkward_as_its_name_says() -> None:
    for name in SHIPPED_TWINS:
        model = onnx.load(FOLDER / TWINS[name]["file"], load_external_data=False)
        assert model.opset_import[0].version == TWINS[name]["opset"]
        if "_opset" in name:
            assert TWINS[name]["opset"] == int(name.rsplit("_opset")[1])
        batch = model.graph.input[0].type.tensor_type.shape.dim[0]
        assert (batch.dim_value == 1) == name.endswith("_batch1")
    assert "LayerNormalization" not in ops(graph_of("language_transformer_opset13"))
    assert "BatchNormalization" in ops(graph_of("fashion_cnn_batchnorm"))
    constants = graph_of("fashion_cnn_constants")
    assert not constants.initializer and "Constant" in ops(constants)
    listed = onnx.load(FOLDER / TWINS["digits_mlp_initializer_inputs"]["file"])
    assert listed.ir_version == 3
    assert {i.name for i in listed.graph.initializer} < {i.name for i in listed.graph.input}
    assert uses(graph_of("digits_mlp_shared"), "2.weight") == ["Gemm", "Gemm"]
    assert uses(graph_of("digits_mlp_shared"), "4.weight") == ["Gemm", "Transpose"]
    assert uses(graph_of("fashion_cnn_shared"), "9.body.0.weight") == ["Conv", "Conv"]
    assert uses(graph_of("fashion_cnn_shared"), "13.weight") == ["Conv", "Reshape"]
    external = graph_of("digits_mlp_external")
    assert {i.data_location for i in external.initializer} == {onnx.TensorProto.EXTERNAL}
    choose = next(node for node in graph_of("digits_mlp_if").node if node.op_type == "If")
    assert [[i.name for i in branch.g.initializer] for branch in choose.attribute] == [["branch_weight"]] * 2
    assert {"QuantizeLinear", "DequantizeLinear", "Conv"} <= set(ops(graph_of("fashion_cnn_qdq")))
    assert "QLinearConv" in ops(graph_of("fashion_cnn_qoperator"))
    assert "MatMulInteger" in ops(graph_of("language_transformer_dynamic"))


def test_both_branches_of_the_if_twin_run() -> None:
    x = arrays(FOLDER / "digits_mlp.eval.npz")["image"]
    assert x[:250].mean() > 0.3 or x[250:].mean() > 0.3
    assert (x.mean(1) > 0.3).any() and (x.mean(1) <= 0.3).any()
    sessions = [
        onnxruntime.InferenceSession(FOLDER / file, providers=["CPUExecutionProvider"])
        for file in ("digits_mlp.onnx", TWINS["digits_mlp_if"]["file"])
    ]
    for row in x[:40, None]:
        parent, twin = (session.run(None, {"image": row})[0] for session in sessions)
        np.testing.assert_allclose(twin, parent, atol=1e-4)


def test_models_carry_no_trace_of_the_machine_that_made_them() -> None:
    for path in sorted(FOLDER.glob("**/*.onnx")):
        raw = path.read_bytes()
        assert b"site-packages" not in raw and b"stack_trace" not in raw, path


def test_readme_table_is_what_samples_json_says() -> None:
    readme = (FOLDER / "README.md").read_text()
    for entry in SAMPLES.values():
        line = next(line for line in readme.splitlines() if line.startswith(f"| `{entry['file']}` "))
        assert f"| {entry['parameters']:,} | {entry['bytes']:,} |" in line
        assert f"| {entry['test_accuracy']:.2%} ({entry['test_samples']:,}) |" in line
    for name in TWINS:
        assert f"`{name}`" in readme


def test_shipped_files_stay_small() -> None:
    files = [path for path in FOLDER.rglob("*") if path.is_file() and "made" not in path.relative_to(FOLDER).parts]
    assert sum(path.stat().st_size for path in files) < 12_000_000


def run_there(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python in the samples' folder, whose scripts import each other by plain names."""
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=FOLDER)


def test_make_says_which_package_brings_missing_data() -> None:
    result = run_there(
        "-c", "import data, pathlib; data.FASHION_DIR = pathlib.Path('/nowhere/fashion'); data.fashion()"
    )
    assert result.returncode == 1
    assert result.stderr == (
        "error: /nowhere/fashion is missing\nhint: apt-get install dataset-fashion-mnist (Debian, Ubuntu)\n"
    )


def test_npz_bytes_do_not_depend_on_the_time(tmp_path: Path) -> None:
    code = (
        "import sys, time, pathlib, numpy, data\n"
        "time.localtime = lambda *_: time.gmtime(float(sys.argv[2]))\n"
        "data.save_npz(pathlib.Path(sys.argv[1]), {'image': numpy.eye(3), 'labels': numpy.arange(3)})\n"
    )
    for name, seconds in (("a.npz", "1e9"), ("b.npz", "2e9")):
        assert run_there("-c", code, str(tmp_path / name), seconds).stderr == ""
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    saved = arrays(tmp_path / "a.npz")
    assert saved["image"].tolist() == np.eye(3).tolist() and saved["labels"].tolist() == [0, 1, 2]


def test_make_names_an_unknown_sample() -> None:
    result = run_there("make.py", "digits_cnn")
    assert result.returncode == 2
    assert "unknown name digits_cnn; known: " in result.stderr
