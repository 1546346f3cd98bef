"""All encodings: what can store a tensor, and which one a function's name means. Adding one is adding a line here."""

from __future__ import annotations

import re

from modelkit.packing import dense, gap, mask
from modelkit.packing.dense import Dense
from modelkit.packing.encoding import Encoding, Words
from modelkit.packing.gap import Gap
from modelkit.packing.mask import Mask


def offers(words: Words) -> list[tuple[Encoding, int]]:
    """What can store a tensor, each with the exact bytes of its streams."""
    return [*dense.offers(words), *mask.offers(words), *gap.offers(words)]


def by_name(name: str) -> Encoding | None:
    """Return the encoding whose function has this name; None where none has."""
    if found := re.fullmatch(r"Dense([1-8])", name):
        return Dense(int(found[1]))
    if found := re.fullmatch(r"Mask([1-8]|Raw)", name):
        return Mask(_bits(found[1]))
    if found := re.fullmatch(r"Gap([2-8])x([1-8]|Raw)", name):
        return Gap(int(found[1]), _bits(found[2]))
    return None


def _bits(text: str) -> int:
    return 0 if text == "Raw" else int(text)
