"""Feeding a real broker."""

from __future__ import annotations

import json

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition

from deploy.embedded.stack import Stack
from streams.errors import BrokerError
from streams.feed import send
from streams.feed.formats import FORMATS
from streams.feed.items import EVENTS, MAILINGS, PREFERENCES, FeedOptions, Message
from streams.feed.run import NOT_SENT, Place, Refusal, Run
from streams.feed.send import Sender
from streams.partitioner import partition_of
from tests.feed.conftest import PARTITIONS
from tests.feed.test_truth import FEEDS, NOW_MS, TENANTS, read

pytestmark = pytest.mark.stack


def records(broker: str, topic: str, expected: int) -> list[tuple[int, bytes, bytes]]:
    """All records of a topic, as (partition, key, value)."""
    consumer = KafkaConsumer(bootstrap_servers=broker, consumer_timeout_ms=1_500, enable_auto_commit=False)
    partitions = [TopicPartition(topic, number) for number in range(1 if topic == MAILINGS else PARTITIONS)]
    consumer.assign(partitions)
    consumer.seek_to_beginning(*partitions)
    found: list[tuple[int, bytes, bytes]] = []
    for record in consumer:
        found.append((record.partition, record.key, record.value))
        if len(found) == expected:
            break
    found += [(record.partition, record.key, record.value) for batch in consumer.poll(200).values() for record in batch]
    consumer.close()
    return found


def runner(vendor: str, options: FeedOptions, refusals: list[Refusal]) -> Run:
    return Run(FORMATS[vendor], options, TENANTS, lambda: NOW_MS, refusals.append)


def test_everything_arrives_once_on_the_partition_of_its_key(stack: Stack) -> None:
    refusals: list[Refusal] = []
    run = runner("sendgrid", FeedOptions("sendgrid", withdraw="anonymous"), refusals)
    with (FEEDS / "sendgrid.ndjson").open("rb") as stream:
        run.feed([("feed", stream)], Sender[Place](stack.broker_address, {EVENTS, PREFERENCES}, run.settled))
    (tally,) = run.tallies
    assert (tally.bodies, tally.sent, tally.ignored.total(), refusals) == (559, 460, 99, [])

    messages = [item for item in read("sendgrid", withdraw="anonymous") if isinstance(item, Message)]
    for topic, count in ((EVENTS, 459), (PREFERENCES, 1)):
        found = records(stack.broker_address, topic, count)
        expected = [json.dumps(message.fields, sort_keys=True) for message in messages if message.topic == topic]
        assert sorted(json.dumps(json.loads(value), sort_keys=True) for _, _, value in found) == sorted(expected)
        assert all(partition == partition_of(key, PARTITIONS) for partition, key, _ in found)
        assert topic == PREFERENCES or {partition for partition, _, _ in found} == set(range(PARTITIONS))

    run = runner("native", FeedOptions(None, topic=MAILINGS), refusals)
    with (FEEDS / "mailings.ndjson").open("rb") as stream:
        run.feed([("mailings", stream)], Sender[Place](stack.broker_address, {MAILINGS}, run.settled))
    assert len(records(stack.broker_address, MAILINGS, 8)) == run.tallies[0].sent == 8


def test_a_topic_that_is_not_there_is_named_and_not_made(stack: Stack) -> None:
    with pytest.raises(BrokerError, match=r"no topic tracking\.absent.*schleuse topics"):
        Sender[Place](stack.broker_address, {EVENTS, "tracking.absent"}, lambda place, sent: None)
    admin = KafkaAdminClient(bootstrap_servers=stack.broker_address)
    assert "tracking.absent" not in admin.list_topics()
    admin.close()


def test_a_broker_that_dies_midway_leaves_no_body_unaccounted_for(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(send, "DELIVERY_MS", 1_500)
    monkeypatch.setattr(send, "MAX_WAITING", 50)

    class Lines:
        """A file of events without end; the broker dies at the 300th line."""

        def __init__(self) -> None:
            self.lines = (FEEDS / "mailgun.ndjson").read_bytes().splitlines(keepends=True)
            self.read = 0

        def readline(self, _: int) -> bytes:
            self.read += 1
            if self.read == 300:
                stack.kill("broker")
            return self.lines[self.read % len(self.lines)]

    refusals: list[Refusal] = []
    run = runner("mailgun", FeedOptions("mailgun"), refusals)
    sender = Sender[Place](stack.broker_address, {EVENTS}, run.settled)
    lines = Lines()
    run.feed([("feed", lines)], sender)  # type: ignore[list-item]  # only readline is asked for
    (tally,) = run.tallies
    assert sender.broken
    assert tally.adds_up
    assert tally.bodies == lines.read < 1_000
    assert 0 < len(refusals) == tally.refused[NOT_SENT] <= 51 + 1
    assert [refusal.place.line for refusal in refusals] == list(range(tally.sent + 1, lines.read + 1))
