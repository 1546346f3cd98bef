"""How each sample model is trained: its data, its net, its schedule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import data
import nets
import train
from data import Split
from torch import nn

Log = Callable[[str], None]


@dataclass(frozen=True)
class Trained:
    """A trained net with what is shipped beside it.

    Attributes:
        net: The module in eval mode.
        calib: Samples of the train split, for calibration.
        eval: Samples of the test split, for the shipped evaluation set.
        test: The test split that the published accuracy is measured on.
        classes: Name of each class number.
    """

    net: nn.Module
    calib: Split
    eval: Split
    test: Split
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Sample:
    """A sample in words, and the function that trains it.

    Attributes:
        task: What the model answers.
        data: Name of the data set.
        licence: Licence of the data.
        net: Makes the untrained module.
        build: Trains that module.
        input_name: Name of the model's only input.
        shipped: False for what is too large for git and goes to `made/`.
        legacy: Export with the older exporter.
    """

    task: str
    data: str
    licence: str
    net: Callable[[], nn.Module]
    build: Callable[[nn.Module, Log], Trained]
    input_name: str = "image"
    shipped: bool = True
    legacy: bool = False


def _digits_mlp(net: nn.Module, log: Log) -> Trained:
    digits = data.digits()
    train.fit(net, lambda _: digits.train, epochs=60, batch=64, rate=3e-3, decay=0.05, log=log)
    return Trained(net, digits.train.take(512, 1), digits.test, digits.test, digits.classes)


def _fashion_cnn(net: nn.Module, log: Log) -> Trained:
    fashion = data.fashion()
    options = {"epochs": 7, "batch": 128, "rate": 6e-3, "smoothing": 0.05}
    train.fit(net, lambda _: fashion.train, augment=train.jitter, half=True, log=log, **options)
    return Trained(net, fashion.train.take(512, 1), fashion.test.take(1000, 2), fashion.test, fashion.classes)


def _language(epochs: int, rate: float) -> Callable[[nn.Module, Log], Trained]:
    def build(net: nn.Module, log: Log) -> Trained:
        languages, texts = data.languages()
        options = {"batch": 64, "decay": 0.05, "smoothing": 0.05}
        train.fit(net, texts.windows, epochs=epochs, rate=rate, half=True, log=log, **options)
        return Trained(net, languages.train.take(512, 1), languages.test, languages.test, languages.classes)

    return build


def _article_cnn(net: nn.Module, log: Log) -> Trained:
    fashion = data.fashion()
    subset = data.padded(fashion.train.take(24_000, 3))
    train.fit(net, lambda _: subset, epochs=3, batch=128, rate=1e-3, half=True, log=log)
    test = data.padded(fashion.test)
    return Trained(net, data.padded(fashion.train.take(512, 1)), test.take(1000, 2), test, fashion.classes)


def _resnet18(net: nn.Module, log: Log) -> Trained:
    """Trained on small images, then a little on large ones, which the BatchNorm statistics have to fit."""
    fashion = data.fashion()
    subset = fashion.train.take(20_000, 3)
    small, large = data.enlarged(subset, 64), data.enlarged(subset.take(1280, 4), 224)
    train.fit(net, lambda _: small, epochs=2, batch=64, rate=1e-3, half=True, log=log)
    train.fit(net, lambda _: large, epochs=1, batch=32, rate=1e-4, half=True, log=log)
    test = data.enlarged(fashion.test.take(400, 2), 224)
    return Trained(net, data.enlarged(fashion.train.take(128, 1), 224), test, test, fashion.classes)


_DIGITS = ("digit, 8x8 image", "digits of scikit-learn (UCI optdigits)", "BSD-3-Clause, CC BY 4.0")
_FASHION = ("Fashion-MNIST", "MIT")
_LANGUAGE = (
    "language of a text, 64 UTF-8 bytes",
    f"translations of Django {data.DJANGO_VERSION}",
    "BSD-3-Clause",
)

SAMPLES: dict[str, Sample] = {
    "digits_mlp": Sample(*_DIGITS, nets.Mlp, _digits_mlp),
    "fashion_cnn": Sample("garment, 1x28x28 image", *_FASHION, nets.FashionCnn, _fashion_cnn),
    "language_transformer": Sample(*_LANGUAGE, nets.LanguageTransformer, _language(24, 2e-3), "tokens"),
    "language_gru": Sample(*_LANGUAGE, nets.LanguageGru, _language(20, 6e-3), "tokens", legacy=True),
    "article_cnn": Sample("garment, 3x32x32 image", *_FASHION, nets.ArticleCnn, _article_cnn, shipped=False),
    "resnet18": Sample("garment, 3x224x224 image", *_FASHION, nets.ResNet18, _resnet18, shipped=False),
}
"""Every sample, in the order of the table in README.md."""
