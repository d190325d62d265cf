"""Noisy totals made fit to be read: from published numbers and declarations alone, so that it costs no privacy.

What is shown is a number of recipients that is never below an earlier one, never above the recipients sent, a link's
never above the clickers' and a device's never above the openers'. Computed anew from all measurements so far, it is the
same for every earlier step: a caller may rely on that.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from aggregates.continual import Floats, factor, totals
from aggregates.figures import FIGURES, RHO, Z95, Figure

HELD_BACK: Final = 0.6
"""Standard deviations by which a total must exceed the figure shown before it rises, where nothing much goes on."""
LOOK_BACK: Final = 4
"""Steps over which it is told whether much goes on."""


class Shown(NamedTuple):
    """One cell at one step. All in recipients."""

    step: int
    recipients: int
    """How many, for all that is known."""
    margin: int
    """The truth is within so many of it in 95 of 100 cases, whatever it is."""
    total: float
    """The noisy total, as likely too large as too small: what may be added up over mailings, as figures may not."""
    deviation: float
    """The standard deviation of `total`."""

    @property
    def too_few(self) -> bool:
        """Whether the noise drowns it: then it says no more than that there are fewer than `recipients + margin`."""
        return self.recipients <= self.margin


def shown(
    measurements: Mapping[Figure, Floats], sent: int, links: Sequence[str], rho: float = RHO, since: int = 0
) -> dict[tuple[Figure, str], list[Shown]]:
    """Every cell of every figure, at each step from `since` on that was measured.

    `measurements`: step by cell, the steps so far, cells as `Figure.values(links)`. `sent`: recipients as declared; 0:
    not known, and nothing is capped by it. Raises ValueError when a figure has another number of cells.
    """
    of_cell: dict[tuple[Figure, str], list[Shown]] = {}
    tops: dict[tuple[str, str], dict[int, int]] = {}  # of what a figure's cells are parts of, by kind and actor
    for figure in sorted(measurements, key=lambda one: (one.dimension != "all", FIGURES.index(one))):
        measured, values = measurements[figure], figure.values(links)
        if measured.ndim != 2 or measured.shape[1] != len(values):
            raise ValueError(f"measurements of {figure.kind} by {figure.dimension} are not of {len(values)} cells")
        deviations = (figure.sigma(len(values), rho) * factor(len(figure.steps)).errors[: len(measured)]).tolist()
        raw = totals(len(figure.steps), measured).T.tolist()
        steps = figure.steps[: len(measured)]
        first = bisect_left(steps, since)
        above = tops.get((figure.kind, figure.actor), {})
        caps: list[float] = [above.get(step, sent if sent else math.inf) for step in steps]
        for value, total in zip(values, raw, strict=True):
            figures = _rising(total, deviations, caps)
            if figure.dimension == "all":
                tops[figure.kind, figure.actor] = dict(zip(steps, figures, strict=True))
            of_cell[figure, value] = [
                Shown(step, recipients, _margin(recipients, noisy, deviation), noisy, deviation)
                for step, recipients, noisy, deviation in zip(
                    steps[first:], figures[first:], total[first:], deviations[first:], strict=True
                )
            ]
    return of_cell


def together(total: float, deviation: float, sent: int) -> tuple[int, int]:
    """Recipients and margin of several mailings together, from the sum of their noisy totals, its standard deviation
    and how many they were sent to (0: not known).

    Of totals, not of figures: those never fall, so each is a little too large, and of many that is more than the noise.
    """
    recipients = max(0, round(min(total, sent) if sent else total))
    return recipients, _margin(recipients, total, deviation)


def _margin(recipients: int, noisy: float, deviation: float) -> int:
    return math.ceil(abs(recipients - noisy) + Z95 * deviation)


def _rising(raw: Sequence[float], deviations: Sequence[float], caps: Sequence[float]) -> list[int]:
    """Whole numbers that never fall.

    The largest of noisy totals is too large, the more so the less goes on: so a total has to exceed what is shown by
    something then. Where much goes on nothing is held back. (docs/publishing.md measures both.)
    """
    figures, figure = [], 0
    for step, (total, deviation, cap) in enumerate(zip(raw, deviations, caps, strict=True)):
        grown = total - raw[step - min(step, LOOK_BACK)] if step else total
        idle = min(1.0, max(0.0, 1.0 - grown / (LOOK_BACK * deviation)))
        figure = int(min(max(figure, round(total - HELD_BACK * idle * deviation)), cap))
        figures.append(figure)
    return figures
