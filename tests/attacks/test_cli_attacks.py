"""Names from hostile files, seen through the command line: shown as they are, never obeyed."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from rich.cells import cell_len

from modelkit.cli.app import run

Capsys = pytest.CaptureFixture[str]
QUICK = ["--set", "measure.seconds=0.001"]
# No result may hang on a timing as short as that: the smallest wins.
QUANTIZE = ["quantize", "--objective", "size", *QUICK]

# What could steer a terminal, forge a line, colour a table, break a table's cell or a JSON text.
NAMES = {
    "escape": "a\x1b[31mred\x1b[0m",
    "control": "\x1b]0;owned\x07\x1b[2J\x1b[H\x9b2J secure\b\b\b\b\b\bhacked",
    "newline": "layer\nerror: forged\rline\x0b\x0c\x85\u2028end",
    "direction": "\u202egnp.exe\u202c\u200b\ufeff",
    "markup": "[red]x[/red] [/] [link=http://x]y[/link] :smile:",
    "markdown": "|`x`|<b>*_[a](b)",
    "quotes": "\"'\\{}${}%s",
    "wide": "模型" * 20,
    "combining": "e" + "\u0301" * 60,
}


def hostile(path: str, name: str, *, dims: Sequence[object] = ("N", 16)) -> None:
    """A model that runs and has a name wherever a name can be."""
    random = np.random.default_rng(0)
    weight = random.standard_normal((16, 32)).astype("f4")
    nodes = [
        helper.make_node("MatMul", [f"{name} in", f"{name} w"], [f"{name} t"], name=f"{name} node", doc_string=name),
        helper.make_node("Relu", [f"{name} t"], [f"{name} out"], name=f"{name} relu"),
    ]
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info(f"{name} in", TensorProto.FLOAT, list(dims))],
        [helper.make_tensor_value_info(f"{name} out", TensorProto.FLOAT, [dims[0], 32])],
        [numpy_helper.from_array(weight, f"{name} w")],
        doc_string=name,
    )
    # With these in the producer's name a file is not even taken for a model.
    producer = name.replace("\x07", "").replace("\b", "")
    opsets = [helper.make_opsetid("", 17)]
    model = helper.make_model(
        graph, opset_imports=opsets, ir_version=9, producer_name=producer, producer_version=producer
    )
    model.metadata_props.add(key=name, value=name)
    onnx.save(model, path)


def harmless(text: str) -> None:
    """Nothing but printable characters and newlines, and no line wider than the screen."""
    bad = {character for character in text if not character.isprintable() and character != "\n"}
    assert not bad, bad


def cli(capsys: Capsys, *argv: str) -> tuple[int, str, str]:
    capsys.readouterr()
    code = run(list(argv))
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for variable in ("COLUMNS", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path


@pytest.mark.parametrize("which", NAMES)
def test_hostile_names_in_a_model(capsys: Capsys, folder: Path, which: str) -> None:
    name = NAMES[which]
    hostile("m.onnx", name, dims=(name, 16))
    hostile("n.onnx", name + "!", dims=(name, 16))
    texts = []
    for argv in (
        ["inspect", "m.onnx"],
        [*QUANTIZE, "m.onnx", "--dry-run", "--explain"],
        [*QUANTIZE, "m.onnx", "--explain", "--verbose"],
        ["inspect", "m.int8.onnx"],
        ["evaluate", "m.onnx", "m.int8.onnx", *QUICK],
    ):
        code, out, err = cli(capsys, *argv)
        assert code == 0, err
        harmless(out)
        harmless(err)
        assert max(map(cell_len, out.splitlines())) <= 80
        texts.append(out)
    # Shown to the letter, not taken for markup.
    flat = re.sub(r"\s", "", texts[0])
    if which == "markup":
        assert re.sub(r"\s", "", name) in flat
    if which == "escape":
        assert "a\\x1b[31mred\\x1b[0m" in flat
    page = (folder / "m.int8.report.md").read_text()
    harmless(page)
    assert "\nerror: forged" not in page
    assert "<b>" not in page.replace("`", "")
    # JSON keeps the true name.
    code, out, _ = cli(capsys, "inspect", "m.onnx", "--json")
    assert json.loads(out)["facts"]["layers"][0]["name"] == f"{name} node"
    assert json.loads((folder / "m.int8.report.json").read_text())["status"] == "done"
    # Errors name things too.
    np.savez("d.npz", **{f"{which}": np.zeros((4, 16), "f4")})
    for argv in (
        ["evaluate", "m.onnx", "n.onnx"],
        ["quantize", "m.onnx", "--force", "--data", "d.npz"],
        ["quantize", "m.onnx", "--force", "--include", "nothing like it"],
    ):
        code, out, err = cli(capsys, *argv)
        assert code == 2 and out == ""
        harmless(err)
        assert not any(line.startswith("error: forged") for line in err.splitlines())
        assert err.count("error: ") - err.count("error: forged") == 1


@pytest.mark.parametrize("which", NAMES)
def test_hostile_operators(capsys: Capsys, which: str) -> None:
    name = NAMES[which]
    graph = helper.make_graph(
        [helper.make_node(name, ["x"], ["y"], domain=f"{name}.domain", name=name)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(f"{name}.domain", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), "m.onnx")
    code, out, err = cli(capsys, "inspect", "m.onnx")
    harmless(out)
    harmless(err)
    assert code == 0 and max(map(cell_len, out.splitlines())) <= 80
    for command in ("quantize", "evaluate"):
        code, out, err = cli(capsys, command, "m.onnx")
        assert code == 2 and out == ""
        harmless(err)
        assert len(err.splitlines()) <= 2 and err.startswith("error: ")


@pytest.mark.parametrize("which", [which for which in NAMES if which not in ("wide",)])
def test_hostile_file_names(capsys: Capsys, folder: Path, which: str) -> None:
    name = NAMES[which].replace("/", "_")[:60] + ".onnx"
    hostile(name, "n")
    code, out, err = cli(capsys, *QUANTIZE, name, "--mode", "weights")
    assert code == 0, err
    harmless(out)
    harmless(err)
    for argv in (["inspect", name], ["evaluate", name, *QUICK]):
        code, out, err = cli(capsys, *argv)
        assert code == 0, err
        harmless(out)
        harmless(err)
    for path in folder.glob("*.md"):
        harmless(path.read_text())
    code, out, err = cli(capsys, "quantize", name)
    assert code == 2
    harmless(err)
    assert err.splitlines()[0].startswith("error: ") and len(err.splitlines()) == 2


@pytest.mark.parametrize("which", NAMES)
def test_hostile_options(capsys: Capsys, folder: Path, which: str) -> None:
    name = NAMES[which]
    hostile("m.onnx", "n")
    (folder / "q.yaml").write_text(json.dumps({name: 1, "mode": name}), encoding="utf-8")
    for argv in (
        ["quantize", "m.onnx", "--set", f"{name}=1"],
        ["quantize", "m.onnx", "--set", f"mode={name}"],
        ["quantize", "m.onnx", "--mode", name],
        ["quantize", "m.onnx", "--bits", name],
        ["quantize", "m.onnx", "--include", name],
        ["quantize", "m.onnx", "--config", "q.yaml"],
        ["quantize", "m.onnx", "--config", name],
        ["quantize", "m.onnx", "--data", name],
        ["quantize", name],
        ["quantize", "m.onnx", f"--{name}"],
        ["inspect", "m.onnx", "--layers", name],
        ["init", "quantize", "--template", name],
        ["init", name],
        [name],
    ):
        code, out, err = cli(capsys, *argv)
        assert code in (1, 2) and out == "", argv
        harmless(err)
        assert not any(line.startswith("error: forged") for line in err.splitlines())
    assert sorted(path.name for path in folder.iterdir()) == ["m.onnx", "q.yaml"]


def test_an_endless_name(capsys: Capsys, folder: Path) -> None:
    name = "x" * 300_000
    hostile("m.onnx", name)
    for argv in (["inspect", "m.onnx"], [*QUANTIZE, "m.onnx", "--explain"]):
        code, out, err = cli(capsys, *argv)
        # The artifact holds more copies of the name: that it is not smaller is a fair result.
        assert code in (0, 1) and len(out) < 50_000 and len(err) < 10_000
        assert max(map(len, out.splitlines())) <= 80
        assert "(3000" in out  # how long it really is
    assert (folder / "m.int8.report.md").stat().st_size < 100_000
    code, out, err = cli(capsys, "quantize", "m.onnx", "--include", "y", "--force")
    assert code == 2 and len(err) < 20_000


def test_thousands_of_layers_are_listed_in_a_screen(capsys: Capsys) -> None:
    weight = numpy_helper.from_array(np.eye(16, dtype="f4"), "w")
    nodes = [
        helper.make_node("MatMul", [f"t{i}", "w"], [f"t{i + 1}"], name=f"block/{i}/product") for i in range(2000)
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("t0", TensorProto.FLOAT, ["N", 16])],
        [helper.make_tensor_value_info("t2000", TensorProto.FLOAT, ["N", 16])],
        [weight],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), "m.onnx")
    code, out, err = cli(capsys, "inspect", "m.onnx")
    assert code == 0 and len(out.splitlines()) < 60, err
    assert "largest of 2000 layers" in out


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(codec=None), max_size=80))
def test_any_text_is_safe_in_tables_and_markdown(text: str) -> None:
    from io import StringIO

    from markdown_it import MarkdownIt
    from rich.console import Console

    from modelkit.report.markdown import code, escape
    from modelkit.report.text import add_row, new_table, notes, pairs, stack, titled

    table = new_table("name", "figure", numbers=("figure",))
    add_row(table, text, "1.00 MB")
    screen = StringIO()
    Console(file=screen, width=40).print(
        stack([titled(text, table), pairs([(text, text)]), notes([text])]), soft_wrap=False
    )
    harmless(screen.getvalue())
    assert max(map(cell_len, screen.getvalue().splitlines())) <= 40
    for show in (escape, code):
        shown = show(text)
        harmless(shown)
        assert "\n" not in shown
        tokens = MarkdownIt("commonmark").enable("table").parse(f"| a | b |\n| --- | --- |\n| {shown} | z |\n")
        row = [token for token in tokens if token.type == "inline"][2:]
        assert len(row) == 2 and row[1].content == "z"
        kinds = {child.type for child in row[0].children or ()}
        assert kinds <= {"text", "code_inline", "text_special"}
