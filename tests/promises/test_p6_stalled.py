"""P4 and P6 where two workers hold one partition: a stalled one, a killed one, one that comes back after a long time.

Real partitions over both real stores and a real broker, in this process and without a consumer group: so that a worker
can be stopped at exactly the place that matters. Each test has a partition and recipients of its own.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer import fetcher
from kafka import KafkaConsumer, OffsetAndMetadata
from kafka import TopicPartition as GroupPartition

from deploy.embedded.stack import Stack
from pseudonymizer.consent import ALWAYS, Consent, Mode
from pseudonymizer.keys import KeyKind
from streams import changes as steps
from streams import partition as module
from streams.broker import admin
from streams.chain import Claims
from streams.errors import ChainStopped, LostLog
from streams.keyring import KeyRing
from streams.messages import Rekey, encode_change
from streams.partition import Overtaken, Partition
from streams.partitioner import message_key, partition_of
from streams.plan import plan
from streams.resources import Resources
from streams.state import StateIndex
from streams.stores import Role, Store, connect
from streams.topics import CHANGES, EVENTS, MAILINGS, STATE
from streams.transport import Chunk, fetch_batches
from tests.claims import NOW, Fetched, change, event, state
from tests.lock import Lock, WorkerProcess, mailing, now_ms, preference
from tests.promises.test_incarnations import CELL, OFF, PERSONAL, UNKNOWN, carried_out, kept, opens, status

pytestmark = pytest.mark.stack
PARTITIONS = 16
GRANT = {"engagement": {"open": Mode.PERSONAL}}
WITHDRAWAL = {"engagement": {"open": Mode.OFF}}
LONG_AGO = NOW - 3_600_000
numbers = itertools.count()


@pytest.fixture(scope="module", autouse=True)
def batches() -> Iterator[None]:
    """As the worker's process has it; other tests of this process read records."""
    before = fetcher.PartitionRecords._unpack_records
    fetch_batches()
    yield
    fetcher.PartitionRecords._unpack_records = before


@pytest.fixture(scope="module")
def lock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lock]:
    with (
        Stack(tmp_path_factory.mktemp("stalled"), "tansu", die_with_parent=True) as stack,
        Lock(stack, partitions=PARTITIONS) as running,
    ):
        yield running


@pytest.fixture
def number() -> int:
    """A partition that no other test has."""
    return next(numbers)


def recipients(number: int) -> Iterator[str]:
    """Recipients of the tenant acme who lie on a partition."""
    names = (f"p{number}.{n}@example.com" for n in itertools.count())
    return (name for name in names if partition_of(message_key("acme", name), PARTITIONS) == number)


class Topic:
    def __init__(self, topic: str, partition: int) -> None:
        self.topic, self.partition = topic, partition


class Owner:
    """A worker's hold on one partition, without a consumer group to take it away."""

    def __init__(self, resources: Resources, number: int) -> None:
        self.resources, self.number = resources, number
        self.claims = Claims(resources.analytics, resources.life.number, resources.ids)
        self.failed: list[BaseException] = []
        self.gates: list[threading.Event] = []
        self.partition = Partition(number, resources, self.claims, resources.states[number])

    async def load(self) -> tuple[int, int]:
        """Begin as on assignment; where events and changes begin."""
        known = self.resources.states[self.number]
        self.partition = Partition(self.number, self.resources, self.claims, known)
        return await self.partition.load()

    def feed(self, topic: str, *records: Fetched) -> None:
        self.partition.feed(Chunk(Topic(topic, self.number), list(records)))

    def start(self) -> None:
        self.partition.start(self.failed.append)

    async def carry_out(self, claim: int) -> None:
        """Wait until a claim is carried out."""
        await until(lambda: self.partition.progress.claim >= claim or bool(self.failed))
        assert self.failed == []

    def stall(self) -> threading.Event:
        """Whatever this worker computes waits until the event is set."""
        gate = threading.Event()
        self.resources._compute.submit(gate.wait)
        self.gates.append(gate)
        return gate


@asynccontextmanager
async def owner(lock: Lock, number: int, **settings: Any) -> AsyncIterator[Owner]:
    """A worker that may take one partition; nothing is loaded yet."""
    short = replace(lock.settings, partitions=lock.partitions, batch_seconds=0.05, **settings)
    resources = Resources(short, f"0.0.0/{number}-{time.monotonic_ns()}")
    await asyncio.to_thread(resources.open)
    resources.keys.primary("acme")  # as intake does before it forwards a grant
    await resources.start()
    resources.follow_states([number])
    one = Owner(resources, number)
    try:
        yield one
    finally:
        for gate in one.gates:
            gate.set()
        await one.partition.stop(2)
        await resources.stop()


async def until(there: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < end, "waited in vain"
        await asyncio.sleep(0.01)


def run(story: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(story, 60))


class Counted:
    """What the stores hold of a partition and its recipients."""

    def __init__(self, lock: Lock, number: int) -> None:
        self._lock, self._number = lock, number

    def rows(self) -> int:
        """Rows of `engagement`."""
        return self._one(Store.ANALYTICS, f"SELECT count() FROM engagement WHERE partition = {self._number}")

    def mappings(self) -> int:
        return self._one(Store.IDENTITY, f"SELECT count() FROM recipients WHERE partition = {self._number}")

    def events(self) -> int:
        """Events in `cells_hourly`, of the mailing that has the partition's name."""
        return sum(
            events
            for (_, name, kind, link, _), (events, _) in self._lock.totals().items()
            if name == f"m{self._number}" and (kind == "open" or link is not None)
        )

    def outcomes(self) -> dict[str, int]:
        sql = f"SELECT toString(outcome), sum(events) FROM outcomes WHERE partition = {self._number} GROUP BY 1"
        found = self._lock.rows(Store.ANALYTICS, sql, Role.OPERATOR)
        return {str(name): int(count) for name, count in found}

    def receipts(self) -> list[tuple[str, int, int]]:
        sql = f"SELECT id, rows, mappings FROM receipts WHERE partition = {self._number} ORDER BY id"
        return [(str(row[0]), int(row[1]), int(row[2])) for row in self._lock.rows(Store.IDENTITY, sql)]

    def _one(self, store: Store, sql: str) -> int:
        ((count,),) = self._lock.rows(store, sql)
        return int(count)


def acts(number: int, recipient: str, *offsets: int, **fields: Any) -> list[Fetched]:
    """Opens by a recipient, in the mailing that has the partition's name."""
    return [event(offset, recipient, mailing=f"m{number}", **fields) for offset in offsets]


# --- a stalled worker wakes up ---


def test_what_a_stalled_worker_builds_from_a_later_state_is_not_inserted(lock: Lock, number: int) -> None:
    """Nobody of the claim had agreed to a row, so `engagement` was left empty and never spent the claim's token.

    While one worker stalls between its claim and its build, another carries the claim out, then a grant. What the
    stalled one builds now holds a row that the claim never had, and that no withdrawal would find.
    """
    erika = next(recipients(number))
    counted = Counted(lock, number)

    async def story() -> None:
        async with owner(lock, number) as stalled, owner(lock, number) as other:
            assert await stalled.load() == await other.load() == (0, 0)
            gate = stalled.stall()
            for one in (stalled, other):
                one.feed(EVENTS, *acts(number, erika, 0))
            stalled.start()
            await until(lambda: stalled.resources._compute._work_queue.qsize() > 0)  # it has the claim, and builds
            other.start()
            await other.carry_out(0)
            assert (counted.events(), counted.rows()) == (1, 0)

            other.feed(CHANGES, change(0, erika, GRANT, LONG_AGO))
            await other.carry_out(1)
            await until(lambda: stalled.partition.state.highest >= (other.claims.incarnation, 0))
            gate.set()
            await until(lambda: bool(stalled.failed))
            assert isinstance(stalled.failed[0], Overtaken)
            assert (counted.events(), counted.rows()) == (1, 0)

            other.feed(CHANGES, change(1, erika, WITHDRAWAL, NOW))
            await other.carry_out(2)
            assert [row[1:] for row in counted.receipts()] == [(0, 1)]
            assert (counted.rows(), counted.mappings()) == (0, 0)

            # The stalled one reads the chain again, and goes on with what holds now.
            assert await stalled.load() == (1, 1)
            stalled.failed.clear()
            stalled.feed(CHANGES, change(1, erika, WITHDRAWAL, NOW))
            stalled.feed(EVENTS, *acts(number, erika, 1))
            stalled.start()
            await stalled.carry_out(3)
            assert counted.outcomes() == {"received": 2, "counted": 1, "off": 1}
            assert (counted.events(), counted.rows()) == (1, 0)

    run(story())


def test_a_late_write_of_an_older_state_is_made_good_also_under_a_backlog(lock: Lock, number: int) -> None:
    """Compaction would keep the late one: the newer has to be written again, and not only when there is time for it."""
    erika, else_ = itertools.islice(recipients(number), 2)
    key = message_key("acme", erika)

    async def story() -> None:
        async with owner(lock, number, batch_rows=1) as one, owner(lock, number) as watching:
            await one.load()
            life = one.claims.incarnation
            consents = Consent(Mode.ANONYMOUS, (ALWAYS, None, None), 1), Consent(Mode.OFF, (None, None, None), 2)
            late, newer = (state(n, {"engagement": {"open": of}}, life - 1) for n, of in enumerate(consents))
            await one.resources.send_all("tracking.state", number, [(key, newer), (key, late)])
            await one.resources.tail.caught_up("tracking.state", [number])
            await until(lambda: one.partition.state.stale == [key])
            await until(lambda: watching.partition.state.stale == [key])
            watching.partition.state.stale.clear()
            topic: list[bytes | None] = []
            apply = watching.partition.state.apply

            def noting(records: Any) -> None:
                topic.extend(record.value for record in records)
                apply(records)

            watching.partition.state.apply = noting  # type: ignore[method-assign]
            one.feed(EVENTS, *acts(number, else_, *range(60)))
            one.start()
            await until(lambda: newer in topic)
            assert one.partition.events.records, "the backlog is still there"
            assert one.failed == []

    run(story())


# --- a killed worker's claim is carried out again ---


class Killed(Exception):
    """The worker was killed here."""


def test_a_removal_that_is_resumed_after_its_list_was_forgotten_removes(
    lock: Lock, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`removals` forgets after a day; a claim may be resumed after a weekend, and its tokens are remembered."""
    erika, max_ = itertools.islice(recipients(number), 2)
    counted = Counted(lock, number)
    withdrawals = [change(2, erika, WITHDRAWAL, NOW), change(3, max_, Mode.ANONYMOUS, NOW)]

    def killed(*_: Any) -> None:
        raise Killed

    async def first() -> None:
        async with owner(lock, number) as one:
            await one.load()
            one.start()
            one.feed(CHANGES, change(0, erika, GRANT, LONG_AGO), change(1, max_, GRANT, LONG_AGO))
            await one.carry_out(0)
            one.feed(EVENTS, *acts(number, erika, 0, 1), *acts(number, max_, 2))
            await one.carry_out(1)
            assert (counted.rows(), counted.mappings()) == (3, 2)
            monkeypatch.setattr(steps, "remove", killed)
            one.feed(CHANGES, *withdrawals)
            await until(lambda: bool(one.failed))
            assert isinstance(one.failed[0], Killed)

    async def second() -> None:
        async with owner(lock, number) as one:
            assert await one.load() == (3, 2), "the claim has to be carried out again"
            one.feed(CHANGES, *withdrawals)
            one.start()
            await one.carry_out(2)

    run(first())
    monkeypatch.undo()
    for store in Store:
        client = connect(lock.settings, store, Role.MIGRATIONS)
        which = f"ALTER TABLE {store}.removals DELETE WHERE partition = {number}"
        client.do("forgetting a list", which, mutations_sync=1)
        client.close()
    run(second())
    assert (counted.rows(), counted.mappings()) == (0, 0)
    assert [row[1:] for row in counted.receipts()] == [(2, 1), (1, 1)], "the first count is what the receipt says"
    settings = lock.settings
    ring = KeyRing.open(settings.keyring, settings.keyring_kek)
    assert ring.names(KeyKind.DATA) == [], "what sealed the mappings is gone"
    ring.close()


def test_a_late_grant_leaves_no_data_key_of_a_mapping_that_is_gone(lock: Lock, number: int) -> None:
    """A worker stalls before it writes the mapping; another one writes it, and removes it at a withdrawal."""
    (erika,) = itertools.islice(recipients(number), 1)
    granted = change(0, erika, GRANT, LONG_AGO)

    def kept() -> list[str]:
        ring = KeyRing.open(lock.settings.keyring, lock.settings.keyring_kek)
        try:
            return ring.names(KeyKind.DATA)
        finally:
            ring.close()

    async def story() -> None:
        async with owner(lock, number) as one:
            await one.load()
            keys, identity = one.resources.keys, one.resources.identity
            one.start()
            one.feed(CHANGES, granted)
            await one.carry_out(0)
            moment = one.claims.look(number)
            claim = moment.newest
            assert claim
            tenants = one.resources.tenants_of(claim.settings)
            late = plan(claim, [granted], tenants, StateIndex(), keys, {})
            before = kept()
            assert [row[3].hex() for row in late.mappings] == before
            steps.write_ledger(claim, late, identity, keys, moment.now_ms + 60_000)
            assert kept() == before, "twice is once, and what is in use stays"
            one.feed(CHANGES, change(1, erika, WITHDRAWAL, NOW))
            await one.carry_out(1)
            assert kept() == []
            steps.write_ledger(claim, late, identity, keys, moment.now_ms + 60_000)
            assert kept() == []
            assert Counted(lock, number).mappings() == 0

    run(story())


def test_a_move_to_another_root_key_is_resumed_after_a_kill_and_is_nothing_when_it_comes_late(  # noqa: PLR0915  one story
    lock: Lock, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after the rows were rewritten; done again without its list; once more after she has withdrawn."""
    (erika,) = itertools.islice(recipients(number), 1)
    counted, key = Counted(lock, number), message_key("acme", erika)
    ring = KeyRing.open(lock.settings.keyring, lock.settings.keyring_kek)
    ring.primary("acme")
    version = ring.rotate("acme")
    moved = Fetched(1, encode_change(Rekey("acme", erika, 1, version, False)), key)
    before = set(ring.names(KeyKind.DATA))

    def versions() -> list[tuple[Any, ...]]:
        sql = f"SELECT pseudonym, key_version FROM engagement WHERE partition = {number}"
        return [tuple(row) for row in lock.rows(Store.ANALYTICS, sql)]

    def killed(*_: Any) -> None:
        raise Killed

    async def first() -> None:
        async with owner(lock, number) as one:
            await one.load()
            one.start()
            one.feed(CHANGES, change(0, erika, GRANT, LONG_AGO))
            await one.carry_out(0)
            one.feed(EVENTS, *acts(number, erika, 0, 1, 2))
            await one.carry_out(1)
            assert {row[1] for row in versions()} == {1}
            monkeypatch.setattr(steps, "remove", killed)
            one.feed(CHANGES, moved)
            await until(lambda: bool(one.failed))
            assert {row[1] for row in versions()} == {version}
            assert counted.mappings() == 2, "the new one is there before the old one goes"

    async def second() -> None:
        async with owner(lock, number) as one:
            assert await one.load() == (3, 1), "the claim has to be carried out again"
            old = StateIndex(one.resources.keys.stub_keys)
            old.put_all([(key, one.resources.states[number].raw(key))])
            one.feed(CHANGES, moved)
            one.start()
            await one.carry_out(2)
            assert (len(versions()), len(set(versions())), counted.mappings()) == (3, 1, 1)
            assert len(set(ring.names(KeyKind.DATA)) - before) == 1
            moment = one.claims.look(number)
            claim = moment.newest
            assert claim
            resources = one.resources
            late = plan(claim, [moved], resources.tenants_of(claim.settings), old, resources.keys, {})
            assert len(late.rewrite) == 1
            one.feed(EVENTS, *acts(number, erika, 3))
            await one.carry_out(3)
            assert set(versions()) == {(versions()[0][0], version)}
            one.feed(CHANGES, change(2, erika, WITHDRAWAL, NOW))
            await one.carry_out(4)
            until_ms = moment.now_ms + 600_000
            for _ in range(2):
                assert (counted.rows(), counted.mappings(), set(ring.names(KeyKind.DATA))) == (0, 0, before)
                steps.write_ledger(claim, late, resources.identity, resources.keys, until_ms)
                steps.write_removals(claim, late, resources.identity, resources.analytics, until_ms)
                steps.remove(claim, late, resources.identity, resources.analytics, resources.keys)

    run(first())
    monkeypatch.undo()
    client = connect(lock.settings, Store.ANALYTICS, Role.MIGRATIONS)
    client.do("forgetting a list", f"ALTER TABLE analytics.rekeys DELETE WHERE partition = {number}", mutations_sync=1)
    client.close()
    run(second())
    ring.close()


def commit(lock: Lock, topic: str, number: int, offset: int) -> None:
    """As the workers' group does."""
    consumer = KafkaConsumer(
        bootstrap_servers=lock.stack.broker_address, group_id=lock.settings.group, enable_auto_commit=False
    )
    tp = GroupPartition(topic, number)
    consumer.assign([tp])
    consumer.commit({tp: OffsetAndMetadata(offset, "", -1)})
    consumer.close()


WINDOW = ("cells_hourly", "cells_unique", "engagement", "seen", "outcomes")


@pytest.fixture
def short_memory(lock: Lock) -> Iterator[None]:
    """The store remembers the last five tokens of a table, in place of 100,000."""
    client = connect(lock.settings, Store.ANALYTICS, Role.MIGRATIONS)

    def remember(tokens: int) -> None:
        for table in WINDOW:
            sql = f"ALTER TABLE analytics.{table} MODIFY SETTING non_replicated_deduplication_window = {tokens}"
            client.do("setting a window", sql)

    remember(5)
    yield
    remember(100_000)
    client.close()


@pytest.mark.usefixtures("short_memory")
def test_the_claim_of_an_idle_partition_is_not_done_again_once_it_is_committed(lock: Lock, number: int) -> None:
    """Others go on for so long that the stores have forgotten its token: done again, it would be counted twice."""
    idle, busy = number, next(numbers)
    who, counted = next(recipients(idle)), Counted(lock, idle)

    async def story() -> None:
        async with owner(lock, idle) as one:
            await one.load()
            one.start()
            one.feed(EVENTS, *acts(idle, who, 0))
            await one.carry_out(0)
        async with owner(lock, busy, batch_rows=1) as one:
            await one.load()
            one.start()
            one.feed(EVENTS, *acts(busy, next(recipients(busy)), *range(8)))
            await one.carry_out(7)
        await asyncio.to_thread(commit, lock, EVENTS, idle, 1)
        async with owner(lock, idle) as one:
            assert await one.load() == (1, 0)
            one.feed(EVENTS, *acts(idle, who, 0, 1))  # from the committed offset, or before
            one.start()
            await one.carry_out(1)
        assert counted.outcomes() == {"received": 2, "counted": 2}
        assert counted.events() == 2

    run(story())


def test_a_claim_that_was_not_committed_is_done_again_only_while_its_tokens_are_remembered(
    lock: Lock, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    idle, busy = number, next(numbers)
    who, counted = next(recipients(idle)), Counted(lock, idle)

    async def story() -> None:
        async with owner(lock, idle) as one:
            await one.load()
            one.start()
            one.feed(EVENTS, *acts(idle, who, 0, 1))
            await one.carry_out(0)
        async with owner(lock, idle) as one:
            assert await one.load() == (0, 0)
            one.feed(EVENTS, *acts(idle, who, 0, 1))
            one.start()
            await one.carry_out(0)
        assert counted.outcomes() == {"received": 2, "counted": 2}, "done again is done once"

        # What was committed in an earlier life of the topic says nothing about this claim.
        await asyncio.to_thread(commit, lock, EVENTS, idle, 5000)
        async with owner(lock, idle) as one:
            assert await one.load() == (0, 0)

        async with owner(lock, busy, batch_rows=1) as one:
            await one.load()
            one.start()
            one.feed(EVENTS, *acts(busy, next(recipients(busy)), *range(4)))
            await one.carry_out(3)
        monkeypatch.setattr(module, "MOST_SINCE", 3)
        async with owner(lock, idle) as one:
            with pytest.raises(ChainStopped, match="claim 0 was not committed and 4 were made since"):
                await one.load()
        await asyncio.to_thread(commit, lock, EVENTS, idle, 2)
        async with owner(lock, idle) as one:
            assert await one.load() == (2, 0), "once it is known to be done, nothing stops"

    run(story())


def test_a_claim_that_is_done_again_waits_for_its_declarations(lock: Lock, number: int) -> None:
    """Who redoes a claim may have read less of tracking.mailings than who made it: other links, other steps."""
    who, counted = next(recipients(number)), Counted(lock, number)
    click = acts(number, who, 0, kind="click", url="https://x.example/hero")
    tp = TopicPartition(MAILINGS, 0)

    async def story() -> None:
        async with owner(lock, number) as behind:
            behind.resources.tail._reader.pause(tp)  # type: ignore[union-attr]
            declared = mailing("acme", f"m{number}", {"hero": "https://x.example/hero"}, NOW - 3_600_000)
            await asyncio.to_thread(lock.send, [declared])
            async with owner(lock, number) as first:
                await first.load()
                first.stall()
                first.feed(EVENTS, *click)
                first.start()
                await until(lambda: first.resources._compute._work_queue.qsize() > 0)
                first.partition._task.cancel()  # type: ignore[union-attr]  # killed with the claim in its hand
                first.resources._compute.shutdown(wait=False, cancel_futures=True)
            assert await behind.load() == (0, 0)
            behind.feed(EVENTS, *click)
            behind.start()
            await asyncio.sleep(0.5)
            assert counted.events() == 0, "it waits"
            behind.resources.tail._reader.resume(tp)  # type: ignore[union-attr]
            await behind.carry_out(0)

    run(story())
    assert lock.totals()["acme", f"m{number}", "click", "hero", "human"] == (1, 1)


# --- where a log begins ---


def test_changes_are_kept_as_long_as_the_newest_claim_may_need_them(lock: Lock, number: int) -> None:
    """Trimmed up to the end of a claim that is done and not yet committed, its next owner would find a lost log."""
    erika = next(recipients(number))

    async def story() -> None:
        async with owner(lock, number) as one:
            await one.load()
            one.start()
            assert one.partition.changes_kept_from == 0
            one.feed(CHANGES, change(0, erika, GRANT, LONG_AGO), change(1, erika, WITHDRAWAL, NOW))
            await one.carry_out(0)
            assert one.partition.changes_kept_from == 0
            one.feed(CHANGES, change(2, erika, GRANT, NOW + 1))
            await one.carry_out(1)
            assert one.partition.changes_kept_from == 2
            one.feed(EVENTS, *acts(number, erika, 0))
            await one.carry_out(2)
            assert one.partition.changes_kept_from == 3
        async with owner(lock, number) as one:
            assert await one.load() == (0, 3)
            assert one.partition.changes_kept_from == 3

    run(story())


def test_a_new_chain_begins_where_the_logs_do_and_is_found_there_after_a_kill(lock: Lock, number: int) -> None:
    """Retention has passed before the first start, or an old topic of changes is left, trimmed: nothing is lost.

    Where a log begins is given to the partition by hand: Tansu cannot trim.
    """
    erika, counted = next(recipients(number)), Counted(lock, number)

    def beginning(one: Owner, events: tuple[int, int], changes: tuple[int, int]) -> None:
        async def bounds(topic: str, _: int) -> tuple[int, int]:
            return events if topic == EVENTS else changes

        one.resources.tail.bounds = bounds  # type: ignore[assignment, method-assign]

    async def story() -> None:
        async with owner(lock, number) as one:
            beginning(one, (5000, 5002), (300, 301))
            assert await one.load() == (5000, 300)
            one.start()
            one.feed(EVENTS, *acts(number, erika, 5000, 5001))
            await one.carry_out(0)
        async with owner(lock, number) as one:  # not committed: carried out again
            beginning(one, (5000, 5002), (300, 301))
            assert await one.load() == (5000, 300)
            one.feed(EVENTS, *acts(number, erika, 5000, 5001))
            one.feed(CHANGES, change(300, erika, GRANT, LONG_AGO))
            one.start()
            await one.carry_out(1)
        async with owner(lock, number) as one:
            beginning(one, (5000, 5002), (300, 301))
            assert await one.load() == (5002, 300)
        for events, changes in (((5003, 5010), (300, 301)), ((5000, 5002), (301, 301))):
            async with owner(lock, number) as one:
                beginning(one, events, changes)
                with pytest.raises(LostLog):
                    await one.load()

    run(story())
    assert counted.outcomes() == {"received": 2, "counted": 2}


# --- one topic made anew ---


@pytest.fixture
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lock]:
    with Stack(tmp_path_factory.mktemp("anew"), "tansu", die_with_parent=True) as stack, Lock(stack) as running:
        yield running


def lose(lock: Lock, topic: str) -> None:
    """Somebody deletes one topic while no worker runs; `schleuse topics` makes it anew."""
    with admin(lock.stack.broker_address, "losing a topic") as client:
        client.delete_topics([topic])
    lock.until(lambda: lock.run("topics", check=False).returncode == 0, what="the topic to be made anew")


def begun(lock: Lock) -> WorkerProcess:
    """A worker that has taken its partitions."""
    worker = lock.worker()
    lock.until(lambda: "partitions taken" in worker.text(), what="the worker")
    return worker


def test_a_topic_that_alone_was_made_anew_counts_nothing_twice(alone: Lock) -> None:
    """The events are the same topic: they go on where they were, although the chain is a new one.

    Twice a worker is killed with a claim in its hand, which belongs to the life before.
    """
    lock, decided = alone, now_ms() - 60_000
    everybody = (OFF, PERSONAL, UNKNOWN)
    terms = ("received", "counted", "off", "duplicates", "rejected")

    def sums(said: dict[str, Any]) -> tuple[int, ...]:
        assert said["adds_up"]
        return tuple(said[term] for term in terms)

    worker = begun(lock)
    off, grant = preference("acme", OFF, "*", decided, mode="off"), {"engagement": {"open": "personal"}}
    carried_out(lock, worker, [off, preference("acme", PERSONAL, grant, decided)])
    lock.send([one for who in everybody for one in opens(who, *range(10))])
    assert sums(lock.settle()) == (30, 20, 10, 0, 0)
    assert kept(lock) == (10, 1)
    lock.send([one for who in everybody for one in opens(who, *range(100, 300))])
    time.sleep(0.5)
    worker.kill()

    # The state is lost: nobody is known above what the ledger says, and nothing is read again.
    lose(lock, STATE)
    worker = begun(lock)
    assert sums(lock.settle()) == (630, 420, 210, 0, 0)
    assert status(worker)["incarnation"] == 2
    assert kept(lock) == (0, 0)
    assert "incarnation begins" in worker.text()
    assert "the state was lost: rows whose consent went with it are removed" in worker.text()
    lock.send([*opens(OFF, 0, 400), *opens(PERSONAL, 0, 299, 400), *opens(UNKNOWN, 400)])
    assert sums(lock.settle()) == (636, 422, 211, 3, 0)
    assert lock.totals()[CELL] == (422, 2)
    assert kept(lock) == (0, 0)
    carried_out(lock, worker, [preference("acme", PERSONAL, grant, now_ms() - 2000)])
    lock.send(opens(PERSONAL, 401))
    lock.settle()
    assert kept(lock) == (1, 1)
    lock.send([one for who in everybody for one in opens(who, *range(500, 600))])
    time.sleep(0.5)
    worker.kill()

    # The changes are lost: what they led to is in the state, and the new ones are newer although they begin at 0.
    lose(lock, CHANGES)
    worker = begun(lock)
    assert sums(lock.settle()) == (937, 623, 311, 3, 0)
    assert status(worker)["incarnation"] == 3
    assert "the state was lost" not in worker.text()
    assert kept(lock) == (101, 1), "who had agreed has her rows still, and got those that were on their way"
    carried_out(lock, worker, [preference("acme", PERSONAL, "*", mode="anonymous")])
    lock.until(lambda: kept(lock) == (0, 0), what="the withdrawal")
    lock.send([*opens(OFF, 700), *opens(PERSONAL, 700), *opens(UNKNOWN, 700, 599)])
    assert sums(lock.settle()) == (941, 625, 312, 4, 0)
    assert kept(lock) == (0, 0)
    assert lock.totals()[CELL] == (625, 2)
    assert worker.kill(15) == 0
