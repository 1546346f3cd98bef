"""Blocks of convolutional networks: what stages and cells are made of."""

from __future__ import annotations

import math

from modelkit.architectures.net import Feature, Net


def conv_block(
    net: Net, x: Feature, width: int, kernel: int, stride: int, activation: str | None, name: str
) -> Feature:
    """Convolution, normalisation, and an activation where one is asked for."""
    y = net.batchnorm(net.conv(x, width, kernel, name, stride=stride), f"{name}.norm")
    return y if activation is None else net.activation(y, activation)


def separable(
    net: Net, x: Feature, width: int, kernel: int, stride: int, activation: str | None, name: str
) -> Feature:
    """A depthwise convolution and a pointwise one (Chollet, "Xception", 2017)."""
    y = net.conv(x, x.shape[0], kernel, f"{name}.depthwise", stride=stride, depthwise=True)
    y = net.batchnorm(y, f"{name}.depthwise.norm")
    if activation is not None:
        y = net.activation(y, activation)
    return conv_block(net, y, width, 1, 1, activation, f"{name}.pointwise")


def inverted(
    net: Net,
    x: Feature,
    width: int,
    kernel: int,
    stride: int,
    activation: str,
    name: str,
    *,
    expand: float,
    squeeze: float = 0.0,
) -> Feature:
    """Wider, depthwise, narrow again and without an activation (Sandler et al., "MobileNetV2", 2018)."""
    inside = max(1, round(x.shape[0] * expand))
    y = x if inside == x.shape[0] else conv_block(net, x, inside, 1, 1, activation, f"{name}.expand")
    y = net.conv(y, inside, kernel, f"{name}.depthwise", stride=stride, depthwise=True)
    y = net.activation(net.batchnorm(y, f"{name}.depthwise.norm"), activation)
    y = squeeze_excite(net, y, squeeze, f"{name}.squeeze")
    return conv_block(net, y, width, 1, 1, None, f"{name}.project")


def squeeze_excite(net: Net, x: Feature, share: float, name: str) -> Feature:
    """Scale each channel by what all of the image says about it (Hu et al., 2018); 0 leaves it as it is."""
    if not share:
        return x
    channels = x.shape[0]
    pooled = net.node("GlobalAveragePool", [x.value], (channels, 1, 1))
    y = net.conv(pooled, max(1, math.ceil(channels * share)), 1, f"{name}.down", bias=True)
    y = net.conv(net.activation(y, "relu"), channels, 1, f"{name}.up", bias=True)
    gate = net.node("Sigmoid", [y.value], y.shape)
    return net.multiply(x, gate)


def shortcut(net: Net, x: Feature, shape: tuple[int, ...], name: str) -> Feature:
    """What comes in, in another shape: a convolution 1x1 where the channels or the image's size differ."""
    if x.shape == shape:
        return x
    stride = -(-x.shape[1] // shape[1])
    return conv_block(net, x, shape[0], 1, stride, None, name)
