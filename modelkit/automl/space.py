"""Spans of hyper-parameters: numbers between two bounds, or choices; sampled, or changed a little."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from pydantic import Field, model_validator

from modelkit.config.options import Block

Value = bool | int | float | str


class Span(Block):
    """What a hyper-parameter may be."""

    low: float | None = Field(None, description="smallest value")
    high: float | None = Field(None, description="largest value")
    log: bool = Field(False, description="whether ratios count rather than differences")
    whole: bool = Field(False, description="whether only whole numbers are meant")
    choices: list[Value] | None = Field(None, description="or: the values themselves", min_length=1)

    @model_validator(mode="after")
    def _fits(self) -> Span:
        if (self.choices is None) == (self.low is None or self.high is None):
            raise ValueError("give low and high, or choices")
        if self.choices is None:
            assert self.low is not None and self.high is not None
            if self.low >= self.high:
                raise ValueError("low must be below high")
            if self.log and self.low <= 0:
                raise ValueError("low must be above 0 where log is true")
        return self

    def sample(self, rng: np.random.Generator) -> Value:
        """A value at random."""
        if self.choices is not None:
            return self.choices[int(rng.integers(len(self.choices)))]
        return self._at(float(rng.random()))

    def near(self, value: Value, rng: np.random.Generator, step: float = 0.15) -> Value:
        """A value near another: a normal step of a share of the span; another choice now and then."""
        if self.choices is not None:
            return self.sample(rng) if rng.random() < 0.3 else value
        low, high = self._bounds()
        where = ((math.log(value) if self.log else float(value)) - low) / (high - low)  # type: ignore[arg-type]
        return self._at(float(np.clip(where + rng.normal(0, step), 0, 1)))

    def suggest(self, trial: Any, name: str) -> Value:
        """The value that an Optuna trial suggests."""
        if self.choices is not None:
            value: Value = trial.suggest_categorical(name, self.choices)
            return value
        assert self.low is not None and self.high is not None
        if self.whole:
            return int(trial.suggest_int(name, int(self.low), int(self.high), log=self.log))
        return float(trial.suggest_float(name, self.low, self.high, log=self.log))

    def _bounds(self) -> tuple[float, float]:
        assert self.low is not None and self.high is not None
        return (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)

    def _at(self, share: float) -> Value:
        low, high = self._bounds()
        value = low + share * (high - low)
        value = math.exp(value) if self.log else value
        assert self.low is not None and self.high is not None
        value = min(max(value, self.low), self.high)
        return round(value) if self.whole else float(f"{value:.6g}")


def span(low: float, high: float, *, log: bool = False, whole: bool = False) -> Span:
    """A span of numbers."""
    return Span(low=low, high=high, log=log, whole=whole)


def choice(*values: Value) -> Span:
    """A span of choices."""
    return Span(choices=list(values))
