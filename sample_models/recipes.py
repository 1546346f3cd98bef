"""How each sample model is trained, and what is shipped beside it."""

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
class Shipped:
    """The samples that go with a model.

    Attributes:
        calib: Some of the train split, for calibration.
        eval: Some or all of the test split, for the evaluation set.
        test: What the published accuracy is measured on; `eval` is part of it.
        classes: Name of each class number.
    """

    calib: Split
    eval: Split
    test: Split
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Sample:
    """A sample in words, and the functions that make it.

    Attributes:
        task: What the model answers.
        data: Name of the data set.
        licence: Licence of the data.
        net: Makes the untrained module.
        fit: Trains that module in place.
        ship: Gives its calibration and evaluation samples.
        input_name: Name of the model's only input.
        shipped: False for what is too large for git and goes to `made/`.
        legacy: Export with the older exporter.
    """

    task: str
    data: str
    licence: str
    net: Callable[[], nn.Module]
    fit: Callable[[nn.Module, Log], None]
    ship: Callable[[], Shipped]
    input_name: str = "image"
    shipped: bool = True
    legacy: bool = False


def _fit_digits_mlp(net: nn.Module, log: Log) -> None:
    digits = data.digits()
    train.fit(net, lambda _: digits.train, epochs=60, batch=64, rate=3e-3, decay=0.05, log=log)


def _ship_digits() -> Shipped:
    digits = data.digits()
    return Shipped(digits.train.take(512, 1), digits.test, digits.test, digits.classes)


def _fit_fashion_cnn(net: nn.Module, log: Log) -> None:
    fashion = data.fashion()
    options = {"epochs": 12, "batch": 128, "rate": 8e-3, "decay": 0.05}
    train.fit(net, lambda _: fashion.train, augment=train.jitter, half=True, log=log, **options)


def _ship_fashion() -> Shipped:
    fashion = data.fashion()
    return Shipped(fashion.train.take(512, 1), fashion.test.take(1000, 2), fashion.test, fashion.classes)


def _fit_language(epochs: int, rate: float) -> Callable[[nn.Module, Log], None]:
    def fit(net: nn.Module, log: Log) -> None:
        _, texts = data.languages()
        options = {"batch": 64, "decay": 0.05, "smoothing": 0.05}
        train.fit(net, texts.windows, epochs=epochs, rate=rate, half=True, log=log, **options)

    return fit


def _ship_language() -> Shipped:
    languages, _ = data.languages()
    return Shipped(languages.train.take(512, 1), languages.test, languages.test, languages.classes)


def _fit_article_cnn(net: nn.Module, log: Log) -> None:
    images = data.padded(data.fashion().train)
    train.fit(net, lambda _: images, epochs=5, batch=128, rate=1e-3, decay=0.05, half=True, log=log)


def _ship_padded() -> Shipped:
    fashion = _ship_fashion()
    calib, some, test = (data.padded(split) for split in (fashion.calib, fashion.eval, fashion.test))
    return Shipped(calib, some, test, fashion.classes)


def _fit_resnet18(net: nn.Module, log: Log) -> None:
    """Many small images first, then ever fewer larger ones: a large one costs ten times as much."""
    images = data.fashion().train
    for size, count, batch, rate in ((64, 24_000, 64, 1e-3), (112, 6000, 64, 5e-4), (224, 1600, 32, 3e-4)):
        subset = data.enlarged(images.take(count, size), size)
        train.fit(net, lambda _, subset=subset: subset, epochs=1, batch=batch, rate=rate, half=True, log=log)


def _ship_enlarged() -> Shipped:
    fashion = data.fashion()
    test = data.enlarged(fashion.test.take(400, 2), 224)
    return Shipped(data.enlarged(fashion.train.take(128, 1), 224), test, test, fashion.classes)


_FASHION = ("Fashion-MNIST", "MIT")
_TEXTS = ("language of a text, 64 bytes", f"translations of Django {data.DJANGO_VERSION}", "BSD-3-Clause")

SAMPLES: dict[str, Sample] = {
    "digits_mlp": Sample(
        "digit, 8x8 image",
        "scikit-learn's digits (UCI)",
        "CC BY 4.0, BSD-3-Clause",
        nets.Mlp,
        _fit_digits_mlp,
        _ship_digits,
    ),
    "fashion_cnn": Sample("garment, 1x28x28 image", *_FASHION, nets.FashionCnn, _fit_fashion_cnn, _ship_fashion),
    "language_transformer": Sample(
        *_TEXTS, nets.LanguageTransformer, _fit_language(24, 2e-3), _ship_language, "tokens"
    ),
    "language_gru": Sample(*_TEXTS, nets.LanguageGru, _fit_language(15, 6e-3), _ship_language, "tokens", legacy=True),
    "article_cnn": Sample(
        "garment, 3x32x32 image", *_FASHION, nets.ArticleCnn, _fit_article_cnn, _ship_padded, shipped=False
    ),
    "resnet18": Sample(
        "garment, 3x224x224 image", *_FASHION, nets.ResNet18, _fit_resnet18, _ship_enlarged, shipped=False
    ),
}
"""Every sample by its name, which is also that of its file."""
