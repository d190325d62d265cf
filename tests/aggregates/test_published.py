"""What is measured of a mailing, what one recipient can move, and what is made of noisy totals."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregates.continual import Floats, factor, measured, totals
from aggregates.figures import EVERY, FIGURES, RHO, SLOW, Figure
from aggregates.rules import Actor
from aggregates.shown import Shown, shown, together
from aggregates.steps import HOURS

LINKS = ("shop", "inxmail.de", "imprint")
figures = st.sampled_from(FIGURES)


def noisy(figure: Figure, new: Floats, rng: np.random.Generator) -> Floats:
    exact = measured(len(figure.steps), new)
    return exact + rng.normal(0, figure.sigma(new.shape[1]), exact.shape)


@given(figures, st.data())
def test_one_recipient_moves_all_that_is_measured_by_the_sensitivity_at_most(
    figure: Figure, data: st.DataObject
) -> None:
    """Whenever she is new in whichever cells. What she did in others' figures is theirs to account for."""
    cells, steps = len(figure.values(LINKS)), len(figure.steps)
    moved = np.zeros((steps, cells))
    for cell in data.draw(st.sets(st.integers(0, cells - 1))):
        moved[data.draw(st.integers(0, steps - 1)), cell] = 1
    assert np.linalg.norm(measured(steps, moved)) <= figure.sensitivity(cells) * (1 + 1e-12)


def test_somebody_moves_it_by_the_sensitivity() -> None:
    """The bound is not larger than it must be: there is a step at which being new in every cell moves it so far."""
    for figure in FIGURES:
        cells, steps = len(figure.values(LINKS)), len(figure.steps)
        moves = [
            np.linalg.norm(measured(steps, np.eye(steps)[step][:, None] * np.ones(cells))) for step in range(steps)
        ]
        assert max(moves) == pytest.approx(figure.sensitivity(cells))


def test_the_figures_spend_the_budget_and_no_more() -> None:
    """rho = sum of sensitivity^2 / (2 sigma^2), whatever the number of links (Bun, Steinke 2016, 1.6 and 1.7)."""
    for links in ((), LINKS, [f"link{n}" for n in range(200)]):
        cells = {figure: len(figure.values(links)) for figure in FIGURES}
        spent = [figure.sensitivity(of) ** 2 / (2 * figure.sigma(of) ** 2) for figure, of in cells.items()]
        assert sum(spent) == pytest.approx(RHO)
    assert sum(figure.share for figure in FIGURES) <= 1 + 1e-12
    for figure in FIGURES:
        assert list(figure.steps) == sorted(set(figure.steps))
        assert figure.steps[-1] == len(HOURS) - 1


def test_cells_depend_on_what_was_declared() -> None:
    by_link = next(figure for figure in FIGURES if figure.dimension == "link")
    assert by_link.values(LINKS) == (*LINKS, "other")
    assert by_link.values([]) == ("other",)
    assert {figure.values(LINKS) for figure in FIGURES if figure.dimension == "all"} == {("",)}


@given(st.sampled_from((10, 40)), st.integers(0, 2**32))
def test_totals_without_noise_are_the_totals(steps: int, seed: int) -> None:
    new = np.random.default_rng(seed).integers(0, 10_000, (steps, 3)).astype(float)
    exact = measured(steps, new)
    for so_far in (1, steps // 2, steps):
        np.testing.assert_allclose(measured(steps, new[:so_far]), exact[:so_far])
        np.testing.assert_allclose(totals(steps, exact[:so_far]), np.cumsum(new, axis=0)[:so_far], atol=1e-6)


def test_the_largest_error_is_below_the_square_roots() -> None:
    """And above what no factorisation can beat: 1/2 + log(2 n + 1) / pi (Matousek, Nikolov, Talwar 2020)."""
    for steps in (10, 40):
        root = np.cumprod([1.0, *((2 * k - 1) / (2 * k) for k in range(1, steps))])
        square_root = float(np.sum(root**2))
        largest = factor(steps).sensitivity * factor(steps).errors.max()
        assert math.log(2 * steps + 1) / math.pi <= largest < 0.89 * square_root
    for steps in (0, 11):
        with pytest.raises(KeyError):
            factor(steps)
    with pytest.raises(ValueError, match="11 steps of 10"):
        measured(10, np.zeros((11, 1)))


counts = st.lists(st.integers(0, 400), min_size=40, max_size=40)


@given(counts, counts, st.integers(0, 3000), st.integers(0, 2**32))
def test_what_is_shown_is_consistent(opens: list[int], clicks: list[int], sent: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    measurements = {}
    for figure in FIGURES:
        each = np.array(opens if figure.kind == "open" else clicks, float)
        cells = len(figure.values(LINKS))
        measurements[figure] = noisy(figure, np.tile(each[list(figure.steps)][:, None], cells), rng)
    read = shown(measurements, sent, LINKS)
    for (figure, _), cell in read.items():
        assert [one.step for one in cell] == list(figure.steps)
        assert all(earlier.recipients <= later.recipients for earlier, later in pairwise(cell))
        assert all(0 <= one.recipients <= (sent or 10**9) for one in cell)
        if figure.dimension != "all":
            top = next(of for of in FIGURES if (of.kind, of.dimension, of.actor) == (figure.kind, "all", figure.actor))
            above = {one.step: one.recipients for one in read[top, ""]}
            assert all(one.recipients <= above[one.step] for one in cell)
    # An earlier step says the same when later ones are there: nothing that was published is taken back.
    until = 17
    earlier = {figure: of[: sum(step <= until for step in figure.steps)] for figure, of in measurements.items()}
    for which, cell in shown(earlier, sent, LINKS).items():
        assert [one[:3] for one in cell] == [one[:3] for one in read[which][: len(cell)]]
    # Told since some step, it is the same.
    for which, cell in shown(measurements, sent, LINKS, since=until).items():
        assert cell == [one for one in read[which] if one.step >= until]


@pytest.mark.parametrize("new", [0.0, 20.0], ids=["nobody", "steadily"])
def test_many_mailings_together_are_within_their_margin_too(new: float) -> None:
    """Figures that never fall are each too large, nobody's most of all: thirty of them added up would miss it nearly
    always. Their totals do not."""
    mailings, months, devices = 30, 100, FIGURES[3]
    rng = np.random.default_rng(11)
    held = {"totals": 0, "figures": 0}
    for _ in range(months):
        newest = []
        for _ in range(mailings):
            cells = np.full((len(devices.steps), len(devices.values(LINKS))), new)
            newest.append(
                shown({devices: noisy(devices, cells, rng)}, 100_000, LINKS)[devices, devices.values(LINKS)[0]][-1]
            )
        truth = new * len(devices.steps) * mailings
        deviation = math.sqrt(sum(one.deviation**2 for one in newest))
        recipients, margin = together(sum(one.total for one in newest), deviation, 100_000 * mailings)
        held["totals"] += abs(recipients - truth) <= margin
        figures, within = sum(one.recipients for one in newest), math.sqrt(sum(one.margin**2 for one in newest))
        held["figures"] += abs(figures - truth) <= within
    assert held["totals"] / months >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / months)
    assert new or held["figures"] < months / 2


def test_together_is_never_below_nobody_or_above_everybody() -> None:
    assert together(-31.4, 10.0, 500) == (0, 51)
    assert together(520.0, 10.0, 500) == (500, 40)
    assert together(520.2, 10.0, 0) == (520, 20)


def test_the_margin_holds_the_truth_in_95_of_100_cases() -> None:
    """At every step, for whoever opens steadily, at once, or never: the last is the hardest, as figures only rise."""
    mailings, opened = 300, FIGURES[0]
    rng = np.random.default_rng(7)
    for new in (np.full((40, 1), 20.0), np.eye(40)[:, :1] * 500, np.zeros((40, 1))):
        held = np.zeros(40)
        for _ in range(mailings):
            cell = shown({opened: noisy(opened, new, rng)}, 100_000, LINKS)[opened, ""]
            held += np.abs([one.recipients for one in cell] - np.cumsum(new)) <= [one.margin for one in cell]
        assert held.min() / mailings >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / mailings)


def test_too_few_to_say() -> None:
    assert Shown(3, 12, 20, 12.0, 10.0).too_few
    assert Shown(3, 20, 20, 20.0, 10.0).too_few
    assert not Shown(3, 21, 20, 21.0, 10.0).too_few


def test_other_cells_than_measured_are_refused() -> None:
    by_link = next(figure for figure in FIGURES if figure.dimension == "link" and figure.actor is Actor.HUMAN)
    with pytest.raises(ValueError, match="not of 4 cells"):
        shown({by_link: np.zeros((1, 3))}, 100, LINKS)


def test_steps_are_moments_that_were_said() -> None:
    assert len(EVERY) == 40
    assert [HOURS[step] for step in SLOW] == [1, 3, 6, 12, 24, 48, 72, 168, 336, 720]
