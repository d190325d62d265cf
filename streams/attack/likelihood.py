"""How likely what is shown is, with her and without her: the best test there is (Neyman, Pearson 1933). Pure.

Arrays are try by step. What one recipient adds to a cell is one in every total from the step on in which she is new; a
total of k steps has the noise of B (aggregates/continual.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from aggregates.continual import Floats, factor
from aggregates.figures import Z95, Figure
from aggregates.shown import HELD_BACK
from streams.attack.tries import LINKS, new_at


class Cell(NamedTuple):
    """One cell of a figure, as it is shown; each try by step, NaN where it is not said."""

    recipients: Floats
    margin: Floats
    at_most: Floats


def cells(figure: Figure) -> tuple[str, ...]:
    """The cells of a figure in every mailing of a game."""
    return figure.values(tuple(LINKS))


def score(figure: Figure, totals: Floats, at: Sequence[int], others: Floats, differences: bool = False) -> Floats:
    """By how much (log) totals speak for her, try by try; 0 where they say nothing.

    `at`: the figure's own steps (0 is its first) that the columns of `totals` are of, rising. `others`: how many others
    are in each try. With `differences` only what changes from one column to the next counts.
    """
    adds = np.array([float(step >= new_at(figure)) for step in at])
    restore = factor(len(figure.steps)).restore[list(at)]
    spread = figure.sigma(len(cells(figure))) ** 2 * (restore @ restore.T)
    if differences:
        totals, adds = np.diff(totals, axis=1), np.diff(adds)
        step = np.diff(np.eye(len(at)), axis=0)
        spread = step @ spread @ step.T
    if not adds.any():
        return np.zeros(len(totals))
    middle = (others[:, None] + 0.5) * adds
    beside = np.where(np.isnan(totals), 0.0, totals - middle)
    found: Floats = beside @ np.linalg.solve(spread, adds)
    return found


def deviation(figure: Figure) -> float:
    """The standard deviation of a total, the same at every step."""
    return float(figure.sigma(len(cells(figure))) * factor(len(figure.steps)).errors[-1])


def undone(figure: Figure, cell: Cell, at: Sequence[int], sent: Floats, others: Floats) -> Floats:
    """The noisy totals behind what is shown (aggregates/shown.py), as well as they can be told.

    A margin is the known error and how far the figure shown is from the noisy total: it tells how far, and which way is
    guessed: down where it is further than a figure is ever held back, else to where the last one was.
    """
    said = np.where(np.isnan(cell.recipients), cell.at_most - cell.margin, cell.recipients)
    said = np.where((cell.at_most >= sent[:, None]) & np.isnan(cell.recipients), 0.0, said)
    far = np.maximum(0.0, cell.margin - 0.5 - Z95 * deviation(figure))
    totals = np.full(far.shape, np.nan)
    last = np.where(at[0] >= new_at(figure), others + 0.5, 0.0) if len(at) else others
    for column, step in enumerate(at):
        if step == new_at(figure) and column:
            last = last + others + 0.5
        up, down = said[:, column] + far[:, column], said[:, column] - far[:, column]
        held = (far[:, column] <= HELD_BACK * deviation(figure) + 1) | (said[:, column] >= sent)
        held |= figure.dimension != "all"  # what is a part is held down by the whole too
        totals[:, column] = np.where(held & (np.abs(up - last) <= np.abs(down - last)), up, down)
        last = np.where(np.isnan(totals[:, column]), last, totals[:, column])
    return totals
