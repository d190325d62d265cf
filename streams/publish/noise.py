"""The noise of published figures, from OpenDP (opendp.org): whole numbers of a grid, so that no float's last bits tell
anything.

Importing this loads OpenDP, 265 MB installed: only whoever publishes does.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, Final

import opendp.prelude as dp

from aggregates.figures import RHO, Figure
from streams.errors import SchleuseError

GRID: Final = 2.0**30
"""Measurements are rounded to so many parts of a recipient, and so is their noise: four times as fast as floats."""
# What the product C x is away from its exact value, in floats, is some 1e-12 of it. Rounding moves each of at most 40
# measurements of a cell by at most half a part of the grid, in each of two neighbouring logs: at most sqrt(40) / GRID
# of the figure's sensitivity, 6e-9 of it. This much is paid for:
SLACK: Final = 1e-6


class OverBudget(SchleuseError):
    """A measurement would have cost more than its share of the budget. Nothing was drawn."""


def draw(figure: Figure, cells: int, exact: Sequence[float], rho: float = RHO) -> list[float]:
    """Put noise upon measurements of a figure: each number on its own, never the same twice.

    `exact`: what `aggregates.continual.measured` says of any number of steps and mailings whose figure has so many
    cells; a call costs the same for one and for many. What is returned must be stored before anybody sees it, and
    whoever is second to store it must show what the first one stored. All steps of one mailing's figure together cost
    `figure.share * rho`, once (zCDP at the level of one recipient in one mailing). Raises OverBudget.
    """
    noisy = _measurement(figure, cells, rho)([round(number * GRID) for number in exact])
    return [number / GRID for number in noisy]


@cache
def _measurement(figure: Figure, cells: int, rho: float) -> Any:
    dp.enable_features("contrib")
    space = dp.vector_domain(dp.atom_domain(T="i64")), dp.l2_distance(T=float)
    made = dp.m.make_gaussian(*space, scale=figure.sigma(cells, rho) * GRID * (1 + 3 * SLACK))
    if made.map(figure.sensitivity(cells) * GRID * (1 + SLACK)) > figure.share * rho:
        raise OverBudget(f"{figure.kind} by {figure.dimension} would cost more than its share of the budget")
    return made
