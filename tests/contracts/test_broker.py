"""What Schleuse needs of a broker: one suite for Tansu and for Apache Kafka (`-m kafka`).

What only Kafka does is a strict expected failure on Tansu: should Tansu learn it, the suite says so.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import OffsetOutOfRangeError
from kafka import TopicPartition as AdminPartition
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient, NewTopic
from kafka.errors import TopicAlreadyExistsError

from deploy.embedded.stack import Stack

pytestmark = pytest.mark.stack
KAFKA = pytest.param("kafka", marks=pytest.mark.kafka)
both = pytest.mark.parametrize("broker", ["tansu", KAFKA], indirect=True)


def kafka_only(why: str) -> pytest.MarkDecorator:
    tansu = pytest.param("tansu", marks=pytest.mark.xfail(strict=True, reason=why))
    return pytest.mark.parametrize("broker", [tansu, KAFKA], indirect=True)


@pytest.fixture(scope="module")
def broker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp(request.param), request.param, die_with_parent=True)
    stack.start(only=["broker"])
    yield stack
    stack.stop()


@pytest.fixture
def admin(broker: Stack) -> Iterator[KafkaAdminClient]:
    client = KafkaAdminClient(bootstrap_servers=broker.broker_address)
    yield client
    client.close()


def create(admin: KafkaAdminClient, partitions: int = 1, **configs: str) -> str:
    name = f"t.{uuid.uuid4().hex[:8]}"
    configs = {key.replace("_", "."): value for key, value in configs.items()}
    admin.create_topics([NewTopic(name, num_partitions=partitions, replication_factor=1, topic_configs=configs)])
    return name


def topic_id(admin: KafkaAdminClient, name: str) -> uuid.UUID:
    """The topic's id. Right after a creation Kafka may not know it yet (error 3, no id): ask again."""
    deadline = time.monotonic() + 10
    while (found := admin.describe_topics([name])[0])["error_code"] and time.monotonic() < deadline:
        time.sleep(0.05)
    return uuid.UUID(str(found["topic_id"]))


async def send(address: str, topic: str, values: list[bytes], partition: int = 0, **options: Any) -> list[Any]:
    """Send all values as they fill batches, and wait for every acknowledgement."""
    async with AIOKafkaProducer(bootstrap_servers=address, acks="all", linger_ms=20, **options) as producer:
        sent = [await producer.send(topic, value, key=b"k-" + value, partition=partition) for value in values]
        return await asyncio.gather(*sent)


async def read(address: str, topic: str, start: int, count: int, partition: int = 0) -> tuple[list[Any], int | None]:
    """Records from `start` on, until there are `count` of them, and the high-water mark then."""
    where = TopicPartition(topic, partition)
    async with AIOKafkaConsumer(bootstrap_servers=address, enable_auto_commit=False) as consumer:
        consumer.assign([where])
        consumer.seek(where, start)
        records: list[Any] = []
        deadline = time.monotonic() + 15
        while len(records) < count and time.monotonic() < deadline:
            for run in (await consumer.getmany(timeout_ms=500)).values():
                records += run
        return records, consumer.highwater(where)


@both
def test_records_come_back_in_order_with_keys_and_from_any_offset(broker: Stack, admin: KafkaAdminClient) -> None:
    topic = create(admin, partitions=3)
    values = [b"%d" % i for i in range(500)]
    asyncio.run(send(broker.broker_address, topic, values, partition=2))
    records, end = asyncio.run(read(broker.broker_address, topic, 0, 500, partition=2))
    assert [(r.offset, r.key, r.value) for r in records] == [(i, b"k-" + v, v) for i, v in enumerate(values)]
    assert end == 500  # the high-water mark is the log's end on both
    later, _ = asyncio.run(read(broker.broker_address, topic, 417, 83, partition=2))
    assert [r.offset for r in later] == list(range(417, 500))


@both
def test_a_topic_is_created_once_and_says_how_many_partitions_it_has(broker: Stack, admin: KafkaAdminClient) -> None:
    topic = create(admin, partitions=8, cleanup_policy="compact", min_compaction_lag_ms="3600000")
    with pytest.raises(TopicAlreadyExistsError):
        admin.create_topics([NewTopic(topic, num_partitions=8, replication_factor=1)])
    assert len(admin.describe_topics([topic])[0]["partitions"]) == 8
    assert admin.describe_topics(["t.nowhere"])[0]["error_code"] == 3


@both
def test_topic_ids_tell_a_topic_from_its_namesake(broker: Stack, admin: KafkaAdminClient) -> None:
    topic = create(admin)
    first = topic_id(admin, topic)
    assert first.int != 0
    assert topic_id(admin, topic) == first
    admin.delete_topics([topic])
    deadline = time.monotonic() + 10
    while topic in admin.list_topics() and time.monotonic() < deadline:
        time.sleep(0.1)
    admin.create_topics([NewTopic(topic, num_partitions=1, replication_factor=1)])
    assert topic_id(admin, topic) not in (first, uuid.UUID(int=0))


@both
def test_a_group_shares_partitions_and_hands_its_commits_on(broker: Stack, admin: KafkaAdminClient) -> None:
    topic = create(admin, partitions=4)

    async def story() -> tuple[list[set[int]], int | None]:
        await send(broker.broker_address, topic, [b"a", b"b", b"c"], partition=3)
        options = {
            "bootstrap_servers": broker.broker_address,
            "group_id": f"g.{topic}",
            "enable_auto_commit": False,
            "session_timeout_ms": 6000 if broker.broker == "kafka" else 1500,  # a join on Tansu takes half of it
            "heartbeat_interval_ms": 300,
        }
        first, second = AIOKafkaConsumer(topic, **options), AIOKafkaConsumer(topic, **options)
        await asyncio.gather(first.start(), second.start())
        shares: list[set[int]] = []
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            await asyncio.gather(first.getmany(timeout_ms=200), second.getmany(timeout_ms=200))
            shares = [{p.partition for p in one.assignment()} for one in (first, second)]
            if all(shares) and not shares[0] & shares[1] and shares[0] | shares[1] == {0, 1, 2, 3}:
                break
        owner = first if 3 in shares[0] else second
        await owner.commit({TopicPartition(topic, 3): 2})
        await asyncio.gather(first.stop(), second.stop())
        async with AIOKafkaConsumer(topic, **options) as later:
            return shares, await later.committed(TopicPartition(topic, 3))

    shares, committed = asyncio.run(story())
    assert sorted(map(len, shares)) == [2, 2]
    assert shares[0].isdisjoint(shares[1])
    assert committed == 2


@kafka_only("Tansu takes topic configs and forgets them")
def test_topic_configs_are_kept_and_can_be_changed(broker: Stack, admin: KafkaAdminClient) -> None:
    topic = create(admin, cleanup_policy="compact", retention_ms="3600000")
    ask = ConfigResource(ConfigResourceType.TOPIC, topic)

    def value(name: str) -> str:
        return str(admin.describe_configs([ask])["topic"][topic][name]["value"])

    assert (value("cleanup.policy"), value("retention.ms")) == ("compact", "3600000")
    admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs={"retention.ms": "7200000"})])
    assert (value("cleanup.policy"), value("retention.ms")) == ("compact", "7200000")


@kafka_only("Tansu keeps the producer's timestamps")
def test_log_append_time_is_the_brokers(broker: Stack, admin: KafkaAdminClient) -> None:
    topic = create(admin, message_timestamp_type="LogAppendTime")

    async def story() -> Any:
        async with AIOKafkaProducer(bootstrap_servers=broker.broker_address) as producer:
            await producer.send_and_wait(topic, b"x", partition=0, timestamp_ms=1_000_000)
        return (await read(broker.broker_address, topic, 0, 1))[0][0]

    record = asyncio.run(story())
    assert record.timestamp_type == 1
    assert abs(record.timestamp - time.time() * 1000) < 60_000


@kafka_only("Tansu answers the last batch's first offset plus one")
def test_list_offsets_gives_the_logs_end(broker: Stack, admin: KafkaAdminClient) -> None:
    topic = create(admin)

    async def story() -> dict[Any, int]:
        await send(broker.broker_address, topic, [b"%d" % i for i in range(200)])
        async with AIOKafkaConsumer(bootstrap_servers=broker.broker_address) as consumer:
            return dict(await consumer.end_offsets([TopicPartition(topic, 0)]))

    assert asyncio.run(story()) == {TopicPartition(topic, 0): 200}


@kafka_only("Tansu panics on DeleteRecords (the connection breaks, the broker lives)")
def test_delete_records_moves_the_logs_beginning(broker: Stack, admin: KafkaAdminClient) -> None:
    topic = create(admin)
    asyncio.run(send(broker.broker_address, topic, [b"%d" % i for i in range(10)]))
    admin.delete_records({AdminPartition(topic, 0): 4}, timeout_ms=5000)

    async def beginning() -> int:
        async with AIOKafkaConsumer(bootstrap_servers=broker.broker_address) as consumer:
            where = TopicPartition(topic, 0)
            return int((await consumer.beginning_offsets([where]))[where])

    assert asyncio.run(beginning()) == 4


@kafka_only("Tansu answers a fetch beyond the end with nothing, for ever")
def test_a_position_outside_the_log_is_an_error(broker: Stack, admin: KafkaAdminClient) -> None:
    topic = create(admin)

    async def story() -> None:
        await send(broker.broker_address, topic, [b"%d" % i for i in range(10)])
        where = TopicPartition(topic, 0)
        options = {"bootstrap_servers": broker.broker_address, "auto_offset_reset": "none"}
        async with AIOKafkaConsumer(**options) as consumer:
            consumer.assign([where])
            consumer.seek(where, 11)
            for _ in range(4):
                await consumer.getmany(timeout_ms=300)

    with pytest.raises(OffsetOutOfRangeError):
        asyncio.run(story())


@kafka_only("aiokafka's idempotent producer cannot start on Tansu")
def test_an_idempotent_producer_works(broker: Stack, admin: KafkaAdminClient) -> None:
    topic = create(admin)
    sent = asyncio.run(send(broker.broker_address, topic, [b"a", b"b"], enable_idempotence=True))
    assert [one.offset for one in sent] == [0, 1]


@kafka_only("Tansu's log is in memory")
def test_a_killed_broker_comes_back_with_its_log_and_its_topic_ids(broker: Stack, admin: KafkaAdminClient) -> None:
    topic = create(admin)
    before = topic_id(admin, topic)
    asyncio.run(send(broker.broker_address, topic, [b"%d" % i for i in range(50)]))
    broker.kill("broker")
    broker.restart("broker")
    again = KafkaAdminClient(bootstrap_servers=broker.broker_address)
    try:
        assert topic_id(again, topic) == before
    finally:
        again.close()
    records, _ = asyncio.run(read(broker.broker_address, topic, 0, 50))
    assert [r.value for r in records] == [b"%d" % i for i in range(50)]
