"""Mixed precision: the fewest of the most sensitive layers that must stay float, found by bisection.

Each candidate takes seconds to be made and measured, so that layers are not tried one by one: the number of float
layers doubles until a candidate is good enough, and what lies between the last bad and the first good one is halved.
That is about 2·log2(layers) candidates. The ranking is taken for an order of usefulness; where more layers in float
were not better the search still ends, with the best that it saw.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Bisection:
    """Searches the least number that is good enough.

    Attributes:
        most: The largest number that makes sense, 1 or more.
        bad: The largest number known to be too small.
        good: The smallest number known to be enough; None while there is none.
    """

    most: int
    bad: int = 0
    good: int | None = None

    def next(self) -> int | None:
        """Return the number to try, or None where the answer is known or there is none."""
        if self.good is None:
            return None if self.bad >= self.most else min(max(2 * self.bad, 1), self.most)
        return None if self.good - self.bad <= 1 else (self.good + self.bad) // 2

    def told(self, number: int, enough: bool) -> None:
        """Take in what came of a number."""
        if enough:
            self.good = number if self.good is None else min(self.good, number)
        else:
            self.bad = max(self.bad, number)
