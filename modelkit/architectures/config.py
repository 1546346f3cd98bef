"""The YAML of an architecture: a family of networks and every size that it has."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, field_validator, model_validator

from modelkit.config.options import Block

Activation = Literal["relu", "relu6", "leaky_relu", "gelu", "silu", "hard_swish", "elu", "tanh"]
CnnOp = Literal["conv", "separable", "inverted", "max_pool", "avg_pool", "skip"]
CellOp = Literal[
    "none",
    "skip",
    "conv1x1",
    "conv3x3",
    "conv5x5",
    "separable3x3",
    "separable5x5",
    "inverted3x3",
    "max_pool",
    "avg_pool",
]
Pool = Literal["none", "max", "avg"]
_EDGE = re.compile(r"(\d+)-(\d+)")


class MlpLayer(Block):
    """A fully connected layer."""

    width: int = Field(64, ge=0, le=65536, description="neurons; 0 leaves the layer out")


class Mlp(Block):
    """Fully connected layers, one behind the other; any input is flattened."""

    family: Literal["mlp"] = Field("mlp", description="fully connected layers")
    layers: list[MlpLayer] = Field([MlpLayer(), MlpLayer()], max_length=64, description="hidden layers in order")
    activation: Activation = Field("relu", description="behind each hidden layer")
    batchnorm: bool = Field(True, description="normalise each hidden layer over the batch")
    dropout: float = Field(0.0, ge=0, lt=1, description="share of the hidden neurons left out at random in training")


class Stem(Block):
    """The first convolution."""

    width: int = Field(16, ge=1, le=4096, description="channels")
    kernel: int = Field(3, ge=1, le=15, description="size of its kernel, odd")
    stride: int = Field(1, ge=1, le=4, description="2 halves the image")

    @field_validator("kernel")
    @classmethod
    def _odd(cls, value: int) -> int:
        return odd(value)


class Stage(Block):
    """Blocks of one kind and one width."""

    op: CnnOp = Field(
        "conv", description="conv, separable (depthwise and pointwise), inverted, max_pool, avg_pool, skip"
    )
    depth: int = Field(1, ge=0, le=64, description="blocks; 0 leaves the stage out")
    width: int = Field(16, ge=1, le=4096, description="channels; pools keep those that come in")
    kernel: int = Field(3, ge=1, le=15, description="size of the kernels, odd")
    stride: int = Field(1, ge=1, le=4, description="of the first block; 2 halves the image")
    expand: float = Field(3.0, gt=0, le=16, description="inverted: how many times wider it is inside")
    residual: bool = Field(True, description="whether a block is added to what comes in, where shapes allow it")
    squeeze: float = Field(
        0.0, ge=0, le=1, description="squeeze-excite with this share of the channels inside; 0 is without"
    )
    activation: Activation | None = Field(None, description="another activation than that of the network")

    @field_validator("kernel")
    @classmethod
    def _odd(cls, value: int) -> int:
        return odd(value)


class Cnn(Block):
    """Stages of convolutions on images [channels, height, width]."""

    family: Literal["cnn"] = Field("cnn", description="stages of convolutions")
    image: list[int] | None = Field(
        None, min_length=3, max_length=3, description="channels, height, width, where samples are flat rows of pixels"
    )
    stem: Stem = Field(Stem(), description="the first convolution")
    stages: list[Stage] = Field(
        [Stage(), Stage(width=32, stride=2)], min_length=1, max_length=32, description="stages in order"
    )
    head: int = Field(0, ge=0, le=65536, description="neurons of a hidden layer behind the pooling; 0 is none")
    pool: Literal["avg", "max", "flatten"] = Field("avg", description="how an image becomes a vector: global pooling")
    activation: Activation = Field("relu", description="behind each convolution")


class Transformer(Block):
    """Layers of attention over tokens, patches of images, steps of a series or columns of a table."""

    family: Literal["transformer"] = Field("transformer", description="layers of attention")
    image: list[int] | None = Field(
        None, min_length=3, max_length=3, description="channels, height, width, where samples are flat rows of pixels"
    )
    layers: int = Field(2, ge=1, le=64, description="layers of attention and MLP")
    width: int = Field(32, ge=2, le=8192, description="numbers that stand for a token")
    heads: int = Field(4, ge=1, le=128, description="heads of attention; they divide the width")
    mlp_ratio: float = Field(2.0, gt=0, le=16, description="width of the MLP's hidden layer, in widths")
    patch: int = Field(4, ge=1, le=256, description="side of a patch of an image, in pixels")
    vocabulary: int | None = Field(
        None, ge=2, le=10_000_000, description="how many tokens there are; the largest of the data by default"
    )
    activation: Activation = Field("gelu", description="inside the MLPs")
    pool: Literal["mean", "first"] = Field("mean", description="what the classifier reads: all tokens, or the first")

    @model_validator(mode="after")
    def _divides(self) -> Transformer:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} cannot be divided among {self.heads} heads: give a multiple")
        return self


class Cell(Block):
    """A cell, a graph of operations on edges, that is repeated (as NAS-Bench-201, Dong and Yang, 2020)."""

    family: Literal["cell"] = Field("cell", description="a cell of operations, repeated")
    image: list[int] | None = Field(
        None, min_length=3, max_length=3, description="channels, height, width, where samples are flat rows of pixels"
    )
    nodes: int = Field(
        4, ge=2, le=8, description="nodes of the cell; the first is what comes in, the last what goes out"
    )
    edges: dict[str, CellOp] = Field(
        default_factory=lambda: dict[str, CellOp](
            {"0-1": "conv3x3", "1-2": "conv3x3", "2-3": "conv3x3", "0-3": "skip"}
        ),
        description="FROM-TO: operation; edges that are not named have none",
    )
    width: int = Field(16, ge=1, le=4096, description="channels of the first stage; each further one doubles them")
    stages: int = Field(2, ge=1, le=8, description="stages; each but the first halves the image")
    repeat: int = Field(1, ge=1, le=32, description="cells in a stage")
    activation: Activation = Field("relu", description="in front of each convolution")

    @field_validator("edges")
    @classmethod
    def _forward(cls, value: dict[str, str]) -> dict[str, str]:
        for name in value:
            found = _EDGE.fullmatch(name)
            if found is None or not int(found[1]) < int(found[2]):
                raise ValueError(f"edge '{name}' must be FROM-TO with FROM below TO, such as 0-2")
        return value

    @model_validator(mode="after")
    def _inside(self) -> Cell:
        for name in self.edges:
            if int(name.partition("-")[2]) >= self.nodes:
                raise ValueError(f"edge {name} leads out of a cell of {self.nodes} nodes (0 to {self.nodes - 1})")
        return self


Architecture = Annotated[Mlp | Cnn | Transformer | Cell, Field(discriminator="family")]
"""Any architecture; ``family`` tells which."""

FAMILIES: dict[str, type[Mlp] | type[Cnn] | type[Transformer] | type[Cell]] = {
    "mlp": Mlp,
    "cnn": Cnn,
    "transformer": Transformer,
    "cell": Cell,
}

ADAPTER: TypeAdapter[Mlp | Cnn | Transformer | Cell] = TypeAdapter(Architecture)


def odd(value: int) -> int:
    """Refuse an even kernel, which has no middle."""
    if value % 2 == 0:
        raise ValueError(f"a kernel must be odd, not {value}")
    return value
