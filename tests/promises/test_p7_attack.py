"""P7, attacked: who keeps everything that is ever shown, and knows what everybody else did, guesses.

The same attacks as `schleuse attack` makes (streams/attack/): a thousand mailings go through a real worker and a real
publisher and are read by SQL, API, CSV and pages. With the noise switched off, each attack that goes by figures is
right every time; each that goes by anything else is right when a leak is planted. So all of them can fail.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest

from aggregates.continual import factor, totals
from aggregates.figures import FIGURES, RHO
from aggregates.shown import shown
from deploy.embedded.stack import Stack
from streams.attack.guesses import ATTACKS, BOUND, Attack, learned, report
from streams.attack.likelihood import Cell, cells, score, undone
from streams.attack.play import Kept, World, play
from streams.attack.tries import CROWD, LINKS, SMALL, TENANTS, Message, new_at, plan
from streams.cli.attack import clean, dashboard, keys
from streams.dashboard.officer import officer
from streams.publish import publisher as publishing
from streams.reports import file_report
from streams.stores import Role, Store, connect
from tests.lock import Lock

pytestmark = pytest.mark.stack
TRIES, SMALL_TRIES, FEW = 1_000, 60, 20
WITHOUT_NOISE = 40


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with (
        Stack(tmp_path_factory.mktemp("attack"), "tansu", die_with_parent=True) as stack,
        Lock(stack, TENANTS, partitions=2) as lock,
    ):
        worker = lock.worker()
        log = stack.directory / "logs" / "dashboard.log"
        with dashboard(stack.settings_file, clean(os.environ), log) as url:

            def send(messages: Sequence[Message]) -> None:
                lock.send(messages)

            lock.until(lock.settings.keyring_kek.exists, what="the key ring")
            yield World(
                lock.settings,
                url,
                keys(lock.settings),
                send,
                lambda: worker.process.poll() is None,
            )


@pytest.fixture(scope="module")
def bare(world: World) -> Kept:
    """A game in which figures have no noise."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(publishing, "draw", lambda _figure, _cells, exact, _rho: exact)
        return play(world, plan(WITHOUT_NOISE, WITHOUT_NOISE, 5, "bare"), FEW)


def right(attack: Attack, kept: Kept) -> float:
    """How often an attack is right."""
    guessed = attack.guess(kept)
    return float(np.mean([said == one.acted for said, one in zip(guessed, kept.tries.of(attack.tenant), strict=False)]))


@pytest.mark.parametrize(
    "attack", [one for one in ATTACKS if one.of_figures], ids=lambda one: f"{one.name}, {one.reads}"
)
def test_without_noise_it_is_always_right(bare: Kept, attack: Attack) -> None:
    assert right(attack, bare) == 1.0


def test_nothing_but_figures_tells_anything_without_noise_either(bare: Kept) -> None:
    """What must never differ does not, however exact the figures are."""
    for ways in (bare.moved, bare.exports, bare.foreign):
        assert all(all(said) for said in ways.values())
        assert min(map(len, ways.values())) > 0
    for (figure, _), numbers in bare.measured[CROWD].items():  # erased, and acting again, she counts once
        last = totals(len(figure.steps), numbers.T)[-1]
        assert last == pytest.approx([one.others + one.acted for one in bare.tries.crowd])
    for way, said in bare.refused.items():
        assert len(set(said)) == 1, way
        assert not str(said[0]).startswith("b'200"), way


def test_a_planted_leak_is_found(bare: Kept) -> None:
    """One answer among many that is another one where she acted; a millisecond."""
    acted = [one.acted for one in bare.tries.crowd]
    differs = [not did for did in acted]
    leaks = {
        "re-read after her erasure": {"moved": {**bare.moved, "page": differs}},
        "old exports against new": {"exports": {**bare.exports, "csv, one": differs}},
        "another tenant's login": {"foreign": {**bare.foreign, "api": differs}},
        "errors, unknown filters": {"refused": {**bare.refused, "api, no cursor": [b"%d" % did for did in acted]}},
    }
    for name, leak in leaks.items():
        (attack,) = [one for one in ATTACKS if one.name == name]
        assert right(attack, replace(bare, **leak)) == 1.0  # type: ignore[arg-type]  # by name
        assert right(attack, bare) <= 0.5
        assert report(replace(bare, **leak)).differ > 0  # type: ignore[arg-type]  # by name
    for way, taken in bare.seconds.items():
        later = np.array(acted[: len(taken)])[:, None] * 0.001
        slow = replace(bare, seconds={**bare.seconds, way: np.full(taken.shape, 0.004) + later})
        assert any(right(one, slow) == 1.0 for one in ATTACKS if one.name.startswith("timing"))
    alike = [replace(one, acted=two.acted) for one, two in zip(bare.tries.crowd, bare.tries.small, strict=True)]
    habit = replace(bare, tries=replace(bare.tries, crowd=alike))
    (attack,) = [one for one in ATTACKS if one.name == "what she does elsewhere"]
    assert right(attack, habit) == 1.0


def test_no_attack_is_right_more_often_than_the_bound(world: World) -> None:
    found = report(play(world, plan(TRIES, SMALL_TRIES, 4, "hidden"), FEW))
    for line in found.lines:
        beside = f"bound {BOUND:.1%}, a coin 50.0%"
        print(f"{line.name} ({line.reads}): right in {line.rate:.1%} of {line.tries:,} ({beside})")
    assert found.held
    assert found.differ == 0
    assert found.removed > TRIES  # her rows were there, and went: nothing that is published moved
    assert sum(line.tries == TRIES for line in found.lines) >= 9

    with closing(connect(world.settings, Store.ANALYTICS, Role.OPERATOR)) as operator:
        file_report(operator, "attack", found.held, found.as_json())
    with closing(connect(world.settings, Store.ANALYTICS, Role.DASHBOARD)) as store:
        filed = officer(store, CROWD).reports["attack"]
    assert filed.held
    assert [one["right"] for one in filed.body["attacks"]] == [round(line.rate, 4) for line in found.lines]


def test_what_is_learned_is_not_learned_from_the_try_that_is_guessed() -> None:
    acted = np.array([1, 1, 0, 0] * 50, bool)
    assert learned(list(acted), acted).tolist() == acted.tolist()
    assert (learned(list(range(200)), acted) == acted).mean() <= 0.5  # all different: nothing can be learned


def test_the_attacker_meets_the_worst_case() -> None:
    """What separates the two worlds costs the budget and no more, late or not; and all of it is used."""
    separation = 0.0
    for figure in FIGURES:
        steps = len(figure.steps)
        adds = np.zeros((steps, 1))
        adds[new_at(figure)] = 1
        moved = factor(steps).measure @ adds
        separation += len(cells(figure)) * float((moved**2).sum()) / figure.sigma(len(cells(figure))) ** 2
        without, with_her = (totals(steps, factor(steps).measure @ (count * adds)).T for count in (2, 3))
        both = [score(figure, one, range(steps), np.array([2.0]))[0] for one in (without, with_her)]
        assert both[1] == pytest.approx(-both[0])
        assert both[1] - both[0] == pytest.approx(float((moved**2).sum()) / figure.sigma(len(cells(figure))) ** 2)
    assert separation == pytest.approx(2 * RHO, rel=1e-3)


def test_what_is_shown_is_undone_to_what_was_measured() -> None:
    """From figure and margin back to the noisy totals: right within one recipient, but for some whose sign cannot be
    told."""
    noise = np.random.default_rng(3)
    tries, sent, others = 200, np.full(200, 100.0), np.full(200, 2.0)
    figure = FIGURES[0]
    new = np.zeros((len(figure.steps), 1))
    new[0] = 2
    exact = factor(len(figure.steps)).measure @ new
    measured = [exact + noise.normal(0, figure.sigma(1), exact.shape) for _ in range(tries)]
    seen = [shown({figure: one}, 100, tuple(LINKS))[figure, ""] for one in measured]
    recipients = np.array([[float(one.recipients) for one in cell] for cell in seen])
    margin = np.array([[float(one.margin) for one in cell] for cell in seen])
    cell = Cell(np.full_like(recipients, np.nan), margin, np.minimum(recipients + margin, 100))
    found = undone(figure, cell, range(len(figure.steps)), sent, others)
    truth = np.array([totals(len(figure.steps), one)[:, 0] for one in measured])
    assert (np.abs(found - truth) <= 1).mean() > 0.8


def test_the_games_are_fair() -> None:
    game = plan(100, 50, 1, "x")
    for some in (game.crowd[::2], game.crowd[1::2]):
        assert sum(one.acted for one in some) == 25
    assert {one.tenant for one in game.crowd} == {CROWD}
    assert {one.sent for one in game.of(SMALL)} == {1, 2, 3}
    assert game.crowd != plan(100, 50, 2, "x").crowd
