"""`modelkit quantize MODEL --bits 8`, nothing else, on every sample and awkward twin.

Run: python benchmarks/quantize.py
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from harness import SAMPLES, table, verdict, write_section

from modelkit.report.units import factor, percent, size

MAX_RATIO, MIN_AGREEMENT = 0.35, 0.99


def models() -> list[tuple[Path, Path | None]]:
    """Every sample and twin with the evaluation set of the sample that it stems from."""
    twins = json.loads((SAMPLES / "twins.json").read_text(encoding="utf-8"))
    found = []
    for folder in (SAMPLES, SAMPLES / "made", SAMPLES / "twins", SAMPLES / "made" / "twins"):
        for path in sorted(folder.glob("*.onnx")):
            parent = twins[path.stem]["parent"] if path.stem in twins else path.stem
            sets = [f / f"{parent}.eval.npz" for f in (SAMPLES, SAMPLES / "made")]
            found.append((path, next((s for s in sets if s.exists()), None)))
    return found


def run(model: Path, test: Path | None, folder: Path) -> tuple[int, dict, str]:
    """Run the command and return its exit code, report and stderr."""
    command = [sys.executable, "-m", "modelkit", "quantize", str(model), "--bits", "8", "--json", "--force"]
    command += ["-o", str(folder / f"{model.stem}.int8.onnx")]
    command += ["--test", str(test)] if test else []
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, json.loads(done.stdout) if done.stdout.strip() else {}, done.stderr.strip()


def main() -> None:
    """Measure everything and write the section."""
    rows, notes = [], []
    with tempfile.TemporaryDirectory() as folder:
        for model, test in models():
            code, report, errors = run(model, test, Path(folder))
            if code:
                lines = [line for line in errors.splitlines() if line.startswith("error:")]
                rows.append((model.stem, "-", "-", "-", "-", "-", f"refused, exit {code}"))
                notes.append(f"- {model.stem}: {lines[-1] if lines else errors[-200:]}")
                continue
            speed, fidelity = report["speedup"], report["fidelity"] or {}
            agreement = fidelity.get("top1_agreement")
            quality = [
                side["quality"]["accuracy"] if side["quality"] else None
                for side in (report["before"], report["after"])
            ]
            ok = (
                report["size_ratio"] <= MAX_RATIO
                and speed["high"] >= 1
                and (agreement is None or agreement >= MIN_AGREEMENT)
            )
            rows.append(
                (
                    model.stem,
                    size(report["before"]["size"]["file_bytes"]),
                    f"{report['size_ratio']:.3f}",
                    f"{factor(speed['value'])} [{speed['low']:.2f}, {speed['high']:.2f}]",
                    percent(agreement),
                    f"{percent(quality[0])} → {percent(quality[1])}",
                    f"{report['method']}, {verdict(ok)}",
                )
            )
            print(rows[-1], file=sys.stderr, flush=True)
    head = ["model", "original", "size ratio", "speed-up [95 %]", "same labels", "accuracy", "method, bar"]
    body = (
        f"Bar: at most {MAX_RATIO} times the bytes, not slower beyond the interval, at least "
        f"{percent(MIN_AGREEMENT, 0)} of the labels of the evaluation set unchanged. No data was given to choose by; "
        "the evaluation set (from the test split) only judges the result.\n\n" + table(head, rows)
    )
    if notes:
        body += "\n\nRefused, with the reason:\n\n" + "\n".join(notes)
    write_section("quantize", "8 bits without data", "python benchmarks/quantize.py", body)


if __name__ == "__main__":
    main()
