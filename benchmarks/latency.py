"""From produce to visible in the store, and from an acknowledged withdrawal to its effect.

    python -m benchmarks.latency [--rates 1000,20000] [--seconds 60] [--batch-seconds 1.0,0.2]

Beside a paced load, ten probes a second: events of recipients who agreed, each of a second of its own, so that its
row in `engagement` can be told. A probe is produced when it is handed to the producer and visible when a poll
(every 20 ms and as long as it takes) finds its row. The withdrawal: a recipient acts every 50 ms, withdraws, and
goes on acting. Measured from the broker's acknowledgement: until the last of her rows was seen in any poll, until
the receipt was read from tracking.receipts, and which of the events produced after it ever had a row."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from aiokafka import AIOKafkaConsumer

from benchmarks import results
from benchmarks.load import Load, Message, Pacer, preference
from benchmarks.lock import Lock, made
from streams.partitioner import message_key
from streams.stores import Role, Store, StoreClient, connect

PAGE = results.ROOT / "docs" / "capacity.md"
TENANT, PEOPLE, PARTITIONS, POLL = "probe", 200, 4, 0.02
DAY = 86_400
BEFORE, AFTER, EACH = 3.0, 7.0, 0.05  # seconds of acting before and after a withdrawal, and between two events


def probe(who: str, mailing: str, second: int) -> Message:
    """An open that occurred in a second of its own."""
    value = {
        "event_id": f"{mailing}-{who}-{second}-{time.monotonic_ns()}",
        "kind": "open",
        "tenant": TENANT,
        "mailing": mailing,
        "recipient": who,
        "occurred_at": second * 1000,
    }
    return "tracking.events", message_key(TENANT, who), json.dumps(value).encode()


class Watch:
    """Which rows the tenant of the probes has, poll by poll."""

    def __init__(self, store: StoreClient) -> None:
        self._store = store
        self.polls = 0

    def look(self, mailing: str, since: int) -> tuple[float, set[tuple[str, int]]]:
        """The moment before the answer was asked for could miss a row, so it is taken after; (mailing, second) seen."""
        rows = self._store.rows(
            "looking for probes",
            "SELECT toString(mailing), toUnixTimestamp(occurred) FROM engagement WHERE tenant = 'probe' AND "
            "purpose = 'engagement' AND startsWith(mailing, {mailing:String}) "
            "AND occurred >= fromUnixTimestamp({since:UInt32})",
            {"mailing": mailing, "since": since},
        )
        self.polls += 1
        return time.monotonic(), {(row[0], row[1]) for row in rows}


def of(values: list[float]) -> dict[str, float]:
    """Milliseconds: median, 99th percentile, most."""
    found = np.array(values) * 1000
    return {
        "count": len(values),
        "p50": round(float(np.median(found))),
        "p99": round(float(np.percentile(found, 99))),
        "max": round(float(found.max())),
    }


async def visible(lock: Lock, watch: Watch, load: Load, rate: float, seconds: float, first: int) -> dict[str, Any]:
    """Probes beside a load of `rate`."""
    base = int(time.time()) - DAY // 2
    mailing, produced, seen = f"visible{first}", dict[int, float](), dict[int, float]()
    ended = asyncio.Event()

    async def probes(pacer: Pacer) -> None:
        begin = time.monotonic()
        for number in range(int(seconds * 10)):
            await asyncio.sleep(max(0.0, begin + number / 10 - time.monotonic()))
            message = probe(f"p{number % PEOPLE}", mailing, base + number)
            produced[base + number] = time.monotonic()
            await pacer.post([message])
        await asyncio.sleep(20)
        ended.set()

    async def polls() -> None:
        while not ended.is_set() and not (len(produced) == int(seconds * 10) and len(seen) == len(produced)):
            missing = min((second for second in produced if second not in seen), default=base)
            at, rows = await asyncio.to_thread(watch.look, mailing, missing)
            for _, second in rows:
                seen.setdefault(second, at)
            await asyncio.sleep(POLL)
        ended.set()

    async with (
        Pacer(lock.stack.broker_address, PARTITIONS) as pacer,
        Pacer(lock.stack.broker_address, PARTITIONS) as own,
    ):
        probing = asyncio.create_task(probes(own))
        looking = asyncio.create_task(polls())
        polled, began = watch.polls, time.monotonic()
        await pacer.run(load.events(int(rate * seconds * 2), first), rate, seconds)
        await ended.wait()
        probing.cancel()
        await looking
    took = [seen[second] - at for second, at in produced.items() if second in seen]
    return {
        "rate": pacer.sent / seconds,
        **of(took),
        "never": len(produced) - len(took),
        "poll_ms": round((time.monotonic() - began) / (watch.polls - polled) * 1000),
        "pace_missed_s": round(pacer.behind, 2),
    }


@dataclass(slots=True)
class Subject:
    """One who withdraws."""

    name: str
    produced: dict[int, float] = field(default_factory=dict)
    rows: set[int] = field(default_factory=set)
    last_row: float = 0.0
    acked: float = 0.0
    receipt: float = 0.0
    preference_id: str = ""


async def withdrawals(lock: Lock, watch: Watch, load: Load, rate: float, count: int, first: int) -> dict[str, Any]:
    """`count` recipients withdraw, one every two seconds, beside a load of `rate`."""
    base = int(time.time()) - DAY // 2
    subjects = {f"w{number}x": Subject(f"w{number}x") for number in range(count)}
    seconds, ended = count * 2 + BEFORE + AFTER, asyncio.Event()

    async def act(pacer: Pacer, subject: Subject, wait: float) -> None:
        await asyncio.sleep(wait)
        begin, number = time.monotonic(), 0
        while time.monotonic() - begin < BEFORE + AFTER:
            subject.produced[base + number] = time.monotonic()
            await pacer.post([probe(subject.name, f"withdraw-{subject.name}", base + number)])
            number += 1
            await asyncio.sleep(EACH)
        ended.set() if subject.name == f"w{count - 1}x" else None

    async def withdraw(pacer: Pacer, subject: Subject, wait: float) -> None:
        await asyncio.sleep(wait + BEFORE)
        message = preference(TENANT, subject.name, "anonymous", int(time.time() * 1000))
        topic, key, value = message
        sent = await pacer._producer.send_and_wait(topic, value, key=key, partition=pacer._partition(topic, key))
        subject.acked = time.monotonic()
        subject.preference_id = f"{topic}:{sent.partition}:{sent.offset}"

    async def receipts() -> None:
        consumer = AIOKafkaConsumer(
            "tracking.receipts", bootstrap_servers=lock.stack.broker_address, auto_offset_reset="latest"
        )
        await consumer.start()
        try:
            async for record in consumer:
                at, name = time.monotonic(), json.loads(record.value)["preference_id"]
                for subject in subjects.values():
                    if subject.preference_id == name:
                        subject.receipt = at
        finally:
            await consumer.stop()

    async def polls() -> None:
        while not ended.is_set():
            at, rows = await asyncio.to_thread(watch.look, "withdraw-", base)
            for mailing, second in rows:
                subject = subjects[mailing.removeprefix("withdraw-")]
                subject.rows.add(second)
                subject.last_row = at
            await asyncio.sleep(POLL)

    address = lock.stack.broker_address
    async with Pacer(address, PARTITIONS) as pacer, Pacer(address, PARTITIONS) as own:
        reading, looking = asyncio.create_task(receipts()), asyncio.create_task(polls())
        await asyncio.sleep(2)
        work = [
            job(own, subject, number * 2.0)
            for number, subject in enumerate(subjects.values())
            for job in (act, withdraw)
        ]
        await asyncio.gather(pacer.run(load.events(int(rate * seconds * 2), first), rate, seconds), *work)
        await looking
        await asyncio.sleep(3)
        reading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reading
    told = [subject for subject in subjects.values() if subject.receipt]
    after = [
        max((at - s.acked for second, at in s.produced.items() if second in s.rows and at > s.acked), default=0.0)
        for s in told
    ]
    return {
        "rate": pacer.sent / seconds,
        "withdrawals": count,
        "without_receipt": count - len(told),
        "last_event_with_a_row": of(after),
        "last_row_seen": of([max(0.0, s.last_row - s.acked) for s in told]),
        "receipt": of([s.receipt - s.acked for s in told]),
        "rows_after_the_receipt": sum(s.last_row > s.receipt + 0.05 for s in told),
    }


def people() -> Iterator[Message]:
    """All who are watched agree long before."""
    for number in range(PEOPLE):
        yield preference(TENANT, f"p{number}", "pseudonymous")
    for number in range(40):
        yield preference(TENANT, f"w{number}x", "pseudonymous")


def table(said: dict[str, Any]) -> str:
    """For people."""
    lines = [
        "| produce to visible, at events/s | batch_seconds | p50 ms | p99 ms | most ms | probes | polled every ms |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for one in said["visible"]:
        lines.append(
            f"| {one['rate']:,.0f} | {one['batch_seconds']} | {one['p50']:,} | {one['p99']:,} | {one['max']:,} "
            f"| {one['count']} | {one['poll_ms']} |"
        )
    one = said["withdrawal"]
    lines += [
        "",
        f"| {one['withdrawals']} withdrawals at {one['rate']:,.0f} events/s, from the broker's acknowledgement to … "
        "| p50 ms | p99 ms | most ms |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name, words in (
        ("last_event_with_a_row", "the last event produced that still had a row (removed by the withdrawal)"),
        ("last_row_seen", "the last moment at which any of her rows was seen"),
        ("receipt", "the receipt, read from tracking.receipts"),
    ):
        lines.append(f"| {words} | {one[name]['p50']:,} | {one[name]['p99']:,} | {one[name]['max']:,} |")
    lines += [
        "",
        f"Probes never seen: {sum(v['never'] for v in said['visible'])}. Withdrawals without a receipt: "
        f"{one['without_receipt']}. Rows seen after a receipt: {one['rows_after_the_receipt']}. The worker waits up to "
        "`batch_seconds` for a batch to fill, which is most of the latency at a low rate. With so few withdrawals p99 "
        "is close to the most.",
    ]
    return "\n".join(lines)


def main() -> None:
    """Print a table; write latency.json and docs/capacity.md."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rates", default="1000,20000", help="events a second, separated by commas")
    arguments.add_argument("--seconds", type=float, default=60)
    arguments.add_argument("--batch-seconds", default="1.0,0.2", help="the worker's setting, separated by commas")
    arguments.add_argument("--withdrawals", type=int, default=30, help="at most 40")
    arguments.add_argument("--out", type=Path, default=results.FOLDER)
    asked = arguments.parse_args()
    load, first, found = Load(), 0, list[dict[str, Any]]()
    with made("kafka", PARTITIONS) as lock:
        watch = Watch(connect(lock.settings, Store.ANALYTICS, Role.RIGHTS, 2))
        lock.send(load.declarations())
        wanted = lock.send(load.grants()) + lock.send(people())
        for batch_seconds in asked.batch_seconds.split(","):
            worker = lock.worker(SCHLEUSE_BATCH_SECONDS=batch_seconds)
            worker.ready()
            lock.until(lambda due=wanted: lock.changes() >= due)
            for rate in map(float, asked.rates.split(",")):
                load.until_ms = int(time.time() * 1000)
                one = asyncio.run(visible(lock, watch, load, rate, asked.seconds, first))
                found.append({"batch_seconds": float(batch_seconds), **one})
                print(found[-1], flush=True)
                first += int(rate * asked.seconds * 2)
            if batch_seconds == asked.batch_seconds.split(",")[0]:
                rate = max(map(float, asked.rates.split(",")))
                withdrawn = asyncio.run(withdrawals(lock, watch, load, rate, asked.withdrawals, first))
                print(withdrawn, flush=True)
                first += int(rate * asked.withdrawals * 8)
            lock.stop_workers()
            lock.workers.clear()
    said = {"visible": found, "withdrawal": withdrawn}
    results.write("latency", said, table(said), asked.out, PAGE if asked.out == results.FOLDER else None)


if __name__ == "__main__":
    main()
