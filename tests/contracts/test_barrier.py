"""What a group has carried out, where the last records came in a transaction: nobody reads the offset of its marker."""

from __future__ import annotations

import asyncio

import pytest
from aiokafka import AIOKafkaProducer
from kafka import KafkaConsumer, TopicPartition
from kafka.structs import OffsetAndMetadata

from deploy.embedded.stack import Stack
from streams.broker import admin, is_committed, log_ends

pytestmark = [pytest.mark.stack, pytest.mark.kafka]
TOPIC, GROUP = "barrier", "barrier-group"


def _commit(address: str, offset: int, topic: str = TOPIC) -> None:
    consumer = KafkaConsumer(bootstrap_servers=address, group_id=GROUP, enable_auto_commit=False)
    try:
        consumer.assign([TopicPartition(topic, 0)])
        consumer.commit({TopicPartition(topic, 0): OffsetAndMetadata(offset, "", -1)})
    finally:
        consumer.close()


def test_a_marker_at_the_end_of_the_log_is_not_waited_for(kafka_stack: Stack) -> None:
    address = kafka_stack.broker_address

    async def send() -> None:
        producer = AIOKafkaProducer(bootstrap_servers=address, transactional_id="sender")
        await producer.start()
        async with producer.transaction():
            for _ in range(3):
                await producer.send_and_wait(TOPIC, b"a preference", partition=0)
        await producer.stop()

    with admin(address, "a test") as client:
        client.create_topics({TOPIC: {"num_partitions": 1, "replication_factor": 1}})
        asyncio.run(send())
        ends = log_ends(address, TOPIC)
        assert ends == {0: 4}  # three records and the marker
        for committed, carried_out in ((0, False), (2, False), (3, True), (4, True)):
            _commit(address, committed)
            assert is_committed(address, client, GROUP, TOPIC, ends) is carried_out, committed


@pytest.mark.parametrize("many", [1, 150])
def test_what_was_aborted_is_not_waited_for(kafka_stack: Stack, many: int) -> None:
    address, topic = kafka_stack.broker_address, f"aborted{many}"

    async def send() -> None:
        producer = AIOKafkaProducer(bootstrap_servers=address, transactional_id=f"aborts-{many}")
        await producer.start()
        async with producer.transaction():
            await producer.send_and_wait(topic, b"kept", partition=0)
        await producer.begin_transaction()
        for _ in range(many):
            await producer.send(topic, b"aborted", partition=0)
        await producer.flush()
        await producer.abort_transaction()
        await producer.stop()

    with admin(address, "a test") as client:
        client.create_topics({topic: {"num_partitions": 1, "replication_factor": 1}})
        asyncio.run(send())
        ends = log_ends(address, topic)
        for committed, carried_out in ((0, False), (1, True)):
            _commit(address, committed, topic)
            assert is_committed(address, client, GROUP, topic, ends) is carried_out, committed
