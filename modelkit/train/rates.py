"""Finds a learning rate by short trials, each a whole run in small: warmed up, and down to 0."""

from __future__ import annotations

import math
from collections.abc import Callable

from modelkit.progress import Progress
from modelkit.train.augment import Augmenter
from modelkit.train.config import TrainOptions
from modelkit.train.feed import Feed
from modelkit.train.judge import judge
from modelkit.train.schedule import rate_at
from modelkit.train.stepper import DivergedError, StepHook, Stepper

# From which rate to start, and what may be tried below and above: about half a decade apart.
_LADDERS = {
    "adamw": (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2),
    "sgd": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1),
}
_FIRST = 4
_FEWEST, _MOST = 8, 48  # steps of a trial
_SHARE = 8  # a trial takes this part of all steps, between the two
# Epochs of trials are numbered from here, so that their order is none of the training's.
_EPOCH = 1 << 20


def choose_rate(
    stepper: Stepper,
    training: Feed,
    validation: Feed | None,
    augment: Augmenter,
    options: TrainOptions,
    total: int,
    seed: int,
    progress: Progress,
    on_step: StepHook | None = None,
    expired: Callable[[], bool] = lambda: False,
) -> tuple[float, dict[float, float]]:
    """Try learning rates and take the one that ends with the least loss.

    Args:
        stepper: Trains the module, which is as before at the end.
        training: Samples to train on.
        validation: Samples to judge by; without any the trial's own last losses do.
        augment: Varies the training samples.
        options: How to train.
        total: Steps that will be made with the rate.
        seed: Seed of the run.
        progress: Told after each trial.
        on_step: What is called after each step of the training; called in the trials too.
        expired: Whether time is up; what has not been tried by then is not.

    Returns:
        The highest rate of the schedule, and the loss that each one tried ended with (inf where it diverged).
    """
    steps = min(_MOST, max(_FEWEST, total // _SHARE))

    def trial(rate: float) -> float:
        stepper.restart()
        stepper.module.train()
        losses: list[float] = []
        try:
            epoch = _EPOCH
            while len(losses) < steps:
                for batches in training.training(epoch, 0, augment):
                    value = rate_at(len(losses), steps, options, rate)
                    losses.append(stepper.step(batches, value, (seed << 32) + (epoch << 8) + len(losses)))
                    stepper.call(on_step, len(losses), steps)
                    if expired():
                        return math.inf
                    if len(losses) == steps:
                        break
                epoch += 1
            if validation is not None:
                return judge(stepper.module, validation, stepper.objective).loss
            return sum(losses[-steps // 2 :]) / len(losses[-steps // 2 :])
        except DivergedError:
            return math.inf

    tried = climb(_LADDERS[options.optimizer], _FIRST, trial, progress)
    stepper.restart()
    return min(tried, key=lambda rate: (tried[rate], rate)), tried


def climb(
    ladder: tuple[float, ...], first: int, trial: Callable[[float], float], progress: Progress
) -> dict[float, float]:
    """Walk from one rung to its better neighbours until none is better.

    Args:
        ladder: What may be tried, rising.
        first: Where to begin.
        trial: Gives the loss of a rung.
        progress: Told after each trial.

    Returns:
        Loss of each rung that was tried, in the order of the trials.
    """
    tried: dict[float, float] = {}

    def loss(index: int) -> float:
        if not 0 <= index < len(ladder):
            return math.inf
        rung = ladder[index]
        if rung not in tried:
            tried[rung] = trial(rung)
            progress("trying learning rates", len(tried), 0)
        return tried[rung]

    here = first
    step = 1 if loss(here + 1) < loss(here) else -1
    while loss(here + step) < loss(here):
        here += step
    return tried
