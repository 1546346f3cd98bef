"""Names, text and doubles as SQLite reads them, exactly."""

from __future__ import annotations

import math
from fractions import Fraction

_EXACT_TEN = 22  # powers of ten up to this are doubles
_DIGITS = 15  # decimals of so many digits are whole numbers times a power of ten, both of them doubles
_CHUNK = 52  # powers of two are written in steps of at most this
_MARGIN = Fraction(1, 256)


def name(text: str) -> str:
    """A quoted identifier."""
    return '"' + text.replace('"', '""') + '"'


def string(text: str) -> str:
    """A quoted text; it must hold no NUL."""
    return "'" + text.replace("'", "''") + "'"


def double(value: float) -> str:
    """An expression whose value is exactly this finite double, in every SQLite.

    SQLite's own reading of decimals is not always the nearest double: 3.40 reads ``96.059666`` one double too low.
    Where the decimal is so far from the middle between two doubles that no way of reading errs, it is written as it
    is; else as a quotient or product of whole numbers, which is exact.
    """
    value = float(value)
    if value == 0:
        return "0.0"
    text = repr(value)
    if _is_safe(value, text):
        return text
    numerator, denominator = abs(value).as_integer_ratio()
    shift = denominator.bit_length() - 1
    if denominator == 1:
        numerator, down = _odd(numerator)
        shift = -down
    steps, sign = [], "/" if shift > 0 else "*"
    for start in range(0, abs(shift), _CHUNK):
        steps.append(f" {sign} {2 ** min(_CHUNK, abs(shift) - start)}.0")
    return f"({'-' if value < 0 else ''}{numerator}{''.join(steps) or ' * 1.0'})"


def _odd(number: int) -> tuple[int, int]:
    """A whole number without its factors of two, and how many they were."""
    zeros = (number & -number).bit_length() - 1
    return number >> zeros, zeros


def _is_safe(value: float, text: str) -> bool:
    """Whether any reading of the decimal gives this double: with doubles alone, or with a few more digits."""
    digits, _, exponent = text.lstrip("-").partition("e")
    whole, _, part = digits.partition(".")
    power = int(exponent or 0) - len(part.rstrip("0"))
    significant = (whole + part).strip("0")
    if len(significant) > _DIGITS or abs(power) > _EXACT_TEN:
        return False
    exact = Fraction(text)
    if exact == Fraction(value):
        return True
    off = abs(exact - Fraction(value)) / Fraction(math.ulp(value))
    return off < Fraction(1, 2) - _MARGIN
