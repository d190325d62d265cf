"""The catalogue names every field of every message, as the code that reads and writes them has it: no more, no less."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

from pseudonymizer.consent import Consent, Mode, Salt
from pseudonymizer.keys import KeyKind
from streams import decode, messages, strict_json, topics
from streams.catalogue import KEYS, PLACES, TOPICS, Place
from streams.errors import Reason
from streams.rejections import Rejection, Replayed, Stage
from streams.rights.export.requests import receipt
from streams.rights.export.sealed import SealedExport
from tests import claims

ANY = {"purposes", "salts", "links", "removed"}  # objects whose names are a sender's or a tenant's own


def fields(topic: str) -> set[str]:
    (place,) = (place for place in TOPICS if place.name == topic)
    return {field.name for field in place.fields if not field.name.startswith("(")}


def paths(value: Any, under: str = "") -> Iterator[str]:
    """Every name in a JSON object, with the objects it stands in; those of ANY are taken whole."""
    for name, inner in value.items():
        if isinstance(inner, dict) and name not in ANY:
            yield from paths(inner, f"{under}{name}.")
        else:
            yield under + name


class Asked(dict[str, Any]):
    """A message that notes which of its fields are asked for."""

    def __init__(self, given: dict[str, Any], names: set[str], under: str = "") -> None:
        super().__init__(
            {
                name: Asked(inner, names, f"{under}{name}.") if isinstance(inner, dict) and name not in ANY else inner
                for name, inner in given.items()
            }
        )
        self.names, self.under = names, under

    def get(self, name: str, default: Any = None) -> Any:
        self.names.add(self.under + name)
        return super().get(name, default)

    def __getitem__(self, name: str) -> Any:
        self.names.add(self.under + name)
        return super().__getitem__(name)


PROOF = dict.fromkeys(("source", "text_version", "evidence", "age_check", "recorded_by"), "x")
PREFERENCE = {
    "tenant": "acme",
    "recipient": "erika@example.com",
    "decided_at": claims.NOW,
    "purposes": {"engagement": {"open": "personal"}},
    "proof": PROOF | {"conditional": False},
}
WITHDRAWAL = PREFERENCE | {"purposes": "*", "mode": "off"}
MAILING = {"tenant": "acme", "mailing": "m", "name": "m", "sent_at": claims.NOW, "recipients": 1, "links": {}}
EVENT = {
    **{"event_id": "e", "kind": "click", "tenant": "acme", "mailing": "m", "recipient": "erika@example.com"},
    **{"occurred_at": claims.NOW, "link": "hero"},
}


REQUEST = {
    **{"tenant": "acme", "recipient": "erika@example.com", "request_id": "r", "kind": "erasure"},
    "requested_at": claims.NOW,
}


def read_request(record: dict[str, Any]) -> Any:
    return messages.parse_request(json.dumps(record).encode(), claims.tenants(), claims.NOW)


def read_event(record: dict[str, Any]) -> Any:
    return decode.read_event(json.dumps(record).encode(), claims.NOW)


def read_preference(record: dict[str, Any]) -> Any:
    return messages.parse_preference(json.dumps(record).encode(), claims.tenants(), claims.NOW)


def read_mailing(record: dict[str, Any]) -> Any:
    return messages.parse_mailing(json.dumps(record).encode(), claims.tenants())


@pytest.mark.parametrize(
    ("topic", "read", "samples"),
    [
        (topics.EVENTS, read_event, [EVENT]),
        (topics.PREFERENCES, read_preference, [PREFERENCE, WITHDRAWAL]),
        (topics.MAILINGS, read_mailing, [MAILING]),
        (topics.REQUESTS, read_request, [REQUEST]),
    ],
    ids=["events", "preferences", "mailings", "requests"],
)
def test_what_is_read_of_a_senders_message_is_named(
    monkeypatch: pytest.MonkeyPatch, topic: str, read: Callable[[dict[str, Any]], Any], samples: list[dict[str, Any]]
) -> None:
    names: set[str] = set()
    for module in (decode, messages):
        monkeypatch.setattr(module, "read_object", lambda raw: Asked(strict_json.read_object(raw), names))
    for sample in samples:
        read(sample)
    assert {name for name in names if name != "proof"} == fields(topic)


def test_what_is_written_to_changes_is_named() -> None:
    proof = dict(PROOF) | {"conditional": False}
    change = json.loads(claims.change(1, "erika@example.com", {"engagement": {"open": Mode.PERSONAL}}, 1).value or b"")
    others: list[messages.AnyChange] = [
        messages.Erasure("r1", "acme", "erika@example.com", 1, "tracking.requests:0:1"),
        messages.Ceiling("c1", "acme", "engagement", Mode.ANONYMOUS, b"s" * 32),
        messages.Rekey("acme", "erika@example.com", 1, 2, False),
        messages.Closing("c2", "acme", "m"),
    ]
    assert {messages.Change, *map(type, others)} == set(get_args(messages.AnyChange)), "every type of change"
    written = {*paths(change | {"proof": proof})}
    for one in others:
        written |= {*paths(json.loads(messages.encode_change(one)))}
    assert written == fields(topics.CHANGES)


def test_what_is_written_to_the_state_is_named() -> None:
    assert set(messages._StateWire.__struct_fields__) == {"version", "purposes"}
    each = {f"purposes.*.*.{name}" for name in Consent._fields if name != "salts"}
    each |= {f"purposes.*.*.salts.{name}" for name in Salt._fields}
    assert each | {"version"} == fields(topics.STATE)


def test_what_is_written_to_rejected_and_receipts_is_named() -> None:
    rejection = Rejection("t", 0, 1, 1, Stage.EVENTS, Reason.NOT_JSON, "f", "e", 1, b"sealed", "2026-01-01")
    rejected = {*paths(json.loads(rejection.encode())), *paths(json.loads(Replayed("t:0:1", 1, "t", 0, 2).encode()))}
    assert rejected == fields(topics.REJECTED)
    receipts = [messages.encode_receipt("1", kind, "acme", 1, {"rows": 1}, 2) for kind in ("withdrawal", "erasure")]
    asked = messages.Request("access", "r1", "acme", "erika@example.com", 1)
    receipts.append(receipt(asked, SealedExport(Path("a"), "b", messages.format_time(1), 2)))
    assert {name for told in receipts for name in paths(json.loads(told))} == fields(topics.RECEIPTS)


def test_every_topic_and_every_kind_of_key_is_named_once() -> None:
    assert sorted(place.name for place in TOPICS) == sorted(topics.NAMES)
    assert set(KEYS) == set(KeyKind)
    places: list[Place] = list(PLACES)
    assert len({(place.store, place.name) for place in places}) == len(places)
    for place in places:
        assert len({field.name for field in place.fields}) == len(place.fields), place.name
