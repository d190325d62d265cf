"""What holds for every vendor's adapter, whatever the body."""

from __future__ import annotations

import json
from collections.abc import Iterator, Set
from typing import Any

import orjson

from streams.errors import BadRow
from streams.feed.formats import FORMATS
from streams.feed.items import EVENTS, FeedOptions, Ignored, Item, Message, Refused
from streams.feed.native import FIELDS
from streams.feed.records import record
from tests.fuzz.samples import NOW, TENANTS, feed

CANARY = "canary@geheim.example"


def seeds_of(vendor: str) -> Iterator[bytes]:
    """A body of each shape that the sample feed has."""
    for hit in feed(vendor):
        yield json.dumps(hit).encode()
    yield b"[]"


def check_body(vendor: str, data: bytes, listed: Set[str]) -> None:
    """`listed`: the places in the vendor's body that may be looked at; a place with all that is inside it."""
    for withdraw in (None, "anonymous"):
        options = FeedOptions(None if vendor == "native" else vendor, withdraw=withdraw)  # type: ignore[arg-type]
        items = FORMATS[vendor](data, options)
        assert items
        assert shown(FORMATS[vendor](data, options)) == shown(items), "the same body twice gives the same"
        for item in items:
            if isinstance(item, Message):
                _check_message(item, options)
        try:
            body = orjson.loads(data)  # the strictest there is: what is planted must not mend what was refused
            if vendor == "ses" and isinstance(body, dict) and isinstance(body.get("Message"), str):
                body["Message"] = json.dumps(orjson.loads(body["Message"]))  # no name twice in it either
            plain, grown = (json.dumps(one).encode() for one in (body, planted(body, listed, vendor == "ses")))
        except ValueError:
            continue
        before, after = shown(FORMATS[vendor](plain, options)), shown(FORMATS[vendor](grown, options))
        if str(before).find("too_") < 0 and str(after).find("too_") < 0:  # what is planted makes it larger and deeper
            assert before == after, "a place off the list counts"


def _check_message(message: Message, options: FeedOptions) -> None:
    assert set(message.fields) <= set(FIELDS[message.topic])
    if options.tenant is not None:
        assert message.fields["tenant"] == options.tenant
    try:
        sent = record(message, TENANTS, NOW)
    except BadRow as why:
        assert why.__cause__ is None
        return
    assert record(message, TENANTS, NOW) == sent
    taken = json.loads(sent.value)
    assert taken == message.fields
    if message.topic == EVENTS:
        for name in ("tenant", "mailing", "kind", "actor", "feed"):  # these go to analysts as they are
            assert "@" not in taken.get(name, "")


def shown(items: list[Item]) -> list[Any]:
    """What items say, comparable."""
    said: list[Any] = []
    for item in items:
        match item:
            case Message(topic, fields):
                said.append((topic, fields))
            case Ignored(what):
                said.append(what)
            case Refused(why):
                assert why.__cause__ is None
                said.append((why.reason, why.field, why.expected))
    return said


def planted(value: Any, listed: Set[str], packed: bool, path: str = "") -> Any:
    """The same body with a canary in every value off the list, and under a strange name in every object."""
    if path in listed:
        return value
    if isinstance(value, list) and not path:
        return [planted(inner, listed, packed) for inner in value]
    if packed and path == "Message" and isinstance(value, str):
        report = orjson.loads(value)
        return json.dumps(planted(report, listed, packed, path)) if isinstance(report, dict) else value
    if isinstance(value, dict) and (not path or any(place.startswith(f"{path}.") for place in listed)):
        inside = {name: planted(inner, listed, packed, f"{path}.{name}".strip(".")) for name, inner in value.items()}
        return inside | {"customer_email": CANARY, CANARY: {"nested": [CANARY]}}
    if not path or any(place.startswith(f"{path}.") for place in listed):
        return value  # on the way to a place on the list, and of the wrong type
    return CANARY
