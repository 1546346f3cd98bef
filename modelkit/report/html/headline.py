"""What was gained and lost: headline figures, and the same in one sentence."""

from __future__ import annotations

from typing import Any

from modelkit.report import rows, units
from modelkit.report.html.parts import Tile, Tone
from modelkit.report.report import Report

_SAME = 0.005  # a change of size below this is called none


def times(value: float) -> str:
    """A factor with the sign for multiplying."""
    return f"{value:.2f}\N{MULTIPLICATION SIGN}"


def tiles(report: Report) -> list[Tile]:
    """The headline figures of a transform."""
    found = [_size(report), _speed(report), _quality(report), _fidelity(report), _parameters(report)]
    return [tile for tile in found if tile is not None]


def verdict(report: Report) -> str:
    """What was gained and lost, in one sentence."""
    parts = [f"is {_size_words(report.size_ratio)}"]
    parts += [words] if (words := _weights_words(report)) else []
    if report.speedup:
        # "is smaller and faster", but "is smaller, has fewer weights and is faster"
        parts.append(f"{'is ' if len(parts) > 1 else ''}{_speed_words(report.speedup)}")
    subject = "The artifact" if report.status == "done" else "The best that was found"
    said = f"{subject} {', '.join(parts[:-1])}{' and ' if len(parts) > 1 else ''}{parts[-1]}"
    return f"{said}; {loss}." if (loss := _loss_words(report)) else f"{said}."


def _speed_words(speed: dict[str, float]) -> str:
    if speed["low"] > 1:
        return f"{times(speed['value'])} faster"
    return f"{times(1 / speed['value'])} slower" if speed["high"] < 1 else "no faster or slower"


def _size_words(ratio: float) -> str:
    if abs(ratio - 1) < _SAME:
        return "as large as the original"
    return f"{times(1 / ratio)} smaller" if ratio < 1 else f"{times(ratio)} larger"


def _weights_words(report: Report) -> str:
    """How many weights pruning took out or set to zero."""
    before, after = report.before.size, report.after.size
    if report.command == "quantize" or not before["nonzero_parameters"]:
        return ""
    fewer = 1 - after["parameters"] / before["parameters"]
    if fewer > 0.01:
        return f"has {units.percent(fewer, 1)} fewer weights"
    zeros = 1 - after["nonzero_parameters"] / max(after["parameters"], 1)
    return f"has {units.percent(zeros, 1)} of its weights at zero" if zeros > 0.01 else ""


def _loss_words(report: Report) -> str:
    name, old, new = primary(report)
    if name is not None and old is not None and new is not None:
        label = rows.label(name)
        if units.metric(name, old) == units.metric(name, new):
            return f"{label} stays at {units.metric(name, new)}"
        verb = "rises" if new > old else "falls"
        return f"{label} {verb} from {units.metric(name, old)} to {units.metric(name, new)}"
    agreement = (report.fidelity or {}).get("top1_agreement")
    if agreement is not None:
        return f"{units.percent(agreement)} of its predictions are those of the original"
    fidelity = dict(rows.fidelity(report.fidelity))
    return f"the noise in its outputs is at {fidelity['output SQNR']}" if fidelity else ""


def primary(report: Report) -> tuple[str | None, float | None, float | None]:
    """Name of the first metric, with its value before and after."""
    before, after = report.before.quality or {}, report.after.quality or {}
    name = next(iter(before), None)
    return name, before.get(name) if name else None, after.get(name) if name else None


def _size(report: Report) -> Tile:
    ratio = report.size_ratio
    before, after = report.before.size["file_bytes"], report.after.size["file_bytes"]
    tone: Tone = "good" if ratio < 1 - _SAME else "warn" if ratio > 1 + _SAME else ""
    value, _, unit = _size_words(ratio).partition(" ")
    if tone == "":
        value, unit = "Same", "size"
    return Tile("File size", value, unit, f"{units.size(before)} → {units.size(after)}", tone, ratio)


def _speed(report: Report) -> Tile | None:
    speed, before, after = report.speedup, report.before.latency, report.after.latency
    if not speed or not before or not after:
        return None
    value, unit, tone = "Same", "speed", ""
    low, high = speed["low"], speed["high"]
    if low > 1:
        value, unit, tone = times(speed["value"]), "faster", "good"
    elif high < 1:
        value, unit, tone = times(1 / speed["value"]), "slower", "warn"
        low, high = 1 / high, 1 / low
    detail = f"{units.milliseconds(before['median_ms'])} → {units.milliseconds(after['median_ms'])}"
    aside = f"95 % interval {low:.2f} to {high:.2f}"
    share = after["median_ms"] / before["median_ms"] if before["median_ms"] else None
    return Tile("Latency, median", value, unit, detail, tone, share, aside)  # type: ignore[arg-type]


def _quality(report: Report) -> Tile | None:
    name, old, new = primary(report)
    if name is None or old is None or new is None:
        return None
    value, _, unit = rows.change(name, old, new).replace("-", "\N{MINUS SIGN}").partition(" ")
    worse = new > old if name in rows.LOWER else new < old
    if units.metric(name, old) == units.metric(name, new):
        value, unit, worse = "Same", rows.label(name), False
    test = report.data.get("test") or report.data.get("selection") or {}
    aside = f"on {test['count']} samples" if isinstance(test, dict) and "count" in test else ""
    label = rows.label(name)
    return Tile(
        label[:1].upper() + label[1:],
        value,
        unit,
        f"{units.metric(name, old)} → {units.metric(name, new)}",
        "warn" if worse else "good",
        aside=aside,
    )


def _fidelity(report: Report) -> Tile | None:
    found: dict[str, Any] = report.fidelity or {}
    if not found:
        return None
    noise = units.decibel(found.get("sqnr_db"), bool(found.get("exact")))
    if found.get("top1_agreement") is None:
        return Tile("Outputs", noise.capitalize(), "" if found.get("exact") else "SQNR", "against the original")
    agreement = float(found["top1_agreement"])
    return Tile("Same prediction", units.percent(agreement), "", f"output SQNR {noise}")


def _parameters(report: Report) -> Tile | None:
    """Where pruning took weights out or set them to zero."""
    before, after = report.before.size["nonzero_parameters"], report.after.size["nonzero_parameters"]
    if report.command == "quantize" or not before or after > 0.99 * before:
        return None
    share = after / before
    return Tile(
        "Non-zero weights",
        units.percent(share, 1),
        "left",
        f"{units.number(before)} → {units.number(after)}",
        "good",
        share,
    )
