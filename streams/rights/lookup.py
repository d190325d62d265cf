"""Whom a pseudonym belongs to: for a reason that is written down, and only so often."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pseudonymizer.consent import Mode
from pseudonymizer.keys import KeyKind
from pseudonymizer.pseudonyms import as_number
from pseudonymizer.sealing import SealBroken
from streams.errors import SchleuseError, SettingsError
from streams.ledger import open_recipient
from streams.rights.audit import Action
from streams.rights.person import find

if TYPE_CHECKING:
    from streams.rights.desk import Desk

HOUR = 3600


class LookupRefused(SchleuseError):
    """A look-up was not made. The refusal is in the audit trail."""


@dataclass(frozen=True, slots=True)
class Found:
    """Whom a pseudonym belongs to. `repr` does not name her."""

    recipient: str = field(repr=False)
    purpose: str
    kind: str


def look_up(desk: Desk, tenant: str, pseudonym: bytes, why: str) -> Found | None:
    """Open the mapping of a pseudonym (16 bytes); None: none of this tenant's mappings has it.

    The attempt is on record before anything is opened, also one that finds nothing. The rate limit
    (`lookups_per_hour`) is read from the audit trail itself, all actors together, by the store's clock: whoever writes
    the attempt first is first, however many ask at once. Those that were refused do not count. Nobody is named whose
    consent no longer holds, though her mapping may be there for some seconds still.

    Raises LookupRefused, SettingsError, StoreUnavailable, BrokerError.
    """
    ceiling = desk.tenant(tenant).purposes
    if len(pseudonym) != 16:
        raise SettingsError("a pseudonym has 16 bytes: 32 hex digits")
    rows = desk.identity.rows(
        "looking for a mapping",
        "SELECT toString(purpose), toString(kind), hex(blind), hex(sealed) FROM recipients "
        "WHERE tenant = {tenant:String} AND pseudonym = {pseudonym:UInt128} LIMIT 1",
        {"tenant": tenant, "pseudonym": as_number(pseudonym)},
    )
    purpose, kind, blind, sealed = rows[0] if rows else ("", "", "", "")
    subject = bytes.fromhex(blind) if blind else None
    limit = desk.settings.lookups_per_hour
    detail = {"purpose": purpose, "kind": kind, "found": len(rows), "limit": limit}
    line = desk.audit.record(Action.LOOKED_UP, tenant, subject, why, detail)
    attempts = desk.audit.count(Action.LOOKED_UP, line.number, HOUR)
    if attempts - desk.audit.count(Action.LOOKUP_REFUSED, line.number, HOUR) > limit:
        desk.audit.record(Action.LOOKUP_REFUSED, tenant, subject, why, {"line": line.number, "because": "rate"})
        raise LookupRefused(
            f"there were {limit} look-ups within the last hour: the setting lookups_per_hour limits them"
        )
    if not rows:
        return None
    key = desk.ring.get(KeyKind.DATA, pseudonym.hex())
    allowed = purpose in ceiling and ceiling[purpose].ceiling is Mode.PERSONAL
    if key is not None and allowed:
        try:
            recipient = open_recipient(key, bytes.fromhex(sealed), pseudonym)
        except SealBroken:
            raise SchleuseError("the mapping does not open with its data key: it was changed") from None
        for one in find(desk, tenant, recipient).pseudonyms:
            if (one.value, one.purpose, one.kind, one.level) == (pseudonym, purpose, kind, Mode.PERSONAL):
                return Found(recipient, purpose, kind)
    desk.audit.record(Action.LOOKUP_REFUSED, tenant, subject, why, {"line": line.number, "because": "consent"})
    raise LookupRefused("the consent that this pseudonym stood on no longer holds: nobody is named")
