"""Running totals under continual observation: what is measured at a step, and how totals come from noisy measurements.

Let x_t be the number of distinct recipients of a cell that are new in step t. The totals are A x, A the
lower-triangular ones. With A = B C, at step t (C x)_t + noise is measured, and nothing else is ever drawn; the total
shown is (B y)_t, which is post-processing: it costs nothing and may be computed by anybody, at any time, again (Li et
al. 2015; for steps that come one after the other, Denisov et al. 2022, theorem 2.1: the noise of a lower-triangular C
may be drawn as they come). The C of `factors.toml` have the least largest error that there is: 12 % below the
square-root factorisation of Fichtenberger, Henzinger, Upadhyay (2023).
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Factor:
    """One factorisation, for one number of steps. Its arrays must not be written to."""

    measure: Floats = field(repr=False)
    """C, lower-triangular: row t weighs what was new in the steps up to t."""
    restore: Floats = field(repr=False)
    """B = A C^-1, lower-triangular: row t adds up the measurements up to t."""
    sensitivity: float
    """The longest column of C: by how much (L2) one recipient who is new in one step of one cell moves C x."""
    errors: Floats = field(repr=False)
    """Standard deviation of each step's total, in those of one measurement."""


@cache
def factor(steps: int) -> Factor:
    """The factorisation for so many steps. Raises KeyError when the file has none.

    A caller may not assume that it is the same in a later release for a mailing that has begun; the file says so.
    """
    tables = tomllib.loads((Path(__file__).parent / "factors.toml").read_text("utf-8"))["factor"]
    rows = {table["steps"]: table["rows"] for table in tables}[steps]
    measure = np.zeros((steps, steps))
    for number, row in enumerate(rows):
        measure[number, : number + 1] = row
    restore: Floats = np.linalg.solve(measure.T, np.tril(np.ones((steps, steps))).T).T.astype(np.float64)
    sensitivity = float(np.linalg.norm(measure, axis=0).max())
    errors: Floats = np.linalg.norm(restore, axis=1).astype(np.float64)
    return Factor(measure, restore, sensitivity, errors)


def measured(steps: int, new: Floats) -> Floats:
    """What is measured, without noise, at each step so far: same shape as `new`, a row of nothing that came after it.

    `new`: recipients that are new in each step so far, step by cell. Raises ValueError for more steps than there are.
    """
    so_far = len(new)
    if not 1 <= so_far <= steps:
        raise ValueError(f"{so_far} steps of {steps}")
    return factor(steps).measure[:so_far, :so_far] @ new


def totals(steps: int, measurements: Floats) -> Floats:
    """The running totals of noisy measurements (step by cell, those so far), same shape. Not consistent, not
    rounded."""
    so_far = len(measurements)
    return factor(steps).restore[:so_far, :so_far] @ measurements
