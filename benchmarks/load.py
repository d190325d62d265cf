"""What the benchmarks send: people, what they agreed to, mailings and events; and sending at a steady pace."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from aiokafka import AIOKafkaProducer

from streams.partitioner import message_key, partitions_of

HOUR_MS = 3_600_000
AGENTS = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148",
    "Mozilla/5.0",
    "Microsoft Office/16.0 (Windows NT 10.0; Microsoft Outlook 16.0.17928; Pro)",
)
PAGES = 9
TICK = 0.02  # seconds between two batches of a paced load
Message = tuple[str, bytes, bytes]


def address(number: int) -> str:
    """The recipient with this number."""
    return f"user{number:08d}@example.com"


def preference(tenant: str, who: str, mode: str, decided_at: str | int = "2026-01-01T00:00:00Z") -> Message:
    """One decision for both kinds."""
    value = {
        "tenant": tenant,
        "recipient": who,
        "decided_at": decided_at,
        "purposes": {"engagement": {"open": mode, "click": mode}},
        "proof": {"source": "benchmark", "text_version": "1"},
    }
    return "tracking.preferences", message_key(tenant, who), json.dumps(value).encode()


@dataclass(slots=True)
class Load:
    """Events of `people` in `mailings`, a quarter of them clicks, spread over an hour; about 300 bytes each.

    `granted` is the percentage of the people who allow pseudonymous rows. The same seed gives the same events, but for
    their times, which end at `until_ms` (now).
    """

    people: int = 50_000
    granted: float = 50
    mailings: int = 4
    tenant: str = "acme"
    seed: int = 1
    until_ms: int = field(default_factory=lambda: int(time.time() * 1000))

    def grants(self) -> Iterator[Message]:
        """Preferences of those who allow rows, given long before the events."""
        for number in range(int(self.people * self.granted / 100)):
            yield preference(self.tenant, address(number), "pseudonymous")

    def declarations(self) -> Iterator[Message]:
        """All mailings with their links."""
        links = {f"l{page}": f"https://inxmail.de/p{page}" for page in range(PAGES)}
        for number in range(self.mailings):
            name = f"2026-11-m{number}"
            value = {
                "tenant": self.tenant,
                "mailing": name,
                "name": name,
                "sent_at": self.until_ms - HOUR_MS,
                "recipients": self.people,
                "links": links,
            }
            yield "tracking.mailings", f"{self.tenant}\x1f{name}".encode(), json.dumps(value).encode()

    def events(self, count: int, first: int = 0) -> Iterator[Message]:
        """So many events, their ids counted on from `first`."""
        chance, begin, tenant = random.Random(self.seed + first), self.until_ms - HOUR_MS, self.tenant
        keys: dict[int, bytes] = {}
        for number in range(first, first + count):
            person = int(chance.random() * self.people)
            who = address(person)
            key = keys.get(person)
            if key is None:
                key = keys[person] = message_key(tenant, who)
            mailing = int(chance.random() * self.mailings)
            kind, url = "open", ""
            if number % 4 == 0:
                kind, url = "click", f',"url":"https://inxmail.de/p{number % PAGES}?rid={who}"'
            yield (
                "tracking.events",
                key,
                (
                    f'{{"event_id":"01J8ZK3V9Q5Y7W2X{number:010d}","kind":"{kind}","tenant":"{tenant}",'
                    f'"mailing":"2026-11-m{mailing}","recipient":"{who}",'
                    f'"occurred_at":{begin + int(chance.random() * HOUR_MS)},"user_agent":"{AGENTS[number & 3]}",'
                    f'"ip":"203.0.113.{number % 250}"{url}}}'
                ).encode(),
            )


class Pacer:
    """Sends messages at a steady pace, a batch a partition every `TICK`. Use as an async context manager."""

    def __init__(self, broker: str, partitions: int) -> None:
        self._partitions, self._of_key = partitions, dict[bytes, int]()
        self._producer = AIOKafkaProducer(bootstrap_servers=broker, acks="all", max_batch_size=1 << 18)
        self._waiting: set[asyncio.Future[Any]] = set()
        self.sent = 0
        self.behind = 0.0  # the most seconds that the pace was missed by

    async def __aenter__(self) -> Pacer:
        await self._producer.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*self._waiting)
        await self._producer.stop()

    async def now(self, message: Message) -> float:
        """Send one message at once; the moment (monotonic) of its acknowledgement."""
        topic, key, value = message
        await self._producer.send_and_wait(topic, value, key=key, partition=self._partition(topic, key))
        return time.monotonic()

    async def post(self, messages: list[Message]) -> None:
        """Hand messages to the producer, batched by partition, without waiting for the broker."""
        builders: dict[tuple[str, int], Any] = {}
        for topic, key, value in messages:
            where = topic, self._partition(topic, key)
            while True:
                builder = builders.get(where)
                if builder is None:
                    builder = builders[where] = self._producer.create_batch()
                if builder.append(key=key, value=value, timestamp=None) is not None:
                    break
                await self._flush(builders.pop(where), *where)
        for where, builder in builders.items():
            await self._flush(builder, *where)
        self.sent += len(messages)

    async def run(self, messages: Iterator[Message], rate: float, seconds: float) -> None:
        """Send `rate` of the messages a second for so long; what was missed is made up for."""
        begin, taken = time.monotonic(), 0
        while (passed := time.monotonic() - begin) < seconds:
            due = int(passed * rate) - taken
            run = [message for _, message in zip(range(due), messages, strict=False)]
            taken += due
            await self.post(run)
            late = time.monotonic() - begin - passed
            self.behind = max(self.behind, late - TICK)
            await asyncio.sleep(max(0.0, TICK - late))

    def _partition(self, topic: str, key: bytes) -> int:
        if topic == "tracking.mailings":
            return 0
        found = self._of_key.get(key)
        if found is None:
            found = self._of_key[key] = int(partitions_of([key], self._partitions)[0])
        return found

    async def _flush(self, builder: Any, topic: str, partition: int) -> None:
        builder.close()
        future = await self._producer.send_batch(builder, topic, partition=partition)
        self._waiting.add(future)
        future.add_done_callback(self._waiting.discard)
