"""Workflow commands and step summaries: escaped as GitHub reads them, and within its limits."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkit.errors import ResourceError
from modelkit.report import github
from modelkit.report.cases import Case, Result

TEXTS = st.text(st.one_of(st.characters(), st.sampled_from("%:,\r\n;=]\0")), max_size=30)


def parsed(line: str) -> tuple[str, dict[str, str], str]:
    """Read a workflow command as GitHub's runner does: cut first, then unescape, the percent sign last."""
    assert line.startswith("::")
    end = line.index("::", 2)
    name, _, given = line[2:end].partition(" ")
    pairs = dict(each.split("=", 1) for each in given.split(",") if each)

    def plain(text: str, marks: str) -> str:
        for mark in marks:
            text = text.replace(f"%{ord(mark):02X}", mark)
        return text

    return name, {key: plain(value, "\r\n:,%") for key, value in pairs.items()}, plain(line[end + 2 :], "\r\n%")


def bad(number: int = 0, result: Result = Result.FAILED, **more: str) -> Case:
    return Case(f"gate {number}", "m.onnx", result, "missed", **more)


def test_a_command_as_github_documents_it(tmp_path: Path) -> None:
    made = Case("drop in accuracy", "m.onnx", Result.FAILED, "5 %, asked ≤ 1 %", file=str(tmp_path / "a,b:c.onnx"))
    assert github.workflow_commands([made], "modelkit quantize", tmp_path) == [
        "::error file=a%2Cb%3Ac.onnx,title=modelkit quantize%3A drop in accuracy::m.onnx: 5 %25, asked ≤ 1 %25"
    ]


@given(name=TEXTS, message=TEXTS, subject=TEXTS)
def test_no_text_can_leave_its_place(name: str, message: str, subject: str) -> None:
    made = Case(name, subject, Result.ERROR, message or "x")
    (line,) = github.workflow_commands([made], "modelkit", None)
    assert line.isprintable()
    kind, properties, data = parsed(line)
    assert kind == "error" and set(properties) == {"title"}
    if (name + message + subject).isprintable():
        assert properties["title"] == f"modelkit: {name}"
        assert data == f"{subject}: {message or 'x'}"


def test_only_files_of_the_checkout_are_named(tmp_path: Path) -> None:
    for file in ("/etc/passwd", str(tmp_path / ".." / "x"), "", "\0"):
        (line,) = github.workflow_commands([bad(file=file)], "c", tmp_path)
        assert "file=" not in line
    assert "file=" not in github.workflow_commands([bad(file="x")], "c", None)[0]


@pytest.mark.parametrize(("count", "shown"), [(1, 1), (10, 10), (11, 10), (500, 10)])
def test_ten_of_a_type_and_the_rest_summed_up(count: int, shown: int) -> None:
    cases = [bad(n) for n in range(count)] + [bad(n, Result.SKIPPED) for n in range(count)]
    lines = github.workflow_commands([*cases, bad(0, Result.PASSED)], "modelkit check", None)
    for kind in ("error", "warning"):
        mine = [line for line in lines if line.startswith(f"::{kind} ")]
        assert len(mine) == shown
        said = f"and {count - 9} more: the summary of this step has all of them"
        assert mine[-1].endswith(said) == (count > 10)


def test_commands_can_be_stopped() -> None:
    opening, closing = github.stop_commands()
    assert opening == f"::stop-commands::{closing.strip(':')}"
    assert github.stop_commands() != (opening, closing)


def test_the_worst_comes_first_and_nothing_is_markup() -> None:
    cases = [bad(1, Result.PASSED), Case("<img>", "a|b`", Result.ERROR, "@you [x](http://evil)")]
    text = github.page(cases, "modelkit check", "# more\n")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert "error" in rows[2] and "passed" in rows[3]
    assert "<img>" not in text and "@you" not in text and "](http" not in text
    assert text.endswith("# more\n")
    assert all(row.count("|") == 5 for row in rows)


def test_a_summary_is_added_to_what_is_there(tmp_path: Path) -> None:
    target = tmp_path / "summary.md"
    target.write_text("# before", encoding="utf-8")
    assert github.append_summary(target, "# after\n")
    assert target.read_text(encoding="utf-8") == "# before\n# after\n"


@pytest.mark.parametrize("there", [0, 1000, github.MOST_SUMMARY_BYTES - 40, github.MOST_SUMMARY_BYTES])
def test_a_summary_stays_within_the_limit(tmp_path: Path, there: int) -> None:
    target = tmp_path / "summary.md"
    target.write_bytes(b"x" * there)
    assert not github.append_summary(target, "| ä row |\n" * 150_000)
    content = target.read_bytes()
    assert len(content) <= github.MOST_SUMMARY_BYTES
    text = content[there:].decode("utf-8")
    if there <= 1000:
        assert len(content) > 0.99 * github.MOST_SUMMARY_BYTES
        assert text.endswith("| ä row |\n\n\nThe rest was cut: GitHub shows 1 MiB of a step's summary.\n")
    else:
        assert not text.strip() or text.strip().startswith("The rest was cut")


def test_a_summary_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="cannot write the step summary") as refused:
        github.append_summary(tmp_path / "none" / "summary.md", "x")
    assert "GITHUB_STEP_SUMMARY" in str(refused.value.hint)
