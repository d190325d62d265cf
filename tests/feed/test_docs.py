"""docs/feeding.md is what others copy from: its messages are good, its producer puts events where they belong."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from deploy.embedded.stack import Stack
from pseudonymizer import recipients
from streams.errors import Reason
from streams.feed.items import EVENTS, MAILINGS, PREFERENCES, Message, Topic
from streams.feed.records import record
from streams.feed.run import NOT_SENT
from streams.messages import encode_receipt, parse_time
from streams.partitioner import partition_of
from tests.feed.conftest import PARTITIONS
from tests.feed.test_truth import NOW_MS, Tenant

PAGE = (Path(__file__).parents[2] / "docs" / "feeding.md").read_text()
SHOWN = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)]
MESSAGES = [message for message in SHOWN if "completed_at" not in message]
RECIPIENTS = [
    " Erika.Muster+x@Example.COM\n",
    "jürgen@BÜCHER.example",
    "ju\u0308rgen@x.example",
    "id-4711",
    "a@b@c.example",
]
ACME = {"acme": Tenant()}


@pytest.fixture
def names() -> dict[str, Any]:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    found: dict[str, Any] = {}
    exec(code, found)
    return found


@pytest.mark.parametrize("message", MESSAGES)
def test_the_messages_are_taken(message: dict[str, Any]) -> None:
    topic: Topic = EVENTS if "event_id" in message else MAILINGS if "links" in message else PREFERENCES
    assert record(Message(topic, message), ACME, NOW_MS).key.startswith(b"acme\x1f")


def test_all_four_kinds_are_shown() -> None:
    assert len(MESSAGES) == 4


def test_the_receipt_is_one_as_a_worker_writes_it() -> None:
    (shown,) = [message for message in SHOWN if "completed_at" in message]
    written = encode_receipt(
        shown["preference_id"],
        shown["kind"],
        shown["tenant"],
        parse_time(shown["completed_at"], "completed_at", None),
        shown["removed"],
        parse_time(shown["gone_by"], "gone_by", None),
    )
    assert json.loads(written) == shown


@pytest.mark.parametrize("recipient", RECIPIENTS)
def test_its_canonical_form_is_ours(names: dict[str, Any], recipient: str) -> None:
    assert names["canonical"](recipient) == recipients.canonical(recipient)


@pytest.mark.stack
def test_its_producer_routes_as_the_worker_expects(stack: Stack, names: dict[str, Any]) -> None:
    producer = names["connect"](stack.broker_address)
    sent = []
    for number, recipient in enumerate(RECIPIENTS * 4):
        event = MESSAGES[0] | {"recipient": recipient, "tenant": f"acme{number}"}
        sent.append((event, names["send"](producer, event)))
    producer.flush()
    producer.close()
    for event, future in sent:
        tenants = {event["tenant"]: Tenant()}
        assert future.get(5).partition == partition_of(record(Message(EVENTS, event), tenants, NOW_MS).key, PARTITIONS)


def test_every_reason_is_explained() -> None:
    explained = set(re.findall(r"`(\w+)`", PAGE.partition("## Why a body is refused")[2]))
    assert {*map(str, Reason), NOT_SENT} <= explained
