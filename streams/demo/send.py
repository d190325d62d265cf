"""Sending the story to Kafka, as fast as one process can: whole record batches, built by partition.

A sender's engineer reads streams/feed/ instead; this is for a demo that must not wait for its own producer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from aiokafka import AIOKafkaProducer

from streams.partitioner import partition_of

AT_ONCE = 64  # batches on their way before waiting for the oldest


async def send(
    broker: str,
    partitions: int,
    messages: Iterable[tuple[str, bytes, bytes]],
    sent: Callable[[int], None] = lambda _: None,
) -> int:
    """Send (topic, key, value) in the order given, by topic-partition. Returns how many, all acknowledged.

    tracking.mailings has one partition; every other topic `partitions`, by Kafka's default partitioner.
    """
    producer = AIOKafkaProducer(bootstrap_servers=broker, acks="all", max_batch_size=1 << 17)
    await producer.start()
    of_key: dict[bytes, int] = {}
    builders: dict[tuple[str, int], tuple[Any, int]] = {}
    waiting: list[tuple[asyncio.Future[object], int]] = []
    total = 0

    async def flush(topic: str, partition: int) -> None:
        builder, count = builders.pop((topic, partition))
        builder.close()
        waiting.append((await producer.send_batch(builder, topic, partition=partition), count))
        if len(waiting) > AT_ONCE:
            await settle(len(waiting) // 2)

    async def settle(count: int) -> None:
        for future, records in waiting[:count]:
            await future
            sent(records)
        del waiting[:count]

    try:
        for topic, key, value in messages:
            partition = of_key.get(key)
            if partition is None:
                partition = of_key[key] = 0 if topic == "tracking.mailings" else partition_of(key, partitions)
            while True:
                builder, count = builders.get((topic, partition)) or (producer.create_batch(), 0)
                builders[topic, partition] = (builder, count)
                if builder.append(key=key, value=value, timestamp=None) is not None:
                    builders[topic, partition] = (builder, count + 1)
                    break
                await flush(topic, partition)
            total += 1
        for topic, partition in list(builders):
            await flush(topic, partition)
        await settle(len(waiting))
    finally:
        await producer.stop()
    return total
