"""What is published of a mailing, at which steps, and for which share of its budget.

One recipient is new in one step of a cell and in no other (aggregates/continual.py), so the whole history of a figure
of L cells moves by at most sqrt(L) for her, and a share of rho buys noise of one size for all its steps. The shares
were chosen by `python -m benchmarks.accuracy` and are the same for every mailing: what is published, and how exactly,
depends on nothing that a recipient did (docs/publishing.md).

Only what one recipient can move by one is a figure: numbers of events, which she can move without bound, are none, and
neither are recipients by mode.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

from aggregates.continual import factor
from aggregates.devices import Device
from aggregates.links import OTHER
from aggregates.rules import Actor
from aggregates.steps import HOURS

RHO: Final = 0.1
"""The budget of one mailing, in zero-concentrated differential privacy (Bun, Steinke 2016), for all figures
together."""


def right_at_most(rho: float) -> float:
    """How often the best test of whether one recipient acted is right, at most, at equal odds (Neyman, Pearson 1933, of
    two Gaussians; docs/publishing.md)."""
    return NormalDist().cdf(math.sqrt(2 * rho) / 2)


EVERY: Final = tuple(range(len(HOURS)))
SLOW: Final = tuple(HOURS.index(hour) for hour in (1, 3, 6, 12, 24, 48, 72, 168, 336, 720))
Z95: Final = 1.959964
"""Half of the normal distribution's middle 95 %."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One vector of counts of distinct recipients: `kind` by `dimension` ("all", "link", "device") and `actor`.

    `share`: of the mailing's rho. `steps`: indices in `aggregates.steps.HOURS`, rising, the last of them the closing.
    """

    kind: str
    dimension: str
    actor: Actor
    share: float
    steps: tuple[int, ...]

    def values(self, links: Sequence[str]) -> tuple[str, ...]:
        """The cells, in the order in which they are measured: `links` as declared, then `other`.

        They depend on what was declared and on nothing that anybody did.
        """
        if self.dimension == "link":
            return (*dict.fromkeys(links), OTHER)  # which nobody may declare
        return tuple(Device) if self.dimension == "device" else ("",)

    def sensitivity(self, cells: int) -> float:
        """By how much (L2) one recipient moves what is measured in all steps together."""
        return math.sqrt(cells) * factor(len(self.steps)).sensitivity

    def sigma(self, cells: int, rho: float = RHO) -> float:
        """Standard deviation of the noise of each measurement: sensitivity / sqrt(2 share rho) (Bun, Steinke 2016,
        1.6)."""
        return self.sensitivity(cells) / math.sqrt(2 * self.share * rho)


FIGURES: Final = (
    Figure("open", "all", Actor.HUMAN, 0.370, EVERY),
    Figure("click", "all", Actor.HUMAN, 0.370, EVERY),
    Figure("click", "link", Actor.HUMAN, 0.190, SLOW),
    Figure("open", "device", Actor.HUMAN, 0.030, SLOW),
    Figure("open", "all", Actor.MACHINE, 0.015, SLOW),
    Figure("click", "all", Actor.MACHINE, 0.015, SLOW),
    Figure("click", "link", Actor.MACHINE, 0.010, SLOW),
)
"""In the order in which they are published. A machine has no device worth telling."""
