"""Topics: the plan is pure and complete; what a worker asks a broker is answered rightly, by Tansu and by Kafka."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.structs import OffsetAndMetadata

from deploy.embedded.stack import Stack
from streams import topics
from streams.broker import Described, log_ends, read_all
from streams.errors import BrokerError
from streams.settings import Settings
from streams.topics import CHANGES, EVENTS, MAILINGS, NAMES, RECEIPTS, STATE, Alter, Create, Topic, Unknown, Wrong, plan

WANTED = topics.topics(Settings(partitions=4))


def as_wanted(topic: Topic, **other: str) -> Described:
    return Described(topic.partitions, 1, "id", {"segment.bytes": "1", **topic.configs, **other})


def test_the_table_keeps_what_the_design_promises() -> None:
    found = {
        topic.name: topic for topic in topics.topics(Settings(partitions=16, replication=3, events_retention_hours=5))
    }
    assert tuple(found) == NAMES
    assert {name for name, topic in found.items() if topic.partitions != 16} == {MAILINGS}
    assert found[EVENTS].configs["retention.ms"] == str(5 * 3_600_000)
    assert {topic.configs["message.timestamp.type"] for topic in found.values()} == {"LogAppendTime"}
    assert {topic.configs["min.insync.replicas"] for topic in found.values()} == {"2"}
    assert found[STATE].configs["cleanup.policy"] == "compact"
    assert found[CHANGES].configs["cleanup.policy"] == "delete"  # DeleteRecords is refused on a compacted topic
    for name in (MAILINGS, CHANGES, STATE, RECEIPTS):
        assert found[name].configs["retention.ms"] == "-1"


@given(st.lists(st.sampled_from(["missing", "right", "counts", "config", "silent"]), min_size=8, max_size=8))
def test_the_plan_names_each_difference_once_and_its_doing_leaves_none(states: list[str]) -> None:
    made: Mapping[str, Described | None] = {
        topic.name: {
            "missing": None,
            "right": as_wanted(topic),
            "counts": Described(topic.partitions + 1, 1, "id", {}),
            "config": as_wanted(topic, **{"retention.ms": "1"}),
            "silent": Described(topic.partitions, 1, "id", {}),
        }[state]
        for topic, state in zip(WANTED, states, strict=True)
    }
    existing = {name: there for name, there in made.items() if there is not None}
    actions = plan(existing, WANTED)
    kinds = {"missing": Create, "counts": Wrong, "config": Alter, "silent": Unknown}
    assert [type(action) for action in actions] == [kinds[state] for state in states if state != "right"]
    for action in actions:
        if isinstance(action, Create):
            existing[action.topic.name] = as_wanted(action.topic)
        elif isinstance(action, Alter):
            there = existing[action.name]
            changed = {key: value for key, _, value in action.changes}
            existing[action.name] = there._replace(configs={**there.configs, **changed})
    assert not [action for action in plan(existing, WANTED) if isinstance(action, Create | Alter)]


@pytest.fixture(scope="module", params=["tansu", pytest.param("kafka", marks=pytest.mark.kafka)])
def settings(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    stack = Stack(tmp_path_factory.mktemp(request.param), request.param, die_with_parent=True)
    stack.start(only=["broker"])
    made = Settings(broker=stack.broker_address, partitions=3)
    topics.create(made, topics.topics(made))
    yield made
    stack.stop()


def produce(settings: Settings, topic: str, partition: int, count: int) -> None:
    """So many records in few batches."""
    producer = KafkaProducer(bootstrap_servers=settings.broker, enable_idempotence=False, linger_ms=50)
    for number in range(count):
        producer.send(topic, key=b"k", value=b"%d" % number, partition=partition)
    producer.flush()
    producer.close()


def test_made_topics_are_right_and_a_difference_is_found_and_mended(settings: Settings) -> None:
    assert topics.look(settings) == []
    shorter = dataclasses.replace(settings, events_retention_hours=1)
    found = topics.look(shorter)
    assert found == [Alter(EVENTS, (("retention.ms", "259200000", "3600000"),))]
    topics.alter(settings, [action for action in found if isinstance(action, Alter)])
    deadline = time.monotonic() + 5
    while topics.look(shorter) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert topics.look(shorter) == []
    assert {type(action) for action in topics.look(dataclasses.replace(settings, partitions=4))} >= {Wrong}


def test_ends_are_those_of_the_log_whatever_the_broker_says_of_them(settings: Settings) -> None:
    produce(settings, EVENTS, 1, 100)
    produce(settings, EVENTS, 2, 1)
    assert topics.ends(settings, EVENTS) == {0: 0, 1: 100, 2: 1}
    got = [(record.partition, record.offset, record.value) for record in read_all(settings.broker, EVENTS)]
    assert sorted(got) == [(1, n, b"%d" % n) for n in range(100)] + [(2, 0, b"0")]
    assert list(read_all(settings.broker, RECEIPTS)) == []


def test_topic_ids_live_and_die_with_the_topics(settings: Settings) -> None:
    ids, lower_bound = topics.topic_ids(settings)
    assert len(set(ids)) == 4
    assert topics.topic_ids(settings) == (ids, lower_bound)
    admin = KafkaAdminClient(bootstrap_servers=settings.broker)
    # What the flag is for: does ListOffsets tell the end of a log whose last batch has many records?
    consumer = KafkaConsumer(bootstrap_servers=settings.broker)
    produce(settings, STATE, 0, 50)
    assert lower_bound == (consumer.end_offsets([TopicPartition(STATE, 0)])[TopicPartition(STATE, 0)] < 50)
    consumer.close()
    admin.delete_topics([STATE])
    deadline = time.monotonic() + 10
    while STATE in admin.list_topics() and time.monotonic() < deadline:
        time.sleep(0.1)
    admin.close()
    topics.create(settings, [topic for topic in topics.topics(settings) if topic.name == STATE])
    again, _ = topics.topic_ids(settings)
    assert again[:2] == ids[:2]
    assert again[2] != ids[2]


def test_committed_offsets(settings: Settings) -> None:
    def asked(topic: str, partition: int) -> int | None:
        deadline = time.monotonic() + 20  # a new broker makes its topic of offsets at the first question
        while True:
            try:
                return topics.committed(settings, topic, [partition]).get(partition)
            except BrokerError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    assert asked(EVENTS, 0) is None
    consumer = KafkaConsumer(bootstrap_servers=settings.broker, group_id=settings.group, enable_auto_commit=False)
    tp = TopicPartition(EVENTS, 0)
    consumer.assign([tp])
    consumer.commit({tp: OffsetAndMetadata(7, "", -1)})
    consumer.close(autocommit=False)
    assert (asked(EVENTS, 0), asked(EVENTS, 1)) == (7, None)


def test_trimming_lets_go_of_what_is_below_and_never_of_more(settings: Settings) -> None:
    produce(settings, CHANGES, 0, 10)
    topics.trim(settings, CHANGES, {0: 6, 1: 0})
    kept = [record.offset for record in read_all(settings.broker, CHANGES)]
    assert kept == (list(range(10)) if topics.topic_ids(settings)[1] else [6, 7, 8, 9])  # Tansu cannot trim
    assert topics.ends(settings, CHANGES)[0] == 10


def test_a_silent_broker_and_a_missing_topic_are_one_sentence_each(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BrokerError, match=r"has no topic tracking\.nowhere: schleuse topics"):
        log_ends(settings.broker, "tracking.nowhere")
    monkeypatch.setattr("streams.broker.CONNECT_MS", 1000)
    nobody = Settings(broker="127.0.0.1:1")
    with pytest.raises(BrokerError, match=r"Kafka at 127\.0\.0\.1:1 did not answer") as caught:
        topics.look(nobody)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
