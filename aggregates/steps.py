"""The moments after sending at which figures are published.

Hourly for a day, six-hourly to day 3, daily to day 7, then weekly, and the closing after 30 days: 40 steps.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

HOUR_MS: Final = 3_600_000
UNDECLARED: Final = -1

HOURS: Final[tuple[int, ...]] = (
    *range(1, 25),
    *range(30, 73, 6),
    *range(96, 169, 24),
    *(336, 504, 672),
    720,
)
"""Hours after sending, rising. The last is the closing, for a window of 30 days."""

_HOURS = np.array(HOURS, np.int64)


def steps_within(days: int) -> int:
    """How many steps there are within so many days after sending."""
    return int(np.searchsorted(_HOURS, days * 24, side="right"))


def step_of(occurred_ms: NDArray[np.int64], sent_ms: NDArray[np.int64]) -> NDArray[np.uint8]:
    """The index in `HOURS` of the first step after each event; both in milliseconds since 1970, of one shape.

    An event in the first hour is of step 0, one at exactly an hour of the following. `sent_ms` is `UNDECLARED` (-1)
    where the mailing is not declared: step 0, as is what came before sending. What came after the closing is of the
    last step. A caller may not assume that a step is due when an event of it comes.
    """
    hours = (occurred_ms - sent_ms) // HOUR_MS
    steps = np.searchsorted(_HOURS, hours, side="right")
    steps = np.where(sent_ms == UNDECLARED, 0, np.minimum(steps, len(HOURS) - 1))
    return steps.astype(np.uint8)
