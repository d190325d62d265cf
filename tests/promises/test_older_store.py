"""An analytics store that was put back from a backup: Kafka knows of more than its chain, and no worker goes on."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path

import pytest
from kafka import KafkaConsumer, OffsetAndMetadata, TopicPartition

from deploy.embedded.stack import Stack
from streams.broker import log_ends
from streams.topics import EVENTS
from tests.lock import Lock, event

pytestmark = [pytest.mark.stack, pytest.mark.kafka]  # Tansu understates where a log ends


def test_a_worker_ends_where_more_was_committed_than_the_chain_has(tmp_path: Path) -> None:
    """Another group stands for the one that had come further before the store was put back."""
    with Stack(tmp_path, "kafka", die_with_parent=True) as stack, Lock(stack) as lock:
        first = lock.worker()
        lock.send([event("acme", f"p{number}@example.com") for number in range(50)])
        lock.settle()
        assert first.kill(15) == 0
        lock.send([event("acme", f"p{number}@example.com") for number in range(50)])
        ends = {TopicPartition(EVENTS, at): end for at, end in log_ends(stack.broker_address, EVENTS).items()}
        consumer = KafkaConsumer(bootstrap_servers=stack.broker_address, group_id="ahead", enable_auto_commit=False)
        with closing(consumer):
            consumer.assign(list(ends))
            consumer.commit({at: OffsetAndMetadata(end, "", -1) for at, end in ends.items()})
        worker, until = lock.worker(SCHLEUSE_GROUP="ahead"), time.monotonic() + 120
        while worker.process.poll() is None and time.monotonic() < until:
            time.sleep(0.2)
        assert worker.process.poll() == 1, worker.text()
        assert "Kafka knows of claims that the chain lacks" in worker.text()
        assert lock.status()["received"] == 50
