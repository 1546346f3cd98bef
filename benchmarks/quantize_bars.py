"""Post-training quantization side by side with other tools: size, speed, closeness, accuracy and tool time.

Run: make bench-setup && python benchmarks/quantize_bars.py [NET ...]
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import ROOT, SAMPLES, table, verdict, write_section
from made_nets import make
from quantize_run import Run, modelkit, peer

from modelkit.api import evaluate
from modelkit.report.units import decibel, factor, milliseconds, percent, size

CACHE = ROOT / "sample_models" / "made" / "nets"
STATIC = ("static_defaults", "static_u8s8", "nncf_defaults")
MODERN = (*STATIC, "nncf_transformer", "dynamic", "dynamic_channel", "rtn4", "nbits8")
# The layers that onnxruntime's 4-bit tool takes, in blocks of the same size.
FOUR = ("--bits", "4", "--include", "layers.*", "--set", "weights.granularity=block", "--set", "weights.center=range")
MODERN_STATIC = (*STATIC, "nncf_transformer")
OURS = {
    "static": ("--mode", "static"),
    "auto": ("--mode", "auto"),
    "dynamic": ("--mode", "dynamic"),
    "4 bits, mse": ("--mode", "weights", *FOUR, "--set", "weights.scale=mse"),
    "4 bits, hqq": ("--mode", "weights", *FOUR, "--set", "weights.scale=hqq"),
    "4 bits, gptq": ("--mode", "weights", *FOUR, "--set", "weights.scale=mse", "--set", "weights.rounding=gptq"),
}


# A process and the entry of its artifact in the table of `modelkit.api.evaluate`, by the tool's name.
Found = dict[str, tuple[Run, dict[str, Any]]]


@dataclass(frozen=True)
class Case:
    """A model and who quantizes it."""

    name: str
    model: Path
    data: Path
    test: Path
    ours: tuple[str, ...]
    peers: tuple[str, ...]


def cases() -> list[Case]:
    """Every model."""
    nets, data = make(CACHE), [CACHE / f"images.{part}.npz" for part in ("calib", "eval")]
    found = [Case(name, path, data[0], data[1], ("static",), STATIC) for name, path in nets.items()]
    for name, ours, peers in (
        ("fashion_cnn", ("static",), STATIC),
        ("language_transformer", tuple(OURS), MODERN),
    ):
        paths = [SAMPLES / f"{name}{end}" for end in (".onnx", ".calib.npz", ".eval.npz")]
        found.append(Case(name, *paths, ours, peers))
    return found


def measured(case: Case, folder: Path) -> tuple[list[tuple[str, ...]], Found]:
    """Run every tool on one model; rows of the table, and what came of each."""
    runs: dict[str, Run] = {}
    for way in case.ours:
        name = f"modelkit {way}"
        runs[name] = modelkit(case.model, case.data, folder / f"{case.name}.{len(runs)}.onnx", *OURS[way])
    for way in case.peers:
        runs[way] = peer(way, case.model, case.data, folder / f"{case.name}.{len(runs)}.onnx")
    paths = [case.model, *(done.path for done in runs.values() if done.path is not None)]
    entries = evaluate(paths, data=case.test, config={"measure.seconds": 1.0})["models"]
    rows = [_row(case.name, "original", None, entries[0])]
    found = {}
    for name, done in runs.items():
        if done.path is None:
            rows.append((case.name, name, "-", "-", "-", "-", "-", f"failed: {done.error}"))
            continue
        entry = entries[paths.index(done.path)]
        if entry["quality"] and "accuracy" in entry["quality"]:
            entry["quality"]["drop"] = entries[0]["quality"]["accuracy"] - entry["quality"]["accuracy"]
        found[name] = done, entry
        rows.append(_row(case.name, name, done, entry))
    return rows, found


def _row(model: str, name: str, done: Run | None, entry: dict[str, Any]) -> tuple[str, ...]:
    speed, fidelity, quality = entry["speedup"], entry["fidelity"] or {}, entry["quality"] or {}
    return (
        model,
        name,
        size(entry["size"]["file_bytes"]),
        milliseconds(entry["latency"]["median_ms"]),
        f"{factor(speed['value'])} [{speed['low']:.2f}, {speed['high']:.2f}]" if speed else "1",
        decibel(fidelity.get("sqnr_db")),
        percent(quality.get("accuracy")) if done is None or quality else "-",
        "" if done is None else f"{done.seconds:.1f} s ({done.cpu:.1f} s), {size(done.peak)}",
    )


def bars(case: Case, found: Found) -> list[str]:
    """What was to be reached on one model, and whether it was."""
    ours = found.get("modelkit static")
    static = {name: each for name, each in found.items() if name in STATIC}
    lines = []
    if ours is not None and static:
        best = min(each["latency"]["median_ms"] for _, each in static.values())
        ratio = ours[1]["latency"]["median_ms"] / best
        lines.append(f"{case.name}: latency at most 1.03 of the best peer's: {ratio:.2f}, {verdict(ratio <= 1.03)}")
        least = 1.25 if "v3" in case.name else 1.0
        speed = ours[1]["speedup"]["value"]
        lines.append(f"{case.name}: at least {least}x as fast as float: {speed:.2f}x, {verdict(speed >= least)}")
        closest = max(each["fidelity"]["sqnr_db"] for _, each in static.values())
        gain = ours[1]["fidelity"]["sqnr_db"] - closest
        lines.append(f"{case.name}: {gain:+.1f} dB closer than the best peer")
        tool = static.get("static_u8s8")
        if tool is not None and case.name == "resnet18":
            share = ours[0].cpu / tool[0].cpu
            lines.append(f"{case.name}: half of onnxruntime's tool time: {share:.2f}, {verdict(share <= 0.5)}")
            limit = 2.5 * case.model.stat().st_size + 400e6
            lines.append(
                f"{case.name}: peak memory at most {size(int(limit))}: {size(ours[0].peak)}, "
                f"{verdict(ours[0].peak <= limit)}"
            )
    lines += unbeaten(case, found) + accuracy(case, found) + front(case, found)
    if "rtn4" in found and "modelkit 4 bits, gptq" in found:
        gain = found["modelkit 4 bits, gptq"][1]["fidelity"]["sqnr_db"] - found["rtn4"][1]["fidelity"]["sqnr_db"]
        lines.append(
            f"{case.name}: 4 bits 2 dB closer than rounding to nearest: {gain:+.1f} dB, {verdict(gain >= 2)}"
        )
    return lines


def _gain(found: Found) -> float | None:
    """Decibels that our static artifact is closer than the closest static peer's."""
    peers = [each["fidelity"]["sqnr_db"] for name, (_, each) in found.items() if name in MODERN_STATIC]
    ours = found.get("modelkit static")
    return None if ours is None or not peers else float(ours[1]["fidelity"]["sqnr_db"] - max(peers))


def unbeaten(case: Case, found: Found) -> list[str]:
    """Whether some peer is at once as fast (within its interval), as small and closer than each of our artifacts."""
    beaten = []
    for ours, (_, mine) in found.items():
        for name, (_, theirs) in found.items():
            if not ours.startswith("modelkit") or name.startswith("modelkit"):
                continue
            if (
                theirs["speedup"]["high"] >= mine["speedup"]["value"]
                and theirs["size"]["file_bytes"] <= mine["size"]["file_bytes"]
                and theirs["fidelity"]["sqnr_db"] > mine["fidelity"]["sqnr_db"]
            ):
                beaten.append(f"{ours} by {name}")
    told = f" ({', '.join(beaten)})" if beaten else ""
    return [f"{case.name}: no peer's artifact is as fast, as small and closer: {verdict(not beaten)}{told}"]


def accuracy(case: Case, found: Found) -> list[str]:
    """Whether the trained samples lose no more than with any peer, and half a point at most."""
    static = {name: each["quality"]["drop"] for name, (_, each) in found.items() if "drop" in (each["quality"] or {})}
    ours, theirs = static.get("modelkit static"), [drop for name, drop in static.items() if name in STATIC]
    if ours is None or not theirs:
        return []
    good = ours <= min(theirs) + 1e-9 and ours <= 0.005
    return [
        f"{case.name}: accuracy lost at most the least of the peers' ({100 * min(theirs):.2f} points) and half a "
        f"point: {100 * ours:.2f}, {verdict(good)}"
    ]


def front(case: Case, found: Found) -> list[str]:
    """Closeness and speed together, on the transformer."""
    if "nncf_transformer" not in found or "dynamic" not in found:
        return []
    ours = {name: each for name, (_, each) in found.items() if name.startswith("modelkit")}
    dynamic = max(found[name][1]["speedup"]["value"] for name in ("dynamic", "dynamic_channel"))
    nncf = found["nncf_transformer"][1]["fidelity"]["sqnr_db"]
    lines = []
    for told, decibels, speed in (
        ("18 dB at 0.97 of the speed of onnxruntime's dynamic mode", 18.0, 0.97 * dynamic),
        (f"NNCF's {nncf:.1f} dB at 0.85 of that speed", nncf, 0.85 * dynamic),
        ("30 dB at no less than fp32's speed", 30.0, 1.0),
    ):
        reach = [
            f"{name} ({each['fidelity']['sqnr_db']:.1f} dB, {each['speedup']['value']:.2f}x)"
            for name, each in ours.items()
            if each["fidelity"]["sqnr_db"] >= decibels and each["speedup"]["value"] >= speed
        ]
        lines.append(f"{case.name}: {told}: {', '.join(reach) or 'none'}, {verdict(bool(reach))}")
    return lines


def main() -> None:
    """Measure and write the section; what was measured of other networks before is kept."""
    wanted, kept = sys.argv[1:], CACHE / "bars.json"
    known = json.loads(kept.read_text(encoding="utf-8")) if wanted and kept.exists() else {}
    every = cases()
    for case in every:
        if not wanted or case.name in wanted:
            with tempfile.TemporaryDirectory() as folder:
                rows, found = measured(case, Path(folder))
            known[case.name] = {"rows": rows, "bars": bars(case, found), "gain": _gain(found)}
            kept.write_text(json.dumps(known), encoding="utf-8")
    known = {case.name: known[case.name] for case in every if case.name in known}
    lines = [f"- {line}" for each in known.values() for line in each["bars"]]
    gains = [each["gain"] for each in known.values() if each["gain"] is not None]
    mean = sum(gains) / max(len(gains), 1)
    lines.insert(0, f"- 1 dB closer than the best static peer, in the mean: {mean:+.1f} dB, {verdict(mean >= 1)}")
    head = ["model", "tool", "size", "latency", "speed-up [95 %]", "SQNR", "accuracy", "tool time (CPU), peak"]
    body = (
        "Networks with random weights serve for speed and noise. 16 calibration samples; each tool in a process of "
        "its own, start-up included; bars on tool time count processor time. Load average at the end "
        f"{os.getloadavg()[1]:.0f}: on a machine that others use, ratios count and milliseconds do not.\n\n"
        + "\n".join(lines)
        + "\n\n"
        + table(head, [row for each in known.values() for row in each["rows"]])
    )
    write_section("quantize-peers", "Quantization beside other tools", "python benchmarks/quantize_bars.py", body)


if __name__ == "__main__":
    main()
