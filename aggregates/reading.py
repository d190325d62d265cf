"""A published figure as it is read: a share with a margin, or "too few to say"."""

from __future__ import annotations

import math
from typing import NamedTuple


class Reading(NamedTuple):
    """One figure. `recipients` and `margin` are published, `sent` is declared; 0: not known, and there is no share."""

    recipients: int
    margin: int
    too_few: bool
    sent: int

    @property
    def at_most(self) -> int:
        """No more recipients than this, in 95 of 100 cases; the only thing to say where it is too few to say."""
        most = self.recipients + self.margin
        return min(most, self.sent) if self.sent else most

    @property
    def share(self) -> float | None:
        """Of the recipients sent, 0 to 1; None where it is too few to say or nobody said how many were sent."""
        return self.recipients / self.sent if self.sent and not self.too_few else None

    @property
    def share_margin(self) -> float | None:
        """The truth is within so much of `share` in 95 of 100 cases; None where there is no share."""
        return None if self.share is None else self.margin / self.sent


class Percent(NamedTuple):
    """A share as a person reads it, in percent: rounded to what its margin allows, `decimals` after the point."""

    value: float
    margin: float
    decimals: int


def percent(share: float, margin: float) -> Percent:
    """Round a share and its margin (both of 1): "80 ± 1". The margin grows by what was rounded away, and is rounded up:
    the truth is within what is shown whenever it is within what was published. A share that is larger than its margin
    stays so, where two decimals allow it."""
    points = 100 * margin
    decimals = 0 if points >= 1 else 1 if points >= 0.1 else 2
    while True:
        value = round(100 * share, decimals)
        step: float = 10**-decimals
        wide = math.ceil(round((points + abs(100 * share - value)) / step, 6)) * step
        if value > wide or share <= margin or decimals == 2:
            return Percent(value, wide, decimals)
        decimals += 1
