"""All operators that the trainable graph runs."""

from __future__ import annotations

from modelkit.train.ops import (
    activation,
    attention,
    cast,
    conv,
    dropout,
    index,
    linear,
    loss,
    math,
    norm,
    pool,
    quantized,
    recurrent,
    reduce,
    resize,
    sample,
    shape,
    signal,
)
from modelkit.train.ops.op import Builder

OPS: dict[str, Builder] = {
    **activation.OPS,
    **attention.OPS,
    **cast.OPS,
    **conv.OPS,
    **dropout.OPS,
    **index.OPS,
    **linear.OPS,
    **loss.OPS,
    **math.OPS,
    **norm.OPS,
    **pool.OPS,
    **quantized.OPS,
    **recurrent.OPS,
    **reduce.OPS,
    **resize.OPS,
    **sample.OPS,
    **shape.OPS,
    **signal.OPS,
}

# Inputs that are read as plain numbers, such as shapes and axes: they are kept on the CPU, so that
# reading them never waits for a GPU.
READ_AS_NUMBERS: dict[str, tuple[int, ...]] = {
    "AffineGrid": (1,),
    "BlackmanWindow": (0,),
    "CenterCropPad": (1,),
    "Col2Im": (1, 2),
    "ConstantOfShape": (0,),
    "CumProd": (1,),
    "CumSum": (1,),
    "DFT": (1, 2),
    "Dropout": (1, 2),
    "Expand": (1,),
    "HammingWindow": (0,),
    "HannWindow": (0,),
    "MaxUnpool": (2,),
    "MelWeightMatrix": (0, 1, 2, 3, 4),
    "OneHot": (1,),
    "Pad": (1, 2, 3),
    "Range": (0, 1, 2),
    "Reshape": (1,),
    "Resize": (1, 2, 3),
    "STFT": (1, 3),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Squeeze": (1,),
    "Tile": (1,),
    "TopK": (1,),
    "Trilu": (1,),
    "Unsqueeze": (1,),
    "Upsample": (1,),
    **{name: (1,) for name in reduce.OPS if name.startswith("Reduce")},
}

# What runs in every pass although its inputs never change.
NEVER_FOLDED = frozenset({"Dropout"})
