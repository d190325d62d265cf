"""Rejections: the content comes back whole for who holds the key, and shows nowhere else."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pseudonymizer.sealing import SealBroken
from streams.errors import Reason
from streams.partitioner import message_key, partition_of
from streams.rejections import (
    MOST_SEALED,
    NotARejection,
    Rejection,
    Replayed,
    Stage,
    gather,
    open_content,
    parse,
    rejection_id,
    seal_content,
)
from streams.replay import CannotReplay, prepare
from streams.tenants import parse as parse_tenants

KEY, OTHER = bytes(range(32)), bytes(32)
CANARY = b"erika.mustermann@example.com"
part = st.none() | st.binary(max_size=200)


def rejected(key: bytes | None, value: bytes | None, topic: str = "tracking.events", offset: int = 7) -> Rejection:
    number = rejection_id(topic, 3, offset)
    sealed = seal_content(KEY, key, value, number, bytes(12))
    return Rejection(
        topic=topic,
        partition=3,
        offset=offset,
        at_ms=1_764_000_000_123,
        stage=Stage.EVENTS,
        reason=Reason.MISROUTED,
        field="recipient",
        expected="an address",
        size=len(value or b""),
        sealed=sealed,
        key_id="2026-11-24",
    )


@given(part, part)
def test_key_and_value_come_back_whole_and_only_in_their_place(key: bytes | None, value: bytes | None) -> None:
    one = rejected(key, value)
    assert one.sealed is not None
    assert open_content(KEY, one.sealed, one.id) == (key, value)
    with pytest.raises(SealBroken):
        open_content(OTHER, one.sealed, one.id)
    with pytest.raises(SealBroken):
        open_content(KEY, one.sealed, rejection_id("tracking.events", 3, 8))


def test_the_message_comes_back_and_shows_nothing_of_the_record() -> None:
    one = rejected(b"acme\x1f" + CANARY, b'{"recipient": "' + CANARY + b'"}')
    assert parse(one.encode()) == one
    assert CANARY not in one.encode()
    assert "erika" not in repr(one)
    message = json.loads(one.encode())
    assert message["rejection_id"] == "tracking.events:3:7"
    assert message["at"] == "2025-11-24T16:00:00.123Z"
    note = Replayed(one.id, one.at_ms, "tracking.events", 1, 99)
    assert parse(note.encode()) == note


def test_what_is_too_large_is_dropped_and_its_size_says_so() -> None:
    assert rejected(b"k", b"x" * (MOST_SEALED - 1)).sealed is not None
    large = rejected(b"k", b"x" * MOST_SEALED)
    assert large.sealed is None
    message = json.loads(large.encode())
    assert message["size"] == MOST_SEALED
    assert "sealed" not in message
    assert "key_id" not in message
    assert parse(large.encode()).size == MOST_SEALED  # type: ignore[union-attr]  # it is a Rejection


@given(
    st.none()
    | st.binary(max_size=60)
    | st.recursive(
        st.none() | st.integers() | st.text(max_size=5),
        lambda inner: st.dictionaries(
            st.sampled_from(["at", "source", "stage", "reason", "replayed_to", "size"]), inner
        ),
    ).map(lambda value: json.dumps(value).encode())
)
def test_nothing_but_a_rejection_is_read_as_one(value: bytes | None) -> None:
    with pytest.raises(NotARejection) as caught:
        parse(value)
    assert caught.value.__cause__ is None
    assert str(caught.value) == "a record of tracking.rejected is not a rejection"


def test_each_rejection_is_listed_once_however_often_it_was_sent() -> None:
    one, two = rejected(None, b"1", offset=1), rejected(None, b"2", offset=2)
    note = Replayed(one.id, 0, "tracking.events", 1, 99)
    found, strange = gather([two.encode(), note.encode(), one.encode(), two.encode(), b"what?"])
    assert sorted(found) == [one.id, two.id]
    assert (found[one.id].replayed, found[two.id].replayed) == (True, False)
    assert strange == 1


def test_a_misrouted_record_goes_where_its_recipient_belongs() -> None:
    tenants = parse_tenants('[acme]\nlocal_part = "lower"\n')
    value = json.dumps({"tenant": "acme", "recipient": "  Erika@EXAMPLE.com "}).encode()
    again = prepare(rejected(b"nonsense", value), KEY, tenants, 8)
    assert again.key == message_key("acme", "erika@example.com")
    assert again.partition == partition_of(again.key, 8)
    assert again.value == value
    assert "Erika" not in repr(again)


@pytest.mark.parametrize(
    ("value", "key", "why"),
    [
        (b'{"tenant": "nobody", "recipient": "erika@example.com"}', KEY, "its tenant is not in the settings in force"),
        (b'{"tenant": "acme", "recipient": 5}', KEY, "it has no recipient"),
        (b'{"tenant": "acme", "recipient": "erika@"}', KEY, "its recipient is no address or id"),
        (b"erika@example.com", KEY, "it cannot be read: not_json"),
        (None, KEY, "it cannot be read: tombstone"),
        (b"{}", None, "the key of its day is destroyed"),
        (b"{}", OTHER, "its seal does not open"),
        (b"x" * (MOST_SEALED + 1), KEY, "its content was too large to keep"),
    ],
    ids=range(8),
)
def test_what_cannot_be_sent_again_says_why_without_a_value(value: bytes | None, key: bytes | None, why: str) -> None:
    with pytest.raises(CannotReplay) as caught:
        prepare(rejected(b"", value), key, parse_tenants("[acme]"), 8)
    assert str(caught.value) == why
