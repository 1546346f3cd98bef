"""What a user says about a checkpoint that the file itself does not tell: architecture, inputs, trust."""

from __future__ import annotations

import re
from dataclasses import dataclass

from modelkit.errors import UsageError
from modelkit.files import shown

# Types of inputs that torch and ONNX both have, by the names of both.
DTYPES = {
    **{name: name for name in ("float16", "bfloat16", "float32", "float64")},
    **{name: name for name in ("int8", "int16", "int32", "int64", "uint8", "bool")},
    **{"half": "float16", "float": "float32", "double": "float64", "int": "int32", "long": "int64"},
}
NO_INPUT = "--input gives shape and type of each input, such as --input 1x3x32x32:float32"
_MOST_AXES = 8
_LARGEST = 1 << 31
_FORM = "SHAPE:TYPE, such as 1x3x32x32:float32, or NAME=SHAPE:TYPE"


@dataclass(frozen=True)
class InputSpec:
    """One input of a torch module.

    Attributes:
        name: Its parameter's name in ``forward``; None where inputs are given in order.
        shape: Sizes of all axes, the batch first.
        dtype: Name of its element type, as numpy and torch call it.
        fixed: Whether the exported model takes only batches of exactly this size.
    """

    name: str | None
    shape: tuple[int, ...]
    dtype: str
    fixed: bool


@dataclass(frozen=True)
class Loading:
    """How a checkpoint is read; an ONNX file needs none of it.

    Attributes:
        arch: ``package.module:factory``, a callable without arguments that returns the module.
        inputs: ``--input`` texts, see ``parse_input``.
        trust: Whether formats that can run code may be loaded.
    """

    arch: str | None = None
    inputs: tuple[str, ...] = ()
    trust: bool = False


def parse_input(text: str) -> InputSpec:
    """Read an ``--input`` text: ``[NAME=]SHAPE[:TYPE][:fixed]``.

    The first axis is the batch: any size fits later, unless ``:fixed`` is said. The type is float32 by default.

    Raises:
        UsageError: It does not have that form; says what part.
    """
    wrong = f"--input '{shown(text)}' does not fit {_FORM}"
    name, separator, rest = text.rpartition("=")
    if separator and not name.isidentifier():
        raise UsageError(f"{wrong}: '{shown(name)}' is not the name of a parameter")
    shape, *options = rest.split(":")
    fixed = "fixed" in options
    types = [option for option in options if option != "fixed"]
    if len(options) - len(types) > 1 or len(types) > 1:
        raise UsageError(f"{wrong}: there are too many parts")
    dtype = DTYPES.get(types[0].removeprefix("torch.")) if types else "float32"
    if dtype is None:
        raise UsageError(f"{wrong}: '{shown(types[0])}' is no type", f"types are {', '.join(sorted(set(DTYPES)))}")
    if not re.fullmatch(r"\d{1,10}(x\d{1,10})*", shape, re.ASCII):
        raise UsageError(f"{wrong}: '{shown(shape)}' is no shape", "sizes are whole numbers joined by x")
    sizes = tuple(int(part) for part in shape.split("x"))
    count = 1
    for size in sizes:
        count *= size
    if not all(sizes) or len(sizes) > _MOST_AXES or count >= _LARGEST:
        raise UsageError(f"{wrong}: the shape {shape} is not possible", f"sizes from 1, at most {_MOST_AXES} of them")
    return InputSpec(name or None, sizes, dtype, fixed)


def parse_inputs(texts: tuple[str, ...]) -> list[InputSpec]:
    """Read all ``--input`` texts.

    Raises:
        UsageError: One of them is wrong, a name is repeated, or an input without a name follows one with a name.
    """
    specs = [parse_input(text) for text in texts]
    names = [spec.name for spec in specs if spec.name]
    if len(set(names)) < len(names):
        raise UsageError("two --input have the same name", "each parameter is given once")
    seen = False
    for spec in specs:
        if seen and spec.name is None:
            raise UsageError("an --input without a name follows one with a name", "give names to all after the first")
        seen = seen or spec.name is not None
    return specs
