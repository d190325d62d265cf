"""A story sent evenly over some time, through brokers that come and go."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Iterator
from itertools import islice
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from streams.partitioner import partition_of
from streams.topics import EVENTS, MAILINGS
from tests.lock import Message

TICK_SECONDS = 0.2
AT_ONCE = 10_000  # messages at most, when it has to catch up


async def send(
    broker: str, partitions: int, messages: Iterator[Message], every: float, stop: threading.Event
) -> tuple[int, int]:
    """Send a message every so many seconds; how many events were sent, and how many messages again.

    Acknowledged by all in-sync replicas; what is not acknowledged is sent again, so a record may lie in the log twice,
    and later than its neighbours: whoever compares reads the log.
    """
    producer = AIOKafkaProducer(bootstrap_servers=broker, acks="all", linger_ms=20, max_batch_size=1 << 17)
    await producer.start()
    began, sent, events, again = time.monotonic(), 0, 0, 0
    try:
        while not stop.is_set():
            due = min(AT_ONCE, int((time.monotonic() - began) / every) - sent)
            part = list(islice(messages, max(1, due)))
            if not part:
                break
            sent += len(part)
            events += sum(topic == EVENTS for topic, *_ in part)
            while (part := await _unacknowledged(producer, part, partitions)) and not stop.is_set():
                again += len(part)
            await asyncio.sleep(TICK_SECONDS * random.random())
    finally:
        await producer.stop()
    return events, again


async def _unacknowledged(producer: AIOKafkaProducer, messages: list[Message], partitions: int) -> list[Message]:
    """Send all of it; what did not arrive, as far as is known."""
    waiting: list[tuple[Message, asyncio.Future[Any]]] = []
    failed: list[Message] = []
    for message in messages:
        topic, key, value = message
        partition = 0 if topic == MAILINGS else partition_of(key, partitions)
        try:
            waiting.append((message, await producer.send(topic, value, key=key, partition=partition)))
        except KafkaError:
            failed.append(message)
    for message, future in waiting:
        try:
            await future
        except KafkaError:
            failed.append(message)
    return failed
