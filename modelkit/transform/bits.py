"""Stores single weights in fewer bits: handed to searches over bits, as commands do not know one another."""

from __future__ import annotations

import glob
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

STORE = "modelkit.transform.bits:store"


def store(model: ir.Model, bits: Mapping[str, int]) -> None:
    """Store weights as integers that are folded back to floats when the model is loaded, in place.

    Args:
        model: A normalised model.
        bits: Name of a weight -> its bits, 2 to 8; all others stay as they are.
    """
    from modelkit.quantize.config import WeightOptions
    from modelkit.quantize.weights import quantize_weights

    for count in sorted(set(bits.values())):
        mine = [name for name, each in sorted(bits.items()) if each == count]
        present = [glob.escape(name) for name in mine if name in model.graph.initializers]
        if present:
            quantize_weights(
                model, bits=count, options=WeightOptions(), include=present, exclude=[], fuse_matmul=False
            )
