"""Which hyper-parameters are tried next: first guesses, then changes of the best ones, samples, or Optuna's TPE."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from modelkit.automl.families.family import Family, Params
from modelkit.automl.space import Span

_SURE, _NEAR = 2, 1.3  # rounds of guesses in which all families take part, and how many times the best loss is near


@dataclass
class Trial:
    """Something that was tried, or is being tried.

    Attributes:
        number: From 0, in the order of the proposals.
        family: Its family.
        params: Its hyper-parameters.
        source: How they came about: first guess, near, sample, bayesian.
        status: "running", "done", "dropped", or how it failed.
        loss: Its loss out of fold (of the first folds where it was dropped).
        losses: Loss on each fold.
        seconds: Time of all folds.
        ended: Seconds from the start of the run to its end.
        fit_seconds: Time of the longest single fit.
        rounds: Rounds for a final fit.
        reason: Why it failed.
        fresh_loss: Loss on fresh folds, which no search has seen; None where it was not tried on them.
    """

    number: int
    family: str
    params: Params
    source: str
    status: str = "running"
    loss: float = float("inf")
    losses: list[float] = field(default_factory=list)
    seconds: float = 0.0
    ended: float | None = None
    fit_seconds: float = 0.0
    rounds: int | None = None
    reason: str = ""
    fresh_loss: float | None = None
    handle: Any = None

    @property
    def is_done(self) -> bool:
        """Whether it went through all folds."""
        return self.status == "done"


class Search:
    """Proposes trials.

    Args:
        families: What may be tried.
        spaces: Spans that replace those of a family.
        method: auto, random or bayesian.
        first: Whether to begin with the first guesses.
        seed: Seed.
    """

    def __init__(
        self, families: list[Family], spaces: Mapping[str, Mapping[str, Span]], method: str, first: bool, seed: int
    ) -> None:
        self.families = {family.name: family for family in families}
        self.spaces = {f.name: {**f.space, **spaces.get(f.name, {})} for f in families}
        self.trials: list[Trial] = []
        self._rng = np.random.default_rng([seed, 7])
        self._method, self._seed = method, seed
        self._guesses = self._first_guesses() if first or not self._searchable else iter(())
        self._tried: set[tuple[str, str]] = set()
        self._study: Any = None

    @property
    def _searchable(self) -> list[str]:
        return [name for name in self.families if self.spaces[name]]

    def _first_guesses(self) -> Iterator[tuple[str, Params]]:
        """The best guesses of each family, then the next ones, ...; late ones only of families that are near."""
        for place in range(max(len(family.first) for family in self.families.values())):
            for family in self.families.values():
                start = 0 if place == 0 else place + family.eager - 1
                for guess in family.first[start : place + family.eager]:
                    if place < _SURE or self._is_near(family.name):
                        yield family.name, self._inside(family.name, guess)

    def _is_near(self, family: str) -> bool:
        """Whether the best trial of a family is not far behind the best of all."""
        done = [trial for trial in self.trials if trial.is_done]
        mine = [trial.loss for trial in done if trial.family == family]
        return bool(mine) and min(mine) <= _NEAR * min(trial.loss for trial in done)

    def _inside(self, family: str, params: Params) -> Params:
        """A guess with what lies outside of its space moved into it."""
        moved = {}
        for name, value in params.items():
            span = self.spaces[family][name]
            if span.choices is not None:
                moved[name] = value if value in span.choices else span.choices[0]
            else:
                moved[name] = min(max(value, span.low), span.high)
        return moved

    def next(self, is_wanted: Callable[[str], bool] = lambda family: True) -> Trial | None:
        """The next proposal of a family that is wanted; None where there is none."""
        for _ in range(50):
            family, params, source, handle = self._propose()
            if family is None:
                return None
            if not is_wanted(family):
                if handle is not None:
                    self.tell(Trial(-1, family, params, source, handle=handle))
                continue
            key = (family, repr(sorted(params.items())))
            if key not in self._tried or source == "bayesian":
                return self.add(family, params, source, handle)
        return None

    def add(self, family: str, params: Params, source: str, handle: Any = None) -> Trial:
        """Note that something is tried."""
        self._tried.add((family, repr(sorted(params.items()))))
        trial = Trial(len(self.trials), family, params, source, handle=handle)
        self.trials.append(trial)
        return trial

    def _propose(self) -> tuple[str | None, Params, str, Any]:
        guess = next(self._guesses, None)
        if guess is not None:
            return *guess, "first guess", None
        if not self._searchable:
            return None, {}, "", None
        if self._method == "bayesian":
            return self._suggest()
        if self._method == "auto" and self._rng.random() < 0.75 and any(t.is_done for t in self.trials):
            return self._near()
        family = self._pick_family() if self._method == "auto" else str(self._rng.choice(self._searchable))
        return family, {n: s.sample(self._rng) for n, s in self.spaces[family].items()}, "sample", None

    def _ranked(self) -> list[Trial]:
        done = [t for t in self.trials if t.is_done and self.spaces[t.family]]
        return sorted(done, key=lambda trial: (trial.loss, trial.number))

    def _pick_family(self) -> str:
        """A family, the better its best trial the more likely."""
        best: dict[str, float] = {}
        for rank, trial in enumerate(self._ranked()):
            best.setdefault(trial.family, 0.6 ** len(best))
            if rank > 200:
                break
        names = list(best) or self._searchable
        weights = np.array([best.get(name, 1.0) for name in names])
        return str(self._rng.choice(names, p=weights / weights.sum()))

    def _near(self) -> tuple[str, Params, str, Any]:
        """One of the best trials of a good family, changed a little (local search)."""
        family = self._pick_family()
        top = [trial for trial in self._ranked() if trial.family == family][:3]
        center = top[int(self._rng.integers(len(top)))]
        spans = self.spaces[family]
        params = {name: spans[name].near(value, self._rng) for name, value in center.params.items()}
        return family, params, "near", None

    def _suggest(self) -> tuple[str, Params, str, Any]:
        """What Optuna's TPE suggests, the family included (Bergstra et al., 2011)."""
        import optuna

        if self._study is None:
            optuna.logging.set_verbosity(optuna.logging.ERROR)
            sampler = optuna.samplers.TPESampler(seed=self._seed, multivariate=True, group=True, constant_liar=True)
            self._study = optuna.create_study(sampler=sampler)
        handle = self._study.ask()
        family = str(handle.suggest_categorical("family", self._searchable))
        params = {n: s.suggest(handle, f"{family}.{n}") for n, s in self.spaces[family].items()}
        return family, params, "bayesian", handle

    def tell(self, trial: Trial) -> None:
        """Learn from a trial that ended."""
        if trial.handle is None:
            return
        import optuna

        if trial.is_done:
            self._study.tell(trial.handle, trial.loss)
        else:
            self._study.tell(trial.handle, state=optuna.trial.TrialState.FAIL)
        trial.handle = None
