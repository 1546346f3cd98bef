"""The training loop: it learns, repeats itself, resumes, keeps zeros, and stops when it should."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from train_nets import SAMPLES, Mlp, accuracy, dataset, digits, digits_net, perturb

from modelkit.errors import DataError, ModelError, UsageError
from modelkit.progress import silent
from modelkit.train.config import TrainOptions
from modelkit.train.history import History
from modelkit.train.loop import fit
from modelkit.train.masks import zero_masks
from modelkit.train.rates import climb
from modelkit.train.teacher import Teacher


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def train(net: nn.Module, data: Any, seed: int = 0, **options: Any) -> History:
    given = {name: options.pop(name) for name in list(options) if name not in TrainOptions.model_fields}
    # The rate is given, so that tests of other things do not depend on how it is found.
    options = {"learning_rate": 0.001, "batch": 64, "threads": 1, "device": "cpu", **options}
    return fit(net, data, TrainOptions(**options), seed=seed, **given)


def weights(net: nn.Module) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in net.state_dict().items()}


def test_damaged_weights_recover() -> None:
    net, test = digits_net(), digits("eval")
    before = accuracy(net, test)
    perturb(net, 1.2)
    damaged = accuracy(net, test)
    history = train(net, digits(), epochs=10)
    assert damaged < before - 0.15
    assert accuracy(net, test) > before - 0.04
    assert history.metric == "accuracy" and history.loss == "cross-entropy" and history.task == "classification"
    assert history.samples == (461, 51) and history.stopped == "finished"
    assert [epoch.number for epoch in history.epochs] == list(range(11))
    assert history.epochs[history.best].quality == max(epoch.quality or 0 for epoch in history.epochs)


def test_the_rate_is_found_by_trials_that_leave_no_trace() -> None:
    for damage, least, most in ((0.0, 0.0, 0.0011), (3.0, 0.0011, 1.0)):
        net = digits_net()
        perturb(net, damage)
        start = weights(net)
        history = train(net, digits(), epochs=2, learning_rate="auto", batch="auto")
        assert least < history.rate < most and history.batch == 8
        assert history.rate == min(history.trials, key=lambda trial: trial[1])[0] and len(history.trials) >= 3
        again = digits_net()
        again.load_state_dict(
            {
                name: torch.frombuffer(bytearray(data), dtype=torch.float32).view_as(net.state_dict()[name])
                for name, data in start.items()
            }
        )
        same = train(again, digits(), epochs=2, learning_rate=history.rate, batch=8)
        assert weights(again) == weights(net) and not same.trials


def test_climbing_walks_to_the_best_neighbour() -> None:
    ladder = (1.0, 2.0, 3.0, 4.0, 5.0)
    for best in ladder:
        tried = climb(ladder, 2, lambda rate, best=best: abs(rate - best), silent)  # type: ignore[misc]
        assert min(tried, key=tried.__getitem__) == best and len(tried) <= 4


def test_sgd_learns_too() -> None:
    net, test = digits_net(), digits("eval")
    perturb(net, 1.2)
    damaged = accuracy(net, test)
    train(net, digits(), epochs=8, optimizer="sgd", learning_rate=0.05)
    assert train(digits_net(), digits(), epochs=1, optimizer="sgd", learning_rate="auto").rate >= 1e-4
    assert accuracy(net, test) > damaged + 0.1


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others() -> None:
    found = []
    for seed in (0, 0, 1):
        net = digits_net()
        perturb(net, 1.0)
        train(net, digits(), seed, epochs=2, mixup=0.2)
        found.append(weights(net))
    assert found[0] == found[1] != found[2]


def test_masks_keep_zeros_at_exactly_plus_zero() -> None:
    net = digits_net()
    random = np.random.default_rng(0)
    masks = {name: random.random(tuple(net.initializers[name].shape)) < 0.2 for name in ("w0", "w1")}
    for optimizer in ("adamw", "sgd"):
        train(net, digits(), epochs=2, masks=masks, optimizer=optimizer, weight_decay=0.1)
        for name, kept in masks.items():
            dead = net.initializers[name].detach().numpy()[~kept]
            assert dead.tobytes() == bytes(dead.nbytes)
            assert np.count_nonzero(net.initializers[name].detach().numpy()[kept]) == kept.sum()
    found = zero_masks(net)
    assert set(found) == {"w0", "w1"} and all(np.array_equal(found[name], masks[name]) for name in masks)


def test_masks_may_tighten_on_the_way_and_the_best_weights_keep_the_last() -> None:
    net = digits_net()
    order = np.random.default_rng(0).random(tuple(net.initializers["w0"].shape))
    seen = []

    def tighten(step: int, total: int, module: nn.Module) -> dict[str, np.ndarray] | None:
        seen.append((step, total))
        return {"w0": order > 0.8 * min(1, step / 16)} if step % 4 == 0 and step <= 16 else None

    history = train(net, digits(), epochs=3, on_step=tighten)
    assert seen == [(step, 24) for step in range(1, 25)]
    assert not net.initializers["w0"].detach().numpy()[order <= 0.8].any()
    assert history.best >= 2
    assert accuracy(net, digits("eval")) > 0.9


def test_trials_of_rates_go_through_the_same_schedule() -> None:
    net = digits_net()
    seen = set()

    def cut(step: int, total: int, module: nn.Module) -> dict[str, np.ndarray] | None:
        seen.add(total)
        if step != total // 2:
            return None
        size = np.abs(module.initializers["w1"].detach().numpy())
        return {"w1": size > np.quantile(size, 0.97)}

    history = train(net, digits(), epochs=6, learning_rate="auto", on_step=cut)
    assert seen == {8, 48} and history.stopped == "finished" and not history.notes
    assert history.rate > 0.0011, "the cut calls for more than the undamaged net would"
    assert np.count_nonzero(net.initializers["w1"].detach().numpy()) <= 0.031 * net.initializers["w1"].numel()


def test_early_stopping_keeps_the_best() -> None:
    random = np.random.default_rng(0)
    x = random.standard_normal((96, 20)).astype(np.float32)
    noise = dataset(x, random.integers(0, 4, 96))
    net = Mlp(20, 64, 4)
    history = train(net, noise, epochs=60, patience=3, validation=0.4, learning_rate=0.01)
    assert history.stopped == "early stopping"
    assert len(history.epochs) == history.best + 4


def test_without_validation_the_last_weights_stay() -> None:
    net = digits_net()
    history = train(net, digits(), epochs=2, validation=0)
    assert history.best == 2 and history.metric == "" and history.samples == (512, 0)
    few = digits().subset(range(8))
    assert "too few" in train(net, few, epochs=1).notes[0]


def test_no_epoch_changes_nothing() -> None:
    net = digits_net()
    before = weights(net)
    history = train(net, digits(), epochs=0)
    assert weights(net) == before and history.stopped == "finished" and history.best == 0


class Breaking(nn.Module):
    """A net whose output is no number in some steps."""

    def __init__(self, net: Mlp, steps: set[int]) -> None:
        super().__init__()
        self.net, self.steps, self.step = net, steps, 0

    def forward(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        outputs = self.net(inputs)
        if self.training:
            self.step += 1
            if self.step in self.steps:
                return {name: value * float("nan") for name, value in outputs.items()}
        return outputs


def test_nan_later_stops_and_restores_the_best() -> None:
    net = digits_net()
    perturb(net, 1.0)
    history = train(Breaking(net, {20}), digits(), epochs=6)
    assert history.stopped == "diverged" and len(history.epochs) == 3
    assert "weights of epoch" in history.notes[0] and "nan in epoch 3" in history.notes[0]
    assert all(torch.isfinite(weight).all() for weight in net.parameters())
    assert accuracy(net, digits("eval")) > 0.85


def test_nan_at_once_tries_a_tenth_of_the_rate_once() -> None:
    net = digits_net()
    perturb(net, 1.0)
    history = train(Breaking(net, {3}), digits(), epochs=3)
    assert history.stopped == "finished" and "a tenth of the learning rate" in history.notes[0]
    assert max(epoch.rate for epoch in history.epochs) < 1e-4
    net = digits_net()
    before = weights(net)
    history = train(Breaking(net, {3, 6}), digits(), epochs=3)
    assert history.stopped == "diverged" and history.best == 0 and weights(net) == before


def test_a_rate_that_is_far_too_high_is_noticed() -> None:
    net = digits_net()
    history = train(net, digits(), epochs=3, learning_rate=30.0, warmup=0, clip=0, optimizer="sgd")
    assert "tenth of the learning rate" in history.notes[0]
    assert all(torch.isfinite(weight).all() for weight in net.parameters())
    assert accuracy(net, digits("eval")) > 0.9


def test_the_original_is_followed_without_labels(tmp_path: Path) -> None:
    original = digits_net()
    net = digits_net()
    perturb(net, 1.0)
    data, test = digits(), digits("eval")
    data.labels = None
    teacher = Teacher.load(SAMPLES / "digits_mlp.onnx", threads=1, folder=tmp_path)
    before = agreement(net, original, test)
    history = train(net, data, epochs=10, teacher=teacher)
    assert agreement(net, original, test) > max(0.96, before + 0.05)
    assert history.metric == "agreement" and history.task == "none" and history.loss == "distillation (KL)"
    kept = sorted(tmp_path.glob("teacher-*.npy"))
    assert len(kept) == 2
    stamps = [file.stat().st_mtime_ns for file in kept]
    again = digits_net()
    perturb(again, 1.0)
    train(again, data, epochs=10, teacher=teacher)
    assert weights(again) == weights(net)
    assert [file.stat().st_mtime_ns for file in kept] == stamps
    kept[0].write_bytes(b"damaged")
    third = digits_net()
    perturb(third, 1.0)
    train(third, data, epochs=10, teacher=teacher)
    assert weights(third) == weights(net)


def agreement(one: nn.Module, other: nn.Module, data: Any) -> float:
    batch = next(iter(data.batches(1000)))
    feed = {name: torch.from_numpy(array) for name, array in batch.inputs.items()}
    with torch.no_grad():
        return float((one(feed)["logits"].argmax(1) == other(feed)["logits"].argmax(1)).float().mean())


def test_labels_and_teacher_together_with_varied_inputs() -> None:
    net = digits_net()
    perturb(net, 1.0)
    teacher = Teacher.load(SAMPLES / "digits_mlp.onnx", threads=1)
    history = train(net, digits(), epochs=6, teacher=teacher, mixup=0.3)
    assert history.metric == "accuracy" and history.loss == "cross-entropy + distillation (KL)"
    assert accuracy(net, digits("eval")) > 0.9


def test_regression_and_single_scores_are_learned() -> None:
    random = np.random.default_rng(0)
    x = random.standard_normal((512, 6)).astype(np.float32)
    y = (3 * x[:, 0] - x[:, 1] * x[:, 2]).astype(np.float32)
    history = train(Mlp(6, 64, 1), dataset(x, y), epochs=40, learning_rate=0.01)
    assert history.metric == "rmse" and history.epochs[history.best].quality < 0.3 * y.std()
    history = train(
        Mlp(6, 32, 1, last=nn.Sigmoid()),
        dataset(x, (x[:, 0] > x[:, 1]).astype(np.int64)),
        epochs=20,
        learning_rate=0.01,
    )
    assert history.task == "binary" and history.epochs[history.best].quality > 0.9


def test_a_fixed_batch_is_filled_up_and_fill_ups_do_not_count() -> None:
    random = np.random.default_rng(0)
    x, y = random.standard_normal((50, 6)).astype(np.float32), random.integers(0, 3, 50)
    sizes = []

    class Watching(Mlp):
        def forward(self, inputs: Any) -> Any:
            sizes.append(len(inputs["x"]))
            return super().forward(inputs)

    history = train(Watching(6, 8, 3), dataset(x, y, batch=16), epochs=2, batch=16)
    assert set(sizes) == {16} and history.steps == 6


def test_a_model_that_takes_one_sample_learns_as_from_batches() -> None:
    random = np.random.default_rng(0)
    x, y = random.standard_normal((60, 6)).astype(np.float32), random.integers(0, 3, 60)
    found = []
    for batch in (1, "batch"):
        net = Mlp(6, 8, 3)
        history = train(net, dataset(x, y, batch=batch), epochs=3, batch=15, validation=0)
        found.append(net)
        assert history.steps == 12 and history.batch == 15
    for one, other in zip(found[0].parameters(), found[1].parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_the_time_limit_ends_it() -> None:
    net = digits_net()
    began = time.monotonic()
    history = train(net, digits(), epochs=10_000, time_limit=0.5, patience=0)
    assert history.stopped == "time limit" and "time limit" in history.notes[0]
    history = train(net, digits(), epochs=10_000, time_limit=0.2, learning_rate="auto")
    assert history.stopped == "time limit"
    assert time.monotonic() - began < 8


def test_progress_tells_loss_quality_and_how_far() -> None:
    told: list[tuple[str, float, float]] = []
    train(digits_net(), digits(), epochs=2, progress=lambda stage, done, total: told.append((stage, done, total)))
    assert [done for _, done, _ in told] == list(range(1, 17)) and {total for _, _, total in told} == {16}
    assert told[0][0].startswith("training, epoch 1 of 2 (accuracy ")
    assert "loss" in told[-1][0] and "%" in told[-1][0]


def resumable(folder: Path | None, *, slow: bool = False) -> tuple[dict[str, bytes], list[Any]]:
    """A run with all that must survive a kill: masks that change, mixed inputs, momentum, the best so far."""
    net = digits_net()
    perturb(net, 1.0)

    def on_step(step: int, total: int, module: nn.Module) -> dict[str, np.ndarray] | None:
        if slow and total == 48:
            print(step, flush=True)
            time.sleep(0.03)
        return {"w0": digits_net().initializers["w0"].detach().numpy() > -0.05} if step == 10 else None

    masks = {"w1": digits_net().initializers["w1"].detach().numpy() > 0}
    history = train(
        net, digits(), epochs=6, mixup=0.2, learning_rate="auto", masks=masks, on_step=on_step, folder=folder
    )
    return weights(net), [(epoch.number, epoch.train_loss, epoch.loss, epoch.quality) for epoch in history.epochs]


def test_a_killed_run_goes_on_to_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "import sys, pathlib, modelkit.train.state as state; sys.path.insert(0, sys.argv[1])\n"
        "import test_train_loop; state.EVERY_S = 0.0; test_train_loop.resumable(pathlib.Path(sys.argv[2]), slow=True)"
    )
    argv = [sys.executable, "-c", code, str(Path(__file__).parent), str(tmp_path / "run")]
    environment = {**os.environ, "PYTHONPATH": str(SAMPLES.parent), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for _ in range(21):
            assert process.stdout.readline(), "it ended by itself"
        process.send_signal(signal.SIGKILL)
    steps: list[float] = []
    monkeypatch.setattr(time, "sleep", lambda _: steps.append(1))
    resumed = resumable(tmp_path / "run", slow=True)
    assert 20 <= 48 - len(steps) <= 22, "it did not go on from where it was killed"
    assert resumed == resumable(None)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["training.pt"]
    steps.clear()
    assert resumable(tmp_path / "run", slow=True) == resumed and not steps, "a finished run has nothing left to do"


def test_checkpoints_of_other_runs_and_damaged_ones_are_not_used(tmp_path: Path) -> None:
    found = []
    for seed in (0, 0, 1):
        net = digits_net()
        history = train(net, digits(), seed, epochs=1, folder=tmp_path)
        found.append((weights(net), history.notes))
    assert found[0] == found[1] and not found[0][1]
    assert "another run" in found[2][1][0]
    (tmp_path / "training.pt").write_bytes((tmp_path / "training.pt").read_bytes()[:5000])
    net = digits_net()
    history = train(net, digits(), epochs=1, folder=tmp_path)
    assert "damaged" in history.notes[0] and weights(net) == found[0][0]


def test_a_checkpoint_that_would_run_code_is_not_used(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"version": 1, "key": "", "state": Hostile()}, tmp_path / "training.pt")
    assert "damaged" in train(digits_net(), digits(), epochs=1, folder=tmp_path).notes[0]
    assert not (tmp_path / "ran").exists()


def test_what_cannot_be_trained_is_said() -> None:
    net, data = digits_net(), digits()
    with pytest.raises(UsageError, match="'w9' belongs to no weight"):
        train(net, data, epochs=1, masks={"w9": np.ones(3)})
    with pytest.raises(UsageError, match=r"'b0' has the shape \[3\]"):
        train(net, data, epochs=1, masks={"b0": np.ones(3)})
    with pytest.raises(DataError, match="no input is one"):
        train(net, data, epochs=1, augment="shift")
    frozen = digits_net()
    frozen.requires_grad_(False)
    with pytest.raises(ModelError, match="no weight"):
        train(frozen, data, epochs=1)
    data.labels = None
    with pytest.raises(DataError, match="needs labels"):
        train(net, data, epochs=1)
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="no device 'cuda'"):
            fit(net, digits(), TrainOptions(device="cuda", epochs=1))


def test_torch_is_left_as_it_was() -> None:
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    train(digits_net(), digits(), epochs=1)
    assert torch.get_num_threads() == threads and not torch.are_deterministic_algorithms_enabled()
    assert torch.equal(torch.get_rng_state(), state)
