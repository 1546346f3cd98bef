"""The families of networks: each one's YAML becomes nodes."""

from __future__ import annotations

import math

import numpy as np

from modelkit.architectures.blocks import conv_block, inverted, separable, shortcut, squeeze_excite
from modelkit.architectures.config import Cell, CellOp, Cnn, Mlp, Stage, Transformer
from modelkit.architectures.net import Feature, Net
from modelkit.architectures.signature import Signature, image_shape
from modelkit.errors import ModelError


def mlp(net: Net, config: Mlp, signature: Signature) -> Feature:
    """Hidden layers and a linear one."""
    if signature.tokens:
        raise ModelError(f"an mlp reads numbers, and '{signature.input}' holds tokens", "use family: transformer")
    x = net.flatten(net.standardised(net.input))
    if not x.shape:
        x = net.reshape(x, (1,))
    for number, layer in enumerate(layer for layer in config.layers if layer.width):
        x = net.linear(x, layer.width, f"layer{number}")
        if config.batchnorm:
            x = net.batchnorm(x, f"layer{number}.norm")
        x = net.dropout(net.activation(x, config.activation), config.dropout)
    return net.linear(x, signature.outputs, "head", last=True)


def cnn(net: Net, config: Cnn, signature: Signature) -> Feature:
    """A stem, stages of blocks, a global pool and a linear layer."""
    x = _image(net, config.image, signature, "cnn")
    stem = config.stem
    x = conv_block(net, x, stem.width, stem.kernel, stem.stride, config.activation, "stem")
    for number, stage in enumerate(config.stages):
        for block in range(stage.depth):
            stride = stage.stride if block == 0 else 1
            x = _block(net, x, stage, stride, stage.activation or config.activation, f"stage{number}.block{block}")
    x = net.flatten(x) if config.pool == "flatten" else net.global_pool(x, config.pool)
    if config.head:
        x = net.activation(net.linear(x, config.head, "hidden"), config.activation)
    return net.linear(x, signature.outputs, "head", last=True)


def _block(net: Net, x: Feature, stage: Stage, stride: int, activation: str, name: str) -> Feature:
    if stage.op == "skip":
        return shortcut(net, x, (stage.width, -(-x.shape[1] // stride), -(-x.shape[2] // stride)), f"{name}.skip")
    if stage.op in ("max_pool", "avg_pool"):
        return net.pool(x, stage.op.removesuffix("_pool"), stage.kernel, stride)
    if stage.op == "inverted":
        options = {"expand": stage.expand, "squeeze": stage.squeeze}
        y = inverted(net, x, stage.width, stage.kernel, stride, activation, name, **options)
        return net.add(x, y) if stage.residual and x.shape == y.shape else y
    made = conv_block if stage.op == "conv" else separable
    if not stage.residual:
        y = made(net, x, stage.width, stage.kernel, stride, activation, name)
        return squeeze_excite(net, y, stage.squeeze, f"{name}.squeeze")
    y = made(net, x, stage.width, stage.kernel, stride, None, name)
    y = squeeze_excite(net, y, stage.squeeze, f"{name}.squeeze")
    return net.activation(net.add(shortcut(net, x, y.shape, f"{name}.shortcut"), y), activation)


def cell(net: Net, config: Cell, signature: Signature) -> Feature:
    """A stem, stages of cells with a block that halves the image between, a global pool and a linear layer."""
    x = _image(net, config.image, signature, "cell")
    x = conv_block(net, x, config.width, 3, 1, None, "stem")
    for stage in range(config.stages):
        if stage:
            y = conv_block(net, x, 2 * x.shape[0], 3, 2, config.activation, f"stage{stage}.reduce")
            y = conv_block(net, y, y.shape[0], 3, 1, None, f"stage{stage}.reduce2")
            x = net.add(shortcut(net, x, y.shape, f"stage{stage}.shortcut"), y)
        for number in range(config.repeat):
            x = _cell(net, x, config, f"stage{stage}.cell{number}")
    x = net.global_pool(net.activation(x, config.activation), "avg")
    return net.linear(x, signature.outputs, "head", last=True)


def _cell(net: Net, x: Feature, config: Cell, name: str) -> Feature:
    made = {0: x}
    for (begin, to), op in live_edges(config).items():
        y = _edge(net, made[begin], op, config.activation, f"{name}.edge{begin}{to}")
        made[to] = net.add(made[to], y) if to in made else y
    if config.nodes - 1 not in made:
        raise ModelError(
            "no path leads through the cell: its last node gets nothing", "give it an edge that is not none"
        )
    return made[config.nodes - 1]


def live_edges(config: Cell) -> dict[tuple[int, int], CellOp]:
    """Edges on a path from the first node of a cell to its last, in the order in which they are computed."""
    edges = {
        (int(name.partition("-")[0]), int(name.partition("-")[2])): op
        for name, op in config.edges.items()
        if op != "none"
    }
    fed, needed = {0}, {config.nodes - 1}
    for to in range(1, config.nodes):
        fed |= {to for begin in fed if (begin, to) in edges}
    for begin in range(config.nodes - 2, -1, -1):
        needed |= {begin for to in needed if (begin, to) in edges}
    ordered = sorted(edges, key=lambda edge: (edge[1], edge[0]))
    return {edge: edges[edge] for edge in ordered if edge[0] in fed & needed and edge[1] in fed & needed}


def _edge(net: Net, x: Feature, op: str, activation: str, name: str) -> Feature:
    channels = x.shape[0]
    if op == "skip":
        return x
    if op in ("max_pool", "avg_pool"):
        return net.pool(x, op.removesuffix("_pool"))
    kind, kernel = op[: op.rindex("x") - 1], int(op[-1])
    if kind == "conv":
        return conv_block(net, net.activation(x, activation), channels, kernel, 1, None, name)
    if kind == "separable":
        return separable(net, net.activation(x, activation), channels, kernel, 1, None, name)
    return inverted(net, x, channels, kernel, 1, activation, name, expand=3.0)


def transformer(net: Net, config: Transformer, signature: Signature) -> Feature:
    """Layers with the normalisation in front (Xiong et al., 2020), and a linear layer over the pooled tokens."""
    x = _tokens(net, config, signature)
    length, width = x.shape
    places = net.weight("positions", (1, length, width), 0.02)
    x = net.node("Add", [x.value, places], x.shape, name="embedded")
    for number in range(config.layers):
        name = f"layer{number}"
        x = net.add(x, _attention(net, net.layernorm(x, f"{name}.norm1"), config.heads, f"{name}.attention"))
        y = net.linear(net.layernorm(x, f"{name}.norm2"), max(1, round(width * config.mlp_ratio)), f"{name}.up")
        x = net.add(x, net.linear(net.activation(y, config.activation), width, f"{name}.down", gain=0.5))
    x = net.layernorm(x, "norm")
    if config.pool == "mean":
        axes = net.constant("pool.axes", np.array([1], np.int64))
        x = net.node("ReduceMean", [x.value, axes], (width,), name="pooled", keepdims=0)
    else:
        place = net.constant("pool.place", np.array(0, np.int64))
        x = net.node("Gather", [x.value, place], (width,), name="pooled", axis=1)
    return net.linear(x, signature.outputs, "head", last=True)


def _tokens(net: Net, config: Transformer, signature: Signature) -> Feature:
    """Vectors [length, width] of tokens, patches, steps of a series, or features of a row."""
    shape, width = signature.shape, config.width
    if signature.tokens:
        if len(shape) != 1:
            raise ModelError(f"tokens come as rows [length], and '{signature.input}' has samples {list(shape)}")
        count = config.vocabulary or signature.vocabulary
        table = net.weight("tokens", (count, width), 0.02 * math.sqrt(width))
        return net.node("Gather", [table, net.input.value], (shape[0], width), name="looked_up", axis=0)
    if config.image is not None or len(shape) == 3:
        x = _image(net, config.image, signature, "transformer")
        y = net.patches(x, width, config.patch, "patches")
        y = net.reshape(y, (width, y.shape[1] * y.shape[2]))
        return net.transpose(y, (1, 0))
    x = net.standardised(net.input)
    if len(shape) == 2:
        return net.linear(x, width, "embed", gain=1.0)
    if len(shape) != 1:
        raise ModelError(f"a transformer reads tokens, images, series or rows, not samples {list(shape)}")
    # Each feature of a row is a token: its number times a vector of its own, plus one of its own.
    column = net.reshape(x, (shape[0], 1))
    table = net.weight("features", (1, shape[0], width), 1.0)
    return net.node("Mul", [column.value, table], (shape[0], width), name="spread")


def _attention(net: Net, x: Feature, heads: int, name: str) -> Feature:
    length, width = x.shape
    depth = width // heads

    def split(part: str) -> Feature:
        y = net.linear(x, width, f"{name}.{part}", gain=1.0)
        return net.transpose(net.reshape(y, (length, heads, depth)), (1, 0, 2))

    query, key, value = (split(part) for part in ("query", "key", "value"))
    scores = net.matmul(query, net.transpose(key, (0, 2, 1)))
    factor = net.constant("attention.scale", np.array(1 / math.sqrt(depth), np.float32))
    scores = net.node("Mul", [scores.value, factor], scores.shape)
    weights = net.node("Softmax", [scores.value], scores.shape, axis=-1)
    mixed = net.transpose(net.matmul(weights, value), (1, 0, 2))
    return net.linear(net.reshape(mixed, (length, width)), width, f"{name}.out", gain=0.5)


def _image(net: Net, image: list[int] | None, signature: Signature, family: str) -> Feature:
    shape = image_shape(signature, image, family)
    return net.reshape(net.standardised(net.input), shape)
