"""The noise of published figures, from OpenDP (opendp.org): sampled on a grid: no float's last bits tell anything.

Importing this loads OpenDP, 265 MB installed: only whoever publishes does.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

import opendp.prelude as dp

from aggregates.continual import Floats, measured
from aggregates.figures import RHO, Figure
from streams.errors import SchleuseError

# What the product C x is away from its exact value, in floats, is some 1e-12 of it: this much is paid for.
SLACK: Final = 1e-6


class OverBudget(SchleuseError):
    """A measurement would have cost more than its share of the budget. Nothing was drawn."""


def draw(figure: Figure, new: Floats, rho: float = RHO) -> list[float]:
    """Measure the newest step of a figure, with noise: one number a cell. Never the same twice.

    `new`: distinct recipients that are new in each step so far, step by cell, exact. What is returned must be stored
    before anybody sees it, and whoever is second to store it must show what the first one stored. All steps of the
    figure together cost `figure.share * rho`, once (zCDP at the level of one recipient in one mailing). Raises
    OverBudget, ValueError.
    """
    measurement = _measurement(figure, new.shape[1], rho)
    noisy: list[float] = measurement([float(one) for one in measured(len(figure.steps), new)])
    return noisy


@cache
def _measurement(figure: Figure, cells: int, rho: float) -> Any:
    dp.enable_features("contrib")
    domain = dp.vector_domain(dp.atom_domain(T=float, nan=False), size=cells)
    made = dp.m.make_gaussian(domain, dp.l2_distance(T=float), scale=figure.sigma(cells, rho) * (1 + 3 * SLACK))
    if made.map(figure.sensitivity(cells) * (1 + SLACK)) > figure.share * rho:
        raise OverBudget(f"{figure.kind} by {figure.dimension} would cost more than its share of the budget")
    return made
