"""From an architecture to an ONNX model with fresh weights, or to what it would cost."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pydantic
import yaml

from modelkit.architectures import families
from modelkit.architectures.config import FAMILIES, Cell, Cnn, Mlp, Transformer
from modelkit.architectures.net import Feature, Net
from modelkit.architectures.signature import Signature
from modelkit.config.resolve import resolve
from modelkit.errors import ConfigError, UsageError
from modelkit.files import require_file, shown

if TYPE_CHECKING:
    import onnx_ir as ir

Family = Mlp | Cnn | Transformer | Cell


@dataclass(frozen=True)
class Cost:
    """What an architecture takes, known before it is built.

    Attributes:
        parameters: Numbers that the graph holds.
        macs: Multiply-accumulates of one sample.
    """

    parameters: int
    macs: int


def build(architecture: Family, signature: Signature, *, seed: int = 0) -> ir.Model:
    """Make a model with fresh weights.

    Args:
        architecture: What it is made of.
        signature: What it reads and gives.
        seed: Seed of the weights, at least 0.

    Raises:
        ModelError: The architecture does not fit such inputs.
    """
    net = Net(signature, seed)
    return net.finish(_grow(net, architecture, signature))


def cost(architecture: Family, signature: Signature) -> Cost:
    """Count what a model would take; nothing is built. Errors as ``build``."""
    net = Net(signature, 0, dry=True)
    _grow(net, architecture, signature)
    return Cost(net.parameters, net.macs)


def _grow(net: Net, architecture: Family, signature: Signature) -> Feature:
    match architecture:
        case Mlp():
            return families.mlp(net, architecture, signature)
        case Cnn():
            return families.cnn(net, architecture, signature)
        case Transformer():
            return families.transformer(net, architecture, signature)
        case Cell():
            return families.cell(net, architecture, signature)


def read(path: Path) -> Family:
    """Read the YAML of an architecture.

    Raises:
        UsageError: It is not there.
        ConfigError: It is no architecture; all problems at once.
    """
    require_file(path)
    name = _family_of(path)
    if name not in FAMILIES:
        raise UsageError(
            f"'{shown(path)}' is no architecture: it needs family, one of {', '.join(FAMILIES)}",
            "modelkit nas writes such files beside its models",
        )
    found: Family = resolve(FAMILIES[name], yaml_path=path).value
    return found


def parse(document: Any, where: str) -> Family:
    """Make an architecture of plain values.

    Args:
        document: The values.
        where: What to call them in an error.

    Raises:
        ConfigError: It is no architecture; all problems at once.
    """
    name = document.get("family") if isinstance(document, dict) else None
    if name not in FAMILIES:
        raise ConfigError(f"{where} is wrong", [f"{where}: family must be one of {', '.join(FAMILIES)}"])
    try:
        return FAMILIES[name].model_validate(document)
    except pydantic.ValidationError as error:
        problems = [
            f"{where}.{'.'.join(map(str, each['loc']))}: {each['msg'].removeprefix('Value error, ')}"
            for each in error.errors()
        ]
        raise ConfigError(f"{where} is wrong", problems) from error


def _family_of(path: Path) -> str:
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        return "mlp"  # the strict reader says what is wrong with it
    return str(found.get("family")) if isinstance(found, dict) else ""
