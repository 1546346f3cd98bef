"""One training run from its first step to its last: steps, epochs, checkpoints, and what ends it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from modelkit.progress import Progress
from modelkit.train import state as states
from modelkit.train.augment import Augmenter
from modelkit.train.config import TrainOptions
from modelkit.train.feed import Feed, loss_of
from modelkit.train.history import Epoch, History
from modelkit.train.judge import judge, metric_of
from modelkit.train.masks import Masks
from modelkit.train.objective import Objective
from modelkit.train.optimizer import make_optimizer, set_rate
from modelkit.train.schedule import rate_at
from modelkit.train.state import State, copy_weights, load_state, save_state

StepHook = Callable[[int, int, nn.Module], Mapping[str, np.ndarray] | None]
"""Called after each step with its number (from 1), the number of all steps and the module. Masks that it returns
replace those in force; the best weights so far are then forgotten, since they do not keep the new masks."""

# A first epoch that ends this many times worse than it began counts as diverged, finite or not.
_EXPLODED = 10.0


class _DivergedError(Exception):
    """The loss or a gradient is no number any more, or far too large."""


@dataclass
class Run:
    """A training run; `modelkit.train.loop.fit` makes it.

    Attributes:
        module: What is trained, on its device.
        training: Samples to train on.
        validation: Samples that choose the best epoch; None for none.
        objective: What is minimised.
        augment: Varies the training samples.
        options: How to train.
        seed: Seed of everything random.
        progress: Told after each step.
        masks: What stays zero.
        on_step: See `StepHook`.
        folder: Where checkpoints go; None for none.
        key: Tells this run's checkpoints from those of others.
        state: How far it is.
        best: The best weights so far, in main memory.
    """

    module: nn.Module
    training: Feed
    validation: Feed | None
    objective: Objective
    augment: Augmenter
    options: TrainOptions
    seed: int
    progress: Progress
    masks: Masks
    on_step: StepHook | None = None
    folder: Path | None = None
    key: str = ""
    state: State = field(default_factory=State)
    best: dict[str, Tensor] = field(default_factory=dict)

    def go(self, notes: list[str]) -> History:
        """Train until something ends it."""
        self.metric = metric_of(self.objective) if self.validation is not None else ""
        self.total = self.training.steps * self.options.epochs
        self.started = self.saved = time.monotonic()
        self.start, self.first_masks = copy_weights(self.module), self.masks
        self._restart()
        if not self._resume(notes):
            self._begin(notes)
        while not self.state.stopped:
            try:
                self._epoch()
            except _DivergedError as error:
                self._diverged(str(error))
        self._restore()
        return self._history()

    def _restore(self) -> None:
        """Bring the best weights back; the masks may have become stricter since."""
        self.module.load_state_dict(self.best)
        self.masks.zero_weights()

    def _resume(self, notes: list[str]) -> bool:
        """Go on from a checkpoint, if there is one of this run."""
        if self.folder is None:
            return False
        state, best, note = load_state(self.folder, self.key, self.module, self.optimizer)
        if state is None:
            self._restart()
            if note:
                notes.append(note)
            return False
        self.state, self.best = state, best
        self.masks = Masks(self.module, state.masks)
        return True

    def _restart(self) -> None:
        """Go back to the weights and masks before training."""
        self.module.load_state_dict(self.start)
        self.masks = self.first_masks
        self.masks.zero_weights()
        self.optimizer = make_optimizer(self.module, self.options)

    def _begin(self, notes: list[str]) -> None:
        """Note how good the model is before training."""
        self.state.notes, self.state.masks = notes, self.masks.arrays
        self._end_epoch(0, None, 0.0)
        if not self.options.epochs:
            self.state.stopped = "finished"

    def _epoch(self) -> None:
        state = self.state
        began = time.monotonic()
        stage = self._stage()
        self.module.train()
        done = (state.epoch - 1) * self.training.steps
        for fed in self.training.training(state.epoch, state.step, self.augment):
            rate = state.scale * rate_at(done + state.step, self.total, self.options)
            set_rate(self.optimizer, rate)
            self.optimizer.zero_grad(set_to_none=True)
            # Layers that draw random numbers draw the same ones after a resumption.
            torch.manual_seed((self.seed << 32) + done + state.step)
            loss, _ = loss_of(self.module, fed, self.objective)
            loss.backward()
            self._step(loss.item())
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
        self._end_epoch(state.epoch, mean, rate_at(max(0, done + state.step - 1), self.total, self.options), began)

    def _step(self, loss: float) -> None:
        state = self.state
        if not math.isfinite(loss):
            raise _DivergedError(f"the loss was {loss} in epoch {state.epoch}")
        self.masks.zero_gradients()
        if self.options.clip:
            norm = nn.utils.clip_grad_norm_(self.module.parameters(), self.options.clip).item()
            if not math.isfinite(norm):
                raise _DivergedError(f"the gradient was {norm} in epoch {state.epoch}")
        self.optimizer.step()
        self.masks.zero_weights()
        state.loss_sum += loss
        if state.first_loss is None:
            state.first_loss = loss

    def _call_hook(self, step: int) -> None:
        changed = None if self.on_step is None else self.on_step(step, self.total, self.module)
        if changed is None:
            return
        self.masks = Masks(self.module, changed)
        self.masks.zero_weights()
        self.masks.zero_momentum(self.optimizer)
        self.state.masks = self.masks.arrays
        self.state.best_score, self.state.stale = [], 0

    def _end_epoch(self, number: int, mean: float | None, rate: float, began: float | None = None) -> None:
        """Judge the weights as they are, keep them if they are the best, and decide whether to go on."""
        state, verdict = self.state, None
        if self.validation is not None:
            verdict = judge(self.module, self.validation, self.objective)
            self._check_exploded(number, verdict.loss)
        if number and mean is not None:
            self._check_exploded(number, mean)
        better = verdict is None or not state.best_score or verdict.score < state.best_score
        if better:
            state.best_epoch, state.best_score, state.stale = number, list(verdict.score) if verdict else [], 0
            self.best = copy_weights(self.module)
        else:
            state.stale += 1
        seconds = time.monotonic() - (began if began is not None else self.started)
        loss, quality = (verdict.loss, verdict.quality) if verdict is not None else (None, None)
        state.epochs.append(Epoch(number, state.scale * rate, mean, loss, quality, seconds))
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
            raise _DivergedError(f"the loss was {loss} after epoch {number}")
        if number == 1 and first is not None and loss > _EXPLODED * first + 1:
            raise _DivergedError(f"the loss rose from {first:.3g} to {loss:.3g} in the first epoch")

    def _diverged(self, why: str) -> None:
        """Start again with a tenth of the rate if it went wrong at once, else stop with the best so far."""
        state = self.state
        if state.epoch == 1 and state.scale == 1.0:
            state.notes.append(f"{why}: training began again with a tenth of the learning rate")
            state.scale, state.step, state.loss_sum, state.first_loss = 0.1, 0, 0.0, None
            self._restart()
            state.masks = self.masks.arrays
            return
        state.stopped = "diverged"
        state.notes.append(f"{why}: training stopped, the weights of epoch {state.best_epoch} were restored")
        self._restore()
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
            save_state(self.folder, self.key, state, self.module, self.optimizer, self.best)
            self.saved = time.monotonic()

    def _stage(self) -> str:
        """Say where the run is and what the last epoch came to."""
        text = f"training, epoch {self.state.epoch} of {self.options.epochs}"
        last = self.state.epochs[-1] if self.state.epochs else None
        if last is None:
            return text
        facts = [] if last.train_loss is None else [f"loss {last.train_loss:.4g}"]
        if last.quality is not None:
            shown = f"{last.quality:.4g}" if self.metric == "rmse" else f"{100 * last.quality:.2f} %"
            facts.append(f"{self.metric} {shown}")
        return f"{text} ({', '.join(facts)})" if facts else text

    def _history(self) -> History:
        state = self.state
        return History(
            epochs=state.epochs,
            best=state.best_epoch,
            steps=state.steps,
            task=str(self.objective.task),
            metric=self.metric,
            loss=self.objective.describe(),
            stopped=state.stopped,
            device=self.training.device.type,
            samples=(self.training.data.count, self.validation.data.count if self.validation else 0),
            notes=state.notes,
        )
