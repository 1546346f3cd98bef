"""The rows that the table and the Markdown page share."""

from __future__ import annotations

from typing import Any

from modelkit.report import units
from modelkit.report.report import Report

LOWER = frozenset({"log_loss", "rmse", "mae"})
"""Metrics of which less is better."""


def before_after(report: Report) -> list[tuple[str, str, str, str]]:
    """Rows (what, original, artifact, change) of the main table."""
    before, after = report.before, report.after
    rows = [
        (
            "file size",
            units.size(before.size["file_bytes"]),
            units.size(after.size["file_bytes"]),
            f"{units.factor(1 / max(report.size_ratio, 1e-9))} smaller"
            if report.size_ratio < 1
            else f"{units.factor(report.size_ratio)} larger",
        ),
        _plain("deflated", before.size, after.size, "deflated_bytes", units.size),
        _plain("parameters", before.size, after.size, "parameters", units.number),
        _plain("non-zero parameters", before.size, after.size, "nonzero_parameters", units.number),
    ]
    macs = before.size.get("macs"), after.size.get("macs")
    if None not in macs and macs[0] != macs[1]:
        rows.append(_plain("multiply-accumulates", before.size, after.size, "macs", units.number))
    if before.latency and after.latency:
        rows.append(
            (
                "latency, median",
                units.milliseconds(before.latency["median_ms"]),
                units.milliseconds(after.latency["median_ms"]),
                speed(report.speedup),
            )
        )
        rows.append(
            (
                "latency, p95",
                units.milliseconds(before.latency["p95_ms"]),
                units.milliseconds(after.latency["p95_ms"]),
                "",
            )
        )
    for name in before.quality or {}:
        old, new = before.quality[name], (after.quality or {}).get(name)  # type: ignore[index]
        rows.append((label(name), units.metric(name, old), units.metric(name, new), change(name, old, new)))
    for name, text in fidelity(report.fidelity):
        rows.append((name, "", text, ""))
    return rows


def fidelity(found: dict[str, Any] | None) -> list[tuple[str, str]]:
    """Rows (what, value) of agreement with the original."""
    if not found:
        return []
    rows = []
    if found.get("top1_agreement") is not None:
        rows.append(("same prediction", units.percent(found["top1_agreement"])))
    rows.append(("output SQNR", units.decibel(found.get("sqnr_db"), bool(found.get("exact")))))
    return rows


def finite_note(found: dict[str, Any] | None) -> str | None:
    """What a reader must know where the original itself gives numbers that cannot be compared; else None."""
    share = (found or {}).get("finite_share")
    if share is None or share == 1:
        return None
    if share == 0:
        return "all numbers in an output of the original are infinite or NaN: nothing could be compared there"
    return f"{units.percent(1 - share)} of the original's outputs are infinite or NaN and were not compared"


def tried(report: Report) -> tuple[list[str], list[list[str]]]:
    """Headers and rows of all candidates: method, size, speed, agreement, quality where there are labels, verdict."""
    metric = next((next(iter(e["quality"]), "") for e in report.candidates if e.get("quality")), "")
    head = ["method", "size", "speed", "agreement", *([label(metric)] if metric else []), "verdict"]
    body = []
    for entry in report.candidates:
        latency, quality = entry.get("latency"), entry.get("quality") or {}
        agreement = next((text for _, text in fidelity(entry.get("fidelity"))), "-")
        body.append(
            [
                str(entry["name"]),
                units.size((entry.get("size") or {}).get("file_bytes")),
                units.factor(latency["speedup"]["value"]) if latency else "-",
                agreement,
                *([units.metric(metric, quality.get(metric))] if metric else []),
                str(entry["status"]),
            ]
        )
    return head, body


def tried_title(report: Report) -> str:
    """What the figures of the candidates are about: not the samples that the final figures are about."""
    data, title = report.data, "What was tried"
    if not isinstance(data.get("selection"), dict) or "test" not in data:
        return title
    return f"{title} (agreement and quality on {data['selection']['count']} other samples)"


def kernels(audit: dict[str, Any]) -> str:
    """How onnxruntime runs the artifact, in one line."""
    conversions = f"{audit['conversions']} conversion{'' if audit['conversions'] == 1 else 's'}"
    return f"{audit['integer']} integer, {audit['float']} float, {conversions} between them"


def speed(ratio: dict[str, float] | None) -> str:
    """A speed-up in words; only an interval that excludes 1 is called faster or slower."""
    if ratio is None:
        return ""
    interval = f"[{ratio['low']:.2f}, {ratio['high']:.2f}]"
    if ratio["low"] > 1:
        return f"{units.factor(ratio['value'])} faster {interval}"
    if ratio["high"] < 1:
        return f"{units.factor(1 / ratio['value'])} slower [{1 / ratio['high']:.2f}, {1 / ratio['low']:.2f}]"
    return f"same speed {interval}"


def change(name: str, old: float | None, new: float | None) -> str:
    """The difference of a quality figure, in points where it is a share."""
    if old is None or new is None:
        return ""
    if name in ("accuracy", "top5", "top1_agreement", "auc"):
        return f"{100 * (new - old):+.2f} points"
    return f"{new - old:+.3g}"


def label(name: str) -> str:
    """A metric's name for people."""
    return {"top5": "top-5 accuracy", "log_loss": "log-loss", "rmse": "RMSE", "r2": "R²", "mae": "MAE"}.get(
        name, name
    )


def _plain(
    what: str, before: dict[str, Any], after: dict[str, Any], key: str, show: Any
) -> tuple[str, str, str, str]:
    return (what, show(before.get(key)), show(after.get(key)), "")


def plain(value: object) -> str:
    """A value of the config as people write it."""
    if isinstance(value, list):
        return ", ".join(str(item) for item in value) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items()) or "none"
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    return str(value)


def flat(config: dict[str, object], prefix: str = "") -> list[tuple[str, object]]:
    """Every option of a nested config by its dotted key."""
    found: list[tuple[str, object]] = []
    for key, value in config.items():
        if isinstance(value, dict) and value:
            found += flat(value, f"{prefix}{key}.")
        else:
            found.append((f"{prefix}{key}", value))
    return found
