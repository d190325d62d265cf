"""Changes, as bytes that anybody may have put on the topic: read or refused, and what is read can be carried out."""

from __future__ import annotations

from collections.abc import Iterator

from pseudonymizer.consent import Mode
from streams.chain import Kind
from streams.errors import BadRow
from streams.messages import Change, decode_state, encode_change, parse_change
from streams.plan import plan, states
from streams.state import StateIndex
from tests.claims import Fetched, change, claim
from tests.fuzz.ring import keys
from tests.fuzz.samples import MODES, NOW, TENANTS

WORDS = ("type", "preference", "preference_id", "decided_at", "purposes", "salts", "key_version", "mode", *MODES, "*")


def seeds() -> Iterator[bytes]:
    for asked in (
        Mode.OFF,
        {"engagement": {"open": Mode.PERSONAL, "click": Mode.OFF}},
        {"advice": {"open": Mode.PERSONAL}},
    ):
        value = change(7, "erika@example.com", asked, NOW).value
        assert value
        yield value


def check(data: bytes) -> None:
    try:
        read = parse_change(data)
    except BadRow as why:
        assert why.__cause__ is None
        return
    assert isinstance(read, Change)
    assert parse_change(encode_change(read)) == read
    record = Fetched(1, data, b"acme\x1ferika@example.com")
    result = plan(claim(Kind.CHANGES, [record]), [record], TENANTS, StateIndex(), keys(), {})
    for _, value in states(result):
        for kinds in decode_state(value).purposes.values():
            for kind, consent in kinds.items():
                assert consent.mode <= Mode.ANONYMOUS or (kind in ("open", "click") and read.everything is None)
