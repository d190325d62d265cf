"""The noise of published figures, from OpenDP (opendp.org): sampled on a grid: no float's last bits tell anything.

Importing this loads OpenDP, 265 MB installed: only whoever publishes does.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, Final

import opendp.prelude as dp

from aggregates.figures import RHO, Figure
from streams.errors import SchleuseError

# What the product C x is away from its exact value, in floats, is some 1e-12 of it: this much is paid for.
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
    noisy: list[float] = _measurement(figure, cells, rho)(list(exact))
    return noisy


@cache
def _measurement(figure: Figure, cells: int, rho: float) -> Any:
    dp.enable_features("contrib")
    space = dp.vector_domain(dp.atom_domain(T=float, nan=False)), dp.l2_distance(T=float)
    made = dp.m.make_gaussian(*space, scale=figure.sigma(cells, rho) * (1 + 3 * SLACK))
    if made.map(figure.sensitivity(cells) * (1 + SLACK)) > figure.share * rho:
        raise OverBudget(f"{figure.kind} by {figure.dimension} would cost more than its share of the budget")
    return made
