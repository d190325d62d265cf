"""A tap on Apache Kafka: it misses nothing when the broker is restarted and when records are deleted behind it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from kafka import TopicPartition

from deploy.embedded.stack import Stack
from streams.broker import admin
from tests.lock import Lock, event
from tests.reference import Files, ReferenceFailed, Tap

EVENTS = "tracking.events"


def kept(folder: Path) -> list[tuple[int, int, bytes | None]]:
    return [(r.partition, r.offset, r.value) for p in range(4) for r in Files(folder).records(EVENTS, p)]


@pytest.mark.kafka
@pytest.mark.stack
def test_a_tap_misses_nothing_and_says_what_was_gone_before_it_came(kafka_stack: Stack, tmp_path: Path) -> None:
    messages = [event("acme", f"tap.{n}@example.com") for n in range(3_000)]
    with Lock(kafka_stack) as lock:
        tap = Tap(kafka_stack.broker_address, tmp_path / "tap")
        tap.start()
        try:
            lock.send(messages[:1_000])
            lock.until(lambda: sum(tap.positions().values()) >= 1_000, what="the tap")
            kafka_stack.restart("broker")
            lock.send(messages[1_000:2_000])
            lock.until(lambda: sum(tap.positions().values()) >= 2_000, what="the tap after a restart")
            below = {TopicPartition(*at): end for at, end in tap.positions().items() if at[0] == EVENTS}
            with admin(kafka_stack.broker_address, "deleting") as client:
                client.delete_records(below)
            lock.send(messages[2_000:])
            tap.stop()
        finally:
            tap.kill()
        assert sorted(value or b"" for _, _, value in kept(tmp_path / "tap")) == sorted(v for _, _, v in messages)
        late = Tap(kafka_stack.broker_address, tmp_path / "late")
        late.start()
        try:
            time.sleep(1)
            with pytest.raises(ReferenceFailed, match="gone"):
                late.stop()
        finally:
            late.kill()
