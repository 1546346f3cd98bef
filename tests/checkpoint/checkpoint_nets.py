"""Small networks with the layers of the samples, and one way to save them in every form."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

torch.set_num_threads(1)


class Cnn(nn.Module):
    """Convolutions with BatchNorm: plain, depthwise, transposed; a residual addition; a Linear."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.depth = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.norm2 = nn.BatchNorm2d(width)
        self.up = nn.ConvTranspose2d(width, 6, 2, 2)
        self.norm3 = nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        x = x + self.norm2(self.depth(x))
        return self.head(torch.relu(self.norm3(self.up(x))).mean((2, 3)))


class Mlp(nn.Sequential):
    """Two Linear layers."""

    def __init__(self, width: int = 32) -> None:
        super().__init__(nn.Linear(16, width), nn.ReLU(), nn.Linear(width, 10))


class Texts(nn.Module):
    """An embedding, a bidirectional GRU, a Linear on three axes, LayerNorm; tokens in, two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 8)
        self.gru = nn.GRU(8, 6, batch_first=True, bidirectional=True)
        self.mix = nn.Linear(12, 12)
        self.norm = nn.LayerNorm(12)
        self.head = nn.Linear(12, 3, bias=False)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        hidden, _ = self.gru(self.embedding(tokens))
        hidden = self.norm(self.mix(hidden))
        return self.head(hidden.mean(1)), hidden.amax(1)


class Two(nn.Module):
    """Two inputs and tied weights."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Linear(8, 8)
        self.right = nn.Linear(8, 8)
        self.right.weight = self.left.weight

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.relu(self.left(x)) * self.right(y)


class Fixed(nn.Module):
    """Takes batches of two only."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.reshape(2, 4))


def broken() -> nn.Module:
    """A factory that raises."""
    width = -1
    raise ValueError(f"no such width: {width}")


def number() -> int:
    """A factory that returns no module."""
    return 3


def needs_width(width: int) -> nn.Module:
    """A factory that cannot be called without arguments."""
    return Mlp(width)


not_callable = "text"

INPUTS = {
    "Cnn": ("1x3x8x8:float32",),
    "Mlp": ("1x16",),
    "Texts": ("1x5:int64",),
    "Two": ("x=1x8", "y=1x8"),
}
SHAPES = {"Cnn": [(3, 8, 8)], "Mlp": [(16,)], "Texts": [(5,)], "Two": [(8,), (8,)]}


def make(name: str, seed: int = 0) -> nn.Module:
    """A network in evaluation mode with statistics and scales that are no trivial ones."""
    torch.manual_seed(seed)
    net = globals()[name]()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.5, 2)
            module.bias.data.normal_()
    return net.eval()


def feeds(name: str, batch: int = 3, seed: int = 1) -> tuple[Tensor, ...]:
    """Random inputs."""
    generator = torch.Generator().manual_seed(seed)
    if name == "Texts":
        return (torch.randint(0, 20, (batch, 5), generator=generator),)
    return tuple(torch.randn(batch, *shape, generator=generator) for shape in SHAPES[name])


def save(net: nn.Module, form: str, path: Path) -> Path:
    """Write a network or its state dict."""
    from safetensors.torch import save_model

    match form:
        case "state":
            torch.save(net.state_dict(), path)
        case "nested":
            wrapped = {f"module.{key}": value for key, value in net.state_dict().items()}
            extra = {"epoch": 3, "name": "run", "optimizer": {"state": {0: {"step": torch.ones(2)}}}}
            torch.save({**extra, "model_state_dict": wrapped, "lr": 0.1}, path)
        case "legacy":
            torch.save(net.state_dict(), path, _use_new_zipfile_serialization=False)
        case "safetensors":
            save_model(net, str(path), metadata={"format": "pt", "made by": "test"})
        case "module":
            torch.save(net, path)
        case "script":
            torch.jit.script(net).save(str(path))
        case "pt2":
            axes = tuple({0: torch.export.Dim("batch")} for _ in feeds(type(net).__name__))
            torch.export.save(torch.export.export(net, feeds(type(net).__name__), dynamic_shapes=axes), path)
    return path
