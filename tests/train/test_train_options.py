"""Options of training: what is refused, what auto means, how rates run, how samples are varied."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from modelkit.cli.console import _Lines
from modelkit.config.resolve import resolve
from modelkit.errors import ConfigError, DataError
from modelkit.train.augment import Augmenter
from modelkit.train.config import FineTune, TrainOptions
from modelkit.train.schedule import rate_at

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"epochs": -1}, "greater than or equal to 0"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0"),
        ({"batch": 0}, "batch must be from 1"),
        ({"optimizer": "adam"}, "adamw"),
        ({"momentum": 0.8}, "momentum belongs to the optimizer sgd"),
        ({"validation": 0.6}, "less than or equal to 0.5"),
        ({"label_smoothing": 0.1, "loss": "mse"}, "label_smoothing belongs to the loss cross_entropy"),
        ({"temperature": 0.0}, "greater than 0"),
        ({"time_limit": "soon"}, "soon"),
        ({"rate": 1.0}, "[Ee]xtra"),
    ],
)
def test_wrong_options_are_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        TrainOptions(**given)


def test_yaml_gives_units_and_errors_with_their_place(tmp_path: Path) -> None:
    file = tmp_path / "train.yaml"
    file.write_text("epochs: 3\nwarmup: 10%\ntime_limit: 2min\nlearning_rate: 0.01\nbatch: 32\n", encoding="utf-8")
    options = resolve(FineTune, yaml_path=file).value
    assert (options.warmup, options.time_limit, options.learning_rate, options.batch) == (0.1, 120, 0.01, 32)
    assert FineTune().epochs == 0 and TrainOptions().epochs > 0
    file.write_text("epochs: 3\noptimizer: adam\n", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        resolve(FineTune, yaml_path=file)
    assert "train.yaml:2" in caught.value.problems[0]


def test_auto_batches_make_enough_steps() -> None:
    assert [TrainOptions().batch_for(count) for count in (10, 300, 512, 1024, 100_000)] == [8, 8, 16, 32, 64]
    assert TrainOptions(batch=5).batch_for(10) == 5


def test_the_rate_rises_and_falls() -> None:
    rates = [rate_at(step, 100, TrainOptions(warmup=0.1), 1.0) for step in range(100)]
    assert rates[:10] == sorted(rates[:10]) and rates[0] > 0 and max(rates) == rates[10] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True) and 0 < rates[-1] < 0.001
    assert rates[55] == pytest.approx(0.5)
    assert {rate_at(step, 100, TrainOptions(warmup=0, schedule="constant"), 0.3) for step in range(100)} == {0.3}


def vary(images: np.ndarray, how: str, epoch: int = 0) -> np.ndarray:
    augmenter = Augmenter({"x": images}, {"x": 0}, TrainOptions(augment=how), seed=0)  # type: ignore[arg-type]
    varied, partners, share = augmenter.apply({"x": images}, epoch, 0)
    assert partners is None and share == 1.0
    return varied["x"]


def test_images_are_moved_and_mirrored_whole() -> None:
    images = np.broadcast_to(np.arange(16.0, dtype=np.float32), (32, 3, 16, 16)).copy()
    flipped = vary(images, "flip")
    kinds = {tuple(row) for row in flipped[:, 0, 0]}
    assert kinds == {tuple(range(16)), tuple(range(15, -1, -1))}
    assert (flipped == flipped[:, :1, :1]).all()
    moved = vary(images, "shift")
    starts = moved[:, 0, 0, 8] - 8
    assert set(np.abs(starts)) == {0, 1, 2} and (np.diff(moved, axis=3) >= 0).all()
    last = vary(np.moveaxis(images, 1, 3).copy(), "shift")
    assert np.array_equal(np.moveaxis(last, 3, 1), moved)
    assert not np.array_equal(vary(images, "shift", epoch=1), moved)
    assert np.array_equal(vary(images, "shift"), moved)


def test_mixup_mixes_samples_and_refuses_ids() -> None:
    x = RANDOM.standard_normal((8, 4)).astype(np.float32)
    mixed, partners, share = Augmenter({"x": x}, {"x": 0}, TrainOptions(mixup=1.0), 0).apply({"x": x}, 0, 0)
    assert partners is not None and 0 < share < 1
    assert np.allclose(mixed["x"], share * x + (1 - share) * x[partners], atol=1e-6)
    with pytest.raises(DataError, match="mixup needs inputs of floats"):
        Augmenter({"ids": np.zeros((8, 4), np.int64)}, {"ids": 0}, TrainOptions(mixup=1.0), 0)


def test_progress_in_logs_estimates_over_all_epochs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [0.0]
    monkeypatch.setattr("modelkit.cli.console.time.monotonic", lambda: clock[0])
    lines = _Lines()
    for step in range(1, 41):
        clock[0] = float(step)
        lines(f"training, epoch {(step - 1) // 4 + 1} of 10", step, 40)
    shown = capsys.readouterr().err.splitlines()
    assert len(shown) == 4 and shown[-1] == "training, epoch 8 of 10 80 %, about 8 s left"
