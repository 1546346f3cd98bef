"""The sample models as torch modules: the only architectures that this project trains from nothing."""

from __future__ import annotations

import torch
from data import LANGUAGES, PAD, TOKENS, VOCABULARY
from torch import Tensor, nn


class Mlp(nn.Sequential):
    """64 -> 256 -> 128 -> 10, for `(batch, 64)` digits."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10))


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """A convolution without bias and the BatchNorm behind it."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(outputs)]


class Residual(nn.Module):
    """`relu(x + body(x))`, or without the last ReLU (`linear`)."""

    def __init__(self, body: nn.Module, shortcut: nn.Module | None = None, linear: bool = False) -> None:
        super().__init__()
        self.body = body
        self.shortcut = shortcut or nn.Identity()
        self.end = nn.Identity() if linear else nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, channels, height, width)` to the same layout."""
        return self.end(self.body(x) + self.shortcut(x))


def _basic(inputs: int, outputs: int, stride: int = 1) -> Residual:
    """The two 3x3 convolutions of ResNet-18 (He et al. 2015, arXiv:1512.03385)."""
    body = nn.Sequential(*_conv(inputs, outputs, 3, stride), nn.ReLU(), *_conv(outputs, outputs, 3))
    same = stride == 1 and inputs == outputs
    return Residual(body, None if same else nn.Sequential(*_conv(inputs, outputs, 1, stride)))


def _separable(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
    """Depthwise 3x3, then 1x1 (Howard et al. 2017, arXiv:1704.04861)."""
    depthwise = [*_conv(inputs, inputs, 3, stride, groups=inputs), nn.ReLU()]
    return [*depthwise, *_conv(inputs, outputs, 1), nn.ReLU()]


class FashionCnn(nn.Sequential):
    """BatchNorm, a basic and an inverted residual block, depthwise and 1x1 convolutions; for 1x28x28."""

    def __init__(self) -> None:
        inverted = nn.Sequential(
            *_conv(96, 288, 1), nn.ReLU(), *_conv(288, 288, 3, groups=288), nn.ReLU(), *_conv(288, 96, 1)
        )
        super().__init__(
            *_conv(1, 16, 3),
            nn.ReLU(),
            *_separable(16, 48, 2),
            _basic(48, 48),
            *_separable(48, 96, 2),
            Residual(inverted, linear=True),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(96, 10),
        )


class ArticleCnn(nn.Sequential):
    """The network of the article that started this project; for 3x32x32, 34 MB, most of it in one Linear."""

    def __init__(self) -> None:
        super().__init__(
            *(nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(64, 128, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Flatten(), nn.Linear(8192, 1024), nn.ReLU(), nn.Linear(1024, 10)),
        )


class ResNet18(nn.Sequential):
    """ResNet-18 as for ImageNet (7x7 stem, 3x224x224) with ten classes."""

    def __init__(self) -> None:
        blocks = [_basic(64, 64), _basic(64, 64)]
        for width in (128, 256, 512):
            blocks += [_basic(width // 2, width, 2), _basic(width, width)]
        super().__init__(
            *(*_conv(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)),
            *blocks,
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10)),
        )


def _mean(x: Tensor, tokens: Tensor) -> Tensor:
    """The mean over the places that are not padding: `(batch, time, width)` to `(batch, width)`."""
    real = (tokens != PAD).to(x.dtype).unsqueeze(2)
    return (x * real).sum(1) / real.sum(1)


class Encoder(nn.Module):
    """One pre-norm encoder layer: attention by plain matrix products, then a Gelu feed-forward net."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.gelu, self.drop = nn.GELU(), nn.Dropout(0.2)
        # Each head starts near one neighbour (the last one everywhere): letter groups tell a language,
        # and a few thousand texts are too few to find that out.
        place = torch.arange(TOKENS)
        near = [-2.0 * (place[None, :] - place[:, None] - offset).abs() for offset in (-2, -1, 1)]
        self.nearness = nn.Parameter(torch.stack([*near, torch.zeros(TOKENS, TOKENS)]))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """`x`: `(batch, time, width)`; `mask`: added to the scores, `(batch, 1, 1, time)`."""
        normed = self.norm1(x)
        width, heads = x.shape[2], len(self.nearness)
        query, key, value = (
            layer(normed).reshape(-1, TOKENS, heads, width // heads).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        scores = query @ key.transpose(2, 3) * (width // heads) ** -0.5 + self.nearness + mask
        mixed = (scores.softmax(3) @ value).transpose(1, 2).reshape(-1, TOKENS, width)
        x = x + self.drop(self.out(mixed))
        return x + self.drop(self.down(self.gelu(self.up(self.norm2(x)))))


class LanguageTransformer(nn.Module):
    """Embedding, learned positions, two encoder layers, masked mean; for `(batch, 64)` tokens."""

    def __init__(self, width: int = 128, depth: int = 2) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, width)
        self.position = nn.Parameter(torch.randn(TOKENS, width) * 0.1)
        self.layers = nn.ModuleList(Encoder(width) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, len(LANGUAGES))

    def forward(self, tokens: Tensor) -> Tensor:
        """Int64 tokens `(batch, 64)` to logits `(batch, languages)`."""
        mask = (tokens == PAD).float()[:, None, None, :] * -10000.0
        x = self.embedding(tokens) + self.position
        for layer in self.layers:
            x = layer(x, mask)
        return self.head(_mean(self.norm(x), tokens))


class LanguageGru(nn.Module):
    """Embedding, a bidirectional GRU, masked mean; for `(batch, 64)` tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 64)
        self.drop = nn.Dropout(0.2)
        self.gru = nn.GRU(64, 128, batch_first=True, bidirectional=True)
        self.head = nn.Linear(256, len(LANGUAGES))

    def forward(self, tokens: Tensor) -> Tensor:
        """Int64 tokens `(batch, 64)` to logits `(batch, languages)`."""
        hidden, _ = self.gru(self.drop(self.embedding(tokens)))
        return self.head(self.drop(_mean(hidden, tokens)))
