"""How fast the command line answers, and what it does not import.

Run: python benchmarks/startup.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness import SAMPLES, table, verdict, write_section

HEAVY = ("numpy", "onnx", "onnxruntime", "onnx_ir", "torch", "pydantic", "yaml")


def seconds(arguments: list[str], runs: int = 15) -> list[float]:
    """Wall time of whole processes, after two that do not count."""
    command = [str(Path(sys.executable).with_name("modelkit")), *arguments]
    times = []
    for number in range(runs + 2):
        began = time.perf_counter()
        subprocess.run(command, capture_output=True, check=True)
        if number >= 2:
            times.append(time.perf_counter() - began)
    return times


def imported(arguments: list[str]) -> list[str]:
    """Which of the heavy modules a command line loads."""
    code = (
        "import sys; from modelkit.cli.app import run\n"
        f"run({arguments!r})\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return eval(done.stderr.strip().splitlines()[-1], {"__builtins__": {}})


def main() -> None:
    """Measure and write the section."""
    rows = []
    for arguments in (["--help"], ["quantize", "--help"], ["--version"]):
        times = seconds(arguments)
        rows.append(
            (
                f"`modelkit {' '.join(arguments)}`",
                f"{1000 * statistics.median(times):.0f} ms",
                f"{1000 * min(times):.0f} to {1000 * max(times):.0f} ms",
                ", ".join(imported(arguments)) or "none",
            )
        )
    with tempfile.TemporaryDirectory() as folder:
        used = imported(["quantize", str(SAMPLES / "digits_mlp.onnx"), "--quiet", "-o", f"{folder}/a.onnx"])
    help_ms = float(rows[0][1].split()[0])
    ok = help_ms <= 200 and rows[0][3] == "none"
    body = (
        f"Bar: `modelkit --help` within 0.2 s, importing none of {', '.join(HEAVY)}: {verdict(ok)}. "
        f"`modelkit quantize` never imports torch: {verdict('torch' not in used)}.\n\n"
        + table(["command", "median", "spread", "heavy modules imported"], rows)
    )
    write_section("startup", "Start-up", "python benchmarks/startup.py", body)


if __name__ == "__main__":
    main()
