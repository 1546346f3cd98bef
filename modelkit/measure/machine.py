"""The machine that measures: facts for the report, and which int8 arithmetic its processor is good at."""

from __future__ import annotations

import importlib
import platform
import re
import subprocess
import sys
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Literal

from modelkit.cores import usable_cores
from modelkit.version import VERSION

Int8Kind = Literal["vnni", "avx2", "arm_dot", "other"]

# Our word for a feature, and the words of Linux (x86 flags, ARM features), macOS and numpy for it.
_FEATURES = {
    "avx2": ("avx2", "AVX2"),
    "avx512f": ("avx512f", "AVX512F"),
    "avx512_vnni": ("avx512_vnni", "AVX512VNNI"),
    "avx_vnni": ("avx_vnni",),
    "amx_int8": ("amx_int8",),
    "neon_dotprod": ("asimddp", "hw.optional.arm.FEAT_DotProd", "ASIMDDP"),
    "i8mm": ("i8mm", "hw.optional.arm.FEAT_I8MM"),
}


def machine_facts() -> dict[str, object]:
    """Describe this machine for a report; holds nothing that identifies its owner.

    Returns:
        ``cpu`` (model name), ``cores`` (that this process may use), ``architecture``, ``features`` (sorted
        subset of avx2, avx512f, avx512_vnni, avx_vnni, amx_int8, neon_dotprod, i8mm), ``int8`` (see
        `int8_kind`), ``os``, ``python`` and ``versions`` (of modelkit and the packages that decide results).
    """
    cpu, words = _processor()
    return {
        "cpu": cpu,
        "cores": usable_cores(),
        "architecture": platform.machine(),
        "features": sorted(_known(words)),
        "int8": int8_kind(),
        "os": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": {"modelkit": VERSION}
        | {name: metadata.version(name) for name in ("onnxruntime", "onnx", "numpy")},
    }


def int8_kind() -> Int8Kind:
    """Tell which int8 arithmetic onnxruntime finds on this processor.

    Returns:
        ``vnni``: x64 with VNNI (or AMX): U8S8 is fastest and does not saturate. ``avx2``: x64 without it:
        U8S8 adds pairs in 16 bits and may saturate, so weights need a reduced range. ``arm_dot``: ARM with
        dot products: S8S8. ``other``: none of these is known to be there.
    """
    return _int8_kind(_known(_processor()[1]))


def channel_block() -> int:
    """Tell in which multiples of channels onnxruntime's convolutions work here: the rest of a block is padding."""
    return 16 if "avx512f" in _known(_processor()[1]) else 8


def _int8_kind(features: set[str]) -> Int8Kind:
    if features & {"avx512_vnni", "avx_vnni", "amx_int8"}:
        return "vnni"
    if "avx2" in features:
        return "avx2"
    if features & {"neon_dotprod", "i8mm"}:
        return "arm_dot"
    return "other"


def _known(words: frozenset[str]) -> set[str]:
    return {feature for feature, names in _FEATURES.items() if not words.isdisjoint(names)}


@cache
def _processor() -> tuple[str, frozenset[str]]:
    """Model name of the processor and all feature words that the system has for it."""
    if sys.platform == "linux":
        name, words = _parse_cpuinfo(_read(Path("/proc/cpuinfo")))
    elif sys.platform == "darwin":
        name, words = _parse_sysctl(_sysctl())
    else:
        name, words = "", _numpy_features()
    return name or platform.processor() or platform.machine(), words


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _parse_cpuinfo(text: str) -> tuple[str, frozenset[str]]:
    """Read Linux's /proc/cpuinfo: the first processor's model name and its flags (x86) or features (ARM)."""

    def first(field: str) -> str:
        match = re.search(rf"^{field}\s*:\s*(.*)$", text, re.MULTILINE)
        return match.group(1).strip() if match else ""

    return first("model name") or first("Model"), frozenset((first("flags") or first("Features")).split())


def _sysctl() -> str:
    try:
        return subprocess.run(
            ["/usr/sbin/sysctl", "-a"], capture_output=True, text=True, timeout=10, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def _parse_sysctl(text: str) -> tuple[str, frozenset[str]]:
    """Read macOS's `sysctl -a`: brand string, Intel feature lists and the ARM switches that are 1."""
    values = dict(re.findall(r"^([\w.]+): (.*)$", text, re.MULTILINE))
    words = {key for key, value in values.items() if key.startswith("hw.optional.arm") and value == "1"}
    for key in ("machdep.cpu.features", "machdep.cpu.leaf7_features"):
        words.update(values.get(key, "").split())
    return values.get("machdep.cpu.brand_string", ""), frozenset(words)


def _numpy_features() -> frozenset[str]:
    """Features that numpy found when it was loaded, where the system has no file to read."""
    try:
        found = importlib.import_module("numpy._core._multiarray_umath").__cpu_features__
    except (ImportError, AttributeError):  # a private place, which may move
        return frozenset()
    return frozenset(name for name, there in found.items() if there)
