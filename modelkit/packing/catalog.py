"""All encodings: what can store a tensor, and which one a function's name means. Adding one is adding a line here."""

from __future__ import annotations

from modelkit.packing import block, codes, dense, gap, mask, pair
from modelkit.packing.block import Block
from modelkit.packing.dense import Dense
from modelkit.packing.encoding import Encoding, Words
from modelkit.packing.gap import Gap
from modelkit.packing.mask import Mask
from modelkit.packing.pair import Pair


def offers(words: Words, *, prefix: bool = True) -> list[tuple[Encoding, int]]:
    """What can store a tensor, each with the exact bytes of its arrays.

    Args:
        words: The tensor's numbers.
        prefix: Whether codes of several lengths are open, which take the fewest bytes and the longest to load.
    """
    return [
        *dense.offers(words, prefix=prefix),
        *mask.offers(words, prefix=prefix),
        *block.offers(words, prefix=prefix),
        *gap.offers(words, prefix=prefix),
        *pair.offers(words),
    ]


def by_name(name: str) -> Encoding | None:
    """Return the encoding whose function has this name; None where none has."""
    kind, *parts = name.split("_")
    found = [codes.by_name(part) for part in parts]
    values = parts[-1:] == ["raw"]
    match kind, found:
        case "Dense", [code] if code is not None:
            return Dense(code)
        case "Mask", [code] if code is not None or values:
            return Mask(code)
        case "Block", [code] if code is not None or values:
            return Block(code)
        case "Gap", [gaps, code] if gaps is not None and (code is not None or values):
            return Gap(gaps, code)
        case "Pair", [code] if code is not None:
            return Pair(code)
    return None
