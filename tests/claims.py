"""Claims, records and people for tests of what carrying out a claim does: real keys, real states, no broker."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pseudonymizer.consent import Consent, Mode
from pseudonymizer.keys import KeyKind
from pseudonymizer.pseudonyms import blind_index
from streams.chain import Claim, Kind
from streams.keyring import KeyRing
from streams.keys import Keys
from streams.messages import Change, RecipientState, encode_change, encode_state
from streams.partitioner import message_key
from streams.tenants import TenantSettings, parse
from streams.transport import Record

NOW = int(time.time() * 1000)
TENANTS = """
[acme.purposes.engagement]
ceiling = "personal"
[acme.purposes.advice]
ceiling = "pseudonymous"
[beta]
"""


@dataclass
class Fetched:
    """A record as the transport hands it out."""

    offset: int
    value: bytes | None
    key: bytes | None = None
    timestamp: int = NOW


def tenants(text: str = TENANTS) -> Mapping[str, TenantSettings]:
    """Settings as `schleuse tenants apply` would put them in force."""
    return parse(text)


def make_keys(directory: Path) -> Keys:
    """The keys of a new ring, with a root key for each tenant, as the first grant makes it."""
    keys = Keys(KeyRing.open(directory / "ring", directory / "kek"))
    for tenant in ("acme", "beta"):
        keys.primary(tenant)
    return keys


def claim(kind: Kind, records: Sequence[Record], number: int = 0, mailings: int = 0, incarnation: int = 1) -> Claim:
    """The claim of these records by partition 0."""
    first, last = records[0].offset, records[-1].offset
    following = (last + 1, 0) if kind is Kind.EVENTS else (0, last + 1)
    return Claim(incarnation, 0, number, kind, first, last, *following, NOW, 1, mailings, "settings", "test/worker")


def event(offset: int, recipient: str, tenant: str = "acme", **fields: Any) -> Fetched:
    """An event; `recipient` has to be canonical for the key to be right."""
    value = {
        "event_id": f"e{offset}",
        "kind": "open",
        "tenant": tenant,
        "mailing": "m",
        "recipient": recipient,
        "occurred_at": NOW,
        **fields,
    }
    return Fetched(offset, json.dumps(value).encode(), message_key(tenant, recipient))


def change(
    offset: int,
    recipient: str,
    purposes: Mapping[str, Mapping[str, Mode]] | Mode,
    decided_at: int,
    tenant: str = "acme",
) -> Fetched:
    """A change as intake forwards it, its salts made from its offset; a mode alone is for everything."""
    modes = None if isinstance(purposes, Mode) else {name: dict(kinds) for name, kinds in purposes.items()}
    wire = Change(
        preference_id=f"tracking.preferences:0:{offset}",
        tenant=tenant,
        recipient=recipient,
        decided_at=decided_at,
        modes=modes,
        everything=purposes if isinstance(purposes, Mode) else None,
        salts={
            name: {kind: salt(offset, name, kind) for kind, mode in kinds.items() if mode > Mode.ANONYMOUS}
            for name, kinds in (modes or {}).items()
        },
        key_version=1,
        proof={"source": "form", "text_version": "1", "evidence": "mail"} if modes else None,
    )
    return Fetched(offset, encode_change(wire), message_key(tenant, recipient))


def salt(offset: int, purpose: str, kind: str) -> bytes:
    """The salt of a change that `change` made."""
    return f"{offset:04}{purpose[:6]:6}{kind[:6]:6}".encode()


def state(offset: int, purposes: Mapping[str, Mapping[str, Consent]], incarnation: int = 1) -> bytes:
    """An encoded state of this version."""
    return encode_state(RecipientState((incarnation, offset), {name: dict(kinds) for name, kinds in purposes.items()}))


def blind(keys: Keys, recipient: str, tenant: str = "acme") -> bytes:
    """The blind index of a recipient."""
    return blind_index(keys.single(KeyKind.BLIND), tenant, recipient)
