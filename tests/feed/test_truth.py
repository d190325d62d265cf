"""The sample feeds tell one story in four formats; what comes out of every one has to be that story."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from aggregates.actors import classify
from pseudonymizer.recipients import canonical
from streams.errors import Reason
from streams.feed.formats import FORMATS
from streams.feed.items import EVENTS, MAILINGS, PREFERENCES, FeedOptions, Ignored, Item, Message, Refused
from streams.feed.records import record
from streams.messages import Purposes, parse_time

FEEDS = Path(__file__).parent.parent / "feeds"
VENDORS = ("sendgrid", "mailgun", "postmark", "ses")
NOW_MS = 1_795_500_000_000  # 24 November 2026: the feeds are of the week before


@dataclass
class Tenant:
    lower_local: bool = False
    purposes: dict[str, object] = field(default_factory=lambda: {"engagement": None})


TENANTS: dict[str, Purposes] = {name: Tenant() for name in VENDORS}


def read(vendor: str, **options: Any) -> list[Item]:
    lines = (FEEDS / f"{vendor}.ndjson").read_bytes().splitlines()
    return [item for line in lines for item in FORMATS[vendor](line, FeedOptions(vendor, **options))]


class Hit(NamedTuple):
    """What a naive reader keeps of an event."""

    cell: str
    recipient: str
    url: str | None
    at_ms: int


def hits(vendor: str) -> dict[str, Hit]:
    """Events by id, each checked as the worker will check it."""
    declared = [json.loads(line)["links"] for line in (FEEDS / "mailings.ndjson").read_text().splitlines()]
    of_url = {url: link for links in declared for link, url in links.items()}
    found = {}
    for item in read(vendor):
        if not isinstance(item, Message):
            continue
        record(item, TENANTS, NOW_MS)
        event = item.fields
        assert event["feed"] == event["tenant"] == vendor
        url = event.get("url")
        link = of_url[url.partition("?")[0]] if url else None
        assert event.get("link", link) == link
        actor = event.get("actor") or classify(event.get("user_agent"), event.get("ip")).value
        cell = "/".join(part for part in (event["mailing"], event["kind"], link, actor) if part)
        at_ms = parse_time(event["occurred_at"], "occurred_at", None)
        found[event["event_id"]] = Hit(cell, canonical(event["recipient"]), url, at_ms)
    return found


def cells(hits: Iterable[Hit]) -> dict[str, dict[str, int]]:
    recipients: dict[str, list[str]] = defaultdict(list)
    for hit in hits:
        recipients[hit.cell].append(hit.recipient)
    return {cell: {"events": len(them), "recipients": len(set(them))} for cell, them in recipients.items()}


def truth() -> dict[str, dict[str, int]]:
    cells: dict[str, dict[str, int]] = json.loads((FEEDS / "truth.json").read_text())["cells"]
    return cells


@pytest.mark.parametrize("vendor", ["sendgrid", "mailgun", "postmark"])
def test_formats_that_tell_everything_give_the_truth(vendor: str) -> None:
    """Postmark's too: no two hits of this story lie within one second."""
    assert cells(hits(vendor).values()) == truth()


def test_ses_lacks_the_hits_of_mails_with_two_destinations_and_no_other() -> None:
    refused = [item.why for item in read("ses") if isinstance(item, Refused)]
    assert [(why.reason, why.field) for why in refused] == [(Reason.NOT_ATTRIBUTABLE, "recipient")] * 10
    told = hits("ses")
    whole = hits("mailgun")  # the same ids: one story
    lacking = set(whole) - set(told)
    assert len(lacking) == 10
    assert told == {event_id: hit for event_id, hit in whole.items() if event_id not in lacking}


@pytest.mark.parametrize("vendor", VENDORS)
def test_every_body_is_accounted_for(vendor: str) -> None:
    items = read(vendor)
    bodies = [json.loads(line) for line in (FEEDS / f"{vendor}.ndjson").read_text().splitlines()]
    assert len(items) == sum(len(body) if isinstance(body, list) else 1 for body in bodies)
    ignored = sorted({item.what for item in items if isinstance(item, Ignored)})
    assert ignored == {
        "sendgrid": ["delivered", "group_unsubscribe"],
        "postmark": ["subscription change"],
    }.get(vendor, [])


@pytest.mark.parametrize("vendor", ["sendgrid", "postmark"])
def test_an_unsubscribe_withdraws_only_when_asked_to(vendor: str) -> None:
    def preferences(**options: Any) -> list[Message]:
        return [item for item in read(vendor, **options) if isinstance(item, Message) and item.topic == PREFERENCES]

    assert preferences() == []
    for mode in ("anonymous", "off"):
        (withdrawal,) = preferences(withdraw=mode)
        assert withdrawal.fields["mode"] == mode
        sent = record(withdrawal, TENANTS, NOW_MS)
        assert sent.key == f"{vendor}\x1fjürgen3@mail.example".encode()
        events = [item for item in read(vendor, withdraw=mode) if isinstance(item, Message) and item.topic == EVENTS]
        assert len(events) == len([item for item in read(vendor) if isinstance(item, Message)])


def test_the_declarations_are_in_our_own_format() -> None:
    lines = (FEEDS / "mailings.ndjson").read_bytes().splitlines()
    items = [item for line in lines for item in FORMATS["native"](line, FeedOptions(None, topic=MAILINGS))]
    keys = [record(item, TENANTS, NOW_MS).key for item in items if isinstance(item, Message)]
    assert len(set(keys)) == len(lines) == 8
