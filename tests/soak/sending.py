"""A story sent evenly over some time, through brokers that come and go."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, takewhile
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from streams.partitioner import partition_of
from streams.topics import EVENTS, MAILINGS
from tests.lock import Message

TICK_SECONDS = 0.2
AT_ONCE = 10_000  # messages at most, when it has to catch up


@dataclass
class Sent:
    """What was acknowledged so far, and how many messages had to be sent again."""

    messages: int = 0
    events: int = 0
    again: int = 0


async def send(
    broker: str, partitions: int, messages: Iterator[Message], every: float, sent: Sent, stop: threading.Event
) -> None:
    """Send a message every so many seconds, or as fast as it goes; `sent` is kept.

    Acknowledged by all in-sync replicas; what is not acknowledged is sent again, so a record may lie in the log twice,
    and later than its neighbours: whoever compares reads the log.
    """
    producer = AIOKafkaProducer(bootstrap_servers=broker, acks="all", max_batch_size=1 << 17)
    await producer.start()
    began = time.monotonic()
    try:
        while not stop.is_set():
            due = min(AT_ONCE, int((time.monotonic() - began) / every) - sent.messages)
            part = list(islice(messages, max(1, due)))
            if not part:
                break
            new = len(part), sum(topic == EVENTS for topic, *_ in part)
            while (part := await _unacknowledged(producer, part, partitions)) and not stop.is_set():
                sent.again += len(part)
            sent.messages, sent.events = sent.messages + new[0], sent.events + new[1]
            await asyncio.sleep(TICK_SECONDS * random.random())
    finally:
        await producer.stop()


async def _unacknowledged(producer: AIOKafkaProducer, messages: list[Message], partitions: int) -> list[Message]:
    """Send all of it, a batch a partition at a time; what did not arrive, as far as is known."""
    lying: dict[tuple[str, int], list[Message]] = defaultdict(list)
    for message in messages:
        topic, key, _ = message
        lying[topic, 0 if topic == MAILINGS else partition_of(key, partitions)].append(message)
    waiting: list[tuple[list[Message], asyncio.Future[Any]]] = []
    failed: list[Message] = []
    for (topic, partition), run in lying.items():
        while run:
            batch = producer.create_batch()
            taken = list(takewhile(lambda one: batch.append(key=one[1], value=one[2], timestamp=None), run))  # noqa: B023
            batch.close()
            del run[: len(taken)]
            try:
                waiting.append((taken, await producer.send_batch(batch, topic, partition=partition)))
            except KafkaError:
                failed += taken
    for taken, future in waiting:
        try:
            await future
        except KafkaError:
            failed += taken
    return failed
