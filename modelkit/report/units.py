"""Numbers as people read them: units, and no more digits than mean something."""

from __future__ import annotations

from collections.abc import Mapping


def size(count: float | int | None) -> str:
    """Bytes in decimal units: 123 B, 45.6 kB, 7.89 MB."""
    return _scaled(count, ("B", "kB", "MB", "GB"))


def number(count: float | int | None) -> str:
    """Counts with k, M or G: 950, 12.3 k, 4.56 M."""
    return _scaled(count, ("", "k", "M", "G"))


def _scaled(count: float | int | None, units: tuple[str, ...]) -> str:
    """A whole number in the first unit, three digits in the others, each a thousand times the one before."""
    if count is None:
        return "-"
    value, steps = float(count), 0
    while value >= 999.5 and steps < len(units) - 1:
        value, steps = value / 1000, steps + 1
    return f"{_digits(value) if steps else f'{value:.0f}'} {units[steps]}".rstrip()


def milliseconds(value: float | None) -> str:
    """Times: 43 µs, 1.23 ms, 2.50 s."""
    if value is None:
        return "-"
    if value < 1:
        return f"{_digits(value * 1000)} µs"
    if value < 1000:
        return f"{_digits(value)} ms"
    return f"{_digits(value / 1000)} s"


def percent(value: float | None, digits: int = 2) -> str:
    """Shares: 0.9876 is 98.76 %."""
    return "-" if value is None else f"{100 * value:.{digits}f} %"


def factor(value: float | None) -> str:
    """Ratios: 3.87x."""
    return "-" if value is None else f"{value:.2f}x"


def decibel(value: float | None, exact: bool = False) -> str:
    """Signal to noise in decibels; identical outputs have none."""
    if exact:
        return "exact"
    return "-" if value is None else f"{value:.1f} dB"


def metric(name: str, value: float | None) -> str:
    """A quality figure in its usual form: shares as percent, others with four significant digits."""
    if value is None:
        return "-"
    if name in ("accuracy", "top5", "top1_agreement", "agreement", "auc"):
        return percent(value)
    return f"{value:.4g}"


def _digits(value: float) -> str:
    """Three significant digits without an exponent."""
    if value >= 99.95:
        return f"{value:.0f}"
    if value >= 9.995:
        return f"{value:.1f}"
    return f"{value:.2f}"


def figures(numbers: Mapping[str, object]) -> str:
    """The figures of a decision in one line: ``8 bits, 65.5 kB to 17.4 kB, SQNR 45.0 dB``."""
    found = {key: value for key, value in numbers.items() if value is not None}
    parts: list[str] = []
    for key, value in found.items():
        if key == "bytes_before" and "bytes_after" in found:
            parts.append(f"{size(_float(value))} to {size(_float(found['bytes_after']))}")
        elif key == "from" and "to" in found:
            parts.append(f"{value} to {found['to']}")
        elif (key == "bytes_after" and "bytes_before" in found) or (key == "to" and "from" in found):
            continue
        elif key == "bytes":
            parts.append(size(_float(value)))
        elif key == "sqnr_db":
            parts.append(f"SQNR {decibel(_float(value))}")
        elif key in ("bits", "runs"):
            parts.append(f"{value} {key}")
        else:
            shown = f"{value:.3g}" if isinstance(value, float) else str(value)
            parts.append(f"{key.replace('_', ' ')} {shown}")
    return ", ".join(parts)


def _float(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None
