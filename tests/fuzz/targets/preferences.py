"""Preferences: a grant without a usable proof is none, and no withdrawal is lost over its proof."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pseudonymizer.consent import Mode
from pseudonymizer.recipients import canonical
from streams.errors import BadRow
from streams.messages import KINDS, YEAR_2000_MS, Change, encode_change, parse_change, parse_preference
from streams.partitioner import message_key
from tests.fuzz.samples import MODES, NOW, PREFERENCE, TENANTS, WITHDRAWAL

WORDS = (
    *PREFERENCE,
    *PREFERENCE["proof"],
    *MODES,
    "mode",
    "engagement",
    "advice",
    "open",
    "click",
    "lower",
    "*",
    "true",
)
PROOF_TEXTS = ("source", "text_version", "evidence", "age_check", "recorded_by")


def seeds() -> Iterator[bytes]:
    for message in (PREFERENCE, WITHDRAWAL, WITHDRAWAL | {"tenant": "lower", "decided_at": NOW, "proof": [1]}):
        yield json.dumps(message).encode()
    yield json.dumps(PREFERENCE | {"proof": {"source": " ", "conditional": True}}).encode()
    yield b'{"tenant":"acme","recipient":"R\xc3\xbc@B\xc3\xbccher.example ","decided_at":1,"purposes":{"advice":{}}}'


def check(data: bytes) -> None:
    try:
        asked = parse_preference(data, TENANTS, NOW)
    except BadRow as why:
        assert why.__cause__ is None
        if (why.field or "").startswith("proof"):
            assert _grants(json.loads(data)), "a withdrawal was refused for its proof"
        return
    tenant = TENANTS[asked.tenant]
    assert canonical(asked.recipient, tenant.lower_local) == asked.recipient
    message_key(asked.tenant, asked.recipient)
    assert YEAR_2000_MS <= asked.decided_at <= NOW
    assert (asked.modes is None) != (asked.everything is None)
    modes = [mode for kinds in (asked.modes or {}).values() for mode in kinds.values()]
    if asked.modes is None:
        assert asked.everything in (Mode.OFF, Mode.ANONYMOUS)
    else:
        assert modes
        assert asked.modes.keys() <= tenant.purposes.keys()
        assert all(kinds and set(kinds) <= set(KINDS) for kinds in asked.modes.values())
        sent = json.loads(data)["purposes"]
        assert {
            purpose: {kind: mode.word for kind, mode in kinds.items()} for purpose, kinds in asked.modes.items()
        } == sent
    proof = asked.proof
    if any(mode > Mode.ANONYMOUS for mode in modes):
        assert proof
        assert proof["source"].strip()
        assert proof["text_version"].strip()
        assert not proof.get("conditional")
    assert set(proof or {}) <= {*PROOF_TEXTS, "conditional"}
    assert all(len(text) <= 500 for text in (proof or {}).values() if isinstance(text, str))
    _goes_through(asked)


def _grants(sent: Any) -> bool:
    purposes = sent["purposes"]
    return any(mode in ("pseudonymous", "personal") for kinds in purposes.values() for mode in kinds.values())


def _goes_through(asked: Any) -> None:
    """What intake makes of it is read by the owner of the partition as it was meant."""
    salts = {
        purpose: {kind: b"s" * 16 for kind, mode in kinds.items() if mode > Mode.ANONYMOUS}
        for purpose, kinds in (asked.modes or {}).items()
    }
    change = Change(
        "tracking.preferences:0:0",
        asked.tenant,
        asked.recipient,
        asked.decided_at,
        asked.modes,
        asked.everything,
        {purpose: kinds for purpose, kinds in salts.items() if kinds},
        1,
        asked.proof,
    )
    assert parse_change(encode_change(change)) == change
