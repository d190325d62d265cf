"""Following topics, with a real broker: whatever is followed meanwhile, each partition is applied once, in order."""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.consumer import fetcher
from kafka import TopicPartition
from kafka.admin import KafkaAdminClient, NewTopic

from deploy.embedded.stack import Broker, Stack
from streams import tail as module
from streams.errors import BrokerError, ChainStopped, LostLog
from streams.patience import Waits, patiently
from streams.tail import Tail
from streams.transport import Record, fetch_batches

pytestmark = pytest.mark.stack
KAFKA = pytest.param("kafka", marks=pytest.mark.kafka)
Deleting = Callable[[str, int], None]


@pytest.fixture(autouse=True, scope="module")
def batches() -> Iterator[None]:
    """As the worker's process has it; other tests of this process read records."""
    before = fetcher.PartitionRecords._unpack_records
    fetch_batches()
    yield
    fetcher.PartitionRecords._unpack_records = before


@pytest.fixture(scope="module")
def broker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    kind: Broker = getattr(request, "param", "tansu")
    stack = Stack(tmp_path_factory.mktemp(f"tail-{kind}"), kind, die_with_parent=True)
    stack.start(only=["broker"])
    yield stack
    stack.stop()


def make(broker: Stack, partitions: int = 1, name: str | None = None) -> str:
    name = name or f"t.{uuid.uuid4().hex[:8]}"
    client = KafkaAdminClient(bootstrap_servers=broker.broker_address)
    try:
        client.create_topics([NewTopic(name, num_partitions=partitions, replication_factor=1)])
    finally:
        client.close()
    return name


async def send(broker: Stack, topic: str, counts: dict[int, int], begins: int = 0) -> None:
    """So many records in each partition; what is in a record is its offset, if the log begins at `begins`."""
    async with AIOKafkaProducer(bootstrap_servers=broker.broker_address, acks="all", linger_ms=5) as producer:
        for partition, count in counts.items():
            for n in range(begins, begins + count):
                await producer.send(topic, b"%d" % n, key=b"k", partition=partition)
        await producer.flush()


@asynccontextmanager
async def following(broker: Stack) -> Any:
    tail = Tail(broker.broker_address, "test")
    await tail.start()
    try:
        yield tail
    finally:
        await tail.stop()


class Applied:
    """What was applied, checked at once: each partition from its beginning, in order, without a hole."""

    def __init__(self) -> None:
        self.due: dict[int, int] = {}
        self.wrong: list[str] = []
        self.runs = 0

    def follow(self, tail: Tail, topic: str, partitions: set[int]) -> None:
        self.due = {partition: self.due.get(partition, 0) for partition in partitions}
        tail.follow(topic, partitions, self.apply)

    def apply(self, partition: int, records: list[Record]) -> None:
        self.runs += 1
        for record in records:
            if partition not in self.due or record.offset != self.due[partition] or record.value is None:
                self.wrong.append(f"{partition}: {record.offset}, not {self.due.get(partition)}")
                return
            self.due[partition] = record.offset + 1


async def until(there: Callable[[], bool], seconds: float = 15, pause: float = 0) -> None:
    end = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < end
        await asyncio.sleep(pause)


def test_what_was_acknowledged_before_is_applied_afterwards(broker: Stack) -> None:
    async def story() -> None:
        topic = make(broker, 2)
        async with following(broker) as tail:
            applied = Applied()
            applied.follow(tail, topic, {0, 1})
            for begins in range(0, 60, 20):
                await send(broker, topic, {0: 20, 1: 1}, begins)
                await tail.caught_up(topic, [0])
                assert applied.due[0] > begins  # the end that Tansu tells is that of the last batch but its tail
            await until(lambda: applied.due == {0: 60, 1: 3})
            assert tail.position(topic, 0) == 60
            assert applied.wrong == []

    asyncio.run(story())


def test_a_rebalance_while_much_is_being_applied(broker: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """A partition that stays goes on where it was; one that goes and comes back begins anew, with nothing stale."""
    monkeypatch.setattr(module, "SLICE", 50)
    chance = random.Random(5)

    async def story() -> None:
        topic = make(broker, 3)
        await send(broker, topic, dict.fromkeys(range(3), 4000))
        async with following(broker) as tail:
            applied = Applied()
            applied.follow(tail, topic, {0, 1, 2})
            for partitions in ({0}, {0, 1, 2}, {1}, {0, 1}, {2}, {0, 2}, {0, 1, 2}, {0, 1}, {0, 1, 2}):
                runs = applied.runs + chance.randrange(1, 40)
                await until(lambda runs=runs: applied.runs >= runs or not tail._task or tail._task.done())  # type: ignore[misc]
                applied.follow(tail, topic, partitions)
            await until(lambda: sum(applied.due.values()) == 12_000 or bool(applied.wrong) or tail._failed is not None)
            await tail.caught_up(topic, [0, 1, 2])
            assert applied.wrong == []
            assert applied.due == dict.fromkeys(range(3), 4000)

    asyncio.run(story())


def test_what_arrives_while_it_is_said_what_to_follow_is_not_skipped(broker: Stack) -> None:
    """A fetch that was under way brings records that are dropped; the reader must go back for them."""

    async def story() -> None:
        topic = make(broker, 2)
        async with following(broker) as tail, AIOKafkaProducer(bootstrap_servers=broker.broker_address) as producer:
            applied = Applied()
            for n in range(1, 16):
                applied.follow(tail, topic, {0, 1})
                await asyncio.gather(*[producer.send_and_wait(topic, b"x", partition=p) for p in (0, 1)])
                applied.follow(tail, topic, {0, 1})  # while the fetch that brings them is under way
                await until(lambda n=n: applied.due == {0: n, 1: n} or bool(applied.wrong), 3)  # type: ignore[misc]
                assert applied.wrong == []

    asyncio.run(story())


def test_a_partition_that_came_back_is_not_caught_up_before_it_is_read_again(
    broker: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its people would be unknown, and unknown means anonymous: also for those who are off."""
    monkeypatch.setattr(module, "SLICE", 50)

    async def story() -> None:
        topic = make(broker, 2)
        await send(broker, topic, {0: 3000, 1: 3000})
        async with following(broker) as tail:
            applied = Applied()
            applied.follow(tail, topic, {0, 1})
            await until(lambda: applied.due[0] > 0 or applied.due[1] > 0)
            for partitions in ({1}, {0, 1}, {0}, {0, 1}):  # at once, while one fetch is being applied
                applied.follow(tail, topic, partitions)
            await tail.caught_up(topic, [0, 1])
            least = min(applied.due.values())  # the last batch may be missing on Tansu, no more than that
            assert least > 1000, applied.due
            assert applied.wrong == []

    asyncio.run(story())


def test_a_partition_that_goes_while_its_position_is_asked_for(broker: Stack) -> None:
    async def story() -> None:
        topic = make(broker, 2)
        await send(broker, topic, {0: 10, 1: 10})
        async with following(broker) as tail:
            asked, go_on = asyncio.Event(), asyncio.Event()
            position = tail._reader.position

            async def slowly(tp: Any) -> int:
                asked.set()
                await go_on.wait()
                found: int = await position(tp)
                return found

            tail._reader.position = slowly
            applied = Applied()
            applied.follow(tail, topic, {0, 1})
            await asyncio.wait_for(asked.wait(), 10)
            applied.follow(tail, topic, {1})
            go_on.set()
            await until(lambda: applied.due == {1: 10} or tail._failed is not None)
            await asyncio.sleep(0.3)
            await tail.caught_up(topic, [1])
            assert applied.wrong == []

    asyncio.run(story())


def test_stopping_while_a_position_is_answered_ends(broker: Stack) -> None:
    """asyncio.wait_for swallows a cancellation that comes in the same turn of the loop as what it waits for."""

    async def story() -> None:
        topic = make(broker)
        async with following(broker) as tail:
            stops: list[asyncio.Task[None]] = []
            position = tail._reader.position

            async def ending(tp: Any) -> int:
                if not stops:
                    stops.append(asyncio.create_task(tail.stop()))
                found: int = await position(tp)
                return found

            tail._reader.position = ending
            tail.follow(topic, [0], lambda *_: None)
            await until(lambda: bool(stops))
            done, _ = await asyncio.wait(stops, timeout=3)
            if not done:
                tail._task.cancel()
            assert done, "stopping has to end"

    asyncio.run(story())


def patient(call: Callable[[], Awaitable[None]]) -> Awaitable[None]:
    """As every caller waits; for a BrokerError that would be for ever."""
    return asyncio.wait_for(patiently(call, Waits()), 5)


def test_what_ends_the_reading_ends_whoever_waits_for_it(broker: Stack) -> None:
    async def story() -> None:
        topic = make(broker)
        await send(broker, topic, {0: 3})
        async with following(broker) as tail:

            def apply(_: int, records: list[Record]) -> None:
                raise ValueError(f"erika@example.com at {records[0].offset}")

            tail.follow(topic, [0], apply)
            with pytest.raises(ChainStopped) as ended:
                await patient(lambda: tail.caught_up(topic, [0]))
            assert "erika" not in str(ended.value)
            assert ended.value.__cause__ is None
            with pytest.raises(ChainStopped):
                await patient(lambda: tail.caught_up(topic, [0]))

    asyncio.run(story())


def test_an_end_out_of_reach_is_said(broker: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller waits on, but its wait has a sentence for `status`."""
    monkeypatch.setattr(module, "REACH_SECONDS", 0.3)

    async def story() -> None:
        topic = make(broker)
        await send(broker, topic, {0: 3})
        async with following(broker) as tail:
            tail.follow(topic, [0], lambda *_: None)
            tail._reader.pause(*tail._reader.assignment())
            with pytest.raises(BrokerError, match=topic):
                await tail.caught_up(topic, [0])
            tail._reader.resume(*tail._reader.assignment())
            await asyncio.wait_for(patiently(lambda: tail.caught_up(topic, [0]), Waits()), 5)

    asyncio.run(story())


# --- what only Kafka can do ---


def delete_records(broker: Stack, topic: str, below: int) -> None:
    client = KafkaAdminClient(bootstrap_servers=broker.broker_address)
    try:
        client.delete_records({TopicPartition(topic, 0): below})
    finally:
        client.close()


@pytest.mark.parametrize("broker", [KAFKA], indirect=True)
@pytest.mark.parametrize(("kept", "applied_before"), [(5, 0), (0, 0), (0, 20), (5, 15)])
def test_a_beginning_that_has_moved_does_not_hold_anybody_up(broker: Stack, kept: int, applied_before: int) -> None:
    """Retention, or whoever trims: what is gone cannot be waited for."""

    async def story() -> None:
        topic = make(broker)
        async with following(broker) as tail:
            seen: list[int] = []
            if applied_before:
                await send(broker, topic, {0: applied_before})
                tail.follow(topic, [0], lambda _, records: seen.extend(record.offset for record in records))
                await tail.caught_up(topic, [0])
                tail._reader.pause(*tail._reader.assignment())
            await send(broker, topic, {0: 20 - applied_before}, applied_before)
            delete_records(broker, topic, 20 - kept)
            if applied_before:
                tail._reader.resume(*tail._reader.assignment())
            else:
                tail.follow(topic, [0], lambda _, records: seen.extend(record.offset for record in records))
            await asyncio.wait_for(tail.caught_up(topic, [0]), 10)
            assert tail.position(topic, 0) == 20
            assert seen == [*range(applied_before), *range(max(applied_before, 20 - kept), 20)]

    asyncio.run(story())


@pytest.mark.parametrize("broker", [KAFKA], indirect=True)
def test_transactions_are_passed_and_what_was_aborted_is_not_applied(broker: Stack) -> None:
    async def story() -> None:
        topic = make(broker)
        options = {"bootstrap_servers": broker.broker_address, "transactional_id": topic}
        async with following(broker) as tail, AIOKafkaProducer(**options) as producer:
            seen: list[bytes | None] = []
            tail.follow(topic, [0], lambda _, records: seen.extend(record.value for record in records))
            for value, is_kept in ((b"one", True), (b"two", False), (b"three", True), (b"four", False)):
                await producer.begin_transaction()
                await producer.send_and_wait(topic, value, partition=0)
                await (producer.commit_transaction() if is_kept else producer.abort_transaction())
                await asyncio.wait_for(tail.caught_up(topic, [0]), 10)  # the last offset is a marker's
            await until(lambda: tail.position(topic, 0) == 8)  # markers are written a little after the answer
            assert seen == [b"one", b"three"]

    asyncio.run(story())


@pytest.mark.parametrize("broker", [KAFKA], indirect=True)
def test_a_log_that_went_back_is_lost(broker: Stack) -> None:
    """The topic was made anew under the same name: what comes then is not what follows."""

    async def story() -> None:
        topic = make(broker)
        await send(broker, topic, {0: 50})
        async with following(broker) as tail:
            tail.follow(topic, [0], lambda *_: None)
            await tail.caught_up(topic, [0])
            client = KafkaAdminClient(bootstrap_servers=broker.broker_address)
            client.delete_topics([topic])
            await until(lambda: topic not in client.list_topics(), pause=0.1)
            client.close()
            make(broker, name=topic)
            await send(broker, topic, {0: 3})
            await until(lambda: tail._failed is not None, pause=0.1)
            with pytest.raises(LostLog):
                await patient(lambda: tail.caught_up(topic, [0]))

    asyncio.run(story())
