"""P7, attacked: who keeps everything that an analyst's login ever reads, and knows what everybody else did, guesses.

A thousand mailings go through a real worker and a real publisher, all 40 steps of each. In half of them, by a coin,
one chosen recipient does all that a figure can show: she opens on every device, clicks every link, and is followed by
machines. The attacker makes the best test there is (Neyman, Pearson 1933) out of the numbers as they were measured,
which the table holds beside those that are shown. With the noise switched off he is always right, so that the test can
fail.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import closing
from statistics import NormalDist

import numpy as np
import pytest

from aggregates.continual import factor, measured, totals
from aggregates.figures import FIGURES, RHO, Figure
from aggregates.steps import HOUR_MS
from deploy.embedded.stack import Stack
from streams.publish import publisher as publishing
from streams.publish.publisher import Publisher
from streams.stores import Role, Store
from tests.lock import Lock, Message, event, mailing, now_ms

pytestmark = pytest.mark.stack
TRIES, WITHOUT_NOISE = 1_000, 60
LINKS = {"hero": "https://x.example/hero", "inxmail.de": "https://inxmail.de"}
BOUND = NormalDist().cdf(math.sqrt(2 * RHO) / 2)
AGENTS = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/130.0 Safari/537.36",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148",
    "Mozilla/5.0 (iPad; CPU OS 18_0 like Mac OS X) AppleWebKit/605.1.15",
    "",
)
Read = Mapping[tuple[str, str, str, str], list[tuple[int, float]]]
"""Kind, dimension, value, actor -> (recipients shown, measured), step by step."""


@pytest.fixture(scope="module")
def lock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lock]:
    with (
        Stack(tmp_path_factory.mktemp("attack"), "tansu", die_with_parent=True) as stack,
        Lock(stack, partitions=2) as running,
    ):
        running.worker()
        yield running


def everything(name: str, who: str, at: int) -> Iterator[Message]:
    """All that moves a figure, within the first hour."""
    for number, agent in enumerate(AGENTS):
        yield event("acme", who, mailing=name, occurred_at=at, user_agent=agent, event_id=f"{name}{who}o{number}")
    for actor in ("human", "machine"):
        yield event("acme", who, mailing=name, occurred_at=at, actor=actor, event_id=f"{name}{who}m{actor}")
        for link in (*LINKS, "elsewhere"):
            clicked = {"kind": "click", "link": link, "actor": actor, "event_id": f"{name}{who}{link}{actor}"}
            yield event("acme", who, mailing=name, occurred_at=at, **clicked)


def played(lock: Lock, names: list[str], acted: list[bool]) -> None:
    """Two recipients whom the attacker knows all about, and the one he asks about."""
    sent = now_ms() - 721 * HOUR_MS
    lock.send(mailing("acme", name, LINKS, sent) for name in names)
    count = "SELECT uniqExact(mailing) FROM mailings WHERE mailing IN {names:Array(String)}"
    lock.until(lambda: _asked(lock, count, names) == len(names), what="the declarations")
    messages = []
    for name, does in zip(names, acted, strict=True):
        for who in ("a@example.com", "b@example.com", *(["she@example.com"] if does else [])):
            messages += everything(name, who, sent + 600_000)
    lock.send(messages)
    count = "SELECT sum(events) FROM cells_hourly WHERE mailing IN {names:Array(String)}"
    lock.until(lambda: _asked(lock, count, names) == len(messages), seconds=120, what="events to be counted")


def _asked(lock: Lock, sql: str, names: list[str]) -> int:
    with lock.desk() as desk:
        ((found,),) = desk.analytics.rows("a test reading", sql, {"names": names})
    return int(found)


def read(lock: Lock, beginning: str) -> dict[str, Read]:
    """Everything that was published of the mailings whose names begin so."""
    found: dict[str, dict[tuple[str, str, str, str], list[tuple[int, float]]]] = defaultdict(lambda: defaultdict(list))
    for name, kind, dimension, value, actor, recipients, number in lock.rows(
        Store.ANALYTICS,
        "SELECT toString(mailing), toString(kind), toString(dimension), toString(value), toString(actor), recipients, "
        f"measured FROM published WHERE startsWith(mailing, '{beginning}') ORDER BY mailing, step",
        Role.ANALYST,
    ):
        found[name][kind, dimension, value, actor].append((recipients, number))
    return found


def best_guess(figures: Read) -> bool:
    """Whether she acted: the likelihood of all that was measured, with and without her."""
    score = 0.0
    for figure in FIGURES:
        values = figure.values(tuple(LINKS))
        alone = of_one(figure)
        for value in values:
            numbers = np.array(
                [number for _, number in figures[figure.kind, figure.dimension, value, str(figure.actor)]]
            )
            score += float((numbers - 2 * alone - alone / 2) @ alone) / figure.sigma(len(values)) ** 2
    return score > 0


def of_one(figure: Figure) -> np.ndarray:
    """What one recipient who is new in the first step adds to a cell's measurements."""
    steps = len(figure.steps)
    new = np.zeros((steps, 1))
    new[0] = 1
    return measured(steps, new)[:, 0]


def plain_guess(figures: Read) -> bool:
    """What a reader would think who adds up the openers of the last step: more than the two he knows of?"""
    numbers = np.array([[number] for _, number in figures["open", "all", "", "human"]])
    return bool(totals(len(numbers), numbers)[-1, 0] > 2.5)


def publish(lock: Lock, beginning: str, count: int) -> dict[str, Read]:
    with closing(Publisher.open(lock.settings)) as one:

        def done() -> bool:
            one.run_once()
            sql = f"SELECT uniqExact(mailing) FROM published WHERE startsWith(mailing, '{beginning}') AND step = 39"
            return bool(lock.rows(Store.ANALYTICS, sql, Role.ANALYST)[0][0] == count)

        lock.until(done, seconds=120, what="the figures")
    return read(lock, beginning)


def test_the_best_guess_is_hardly_better_than_a_coin(lock: Lock, monkeypatch: pytest.MonkeyPatch) -> None:
    coin = random.Random(4)  # which mailings she acts in, not what hides her
    names, acted = [f"m{n:04}" for n in range(TRIES)], [coin.random() < 0.5 for _ in range(TRIES)]
    played(lock, names, acted)
    figures = publish(lock, "m", TRIES)
    assert all(
        len(cell) == len(figure.steps)
        for of in figures.values()
        for figure in FIGURES
        for cell in [of[figure.kind, figure.dimension, figure.values(tuple(LINKS))[0], str(figure.actor)]]
    )
    slack = 4 * math.sqrt(0.25 / TRIES)
    for guess in (best_guess, plain_guess):
        hits = sum(guess(figures[name]) == did for name, did in zip(names, acted, strict=True)) / TRIES
        print(f"{guess.__name__}: right in {hits:.1%} of {TRIES:,} (bound {BOUND:.1%}, guessing 50.0 %)")
        assert hits <= BOUND + slack

    names, acted = names[:WITHOUT_NOISE], acted[:WITHOUT_NOISE]
    names = [f"bare-{name}" for name in names]
    played(lock, names, acted)
    monkeypatch.setattr(publishing, "draw", lambda _figure, _cells, exact, _rho: exact)
    bare = publish(lock, "bare", WITHOUT_NOISE)
    for guess in (best_guess, plain_guess):
        assert [guess(bare[name]) for name in names] == acted, f"{guess.__name__} could not tell without noise either"


def test_the_bound_is_that_of_the_whole_history() -> None:
    """The attacker above meets the mechanism's worst case: what separates the two worlds costs the budget and no
    more."""
    separation = 0.0
    for figure in FIGURES:
        cells = len(figure.values(tuple(LINKS)))
        separation += cells * float(of_one(figure) @ of_one(figure)) / figure.sigma(cells) ** 2
        assert np.linalg.norm(of_one(figure)) == pytest.approx(factor(len(figure.steps)).sensitivity, rel=1e-3)
    assert separation == pytest.approx(2 * RHO, rel=1e-3)
