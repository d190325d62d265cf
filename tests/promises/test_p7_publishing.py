"""P7: what analysts read comes from one draw a figure and step, under one budget, whatever crashes or runs twice.

One embedded stack with a worker; publishers in this process and as processes of their own. Time passes for a mailing by
declaring that it was sent earlier.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest
from kafka import KafkaConsumer, OffsetAndMetadata, TopicPartition

from aggregates.continual import factor
from aggregates.figures import FIGURES, RHO, Z95
from aggregates.steps import HOUR_MS, HOURS
from deploy.embedded.stack import Stack
from streams.broker import log_ends
from streams.dashboard import figures
from streams.errors import ChainStopped, StoreRefused
from streams.mailings import Declared
from streams.publish import publisher as publishing
from streams.publish.publisher import CountsFell, Publisher
from streams.rights import closing as closings
from streams.rights.desk import Desk
from streams.stores import Role, Store, StoreClient, connect
from streams.tenants import Windows, in_force
from streams.topics import EVENTS
from tests.lock import TENANTS, Lock, Message, event, mailing, now_ms

pytestmark = pytest.mark.stack
LINKS = {"hero": "https://x.example/hero", "inxmail.de": "https://inxmail.de"}
SIGMAS = 6.0


@pytest.fixture(scope="module")
def lock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lock]:
    with (
        Stack(tmp_path_factory.mktemp("publishing"), "tansu", die_with_parent=True) as stack,
        Lock(stack, partitions=2) as running,
    ):
        running.worker()
        yield running


@pytest.fixture
def publisher(lock: Lock) -> Iterator[Publisher]:
    with closing(Publisher.open(lock.settings)) as opened:
        yield opened


@pytest.fixture
def store(lock: Lock) -> Iterator[StoreClient]:
    with closing(connect(lock.settings, Store.ANALYTICS, Role.DASHBOARD)) as opened:
        yield opened


def acts(name: str, sent_ms: int, people: int = 60, first: int = 0, minutes: int = 10) -> list[Message]:
    """Each opens some minutes after sending; every second clicks `hero`, every third comes from a machine as well."""
    at, found = sent_ms + minutes * 60_000, []
    for number in range(first, first + people):
        who = f"p{number}@example.com"
        found.append(event("acme", who, mailing=name, occurred_at=at, event_id=f"{name}-{number}-o"))
        if number % 2 == 0:
            clicked = {"kind": "click", "link": "hero", "event_id": f"{name}-{number}-c"}
            found.append(event("acme", who, mailing=name, occurred_at=at, **clicked))
        if number % 3 == 0:
            machine = {"actor": "machine", "event_id": f"{name}-{number}-m"}
            found.append(event("acme", who, mailing=name, occurred_at=at, **machine))
    return found


def sent(lock: Lock, name: str, hours: float, people: int = 60, **more: int) -> int:
    """Declare that a mailing was sent so long ago, let people act, and wait until all is counted."""
    at = now_ms() - int(hours * HOUR_MS)
    lock.send([mailing("acme", name, LINKS, at)])
    declared(lock, name, at)
    lock.send(acts(name, at, people, **more))
    everything = more.get("first", 0) + people
    want = {("open", None, "human"): everything, ("click", "hero", "human"): (everything + 1) // 2}
    lock.until(
        lambda: (
            {line[2:]: of[1] for line, of in lock.totals().items() if line[:2] == ("acme", name)}.items()
            >= want.items()
        ),
        what="events to be counted",
    )
    return at


def declared(lock: Lock, name: str, sent_ms: int) -> None:
    sql = f"SELECT toUnixTimestamp64Milli(argMax(sent_at, position)) FROM mailings WHERE mailing = '{name}'"
    lock.until(lambda: lock.rows(Store.ANALYTICS, sql)[0][0] == sent_ms, what="the declaration")


def until_published(lock: Lock, publisher: Publisher, name: str, step: int) -> None:
    """A step is due when what lay in Kafka is counted, which a worker commits in its own time."""

    def there() -> bool:
        publisher.run_once()
        return bool(of(lock, name, step))

    lock.until(there, what="the step to be published")


def of(lock: Lock, name: str, step: int | None = None) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    """What an analyst reads of a mailing."""
    which = "" if step is None else f" AND step = {step}"
    rows = lock.rows(
        Store.ANALYTICS,
        "SELECT step, toString(kind), toString(dimension), toString(value), toString(actor), recipients, margin, "
        f"too_few, sent, measured FROM published WHERE mailing = '{name}'{which}",
        Role.ANALYST,
    )
    assert len({tuple(row[:5]) for row in rows}) == len(rows), "a figure stands there twice"
    return {tuple(row[:5]): tuple(row[5:]) for row in rows}


def draws(lock: Lock, name: str) -> dict[tuple[Any, ...], tuple[list[int], list[float]]]:
    rows = lock.rows(
        Store.ANALYTICS,
        "SELECT step, toString(kind), toString(dimension), toString(actor), new, measured FROM draws "
        f"WHERE mailing = '{name}'",
        Role.PUBLISHER,
    )
    assert len({tuple(row[:4]) for row in rows}) == len(rows), "a figure was drawn twice"
    return {tuple(row[:4]): (row[4], row[5]) for row in rows}


def test_what_is_due_is_published_once_and_only_of_what_was_declared(lock: Lock, publisher: Publisher) -> None:
    lock.send([event("acme", "p1@example.com", mailing="undeclared")])
    sent(lock, "first", 3.5, people=600)
    until_published(lock, publisher, "first", 2)
    figures = of(lock, "first")
    assert {key[0] for key in figures} == {0, 1, 2}
    assert {HOURS[key[0]] for key in figures if key[2] == "link"} == {1, 3}
    assert {key[3] for key in figures if key[2] == "link"} == {"hero", "inxmail.de", "other"}
    exact = {
        ("open", "", "human"): 600,
        ("click", "", "human"): 300,
        ("click", "hero", "human"): 300,
        ("open", "", "machine"): 200,
    }
    wanted = {(one.kind, one.dimension, str(one.actor)): one for one in FIGURES}
    for (step, kind, dimension, value, actor), (recipients, margin, too_few, to, measured) in figures.items():
        assert too_few == (recipients <= margin)
        assert to == 1000
        figure = wanted[kind, dimension, actor]
        row, of_steps = figure.steps.index(step), factor(len(figure.steps))
        sigma = figure.sigma(len(figure.values(tuple(LINKS))))
        if dimension != "device":  # all of them are new in the first step
            truth = exact.get((kind, value, actor), 0)
            assert abs(measured - of_steps.measure[row, 0] * truth) <= SIGMAS * sigma
            # The margin is how far the figure is from what was measured, and 1.96 standard deviations.
            assert abs(recipients - truth) <= margin + (SIGMAS - Z95) * sigma * of_steps.errors[row]
    drawn = draws(lock, "first")
    assert drawn[0, "open", "all", "human"][0] == [600]
    assert drawn[1, "open", "all", "human"][0] == [0]
    assert publisher.run_once() == 0
    assert (of(lock, "first"), draws(lock, "first")) == (figures, drawn)
    assert not of(lock, "undeclared")
    text = lock.run("publish", "--once").stdout
    assert text == "mailings with new figures: 0\n"


def test_what_arrives_later_is_new_in_the_next_step(lock: Lock, publisher: Publisher) -> None:
    """Also when it occurred before: what was published stays as it is."""
    at = sent(lock, "later", 1.5)
    until_published(lock, publisher, "later", 0)
    before = of(lock, "later")
    lock.send(acts("later", at, 10, first=60))
    lock.until(lambda: lock.totals()["acme", "later", "open", None, "human"][1] == 70, what="late events")
    lock.send([mailing("acme", "later", LINKS, at - HOUR_MS)])
    declared(lock, "later", at - HOUR_MS)
    until_published(lock, publisher, "later", 1)
    drawn = draws(lock, "later")
    assert [drawn[step, "open", "all", "human"][0] for step in (0, 1)] == [[60], [10]]
    assert before.items() <= of(lock, "later").items()


_KILLED = """
import os, signal, sys
from pathlib import Path
from streams import settings
from streams.publish.publisher import Publisher

publisher = Publisher.open(settings.load(Path(sys.argv[1])))
insert = publisher._store.insert

def then_die(doing, table, data, token):
    if sys.argv[2] == "after":
        insert(doing, table, data, token)
    if table == sys.argv[3]:
        os.kill(os.getpid(), signal.SIGKILL)
    if sys.argv[2] != "after":
        insert(doing, table, data, token)

publisher._store.insert = then_die
while True:
    publisher.run_once()
"""


@pytest.mark.parametrize(
    "where", [("before", "draws"), ("after", "draws"), ("before", "published"), ("after", "published")]
)
def test_a_publisher_that_is_killed_draws_nothing_twice(
    lock: Lock, publisher: Publisher, where: tuple[str, str]
) -> None:
    name = "killed-{}-{}".format(*where)
    sent(lock, name, 2.5)
    given = [sys.executable, "-c", _KILLED, str(lock.stack.settings_file), *where]
    ended = subprocess.run(given, env=lock.environment, timeout=60, check=False)
    assert ended.returncode == -signal.SIGKILL
    drawn, figures = draws(lock, name), of(lock, name)
    assert bool(drawn) == (where != ("before", "draws"))
    assert bool(figures) == (where == ("after", "published"))
    until_published(lock, publisher, name, 1)
    assert drawn.items() <= draws(lock, name).items()
    assert figures.items() <= of(lock, name).items()
    kept = {key: measured for key, (_, measured) in draws(lock, name).items()}
    for (step, kind, dimension, value, actor), said in of(lock, name).items():
        assert said[-1] in kept[step, kind, dimension, actor], f"{value} is not what was drawn"


def test_of_publishers_with_one_number_the_second_has_drawn_nothing(
    lock: Lock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have drawn before either inserts; what both publish is what the first one drew."""
    with closing(Publisher.open(lock.settings)) as warm:
        sent(lock, "warm", 1.5)
        until_published(lock, warm, "warm", 0)
    meet, insert = threading.Barrier(2), StoreClient.insert
    batches: list[Any] = []

    def together(self: StoreClient, doing: str, table: str, data: Any, token: str | None) -> None:
        if table == "draws":
            batches.append((token, data.column("measured").to_pylist()))
            meet.wait(30)
        insert(self, doing, table, data, token)

    sent(lock, "twice", 2.5)
    publishers = [Publisher.open(lock.settings) for _ in range(2)]
    for one in publishers:
        lock.until(
            lambda one=one: one._look() or one._due(in_force(one._store), Windows.read(one._store)), what="it to be due"
        )
    monkeypatch.setattr(StoreClient, "insert", together)
    threads = [threading.Thread(target=one.run_once) for one in publishers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    monkeypatch.undo()
    for one in publishers:
        one.close()
    (token, first), (also, second) = batches
    assert (token, first) != (also, second)
    assert token == also
    kept = [measured for _, measured in draws(lock, "twice").values()]
    assert sorted(kept) in (sorted(first), sorted(second))
    assert {said[-1] for said in of(lock, "twice").values()} == {one for measured in kept for one in measured}


def test_after_the_last_step_nothing_is_drawn_and_nothing_exact_is_left(lock: Lock, publisher: Publisher) -> None:
    at = sent(lock, "done", 721)
    until_published(lock, publisher, "done", 39)
    figures = of(lock, "done")
    assert {key[0] for key in figures} == set(range(40))
    shown = [figures[step, "open", "all", "", "human"][0] for step in range(40)]
    assert shown == sorted(shown)
    assert max(shown) <= 1000
    assert not draws(lock, "done")
    spent = lock.rows(
        Store.ANALYTICS,
        "SELECT kind, dimension, actor, max(rho), uniqExact(rho) FROM published WHERE mailing = 'done' GROUP BY ALL",
        Role.ANALYST,
    )
    assert len(spent) == len(FIGURES)
    assert sum(row[3] for row in spent) == pytest.approx(RHO)
    assert {row[4] for row in spent} == {1}
    lock.send(acts("done", at, 5, first=60))
    lock.until(lambda: lock.totals()["acme", "done", "open", None, "human"][1] == 65, what="late events")
    assert publisher.run_once() == 0
    assert (of(lock, "done"), draws(lock, "done")) == (figures, {})


def applied(lock: Lock, rho: float | None = None, without: str = "", window: str = "30 days") -> None:
    """Put settings in force: with this budget for a mailing of acme's, and window; and without another tenant."""
    said = "" if rho is None else f"\n[acme.publishing]\nrho = {rho}\n"
    text = TENANTS.partition(f"[{without}]")[0] if without else TENANTS
    text = f'[acme]\nwindow = "{window}"\n{text}'
    (lock.stack.directory / "tenants.toml").write_text(text + said)
    lock.run("tenants", "apply", "--yes")


def older(lock: Lock, names: list[str], hours: float) -> None:
    """Declare that mailings were sent so long ago."""
    at = now_ms() - int(hours * HOUR_MS)
    lock.send([mailing("acme", name, LINKS, at) for name in names])
    for name in names:
        declared(lock, name, at)


def costs(lock: Lock, name: str, steps: int, rho: float) -> None:
    """Every one of so many steps has the noise that such a budget buys, and all figures together cost it."""
    rows = lock.rows(
        Store.ANALYTICS,
        f"SELECT DISTINCT step, kind, dimension, actor, sigma, rho FROM published WHERE mailing = '{name}'",
        Role.ANALYST,
    )
    assert {row[0] for row in rows} == set(range(steps))
    wanted = {(one.kind, one.dimension, str(one.actor)): one for one in FIGURES}
    for step, *which, sigma, spent in rows:
        figure = wanted[tuple(which)]
        assert step in figure.steps
        assert (sigma, spent) == (figure.sigma(len(figure.values(tuple(LINKS))), rho), figure.share * rho)
    assert sum(spent for step, *_, spent in rows if not step) == pytest.approx(rho)
    kept = lock.rows(
        Store.ANALYTICS,
        f"SELECT min(budget), max(budget), sum(rho) FROM draws WHERE mailing = '{name}'",
        Role.PUBLISHER,
    )
    assert kept == [(rho, rho, pytest.approx(rho))]


def test_a_mailing_keeps_the_budget_that_it_began_with(lock: Lock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever its tenant's settings say later, to a publisher that is started later, or to one that has read other
    settings at the same moment."""
    try:
        applied(lock, 0.5)
        with closing(Publisher.open(lock.settings)) as publisher:
            older(lock, ["begun"], 1.5)
            until_published(lock, publisher, "begun", 0)
            costs(lock, "begun", 1, 0.5)
            applied(lock, 0.02)
            older(lock, ["begun"], 2.5)
            until_published(lock, publisher, "begun", 1)
        applied(lock, 1)
        older(lock, ["begun"], 3.5)
        older(lock, ["fresh"], 1.5)
        with closing(Publisher.open(lock.settings)) as restarted:
            until_published(lock, restarted, "begun", 2)
            until_published(lock, restarted, "fresh", 0)
        costs(lock, "begun", 3, 0.5)
        costs(lock, "fresh", 1, 1)

        older(lock, ["begun"], 4.5)
        older(lock, ["raced"], 1.5)
        first, second = publishers = [Publisher.open(lock.settings) for _ in range(2)]
        said = {id(first._store): 1.0, id(second._store): 0.001}
        for one in publishers:
            lock.until(
                lambda one=one: one._look() or len(one._due(in_force(one._store), Windows.read(one._store))) > 1,
                what="both to be due",
            )
        with monkeypatch.context() as patched:
            meet, insert = threading.Barrier(2), StoreClient.insert

            def together(self: StoreClient, doing: str, table: str, data: Any, token: str | None) -> None:
                if table == "draws":
                    meet.wait(30)
                insert(self, doing, table, data, token)

            def as_read(store: StoreClient) -> Mapping[str, Any]:
                return {"acme": replace(in_force(store)["acme"], rho=said[id(store)])}

            patched.setattr(publishing, "in_force", as_read)
            patched.setattr(StoreClient, "insert", together)
            threads = [threading.Thread(target=one.run_once) for one in publishers]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60)
            ((won,),) = lock.rows(
                Store.ANALYTICS, "SELECT DISTINCT budget FROM draws WHERE mailing = 'raced'", Role.PUBLISHER
            )
            patched.setattr(StoreClient, "insert", insert)
            older(lock, ["raced"], 2.5)
            loser = first if said[id(first._store)] != won else second
            until_published(lock, loser, "raced", 1)
        for one in publishers:
            one.close()
        assert won in said.values()
        costs(lock, "raced", 2, won)
        costs(lock, "begun", 4, 0.5)
    finally:
        applied(lock)


def test_nothing_begins_of_a_tenant_that_is_gone(lock: Lock, publisher: Publisher) -> None:
    """Nobody says what a mailing of its may spend. What has begun goes on."""
    at = now_ms() - int(1.5 * HOUR_MS)
    lock.send([mailing("beta", "gone", LINKS, at), mailing("acme", "there", LINKS, at)])
    declared(lock, "gone", at)
    declared(lock, "there", at)
    try:
        applied(lock, without="beta")
        until_published(lock, publisher, "there", 0)
        assert not of(lock, "gone")
    finally:
        applied(lock)
    until_published(lock, publisher, "gone", 0)


def test_a_batch_is_bounded_by_mailings_and_by_numbers() -> None:
    """A thousand links a mailing would take longer than an insert may."""
    links = tuple(f"link{n}" for n in range(1_000))
    numbers = sum(len(figure.values(links)) * len(figure.steps) for figure in FIGURES)
    many = {("acme", f"m{n:04}"): (Declared(0, 10, links), list(range(40))) for n in range(50)}
    assert len(publishing._batch(many)) == publishing.NUMBERS_AT_ONCE // numbers
    few = {("acme", f"m{n:04}"): (Declared(0, 10, ()), [7]) for n in range(1_000)}
    assert len(publishing._batch(few)) == publishing.AT_ONCE
    endless = {("acme", "m"): (Declared(0, 10, tuple(f"link{n}" for n in range(20_000))), list(range(40)))}
    assert len(publishing._batch(endless)) == 1


def until_closed(lock: Lock, desk: Desk, name: str) -> None:
    lock.until(lambda: closings.run_once(desk, 0) >= 0 and closings.is_closed(desk, ("acme", name)), what="the closing")


def test_a_mailing_closes_after_its_figures_and_none_is_drawn_after_its_closing(
    lock: Lock, publisher: Publisher
) -> None:
    """When it closes depends on what everybody did: a day without an event. No number may."""
    sent(lock, "waits", 29 * 24)
    sent(lock, "closed", 3.5)
    until_published(lock, publisher, "waits", 38)
    until_published(lock, publisher, "closed", 2)
    older(lock, ["waits"], 31 * 24)
    with lock.desk() as desk:
        for _ in range(2):
            closings.run_once(desk, quiet_ms=0)
        (waits,) = [one for one in closings.windows(desk)[1] if one.mailing[1] == "waits"]
        assert (waits.unpublished, waits.quiet_since_ms, waits.asked_ms) == (True, None, None)
        refused = lock.run("close", "--tenant", "acme", "--mailing", "waits", check=False)
        assert "not all of its figures are published" in refused.stdout
        until_published(lock, publisher, "waits", 39)
        until_closed(lock, desk, "waits")

        older(lock, ["waits", "closed"], 39 * 24)  # of this one no publisher has drawn the rest for a week
        until_closed(lock, desk, "closed")
    publisher.run_once()
    assert {step for step, *_ in of(lock, "closed")} == {0, 1, 2}
    assert not draws(lock, "closed")


def test_a_window_that_is_shorter_has_no_figures_beyond_it(
    lock: Lock, publisher: Publisher, store: StoreClient
) -> None:
    """And readers are told that nothing more is to come."""

    def complete() -> int:
        return sum(month.mailings - month.unfinished for month in figures.months(store, "acme"))

    before = complete()
    try:
        applied(lock, window="1 day")
        for name in ("short", "left open"):
            sent(lock, name, 40)
            until_published(lock, publisher, name, 23)
        assert publisher.run_once() == 0
        assert {step for step, *_ in of(lock, "short")} == set(range(24))
        found = figures.history(store, "acme", "short")
        assert found is not None
        assert (found.mailing.hours, found.mailing.last_hours, found.mailing.next_ms) == (24, 24, None)
        assert "short" in {one.mailing for one in figures.mailings(store, "acme", 100).mailings if not one.next_ms}
        assert complete() == before + 2
        with lock.desk() as desk:
            until_closed(lock, desk, "short")
    finally:
        applied(lock)
    publisher.run_once()
    for name in ("short", "left open"):  # a window that grows again brings nothing back: who is open tells who acted
        assert {step for step, *_ in of(lock, name)} == set(range(24))


def test_a_batch_that_another_has_drawn_is_tidied_away_after_it_was_shown_only(
    lock: Lock, publisher: Publisher
) -> None:
    """Else its number came back, and with it tokens that are remembered: no figure would be drawn any more."""
    sent(lock, "closing", 1.5)
    tenants, windows = in_force(publisher._store), Windows.read(publisher._store)
    lock.until(lambda: (publisher._look(), ("acme", "closing") in publisher._due(tenants, windows))[1], what="a step")
    with closing(Publisher.open(lock.settings)) as other, lock.desk() as desk:
        assert publisher._draw(set())
        closings._note(desk, "asked", {("acme", "closing"): 0})
        other._tidy()
        assert draws(lock, "closing")
        assert publisher._show() == 1
        other._tidy()
        assert not draws(lock, "closing")
    assert of(lock, "closing")
    sent(lock, "after it", 1.5)
    until_published(lock, publisher, "after it", 0)


def test_how_addresses_are_compared_never_changes_even_for_a_tenant_that_was_gone(lock: Lock) -> None:
    """Else everybody could be counted twice, with another spelling."""
    tenants = lock.stack.directory / "tenants.toml"
    try:
        applied(lock, without="beta")
        tenants.write_text(TENANTS.replace('local_part = "lower"', 'local_part = "keep"'))
        refused = lock.run("tenants", "apply", "--yes", check=False)
        assert refused.returncode == 1
        assert "beta: local_part cannot change" in refused.stderr
    finally:
        applied(lock)


def test_a_store_that_is_older_than_kafka_is_drawn_from_no_further(lock: Lock) -> None:
    """Put back from a backup it has forgotten draws. Here Kafka knows of more: a group that has committed further."""
    ahead, (worker,) = replace(lock.settings, group="ahead"), lock.workers
    sent(lock, "forgotten", 1.5)
    worker.process.send_signal(signal.SIGSTOP)
    try:
        lock.send([event("acme", f"p{number}@example.com", mailing="forgotten") for number in range(20)])
        ends = {TopicPartition(EVENTS, at): end for at, end in log_ends(lock.settings.broker, EVENTS).items()}
        consumer = KafkaConsumer(bootstrap_servers=ahead.broker, group_id=ahead.group, enable_auto_commit=False)
        with closing(consumer):
            consumer.assign(list(ends))
            consumer.commit({at: OffsetAndMetadata(end, "", -1) for at, end in ends.items()})
        with closing(Publisher.open(ahead)) as publisher, pytest.raises(ChainStopped, match="put back from a backup"):
            publisher.run_once()
    finally:
        worker.process.send_signal(signal.SIGCONT)
    assert of(lock, "forgotten") == {}
    with closing(Publisher.open(lock.settings)) as publisher:
        until_published(lock, publisher, "forgotten", 0)


def test_a_mailing_whose_counts_fell_is_stopped_and_no_other(lock: Lock, publisher: Publisher) -> None:
    """Sets that somebody took away by hand. Not being able to count exactly means stopping, loudly."""
    ats: Mapping[str, int] = {name: sent(lock, name, 1.5) for name in ("fell", "stands")}
    for name in ats:
        until_published(lock, publisher, name, 0)
    gone = "ALTER TABLE cells_unique DELETE WHERE mailing = 'fell'"
    with lock.desk() as desk:
        desk.analytics.do("taking away", gone, mutations_sync=2)
    for name, at in ats.items():
        lock.send([mailing("acme", name, LINKS, at - HOUR_MS)])
        declared(lock, name, at - HOUR_MS)

    def stopped() -> bool:
        try:
            publisher.run_once()
        except CountsFell as error:
            return str(error).startswith("1 mailings have")
        return False

    lock.until(stopped, what="it to be stopped")
    assert not of(lock, "fell", 1)
    assert of(lock, "stands", 1)


def test_an_analyst_reads_published_figures_and_nothing_exact(lock: Lock) -> None:
    for table in ("draws", "cells_unique", "cells_hourly", "cells_closed", "engagement", "outcomes"):
        with pytest.raises(StoreRefused, match="ACCESS_DENIED"):
            lock.rows(Store.ANALYTICS, f"SELECT count() FROM {table}", Role.ANALYST)
