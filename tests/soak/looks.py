"""What is asked of a lock under soak, and what it is made to do: to compact, to settle, to tell how it went."""

from __future__ import annotations

import contextlib
import itertools
import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from typing import Any

from kafka import TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType

from streams import topics
from streams.broker import admin, log_ends, read_all
from streams.errors import BrokerError, StoreUnavailable
from streams.logs import OURS
from streams.status import TERMS
from streams.stores import Role, Store
from tests.lock import Lock, preference

DAY_SECONDS = 86_400
# tracking.state is compacted as fast as Kafka can, not after a day.
COMPACTED = {
    "segment.ms": "1000",
    "min.compaction.lag.ms": "0",
    "max.compaction.lag.ms": "1000",
    "min.cleanable.dirty.ratio": "0.01",
}
CLEANING = {"log.cleaner.backoff.ms": "1000"}
FOLLOWED = (topics.PREFERENCES, topics.REQUESTS, topics.MAILINGS, topics.CHANGES, topics.EVENTS)


def compact(lock: Lock) -> None:
    """Let tracking.state be compacted as fast as Kafka can."""
    changes = tuple((name, "", value) for name, value in COMPACTED.items())
    topics.alter(lock.settings, [topics.Alter(topics.STATE, changes)])
    with admin(lock.stack.broker_address, "hurrying the cleaners") as client:
        for number in range(1, len(lock.stack.brokers) + 1):
            client.alter_configs([ConfigResource(ConfigResourceType.BROKER, str(number), CLEANING)])


def until_compacted(lock: Lock) -> None:
    """Some recipients change their minds again and again until the cleaners have taken what they said before out.

    So whoever takes a partition over, all through the faults, loads a state that was compacted.
    """
    until = time.monotonic() + 300
    who = [f"wavering.{number}@example.com" for number in range(10 * lock.partitions)]
    for mode in itertools.cycle(("personal", "anonymous")):
        lock.send([preference("acme", one, {"engagement": {"open": mode}}) for one in who])
        time.sleep(2)  # longer than a segment of tracking.state is written to
        if removed_by_compaction(lock) or time.monotonic() > until:
            return


def removed_by_compaction(lock: Lock) -> int:
    """How many records of tracking.state are not in its log any more."""
    ends = log_ends(lock.stack.broker_address, topics.STATE)
    found = read_all(lock.stack.broker_address, topics.STATE)
    kept = sum(1 for record in found if record.offset < ends[record.partition])
    return sum(ends.values()) - kept


def not_carried_out(lock: Lock) -> int:
    """Records that the workers have not committed as carried out, in the order that makes 0 mean: none."""
    behind = 0
    for name in FOLLOWED:
        ends = {TopicPartition(name, p): end for p, end in log_ends(lock.stack.broker_address, name).items()}
        with admin(lock.stack.broker_address, "asking what is committed") as client:
            group = lock.settings.group
            found = client.list_group_offsets({group: list(ends)}).get(group, {})
        behind += sum(end - max(0, found[tp].offset if tp in found else 0) for tp, end in ends.items())
    return behind


def settle(lock: Lock, seconds: float) -> int:
    """Wait until nothing is behind, at most so long; what is behind then."""
    until, behind = time.monotonic() + seconds, -1
    while behind and time.monotonic() < until:
        time.sleep(0.5)
        with contextlib.suppress(BrokerError):
            behind = not_carried_out(lock)
    return behind


def look_on(lock: Lock, over: threading.Event, tell: Callable[[str], None]) -> None:
    """Tell every half a minute how far it is, until it is over."""
    began = time.monotonic()
    while not over.wait(30):
        try:
            said = lock.status()
            lag = sum(line["lag"] or 0 for line in said["partitions"])
            tell(f"{time.monotonic() - began:6.0f} s  {said['received']:,} received, {lag:,} to go")
        except (BrokerError, StoreUnavailable) as error:
            tell(f"{time.monotonic() - began:6.0f} s  {error}")


def listen(lock: Lock) -> tuple[Counter[str], Counter[str]]:
    """What the workers said, by the event of the line; and how far off their clocks were, by their lines' times."""
    lines, clocks = Counter[str](), Counter[str]()
    for worker in lock.workers:
        last = ""
        for line in worker.text().splitlines():
            try:
                said = json.loads(line)
            except ValueError:
                continue
            if str(said.get("logger")).startswith(OURS):
                lines[str(said["event"])] += 1
            last = said.get("timestamp", last)
        if last:
            off = datetime.fromisoformat(last).timestamp() - worker.log.stat().st_mtime
            clocks[f"{round(off / DAY_SECONDS):+d} days"] += 1
    return lines, clocks


def figures(lock: Lock) -> dict[str, Any]:
    """What the stores say of the run, for a table."""
    said = lock.status()
    chain = (
        "SELECT kind = 'events', count(), uniqExact(worker), max(last - first + 1) FROM claims GROUP BY 1 ORDER BY 1"
    )
    moved = """
        SELECT countIf(worker != before AND before != '') FROM
        (SELECT worker, lagInFrame(worker) OVER (PARTITION BY partition ORDER BY number
            ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) AS before FROM claims)"""
    found: dict[str, Any] = {
        f"received = counted + off + duplicates + rejected ({'adds up' if said['adds_up'] else 'DOES NOT ADD UP'})": (
            f"{said['received']:,} = " + " + ".join(f"{said[term]:,}" for term in TERMS[1:])
        )
    }
    for events, claims, workers, longest in lock.rows(Store.ANALYTICS, chain, Role.OPERATOR):
        name = "events" if events else "changes"
        found[f"claims of {name}"] = f"{claims:,}, the longest of {longest:,} records, by {workers} workers"
    found["times a partition went on under another worker"] = lock.rows(Store.ANALYTICS, moved, Role.OPERATOR)[0][0]
    return found
