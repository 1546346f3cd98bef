"""What a person sees: tables that fit, names as they are, nothing but text where there is no terminal."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from cli_models import QUICK, cli, conv, mlp, quantize, samples, widest
from markdown_it import MarkdownIt

Capsys = pytest.CaptureFixture[str]

LONG = "/model/encoder/layers.{}/attention/self/query/MatMul_with_a_name_that_goes_on/and/on/for/longer/than/a/line"
REPO = Path(__file__).parents[2]


def squeezed(text: str) -> str:
    """Text without what folding adds."""
    return re.sub(r"\s+", "", text)


def test_tables_fit_80_columns_and_fold_long_names(capsys: Capsys) -> None:
    name = "m" * 90 + ".onnx"
    mlp(name, node=LONG, weight="weights/" + LONG)
    conv("n" * 100 + ".onnx", node=LONG)
    samples()
    texts = {}
    ran = quantize(capsys, name, "--data", "d.npz", "--explain", "--max-drop", "50%", "--min-ratio", "1.1")
    assert ran.code == 0, ran.err
    texts["quantize"] = ran.out
    texts["dry run"] = quantize(capsys, name, "--data", "d.npz", "--dry-run", "--explain", "--force").out
    texts["inspect"] = cli(capsys, "inspect", name).out
    texts["conv"] = cli(capsys, "inspect", "n" * 100 + ".onnx", "--layers", "0").out
    artifact = "m" * 90 + ".int8.onnx"
    texts["artifact"] = cli(capsys, "inspect", artifact).out
    texts["evaluate"] = cli(capsys, "evaluate", name, artifact, "--data", "d.npz", *QUICK).out
    texts["list"] = cli(capsys, "init", "quantize", "--list").out
    texts["help"] = cli(capsys, "quantize", "--help").out
    for which, text in texts.items():
        assert 40 < widest(text) <= 80, which
        assert not any(line != line.rstrip() for line in text.splitlines()), which
    for which in ("quantize", "inspect", "evaluate", "dry run"):
        assert squeezed(name) in squeezed(texts[which]), which
    # A folded name stands in one column: take its lines together.
    column = re.findall(r"^(\S+)", texts["inspect"].split("All 2 layers")[1], re.MULTILINE)
    assert LONG.format(0) in "".join(column)


def test_a_missed_budget_fits_too(capsys: Capsys) -> None:
    mlp("m" * 70 + ".onnx", node=LONG)
    ran = quantize(capsys, "m" * 70 + ".onnx", "--min-ratio", "30", "--explain")
    assert ran.code == 1 and 40 < widest(ran.out) <= 80


def test_many_models_side_by_side_fit(capsys: Capsys, folder: Path) -> None:
    names = []
    for index in range(5):
        (folder / f"version-{index}").mkdir()
        names.append(str(mlp(f"version-{index}/a_model_with_a_rather_long_name.onnx", sizes=(16, 32 + index, 10))))
    ran = cli(capsys, "evaluate", *names, *QUICK)
    assert ran.code == 0 and widest(ran.out) <= 80
    # The reference is repeated beside each pair, and models of one name are told apart by their folders.
    assert ran.out.count("file size") == 2
    assert "version-0" in ran.out and "version-4" in ran.out


def test_notes_hang(capsys: Capsys) -> None:
    mlp()
    lines = quantize(capsys, "m.onnx").out.splitlines()
    at = next(index for index, line in enumerate(lines) if line.startswith("note: "))
    assert lines[at + 1].startswith("      ") and lines[at + 1].strip()


def test_units_and_words(capsys: Capsys) -> None:
    mlp()
    samples()
    out = quantize(capsys, "m.onnx", "--data", "d.npz", "--explain", "--max-drop", "50%").out
    assert re.search(r"^file size +\d\.\d\d kB +\d\.\d\d kB +\d\.\d\dx smaller$", out, re.MULTILINE)
    assert re.search(r"^latency, median +[\d.]+ µs +[\d.]+ µs +\S.* \[\d\.\d\d, \d\.\d\d\]$", out, re.MULTILINE)
    assert re.search(r"^accuracy +\d+\.\d\d % +\d+\.\d\d % +[+-]\d+\.\d\d points$", out, re.MULTILINE)
    assert re.search(r"^drop in accuracy +≤ 50\.00 % +-?\d+\.\d\d % +met$", out, re.MULTILINE)
    assert "What was tried (agreement and quality on 16 other samples)" in out
    assert "8bits,4.10kBto1.28kB,SQNR" in squeezed(out)
    assert "sqnr_db" not in out and "bytes before" not in out


def test_no_quality_column_without_labels(capsys: Capsys) -> None:
    mlp()
    head = quantize(capsys, "m.onnx").out.split("What was tried\n\n")[1].splitlines()[0]
    assert head.split() == ["method", "size", "speed", "agreement", "verdict"]


# --- terminals ------------------------------------------------------------------------------------------------


def in_terminal(columns: int, *argv: str, **environment: str) -> str:
    """Run modelkit with stdout on a terminal of so many columns; returns what it wrote there."""
    import fcntl
    import struct
    import termios

    main, other = pty.openpty()
    fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    env = {**os.environ, "PYTHONPATH": str(REPO), "TERM": "xterm-256color", **environment}
    process = subprocess.Popen([sys.executable, "-m", "modelkit", *argv], stdout=other, stderr=other, env=env)
    os.close(other)
    found = b""
    while True:
        ready, _, _ = select.select([main], [], [], 60)
        if not ready:
            break
        try:
            chunk = os.read(main, 65536)
        except OSError:  # the other end is closed
            break
        if not chunk:
            break
        found += chunk
    os.close(main)
    assert process.wait(60) == 0
    return found.decode().replace("\r\n", "\n")


ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.mark.parametrize("columns", [80, 120])
def test_on_a_terminal(columns: int) -> None:
    mlp("m" * 90 + ".onnx", node=LONG)
    raw = in_terminal(columns, "inspect", "m" * 90 + ".onnx")
    assert "\x1b[1m" in raw  # titles are bold
    text = ESCAPES.sub("", raw)
    assert columns - 20 < widest(text) <= columns
    assert widest(text) > 80 or columns == 80


def test_no_colour_where_it_is_not_wanted(capsys: Capsys) -> None:
    mlp()
    raw = in_terminal(80, "inspect", "m.onnx", NO_COLOR="1")
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", raw)
    assert "\x1b" not in in_terminal(80, "inspect", "m.onnx", TERM="dumb")
    for ran in (cli(capsys, "inspect", "m.onnx"), quantize(capsys, "m.onnx", "--explain")):
        assert "\x1b" not in ran.out + ran.err and "\r" not in ran.out + ran.err


def test_progress_bar_is_gone_afterwards() -> None:
    mlp()
    raw = in_terminal(80, "quantize", "m.onnx", "--mode", "weights", "--set", "measure.seconds=2")
    assert "━" in raw  # it was there
    screen = raw.split("\x1b[?25h")[-1]  # what came after the cursor was shown again
    assert "━" not in screen and "file size" in screen
    for line in ESCAPES.sub("", raw).replace("\r", "\n").split("\n"):
        assert widest(line) <= 80


# --- markdown -------------------------------------------------------------------------------------------------


def cells(page: str) -> list[list[list[str]]]:
    """The tables of a Markdown page as a reader sees them."""
    tables: list[list[list[str]]] = []
    inside = False
    for token in MarkdownIt("commonmark").enable("table").parse(page):
        if token.type in ("table_open", "table_close"):
            inside = token.type == "table_open"
            tables += [[]] if inside else []
        elif token.type == "tr_open":
            tables[-1].append([])
        elif token.type == "inline" and inside:
            tables[-1][-1].append("".join(child.content for child in token.children or ()))
    return tables


def test_markdown_report(capsys: Capsys, folder: Path) -> None:
    mlp()
    samples()
    assert quantize(capsys, "m.onnx", "--data", "d.npz", "--max-drop", "50%", "--min-ratio", "2").code == 0
    page = (folder / "m.int8.report.md").read_text()
    tables = cells(page)
    assert len(tables) >= 5
    for table in tables:
        assert len({len(row) for row in table}) == 1 and len(table) > 1
    assert page.startswith("# `m.onnx`: quantize, ")
    for heading in ("## Budget", "## Kernels", "## Data", "## Decisions", "## Provenance", "## Options"):
        assert f"\n{heading}\n" in page
    options = {row[0]: row[1:] for row in tables[-1]}
    assert options["bits"] == ["8", "default"]
    assert options["budget.max_drop"] == ["0.5", "--max-drop"]
    assert options["measure.seconds"] == ["0.001", "--set measure.seconds=0.001"]
    assert "- calibration: 16 samples of `d.npz`, labelled, sha256 `" in page


def test_markdown_shows_hostile_names_as_they_are(capsys: Capsys, folder: Path) -> None:
    from modelkit.report.markdown import code, escape

    reader = MarkdownIt("commonmark").enable("table")
    for name in (
        "a|b", "`x`", "``", "a\\|b", "<script>", "**b** _i_ ~~s~~", "[t](http://u)", "![i](u)", "&lt;&#65;", " a ",
        "\\", "a`|`b", "#1 @me", "$x$", "http://example.com www.example.com", "1. x", "- x", "`", "|", "[x]: y",
    ):  # fmt: skip
        for show in (escape, code):
            page = f"| a | b |\n| --- | --- |\n| {show(name)} | z |\n"
            row = cells(page)[0][1]
            assert row[1] == "z" and len(row) == 2, (name, show)
            assert row[0].replace("\u200b", "").strip() == name.strip(), (name, show)
            assert "<a " not in reader.render(page) and "<img" not in reader.render(page)
    mlp(node="no|de `{}` <b>\n\x1b[31m", weight="[w](x){}")
    assert quantize(capsys, "m.onnx").code == 0
    page = (folder / "m.int8.report.md").read_text()
    assert page.isprintable() or all(c.isprintable() or c == "\n" for c in page)
    for table in cells(page):
        assert len({len(row) for row in table}) == 1
    assert "[w](x)0" in [row[0] for table in cells(page) for row in table]


def test_model_without_names(capsys: Capsys) -> None:
    model = onnx.load(mlp())
    for node in model.graph.node:
        node.name = ""
    onnx.save(model, "m.onnx")
    assert cli(capsys, "inspect", "m.onnx").code == 0
    assert quantize(capsys, "m.onnx", "--explain").code == 0
