"""Noise as OpenDP draws it: of the size that the budget says, refused above it, never the same twice."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from aggregates.continual import measured
from aggregates.figures import FIGURES
from streams.publish import noise

DRAWS, OFF = 4000, 4.5


def test_the_noise_has_the_size_that_was_paid_for() -> None:
    """Mean 0 and the deviation that the share buys, of every figure, within 4.5 standard errors of each."""
    for figure in FIGURES:
        cells = len(figure.values(["a", "b", "c"]))
        new = np.full((3, cells), 100.0)
        exact = measured(len(figure.steps), new)[-1]
        drawn = np.array([noise.draw(figure, cells, exact.tolist()) for _ in range(DRAWS // cells)])
        off = (drawn - exact).ravel()
        sigma = figure.sigma(cells)
        assert abs(off.mean()) < OFF * sigma / math.sqrt(len(off))
        assert abs(off.std() / sigma - 1) < OFF / math.sqrt(2 * len(off))
        assert len({tuple(row) for row in drawn}) == len(drawn)
        if cells > 1:
            assert abs(np.corrcoef(drawn[:, 0], drawn[:, 1])[0, 1]) < OFF / math.sqrt(len(drawn))


def test_what_would_cost_more_than_its_share_is_not_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    figure = replace(FIGURES[0], share=0.123)  # of its own: what was made before is kept
    monkeypatch.setattr(
        type(figure), "sigma", lambda self, cells, rho: 0.99 * self.sensitivity(cells) / math.sqrt(2 * self.share * rho)
    )
    with pytest.raises(noise.OverBudget, match="more than its share"):
        noise.draw(figure, 1, [0.0])
