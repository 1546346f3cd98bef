"""Facts about this machine, and about others from what their systems print."""

from __future__ import annotations

import json

import pytest

from modelkit.measure import machine
from modelkit.version import VERSION


def test_this_machine():
    facts = machine.machine_facts()
    assert json.loads(json.dumps(facts)) == facts
    assert facts["cpu"] and facts["cores"] >= 1 and facts["os"] and facts["python"].startswith("3.")
    assert facts["versions"]["modelkit"] == VERSION
    assert set(facts["versions"]) == {"modelkit", "onnxruntime", "onnx", "numpy"}
    assert facts["int8"] == machine.int8_kind()
    assert machine.int8_kind() in ("vnni", "avx2", "arm_dot", "other")


@pytest.mark.parametrize(
    ("flags", "kind"),
    [
        ("flags\t\t: fpu avx2 avx512f avx512_vnni amx_int8", "vnni"),
        ("flags\t\t: fpu avx2 avx_vnni", "vnni"),
        ("flags\t\t: fpu avx2 avx512f", "avx2"),
        ("Features\t: fp asimd asimddp i8mm", "arm_dot"),
        ("Features\t: fp asimd", "other"),
        ("", "other"),
    ],
)
def test_linux(flags, kind):
    name, words = machine._parse_cpuinfo(f"processor\t: 0\nmodel name\t: A CPU @ 3 GHz\n{flags}\n\nprocessor: 1\n")
    assert name == "A CPU @ 3 GHz"
    assert machine._int8_kind(machine._known(words)) == kind


def test_macos():
    name, words = machine._parse_sysctl(
        "machdep.cpu.brand_string: Apple M2\nhw.optional.arm.FEAT_DotProd: 1\nhw.optional.arm.FEAT_I8MM: 0\n"
    )
    assert name == "Apple M2" and machine._known(words) == {"neon_dotprod"}
    _, words = machine._parse_sysctl("machdep.cpu.leaf7_features: BMI1 AVX2 AVX512F\n")
    assert machine._known(words) == {"avx2", "avx512f"}


def test_elsewhere(monkeypatch, tmp_path):
    assert isinstance(machine._numpy_features(), frozenset)
    monkeypatch.setattr(machine.importlib, "import_module", lambda name: object())
    assert machine._numpy_features() == frozenset()
    assert machine._read(tmp_path / "absent") == ""
    monkeypatch.setattr(machine.sys, "platform", "win32")
    machine._processor.cache_clear()
    try:
        assert machine.int8_kind() == "other"
    finally:
        machine._processor.cache_clear()
