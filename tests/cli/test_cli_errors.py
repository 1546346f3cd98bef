"""Bad input: one clear error with a hint, the right exit code, nothing written."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from cli_models import QUICK, Ran, cli, listing, mlp, quantize, samples
from onnx import TensorProto, helper

Capsys = pytest.CaptureFixture[str]


def refused(ran: Ran, code: int, *lines: str) -> None:
    """The command printed exactly these lines on stderr and nothing on stdout."""
    assert ran.err.splitlines() == list(lines)
    assert (ran.code, ran.out) == (code, "")


@pytest.fixture
def unchanged(folder: Path) -> Callable[[], None]:
    """Call it to start watching the folder; what the test ends with must be what it was then."""
    before: list[dict[str, str]] = []

    def watch() -> None:
        before.append(listing(folder))

    yield watch
    assert before, "the test did not start watching"
    assert listing(folder) == before[0]


Watch = Callable[[], None]


# --- the model ------------------------------------------------------------------------------------------------


def test_missing_file_names_near_ones(capsys: Capsys, unchanged: Watch) -> None:
    mlp("model.onnx")
    unchanged()
    refused(
        quantize(capsys, "modle.onnx"), 2, "error: 'modle.onnx' does not exist", "hint: did you mean 'model.onnx'?"
    )


def test_folder_without_models(capsys: Capsys, unchanged: Watch, folder: Path) -> None:
    (folder / "models").mkdir()
    unchanged()
    for argv in (["quantize", "models", "-o", "out"], ["inspect", "models"], ["evaluate", "models"]):
        refused(
            cli(capsys, *argv),
            2,
            "error: there is no model below 'models'",
            "hint: files that hold ONNX, whatever they are called, or that are called .onnx",
        )


@pytest.mark.parametrize("command", ["quantize", "inspect", "evaluate"])
@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", "'m.onnx' is empty"),
        (b"just some words\nin lines\n", "'m.onnx' is a text file"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "'m.onnx' is a text file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 9\n", "Git LFS pointer"),
        (b"PK\x03\x04" + b"\0" * 60, "'m.onnx' is a"),
        (bytes(range(256)) * 4, "'m.onnx'"),
    ],
    ids=["empty", "text", "html", "lfs", "zip", "noise"],
)
def test_files_that_are_no_model(
    capsys: Capsys, unchanged: Watch, folder: Path, command: str, content: bytes, error: str
) -> None:
    (folder / "m.onnx").write_bytes(content)
    unchanged()
    ran = cli(capsys, command, "m.onnx")
    first, hint = ran.err.splitlines()
    assert first.startswith("error: ") and error in first
    assert hint.startswith("hint: ")
    assert (ran.code, ran.out) == (2, "")


def test_truncated_model(capsys: Capsys, unchanged: Watch, folder: Path) -> None:
    content = mlp().read_bytes()
    for size in (len(content) // 3, len(content) - 1):
        (folder / "m.onnx").write_bytes(content[:size])
        if size == len(content) // 3:
            unchanged()
            refused(
                quantize(capsys, "m.onnx"),
                2,
                "error: 'm.onnx' is a truncated or damaged ONNX model",
                "hint: the download or copy was cut off, or the file is damaged",
            )
    (folder / "m.onnx").write_bytes(content[: len(content) // 3])


def with_external_data(folder: Path, location: str) -> None:
    """Write m.onnx whose first weight is said to lie at a location."""
    model = onnx.load(mlp())
    tensor = model.graph.initializer[0]
    onnx.external_data_helper.set_external_data(tensor, location=location)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    (folder / "m.onnx").write_bytes(model.SerializeToString())


def test_external_data_missing(capsys: Capsys, unchanged: Watch, folder: Path) -> None:
    with_external_data(folder, "weights.bin")
    unchanged()
    ran = quantize(capsys, "m.onnx")
    assert ran.code == 2 and ran.out == ""
    assert ran.err.startswith("error: ") and "weights.bin" in ran.err and "\nhint: " in ran.err


@pytest.mark.parametrize("location", ["/etc/passwd", "../w.bin", "a/../../w.bin", "C:\\w.bin"])
@pytest.mark.parametrize("command", ["quantize", "inspect", "evaluate"])
def test_external_data_outside_is_unsafe(
    capsys: Capsys, unchanged: Watch, folder: Path, command: str, location: str
) -> None:
    with_external_data(folder, location)
    unchanged()
    ran = cli(capsys, command, "m.onnx")
    assert ran.code == 4 and ran.out == ""
    assert ran.err.startswith("error: ") and location in ran.err
    assert "hint: a model may only refer to files in its own folder" in ran.err


def test_external_data_behind_a_link_is_unsafe(
    capsys: Capsys, unchanged: Watch, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = tmp_path_factory.mktemp("outside") / "secret.bin"
    outside.write_bytes(b"\0" * 4096)
    (folder / "weights.bin").symlink_to(outside)
    with_external_data(folder, "weights.bin")
    unchanged()
    ran = quantize(capsys, "m.onnx")
    assert ran.code == 4 and "weights.bin" in ran.err and "leads out of its folder" in ran.err


def test_custom_operator(capsys: Capsys, unchanged: Watch) -> None:
    mlp(extra=[helper.make_node("Wobble", ["y"], ["z"], domain="com.example", name="wobble")])
    unchanged()
    for command in ("quantize", "evaluate"):
        ran = cli(capsys, command, "m.onnx")
        assert ran.code == 2 and ran.out == ""
        assert ran.err.startswith("error: the operator com.example") and "Wobble" in ran.err
        assert "'m.onnx'" in ran.err and "hint: modelkit measures with stock onnxruntime" in ran.err


def test_nothing_to_quantize(capsys: Capsys, unchanged: Watch) -> None:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), "m.onnx")
    unchanged()
    refused(
        quantize(capsys, "m.onnx"),
        2,
        "error: nothing to quantize: the model has no constant float weights",
        "hint: weights computed at run time or passed as inputs cannot be stored in fewer bits",
    )


@pytest.mark.parametrize("mode", ["weights", "dynamic", "static"])
def test_already_quantized(capsys: Capsys, folder: Path, mode: str) -> None:
    mlp()
    samples()
    assert quantize(capsys, "m.onnx", "--mode", mode, "--data", "d.npz", "-o", "int8.onnx").code == 0
    before = listing(folder)
    ran = quantize(capsys, "int8.onnx")
    assert ran.code == 2 and ran.out == ""
    assert "is already quantized" in ran.err
    assert listing(folder) == before


# --- options --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "error"),
    [
        (["--bits", "3.5"], "error: --bits: 3.5 is not a whole number"),
        (["--bits", "eight"], "error: --bits: 'eight' is not a whole number"),
        (["--mode", "best"], "error: --mode: 'best' is not one of 'auto', 'weights', 'dynamic', 'static'"),
        (["--max-drop", "lots"], "error: --max-drop: 'lots' is not a share"),
        (["--max-latency", "5 parsecs"], "error: --max-latency: '5 parsecs' is not a duration"),
        (["--threads", "-1"], "error: --threads: "),
        (["--seed", "1.5"], "error: --seed: 1.5 is not a whole number"),
        (["--set", "weights.sclae=mse"], "error: --set weights.sclae=mse: unknown key 'weights.sclae'"),
        (["--set", "weights"], "error: --set weights: KEY=VALUE is expected"),
        (["--set", "measure.seconds=fast"], "error: --set measure.seconds=fast: 'fast' is not a number"),
        (["--mode", "dynamic", "--bits", "4"], "error: mode dynamic computes with 8-bit integers"),
        (["--mode", "weights", "--qat"], "error: quantization-aware training needs mode static or auto"),
    ],
)
def test_options_that_do_not_fit(capsys: Capsys, unchanged: Watch, argv: list[str], error: str) -> None:
    mlp()
    unchanged()
    ran = cli(capsys, "quantize", "m.onnx", *argv)
    first, hint = ran.err.splitlines()
    assert first.startswith(error)
    assert hint == "hint: modelkit schema quantize lists every key and what it takes"
    assert (ran.code, ran.out) == (2, "")


@pytest.mark.parametrize("bits", ["64", "0", "-8", "9", "15", "17"])
def test_bits_out_of_range(capsys: Capsys, unchanged: Watch, bits: str) -> None:
    mlp()
    unchanged()
    ran = quantize(capsys, "m.onnx", "--bits", bits)
    first, hint = ran.err.splitlines()
    assert first.startswith("error: --bits: ") and f"1 to 8, or 16, not {bits}" in first
    assert hint.startswith("hint: ")
    assert (ran.code, ran.out) == (2, "")


def test_all_wrong_options_at_once(capsys: Capsys, unchanged: Watch) -> None:
    mlp()
    unchanged()
    ran = cli(capsys, "quantize", "m.onnx", "--bits", "3.5", "--mode", "best", "--set", "foo=1")
    lines = ran.err.splitlines()
    assert lines[0] == "error: what the options give has 3 problems"
    assert [line.split(":")[0] for line in lines[1:4]] == ["  --set foo=1", "  --bits", "  --mode"]
    assert lines[4].startswith("hint: ") and len(lines) == 5
    assert (ran.code, ran.out) == (2, "")


@pytest.mark.parametrize(
    ("argv", "error", "hint"),
    [
        (["quantise", "m.onnx"], "error: No such command 'quantise'", "hint: modelkit --help"),
        (["quantize"], "error: Missing argument 'MODEL'", "hint: modelkit quantize --help"),
        (["quantize", "m.onnx", "--bit", "8"], "error: No such option: --bit", "hint: modelkit quantize --help"),
        (["quantize", "m.onnx", "n.onnx"], "error: Got unexpected extra argument", "hint: modelkit quantize"),
        (["quantize", "m.onnx", "--bits"], "error: Option '--bits' requires an argument", "hint: modelkit quantize"),
        (["inspect", "m.onnx", "--layers", "-1"], "error: Invalid value for '--layers'", "hint: modelkit inspect"),
        (["inspect", "m.onnx", "--layers", "x"], "error: Invalid value for '--layers'", "hint: modelkit inspect"),
    ],
)
def test_command_lines_that_do_not_parse(
    capsys: Capsys, unchanged: Watch, argv: list[str], error: str, hint: str
) -> None:
    mlp()
    unchanged()
    ran = cli(capsys, *argv)
    lines = ran.err.splitlines()
    assert len(lines) == 2 and lines[0].startswith(error) and lines[1].startswith(hint)
    assert (ran.code, ran.out) == (2, "")


def test_pattern_that_matches_nothing(capsys: Capsys, unchanged: Watch) -> None:
    mlp()
    unchanged()
    for option in ("include", "exclude"):
        ran = quantize(capsys, "m.onnx", f"--{option}", "fd*")
        first, hint = ran.err.splitlines()
        assert first == f"error: {option}: the pattern 'fd*' matches no weight or layer"
        assert "fc0" in hint
        assert (ran.code, ran.out) == (2, "")


def test_static_without_data(capsys: Capsys, unchanged: Watch) -> None:
    mlp()
    unchanged()
    refused(
        quantize(capsys, "m.onnx", "--mode", "static"),
        2,
        "error: static quantization needs calibration data",
        "hint: give some with --data, or use --mode dynamic or --mode weights",
    )


def test_execution_provider_that_is_not_there(capsys: Capsys, unchanged: Watch) -> None:
    mlp()
    unchanged()
    for command in ("quantize", "evaluate"):
        ran = cli(capsys, command, "m.onnx", "--set", "measure.provider=FooProvider")
        first, hint = ran.err.splitlines()
        assert first == "error: this onnxruntime has no execution provider 'FooProvider'"
        assert "CPUExecutionProvider" in hint
        assert (ran.code, ran.out) == (2, "")


# --- the data -------------------------------------------------------------------------------------------------


def test_data_that_does_not_fit_tells_everything(capsys: Capsys, unchanged: Watch) -> None:
    mlp()
    np.savez("d.npz", y=np.zeros((4, 16), "f4"), labels=np.zeros(5, "i8"))
    np.savez("e.npz", x=np.zeros((4, 17), "f4"))
    np.savez("f.npz", x=np.array([["a"] * 16] * 4))
    unchanged()
    ran = quantize(capsys, "m.onnx", "--data", "d.npz")
    lines = ran.err.splitlines()
    assert lines[0] == "error: d.npz does not fit the model: 2 problems"
    assert lines[1].startswith("  input 'x' (float32 [N, 16]) is missing")
    assert lines[2].startswith("  array 'y' is not an input of the model")
    assert lines[3].startswith("hint: ") and (ran.code, ran.out) == (2, "")
    for name, word in (("e.npz", "17"), ("f.npz", "string")):
        ran = quantize(capsys, "m.onnx", "--data", name)
        assert ran.code == 2 and ran.out == ""
        assert ran.err.startswith(f"error: {name} does not fit the model") and word in ran.err
        assert len(ran.err.splitlines()) <= 2


@pytest.mark.parametrize("command", ["quantize", "evaluate"])
def test_values_that_no_model_can_use(capsys: Capsys, unchanged: Watch, command: str) -> None:
    mlp()
    good = np.ones((8, 16), "f4")
    bad = good.copy()
    bad[3, 2] = np.nan
    np.savez("nan.npz", x=bad)
    np.savez("labels.npz", x=good, labels=np.array([0, 1, 2, 3, 4, 5, 6, 10]))
    np.savez("negative.npz", x=good, labels=np.array([0, 1, 2, 3, 4, 5, 6, -1]))
    np.savez("few.npz", x=good, labels=np.array([0, 1, 2]))
    np.savez("empty.npz", x=good[:0])
    unchanged()
    for name, word in (
        ("nan.npz", "NaN"),
        ("labels.npz", "10"),
        ("negative.npz", "-1"),
        ("few.npz", "3"),
        ("empty.npz", "no samples"),
        ("none.npz", "does not exist"),
        ("m.onnx", "m.onnx"),
    ):
        ran = cli(capsys, command, "m.onnx", "--data", name, *QUICK)
        assert (ran.code, ran.out) == (2, ""), name
        assert ran.err.startswith("error: ") and name in ran.err.splitlines()[0] and word in ran.err, ran.err


# --- the config -----------------------------------------------------------------------------------------------


def test_config_tells_all_problems_with_their_lines(capsys: Capsys, unchanged: Watch, folder: Path) -> None:
    mlp()
    (folder / "q.yaml").write_text(
        "mode: weights\nbitz: 4\nbits: eight\nweights:\n  scale: 3\nmode: auto\nseed: -1\n"
    )
    unchanged()
    ran = cli(capsys, "quantize", "m.onnx", "--config", "q.yaml")
    lines = ran.err.splitlines()
    assert lines[0] == "error: 'q.yaml' has 5 problems"
    assert [line.strip().split(" ")[0] for line in lines[1:-1]] == [
        "q.yaml:2:",
        "q.yaml:3:",
        "q.yaml:5:",
        "q.yaml:6:",
        "q.yaml:7:",
    ]
    for line, word in zip(lines[1:-1], ["bitz", "eight", "scale", "mode", "seed"], strict=True):
        assert word in line
    assert lines[-1] == "hint: modelkit schema quantize lists every key and what it takes"
    assert (ran.code, ran.out) == (2, "")


# Ten times ten times ... lists, ten billion items if anyone wrote them out.
BOMB = "l0: &l0 [x]\n" + "".join(f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 10)}]\n" for i in range(1, 11))


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (BOMB, "alias"),
        ("- 1\n- 2\n", "a mapping of keys to values is expected"),
        ("mode: !!python/object/apply:os.system ['true']\n", "tag"),
        ("mode: auto\n---\nmode: weights\n", "document"),
        ("mode: [auto\n", "q.yaml:"),
        ("\tmode: auto\n", "tab"),
        ("mode: \xff".encode("latin-1"), "UTF-8"),
    ],
    ids=["alias bomb", "wrong root", "python tag", "two documents", "broken", "tab", "latin-1"],
)
def test_configs_that_are_no_config(
    capsys: Capsys, unchanged: Watch, folder: Path, text: str | bytes, word: str
) -> None:
    mlp()
    (folder / "q.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    unchanged()
    ran = cli(capsys, "quantize", "m.onnx", "--config", "q.yaml")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("error: ") and "q.yaml" in ran.err and word in ran.err.lower() + ran.err
    assert ran.err.splitlines()[-1].startswith("hint: ")


def test_config_that_is_not_there(capsys: Capsys, unchanged: Watch) -> None:
    mlp()
    unchanged()
    refused(
        cli(capsys, "quantize", "m.onnx", "--config", "none.yaml"),
        2,
        "error: the configuration 'none.yaml' does not exist",
        "hint: `modelkit init` writes one",
    )


# --- the output -----------------------------------------------------------------------------------------------


def test_output_that_exists(capsys: Capsys, unchanged: Watch, folder: Path) -> None:
    mlp()
    (folder / "m.int8.onnx").write_text("mine")
    unchanged()
    refused(
        quantize(capsys, "m.onnx"),
        2,
        "error: 'm.int8.onnx' exists already",
        "hint: --force replaces what is there, -o chooses another name",
    )


@pytest.mark.parametrize("how", ["same", "dotted", "symlink", "hardlink"])
def test_output_that_is_the_input_even_with_force(capsys: Capsys, unchanged: Watch, folder: Path, how: str) -> None:
    mlp()
    output = {"same": "m.onnx", "dotted": "./../" + folder.name + "/m.onnx"}.get(how, "o.onnx")
    if how == "symlink":
        (folder / "o.onnx").symlink_to("m.onnx")
    elif how == "hardlink":
        os.link("m.onnx", "o.onnx")
    unchanged()
    ran = quantize(capsys, "m.onnx", "-o", output, "--force")
    first, hint = ran.err.splitlines()
    assert first.startswith("error: the output '") and first.endswith("' is the input 'm.onnx'")
    assert hint == "hint: choose another name with -o"
    assert (ran.code, ran.out) == (2, "")


def test_output_that_is_the_data(capsys: Capsys, unchanged: Watch) -> None:
    mlp()
    samples()
    unchanged()
    ran = quantize(capsys, "m.onnx", "--data", "d.npz", "-o", "d.npz", "--force")
    assert ran.code == 2 and "is the input 'd.npz'" in ran.err


def test_output_that_is_a_folder(capsys: Capsys, unchanged: Watch, folder: Path) -> None:
    mlp()
    (folder / "out").mkdir()
    unchanged()
    refused(
        quantize(capsys, "m.onnx", "-o", "out", "--force"),
        2,
        "error: the output 'out' is a folder",
        "hint: name a file with -o",
    )


def test_folder_that_cannot_be_written(capsys: Capsys, unchanged: Watch) -> None:
    mlp()
    mlp("file")
    unchanged()
    for output, name in (("file/out.onnx", "file"), ("file/deeper/out.onnx", "file/deeper")):
        refused(
            quantize(capsys, "m.onnx", "-o", output),
            5,
            f"error: cannot write in the folder '{name}': it, or one above it, is a file",
            "hint: choose another folder with -o",
        )
    ran = quantize(capsys, "m.onnx", "-o", "/proc/out.onnx")
    first, hint = ran.err.splitlines()
    assert first.startswith("error: cannot write in the folder '/proc'") and ran.code == 5
    assert hint == "hint: choose another folder with -o"


# --- defects --------------------------------------------------------------------------------------------------


def test_an_unexpected_exception_is_called_a_defect(
    capsys: Capsys, unchanged: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlp()
    unchanged()

    def broken(*_: object, **__: object) -> None:
        raise ValueError("the first line\nand a second one \x1b[31m")

    monkeypatch.setattr("modelkit.api.inspect", broken)
    refused(
        cli(capsys, "inspect", "m.onnx"),
        5,
        "error: this is a defect in modelkit: ValueError: the first line and a second one \\x1b[31m",
        "hint: run again with --debug and report what it shows",
    )
    ran = cli(capsys, "inspect", "m.onnx", "--debug")
    assert ran.code == 5 and "Traceback (most recent call last)" in ran.err and "in broken" in ran.err
    assert ran.err.splitlines()[-1] == "hint: run again with --debug and report what it shows"


def test_out_of_memory(capsys: Capsys, unchanged: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    mlp()
    unchanged()

    def hungry(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("modelkit.api.inspect", hungry)
    ran = cli(capsys, "inspect", "m.onnx")
    assert ran.code == 5 and ran.err.startswith("error: out of memory\nhint: ")


def test_debug_shows_where_an_expected_error_comes_from(capsys: Capsys, unchanged: Watch) -> None:
    unchanged()
    ran = cli(capsys, "quantize", "none.onnx", "--debug")
    assert ran.code == 2 and "Traceback" in ran.err
    assert "error: 'none.onnx' does not exist" in ran.err.splitlines()
    assert "Traceback" not in cli(capsys, "quantize", "none.onnx").err
