"""One training run from its first step to its last: steps, epochs, checkpoints, and what ends it."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import Tensor

from modelkit.progress import Progress
from modelkit.report import units
from modelkit.train import state as states
from modelkit.train.augment import Augmenter
from modelkit.train.config import TrainOptions
from modelkit.train.feed import Feed
from modelkit.train.history import Epoch, History
from modelkit.train.judge import judge, metric_of
from modelkit.train.rates import choose_rate
from modelkit.train.schedule import rate_at
from modelkit.train.state import State, copy_weights, load_state, save_state
from modelkit.train.stepper import DivergedError, StepHook, Stepper

# A first epoch that ends this many times worse than it began counts as diverged, finite or not.
_EXPLODED = 10.0


@dataclass
class Run:
    """A training run; `modelkit.train.loop.fit` makes it.

    Attributes:
        stepper: Trains the module.
        training: Samples to train on.
        validation: Samples that choose the best epoch; None for none.
        augment: Varies the training samples.
        options: How to train.
        seed: Seed of everything random.
        progress: Told after each step.
        on_step: See `StepHook`.
        folder: Where checkpoints go; None for none.
        key: Tells this run's checkpoints from those of others.
        by_loss: Whether the loss alone decides which epoch is best.
        until: The last epoch for now; a later call goes on from the checkpoint as if nothing had been. None for all.
        state: How far it is.
        best: The best weights so far, in main memory.
        saved: When the last checkpoint was written, or the run began.
        metric: Name of the quality; "" without validation samples.
        total: Steps of all epochs.
    """

    stepper: Stepper
    training: Feed
    validation: Feed | None
    augment: Augmenter
    options: TrainOptions
    seed: int
    progress: Progress
    on_step: StepHook | None = None
    folder: Path | None = None
    key: str = ""
    by_loss: bool = False
    until: int | None = None
    state: State = field(default_factory=State)
    best: dict[str, Tensor] = field(default_factory=dict)
    saved: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self.metric = metric_of(self.stepper.objective) if self.validation is not None else ""
        self.total = self.training.steps * self.options.epochs

    def go(self, notes: list[str]) -> History:
        """Train until something ends it."""
        self.saved = time.monotonic()
        if not self._resume(notes):
            self._begin(notes)
        while not self.state.stopped and (self.until is None or self.state.epoch <= self.until):
            try:
                self._epoch()
            except DivergedError as error:
                self._diverged(f"{error} in epoch {self.state.epoch}")
        if not self.state.stopped and self.folder is not None:
            save_state(self.folder, self.key, self.state, self.stepper.module, self.stepper.optimizer, self.best)
        self.stepper.restore(self.best)
        return self._history()

    def _resume(self, notes: list[str]) -> bool:
        """Go on from a checkpoint, if there is one of this run."""
        if self.folder is None:
            return False
        state, best, note = load_state(self.folder, self.key, self.stepper.module, self.stepper.optimizer)
        if state is None:
            self.stepper.restart()
            if note:
                notes.append(note)
            return False
        self.state, self.best = state, best
        self.stepper.change_masks(state.masks)
        return True

    def _begin(self, notes: list[str]) -> None:
        """Note how good the model is before training, and settle the learning rate."""
        state = self.state
        state.notes, state.masks = notes, self.stepper.masks.arrays
        self._end_epoch(0, None, 0.0, time.monotonic())
        if not self.options.epochs:
            state.stopped = "finished"
        elif self.options.learning_rate == "auto":
            began = time.monotonic()
            state.rate, tried = choose_rate(
                self.stepper,
                self.training,
                self.validation,
                self.augment,
                self.options,
                self.total,
                self.seed,
                self.progress,
                self.on_step,
                lambda: self._out_of_time(began),
            )
            state.trials = sorted(tried.items())
            state.spent += time.monotonic() - began
        else:
            state.rate = self.options.learning_rate
        state.prepared = state.spent

    def _epoch(self) -> None:
        state = self.state
        began = time.monotonic()
        stage = self._stage()
        self.stepper.module.train()
        done = (state.epoch - 1) * self.training.steps
        for batches in self.training.training(state.epoch, state.step, self.augment):
            rate = rate_at(done + state.step, self._horizon(done + state.step, began), self.options, state.rate)
            # Layers that draw random numbers draw the same ones after a resumption.
            loss = self.stepper.step(batches, rate, (self.seed << 32) + done + state.step)
            state.first_loss = loss if state.first_loss is None else state.first_loss
            state.loss_sum += loss
            state.step += 1
            state.steps += 1
            self._call_hook(done + state.step)
            self.progress(stage, done + state.step, self.total)
            if self._out_of_time(began):
                state.stopped = "time limit"
                state.notes.append(f"the time limit ended training in epoch {state.epoch}")
                break
            self._maybe_save(time.monotonic() - began)
        mean = state.loss_sum / max(1, state.step)
        last = max(0, done + state.step - 1)
        rate = rate_at(last, self._horizon(last, began), self.options, state.rate)
        self._end_epoch(state.epoch, mean, rate, began)

    def _horizon(self, step: int, began: float) -> int:
        """Steps by whose end the learning rate is down: all, or as many as the time allows at the pace so far."""
        limit, state = self.options.time_limit, self.state
        used = state.spent + time.monotonic() - began - state.prepared
        if limit is None or not step or used <= 0:
            return self.total
        return min(self.total, max(step + 1, int(step * (limit - state.prepared) / used)))

    def _call_hook(self, step: int) -> None:
        if self.stepper.call(self.on_step, step, self.total):
            state = self.state
            state.masks = self.stepper.masks.arrays
            state.best_score, state.stale = [], 0
            # The loss may rise now, which is no divergence.
            state.first_loss = None

    def _end_epoch(self, number: int, mean: float | None, rate: float, began: float) -> None:
        """Judge the weights as they are, keep them if they are the best, and decide whether to go on."""
        state, verdict = self.state, None
        if self.validation is not None:
            verdict = judge(self.stepper.module, self.validation, self.stepper.objective)
            self._check_exploded(number, verdict.loss)
        if number and mean is not None:
            self._check_exploded(number, mean)
        score = [] if verdict is None else [verdict.loss] if self.by_loss else list(verdict.score)
        better = not state.best_score or score < state.best_score
        if better:
            state.best_epoch, state.best_score, state.stale = number, score, 0
            self.best = copy_weights(self.stepper.module)
        else:
            state.stale += 1
        seconds = time.monotonic() - began
        loss, quality = (verdict.loss, verdict.quality) if verdict is not None else (None, None)
        state.epochs.append(Epoch(number, rate, mean, loss, quality, seconds))
        state.spent += seconds
        if not state.stopped and number:
            if number >= self.options.epochs:
                state.stopped = "finished"
            elif self.options.patience and state.stale >= self.options.patience:
                state.stopped = "early stopping"
        state.epoch, state.step, state.loss_sum = number + 1, 0, 0.0
        self._maybe_save(0.0)

    def _check_exploded(self, number: int, loss: float) -> None:
        first = self.state.first_loss
        if number and not math.isfinite(loss):
            raise DivergedError(f"the loss was {loss}")
        if number == 1 and first is not None and loss > _EXPLODED * first + 1:
            raise DivergedError(f"the loss rose from {first:.3g} to {loss:.3g}")

    def _diverged(self, why: str) -> None:
        """Start again with a tenth of the rate if it went wrong at once, else stop with the best so far."""
        state = self.state
        if state.epoch == 1 and not state.restarted:
            state.notes.append(f"{why}: training began again with a tenth of the learning rate")
            state.rate, state.restarted = state.rate / 10, True
            state.step, state.loss_sum, state.first_loss = 0, 0.0, None
            self.stepper.restart()
            state.masks = self.stepper.masks.arrays
            return
        state.stopped = "diverged"
        state.notes.append(f"{why}: training stopped, the weights of epoch {state.best_epoch} were restored")
        self.stepper.restore(self.best)
        self._maybe_save(0.0)

    def _out_of_time(self, began: float) -> bool:
        limit = self.options.time_limit
        return limit is not None and self.state.spent + time.monotonic() - began > limit

    def _maybe_save(self, running: float) -> None:
        """Write a checkpoint if it is time for one; the unfinished epoch has been running for some seconds."""
        if self.folder is None:
            return
        now = time.monotonic()
        if self.state.stopped or now - self.saved >= states.EVERY_S:
            state = replace(self.state, spent=self.state.spent + running)
            save_state(self.folder, self.key, state, self.stepper.module, self.stepper.optimizer, self.best)
            self.saved = time.monotonic()

    def _stage(self) -> str:
        """Say where the run is and what the last epoch came to."""
        text = f"training, epoch {self.state.epoch} of {self.options.epochs}"
        last = self.state.epochs[-1] if self.state.epochs else None
        if last is None:
            return text
        facts = [] if last.train_loss is None else [f"loss {last.train_loss:.4g}"]
        if last.quality is not None:
            facts.append(f"{self.metric} {units.metric(self.metric, last.quality)}")
        return f"{text} ({', '.join(facts)})" if facts else text

    def _history(self) -> History:
        state = self.state
        return History(
            epochs=state.epochs,
            best=state.best_epoch,
            rate=state.rate,
            trials=state.trials,
            batch=(self.training.data.plan.fixed or self.training.batch) * self.training.runs,
            steps=state.steps,
            task=str(self.stepper.objective.task),
            metric=self.metric,
            loss=self.stepper.objective.describe(),
            stopped=state.stopped,
            device=self.training.device.type,
            samples=(self.training.data.count, self.validation.data.count if self.validation else 0),
            notes=state.notes,
        )
