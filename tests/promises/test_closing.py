"""The window of a mailing closes: figures stay to the unit, the sets and the secret go, and nothing brings them back.

One embedded stack with two partitions. The stalled workers are held at the very place that matters, or stopped as
processes; the closer is killed (SIGKILL) after each of its steps.
"""

from __future__ import annotations

import asyncio
import itertools
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import pytest
from aiokafka.consumer import fetcher

from deploy.embedded.stack import Stack
from pseudonymizer.keys import KeyKind
from streams.chain import Claims
from streams.keyring import KeyRing
from streams.messages import Closing, encode_change
from streams.partition import Overtaken, Partition
from streams.partitioner import message_key, partition_of
from streams.rights import closing
from streams.rights.desk import Desk
from streams.state import StateIndex
from streams.stores import Role, Store
from streams.topics import CHANGES, EVENTS
from streams.transport import fetch_batches
from tests.claims import Fetched
from tests.claims import event as fetched
from tests.lock import Lock, Message, WorkerProcess, event, mailing, now_ms
from tests.promises.test_p6_stalled import Owner, owner, run, until

pytestmark = pytest.mark.stack
PARTITIONS = 2
DAY_MS = 86_400_000
Figures = dict[tuple[Any, ...], tuple[int, int]]


@pytest.fixture(scope="module")
def lock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lock]:
    with (
        Stack(tmp_path_factory.mktemp("closing"), "tansu", die_with_parent=True) as stack,
        Lock(stack, partitions=PARTITIONS) as running,
    ):
        KeyRing.open(running.settings.keyring, running.settings.keyring_kek).close()  # as the first worker makes it
        yield running


@pytest.fixture(scope="module")
def desk(lock: Lock) -> Iterator[Desk]:
    with Desk.open(lock.settings, "a test") as opened:
        yield opened


@pytest.fixture(scope="module")
def worker(lock: Lock, desk: Desk) -> WorkerProcess:
    """The one that all tests but the last have; the one before the last ends it."""
    return lock.worker()


def figures(lock: Lock, name: str) -> Figures:
    """The totals of a mailing of acme."""
    return {line[2:]: of for line, of in lock.totals().items() if line[:2] == ("acme", name)}


def events(lock: Lock, name: str) -> int:
    return sum(of[0] for (_, link, _), of in figures(lock, name).items() if link is None)


def sets(lock: Lock, name: str) -> int:
    ((count,),) = lock.rows(Store.ANALYTICS, f"SELECT count() FROM cells_unique WHERE mailing = '{name}'")
    return int(count)


def has_secret(desk: Desk, name: str) -> bool:
    return desk.ring.get(KeyKind.MAILING, f"acme\x1f{name}") is not None


def outcomes(lock: Lock) -> dict[str, int]:
    rows = lock.rows(
        Store.ANALYTICS, "SELECT if(reason = '', outcome, reason), sum(events) FROM outcomes GROUP BY 1", Role.OPERATOR
    )
    return {str(name): int(count) for name, count in rows}


# --- real workers ---

KILLED_AFTER = ("_send", "count", "compare", "delete", "destroy", "_note")
_CLOSERS = """
import os, signal, sys, time
from pathlib import Path
from streams import settings
from streams.rights import closing
from streams.rights.desk import Desk

def close(mailing, last):
    step = getattr(closing, last)

    def then_die(*given):
        step(*given)
        if last != "_note" or given[1] == "done":
            os.kill(os.getpid(), signal.SIGKILL)

    setattr(closing, last, then_die)
    with Desk.open(settings.load(Path(sys.argv[1]))) as desk:
        closing.ask(desk, [mailing], "a test")
        while closing.carried_out(desk, [mailing])[mailing].missing:
            time.sleep(0.05)
        closing.finish(desk, [mailing])

children = {}
for last in sys.argv[2:]:  # each is a process of its own
    children[last] = os.fork()
    if not children[last]:
        close(("acme", f"killed{last}"), last)
        os._exit(0)
print(*(os.waitstatus_to_exitcode(os.waitpid(children[last], 0)[1]) for last in sys.argv[2:]))
"""


def acts(name: str, sent_ms: int) -> list[Message]:
    """A mailing that was sent then, and what came for it: opens and clicks, machines, in several steps."""
    at = [sent_ms + minutes * 60_000 for minutes in (5, 30, 90, 200)]
    return [mailing("acme", name, {"hero": "https://x.example/hero"}, sent_ms)] + [
        event("acme", f"w{n % 7}@example.com", mailing=name, occurred_at=at[n % 4], event_id=f"{name}-{n}", **fields)
        for n in range(40)
        for fields in [{"kind": "click", "link": "hero"} if n % 3 == 0 else {"actor": "machine"} if n % 5 == 0 else {}]
    ]


def test_a_closer_that_is_killed_after_any_step_leaves_the_figures_whole(
    lock: Lock, desk: Desk, worker: WorkerProcess
) -> None:
    sent_ms = now_ms() - 5 * 3_600_000
    names = [f"killed{step}" for step in KILLED_AFTER]
    lock.send(itertools.chain.from_iterable(acts(name, sent_ms) for name in names))
    lock.until(lambda: all(events(lock, name) == 40 for name in names), what="events to be counted")
    time.sleep(0.5)  # a batch reaches one table before the other
    counted = {name: figures(lock, name) for name in names}
    assert all(len(of) == 4 for of in counted.values()), "opens by humans and by machines, clicks and the link"

    given = [sys.executable, "-c", _CLOSERS, str(lock.stack.settings_file), *KILLED_AFTER]
    ended = subprocess.run(
        given, env=lock.environment, stdout=subprocess.PIPE, text=True, timeout=90, check=True
    ).stdout
    assert ended.split() == [str(-signal.SIGKILL)] * len(KILLED_AFTER)
    assert {name: figures(lock, name) for name in names} == counted

    # One that was killed within the DELETE: some parts are without their sets already, others are not yet.
    half = "ALTER TABLE cells_unique DELETE WHERE mailing = 'killedcount' AND kind = 'open'"
    desk.analytics.do("deleting a half", half, mutations_sync=2)
    assert figures(lock, "killedcount") == counted["killedcount"]
    assert {name: sets(lock, name) > 0 for name in names} == {
        **dict.fromkeys(("killed_send", "killedcount", "killedcompare"), True),
        **dict.fromkeys(("killeddelete", "killeddestroy", "killed_note"), False),
    }
    done = [name for name in names if closing.is_closed(desk, ("acme", name))]
    assert done == ["killed_note"]

    # `schleuse close` goes on where each was, and the duty does for those that had been asked for.
    said = lock.run("close", "--tenant", "acme", "--mailing", "killed_send", "--yes").stdout
    assert "closed: " in said
    assert closing.run_once(desk) == 4
    assert closing.run_once(desk) == 0
    for name in names:
        assert (closing.is_closed(desk, ("acme", name)), sets(lock, name), has_secret(desk, name)) == (True, 0, False)
        assert figures(lock, name) == counted[name]
    lock.send([event("acme", "w1@example.com", mailing=name) for name in names])
    lock.until(lambda: outcomes(lock).get("late", 0) >= len(names), what="late events")
    assert {name: figures(lock, name) for name in names} == counted
    assert "is closed: 7 figures" in lock.run("close", "--tenant", "acme", "--mailing", names[0]).stdout


def test_a_window_closes_by_itself_when_it_is_over_and_nothing_comes_any_more(
    lock: Lock, desk: Desk, worker: WorkerProcess
) -> None:
    over, young = now_ms() - 31 * DAY_MS, now_ms() - 29 * DAY_MS
    undeclared = [event("acme", f"w{n}@example.com", mailing="undeclared", occurred_at=over) for n in range(3)]
    lock.send([*acts("over", over), *acts("young", young), *undeclared])
    want = {"over": 40, "young": 40, "undeclared": 3}
    lock.until(lambda: {name: events(lock, name) for name in want} == want, what="events to be counted")
    time.sleep(0.5)
    counted = {name: figures(lock, name) for name in ("over", "young", "undeclared")}

    refused = lock.run("close", "--tenant", "acme", "--mailing", "young", check=False)
    assert refused.returncode == 1
    assert "(as declared); 40 events counted" in refused.stdout
    assert "it was not closed" in refused.stderr
    assert lock.run("close", "--tenant", "acme", "--mailing", "yuong", "--yes", check=False).returncode == 1

    assert closing.run_once(desk) == 0, "notes which are over"
    assert closing.run_once(desk) == 0, "and waits for a day"
    assert {one.mailing[1]: one.quiet_since_ms is not None for one in closing.windows(desk)[1]} == {
        **{"over": True, "undeclared": True, "young": False},
        **{one.mailing[1]: False for one in closing.windows(desk)[1] if one.mailing[1] == "other"},
    }
    lock.send([event("acme", "w8@example.com", mailing="undeclared", occurred_at=over)])  # a backfill goes on
    lock.until(lambda: events(lock, "undeclared") == 4, what="one more event")
    time.sleep(0.5)
    counted["undeclared"] = figures(lock, "undeclared")
    assert closing.run_once(desk, quiet_ms=0) == 0, "asks for one, and notes that the other goes on"
    assert {one.mailing[1] for one in closing.windows(desk)[1] if one.asked_ms} == {"over"}
    closed = 0
    end = time.monotonic() + 60
    while closed < 2 and time.monotonic() < end:
        closed += closing.run_once(desk, quiet_ms=0)
        time.sleep(0.2)
    assert [closing.is_closed(desk, ("acme", name)) for name in counted] == [True, False, True]
    assert {name: figures(lock, name) for name in counted} == counted
    assert has_secret(desk, "young")
    said = [(line.detail["mailing"], line.why) for line in desk.audit.lines(9, action="mailing_closed")]
    assert said[-2:] == [("over", "its window is over"), ("undeclared", "its window is over")]


def test_a_worker_that_is_stopped_with_a_batch_wakes_up_when_the_mailing_is_closed(
    lock: Lock, desk: Desk, worker: WorkerProcess
) -> None:
    """SIGSTOP as soon as it has taken a claim; another worker carries that and the closing out."""

    def claims() -> int:
        ((count,),) = lock.rows(Store.ANALYTICS, "SELECT count() FROM claims WHERE kind = 'events'", Role.OPERATOR)
        return int(count)

    lock.send([mailing("acme", "stopped", {}), event("acme", "s@example.com", mailing="stopped")])
    lock.until(lambda: events(lock, "stopped") == 1, what="the first event")
    lock.until(lambda: [one for one in closing.windows(desk)[1] if one.mailing[1] == "stopped" and one.declared])
    counted, already, sent = outcomes(lock).get("counted", 0), outcomes(lock).get("late", 0), 0
    while True:  # whether the signal comes before the claim is carried out is chance: until it does
        before = claims()
        lock.send(
            [
                event("acme", f"s{n % 3000}@example.com", mailing="stopped", event_id=f"s{sent + n}")
                for n in range(12_000)
            ]
        )
        sent += 12_000
        end = time.monotonic() + 30
        while claims() == before and time.monotonic() < end:
            pass
        worker.process.send_signal(signal.SIGSTOP)
        time.sleep(0.2)  # what it had sent to the store is there
        if outcomes(lock).get("counted", 0) < counted + sent:
            break
        worker.process.send_signal(signal.SIGCONT)
        assert sent < 50 * 12_000, "never stopped early enough for the test to say anything"

    other = lock.worker()
    said = lock.run("close", "--tenant", "acme", "--mailing", "stopped", "--yes").stdout
    assert "closed: " in said
    late = outcomes(lock).get("late", 0)
    kept = figures(lock, "stopped")
    worker.process.send_signal(signal.SIGCONT)
    lock.send([event("acme", f"s{n}@example.com", mailing="stopped") for n in range(20)])

    def adds_up() -> bool:
        now = outcomes(lock)
        return now["received"] == now["counted"] + now.get("late", 0) and now.get("late", 0) >= late + 20

    lock.until(adds_up, what="late events")
    time.sleep(1)
    assert figures(lock, "stopped") == kept
    assert kept["open", None, "human"][0] + outcomes(lock)["late"] - already == 1 + sent + 20
    assert (sets(lock, "stopped"), has_secret(desk, "stopped")) == (0, False)
    for one in (worker, other):
        one.kill(signal.SIGTERM)


# --- workers that are held at the place that matters; what they are fed is in no topic: they have to come last ---


def of_partition(number: int) -> Iterator[str]:
    names = (f"c{n}@example.com" for n in itertools.count())
    return (name for name in names if partition_of(message_key("acme", name), PARTITIONS) == number)


def test_a_worker_that_wakes_up_with_a_batch_of_a_closed_mailing_changes_nothing(lock: Lock, desk: Desk) -> None:
    """Three hold the claim: one carries it out; one has not built it, nor met the secret; one has built it and not
    inserted it. The latter two wake up when the mailing is closed, its sets and its secret gone."""
    before = fetcher.PartitionRecords._unpack_records
    fetch_batches()  # as the worker's process has it
    gate = threading.Event()
    try:
        run(_held(lock, desk, gate))
    finally:
        gate.set()
        fetcher.PartitionRecords._unpack_records = before


async def _held(lock: Lock, desk: Desk, gate: threading.Event) -> None:  # noqa: PLR0915  # one story, told in order
    who, name = list(itertools.islice(of_partition(0), 3)), ("acme", "held")
    told, counted = outcomes(lock), {("open", None, "human"): (3, 3)}

    async def is_gone() -> bool:
        """And the figures are there, to the unit."""
        found = await asyncio.to_thread(figures, lock, "held")
        return (sets(lock, "held"), has_secret(desk, "held"), found) == (0, False, counted)

    async with AsyncExitStack() as opened:
        unbuilt, uninserted, first, second = [await opened.enter_async_context(owner(lock, n)) for n in (0, 0, 0, 1)]
        begin = {one: await one.load() for one in (unbuilt, uninserted, first, second)}
        event_at, change_at = begin[first]
        numbers = {one: one.claims.look(one.number).newest.number for one in (first, second)}  # type: ignore[union-attr]
        closes = [Fetched(begin[one][1], encode_change(Closing("c", *name))) for one in (first, second)]
        batch = [fetched(event_at + n, who[n], mailing="held", event_id=f"held{n}") for n in range(2)]
        unbuilt.stall()
        insert = uninserted.partition._insert

        def held(*given: Any) -> None:
            gate.wait()
            insert(*given)

        uninserted.partition._insert = held  # type: ignore[method-assign]
        for one in (unbuilt, uninserted, first):
            one.feed(EVENTS, *batch)
            one.start()
        second.feed(EVENTS, fetched(begin[second][0], next(of_partition(1)), mailing="held", event_id="held2"))
        second.start()
        await first.carry_out(numbers[first] + 1)
        await second.carry_out(numbers[second] + 1)
        assert await asyncio.to_thread(figures, lock, "held") == counted

        first.feed(CHANGES, closes[0])
        await first.carry_out(numbers[first] + 2)
        assert closing.carried_out(desk, [name])[name] == closing.Where((1,), True), "the other may still count"
        second.feed(CHANGES, closes[1])
        await second.carry_out(numbers[second] + 2)
        assert closing.carried_out(desk, [name])[name].missing == ()
        assert sets(lock, "held") > 0
        await asyncio.to_thread(closing.finish, desk, [name])
        assert await is_gone()

        unbuilt.gates[0].set()
        gate.set()
        await until(lambda: bool(unbuilt.failed))
        assert isinstance(unbuilt.failed[0], Overtaken)
        done = numbers[first] + 1
        await until(lambda: uninserted.partition.progress.claim == done or bool(uninserted.failed))
        assert await is_gone()

        # Whoever reads the chain again carries the closing out again, which is once, and goes on with what it says.
        assert await unbuilt.load() == (event_at + 2, change_at)
        unbuilt.failed.clear()
        unbuilt.feed(CHANGES, closes[0])
        late = fetched(event_at + 2, who[2], mailing="held", event_id="held3")
        unbuilt.feed(EVENTS, late, fetched(event_at + 3, who[2], mailing="held too", event_id="held4"))
        unbuilt.start()
        await unbuilt.carry_out(numbers[first] + 3)
        grown = {what: count - told.get(what, 0) for what, count in outcomes(lock).items()}
        assert {what: count for what, count in grown.items() if count} == {"received": 5, "counted": 4, "late": 1}
        assert await is_gone()
        assert has_secret(desk, "held too")
        await _what_is_closed(first, second, numbers[first] + 2)
    lines = lock.rows(
        Store.ANALYTICS, "SELECT partition, count() FROM closings WHERE mailing = 'held' GROUP BY 1 ORDER BY 1"
    )
    assert [tuple(line) for line in lines] == [(0, 1), (1, 1)]


async def _what_is_closed(first: Owner, second: Owner, closing_claim: int) -> None:
    """Closed for the claims after the closing and for no other; in later incarnations on every partition, also on one
    that there was not."""
    resources, life = first.resources, first.claims.incarnation
    newest = first.claims.look(first.number).newest
    assert newest

    async def closed(number: int, incarnation: int, before: int | None) -> bool:
        claims = Claims(resources.analytics, incarnation, resources.ids)
        partition = Partition(number, resources, claims, StateIndex())
        again = replace(newest, number=before, partition=number, incarnation=life) if before is not None else None
        await partition._load_closed(again)
        return "acme\x1fheld" in partition._closed

    assert not await closed(first.number, life, closing_claim), "the closing itself, done again"
    assert await closed(first.number, life, closing_claim + 1)
    assert not await closed(first.number, life + 1, closing_claim), "of an earlier incarnation, done again in this one"
    for number in (first.number, second.number, 7):
        assert await closed(number, life + 1, None)
