"""JUnit files: valid whatever the names, and each outcome told apart."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from modelkit.errors import ModelError, UsageError
from modelkit.report import junit
from modelkit.report.cases import Case, Result, counted, of_error

SCHEMA = etree.XMLSchema(etree.parse(Path(__file__).with_name("junit.xsd")))
# Every code point, halves of surrogate pairs included, and more of those that XML and its readers stumble on.
TEXTS = st.text(st.one_of(st.characters(), st.sampled_from("\0\x08\x1b\r\n\t\ud800\udc80\ufffe\uffff<>&\"'] ")))


def parse(content: bytes) -> etree._Element:
    root = etree.fromstring(content, etree.XMLParser(resolve_entities=False))
    SCHEMA.assertValid(root)
    return root


def case(name: str = "latency", result: Result = Result.PASSED, **more: object) -> Case:
    return Case(name, "m.onnx", result, **more)


def test_outcomes_are_told_apart() -> None:
    cases = [
        case(seconds=1.25),
        case("size", Result.FAILED, message="too large", kind="min_ratio", file="m.onnx", detail="hint: shrink it"),
        case("load", Result.ERROR, message="it crashed", kind="crashed"),
        case("speed", Result.SKIPPED, message="another machine"),
    ]
    root = parse(junit.render("modelkit quantize", cases))
    suite = root[0]
    counts = {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped", "time")}
    assert counts == {"tests": "4", "failures": "1", "errors": "1", "skipped": "1", "time": "1.250"}
    assert [[child.tag for child in each] for each in suite.iter("testcase")] == [
        [],
        ["failure"],
        ["error"],
        ["skipped"],
    ]
    failure = suite.find(".//failure")
    assert (failure.get("message"), failure.get("type")) == ("too large", "min_ratio")
    assert failure.text == "file: m.onnx\nhint: shrink it"
    assert counted(cases) == "4 checks: 1 passed, 1 failed, 1 error, 1 skipped"


@given(texts=st.tuples(*[TEXTS] * 6), result=st.sampled_from(Result))
def test_any_text_gives_a_valid_file(texts: tuple[str, ...], result: Result) -> None:
    name, subject, message, detail, kind, suite = texts
    made = Case(name, subject, result, message, detail, kind, file=name)
    root = parse(junit.render(f"modelkit {suite}", [made]))
    assert len(list(root.iter("testcase"))) == 1


def test_control_characters_are_spelled_out() -> None:
    made = case("a\0b\x1b[31m", Result.FAILED, message="c\ud800\ufffe")
    root = parse(junit.render("s", [made]))
    assert root.find(".//testcase").get("name") == r"a\x00b\x1b[31m"
    assert root.find(".//failure").get("message") == r"c\ud800\ufffe"


def test_a_megabyte_of_a_name_is_cut() -> None:
    assert len(junit.render("s", [case("n" * 1_000_000)])) < 10_000


def test_an_empty_suite_is_valid() -> None:
    parse(junit.render("s", []))
    assert counted([]) == "no checks"


def test_an_old_file_of_results_is_replaced(tmp_path: Path) -> None:
    target = tmp_path / "reports" / "junit.xml"
    junit.check_target(target)
    junit.write(target, "s", [case()])
    junit.check_target(target)
    junit.write(target, "s", [case(), case()])
    assert parse(target.read_bytes())[0].get("tests") == "2"
    assert [path.name for path in target.parent.iterdir()] == ["junit.xml"]


@pytest.mark.parametrize("content", [b"weights", b"<?xml version='1.0'?><project/>", b"\0" * 9000 + b"<testsuites>"])
def test_nothing_else_is_replaced(tmp_path: Path, content: bytes) -> None:
    target = tmp_path / "model.onnx"
    target.write_bytes(content)
    with pytest.raises(UsageError, match=r"--junit would overwrite '.*model\.onnx', which holds no test results"):
        junit.check_target(target)
    with pytest.raises(UsageError):
        junit.write(target, "s", [case()])
    assert target.read_bytes() == content
    with pytest.raises(UsageError, match="is a folder; name a file"):
        junit.check_target(tmp_path)


def test_an_error_is_no_failure() -> None:
    found = of_error(ModelError("it is empty", "export it again"), "quantize", "m.onnx", "a/m.onnx")
    assert (found.result, found.kind, found.detail) == (Result.ERROR, "ModelError", "hint: export it again")
