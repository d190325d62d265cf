"""Both stores, the state and the key ring -> an Export.

Reads, opens and removes nothing; what is opened here has to be in the audit trail before (`of` does that). What is read
is what holds now: a decision that is still on its way through Kafka is not in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from pseudonymizer.consent import ALWAYS, Consent, Effect, Mode
from pseudonymizer.keys import KeyKind
from pseudonymizer.pseudonyms import from_number
from pseudonymizer.sealing import SealBroken
from streams.ledger import open_recipient
from streams.messages import EVERYTHING, format_time
from streams.rights.audit import Action
from streams.rights.consents import ledger
from streams.rights.export.held import (
    Choice,
    Decision,
    Disclosure,
    Erasure,
    Export,
    Look,
    Mapping,
    Place,
    Proof,
    Purpose,
    Receipt,
    Row,
)
from streams.rights.export.words import PLACES
from streams.rights.person import find
from streams.topics import DAY_MS, NO_LIMIT, topics

if TYPE_CHECKING:
    from collections.abc import Mapping as Map

    from streams.rights.desk import Desk
    from streams.rights.person import Person
    from streams.settings import Settings
    from streams.tenants import PurposeSettings

LOOKS = 1_000  # of the audit trail, the newest
IDS_AT_ONCE = 1_000  # in one parameter: a ClickHouse server takes up to 128 KiB
SEEN_DAYS = 4
BROKER_SEGMENT_MS = 7 * DAY_MS  # Kafka's own default, where a topic says nothing of its segments

_HERS = "tenant = {tenant:String} AND blind = unhex({blind:String})"
_MAPPINGS = f"""
SELECT toString(purpose), toString(kind), pseudonym, key_version, toUnixTimestamp64Milli(at), hex(sealed)
FROM recipients WHERE {_HERS} ORDER BY at, purpose, kind
"""
_DISCLOSURES = f"""
SELECT toString(purpose), toUnixTimestamp64Milli(at), disclosed_to, why, mailing, toString(kind), link, disclosure_id
FROM disclosures WHERE {_HERS} ORDER BY at, purpose, mailing
"""
# As text and in a subquery: ClickHouse reads a literal above 64 bits as a floating point number, and matches nothing.
_ROWS = """
SELECT toString(purpose), toUnixTimestamp(occurred), toString(kind), toString(mailing), toString(link),
    toString(device), toString(actor), toString(feed), pseudonym, key_version, toString(expires)
FROM engagement
WHERE tenant = {tenant:String} AND partition = {partition:UInt16}
    AND pseudonym IN (SELECT toUInt128(arrayJoin({pseudonyms:Array(String)})))
ORDER BY occurred, purpose, mailing, kind
"""
_RECEIPTS = """
SELECT id, toString(kind), toUnixTimestamp64Milli(completed_at), rows, mappings, toUnixTimestamp64Milli(gone_by)
FROM receipts WHERE tenant = {tenant:String} AND id IN {ids:Array(String)} ORDER BY completed_at, id
"""


def of(desk: Desk, tenant: str, recipient: str, why: str) -> Export:
    """Everything held of a recipient of a tenant, as she was written by anybody. Blocking.

    First it is written into the audit trail that it was. `why` is a text for the trail. Raises SettingsError (no such
    tenant, no recipient), StoreUnavailable, StoreRefused, BrokerError, and BadRow when her state cannot be read.
    """
    name = desk.canonical(desk.tenant(tenant), recipient)
    line = desk.audit.record(Action.EXPORTED, tenant, desk.blind(tenant, name), why, {})
    return gather(desk, find(desk, tenant, name), line.number, line.at_ms)


def gather(desk: Desk, person: Person, but_line: int, made_ms: int) -> Export:
    """What is held of a person. `but_line` of the audit trail is this export's own and is left out."""
    names = {"tenant": person.tenant, "blind": person.blind.hex()}
    decisions = _decisions(desk, person)
    erased = [recorded_ms for _, decision, recorded_ms in decisions if decision.effect == Effect.ERASED]
    mine = [(purpose, decision) for purpose, decision, _ in decisions if decision.effect != Effect.ERASED]
    erasure = _erasure(person, erased)
    choices = _choices(desk, person, erasure is not None and all(purpose != EVERYTHING for purpose, _ in mine))
    mappings = _mappings(desk, person, names)
    rows = _rows(desk, person)
    disclosures = [
        (purpose, Disclosure(at=format_time(at), disclosed_to=to, why=why, mailing=m, kind=k, link=li, disclosure_id=i))
        for purpose, at, to, why, m, k, li, i in desk.identity.rows("reading disclosures", _DISCLOSURES, names)
    ]
    known = {purpose for parts in (choices, mine, mappings, rows, disclosures) for purpose, _ in parts}
    settings = desk.tenant(person.tenant).purposes
    return Export(
        format="schleuse-export",
        version=1,
        made_at=format_time(made_ms),
        tenant=person.tenant,
        recipient=person.recipient,
        found_by=person.blind.hex(),
        nothing_held=not known,
        erasure=erasure,
        purposes=[
            _purpose(purpose, settings.get(purpose), choices, mine, mappings, rows, disclosures)
            for purpose in sorted(known)
        ],
        receipts=_receipts(desk, person, [decision.preference_id for _, decision in mine]),
        looks=[
            Look(at=format_time(line.at_ms), action=line.action, why=line.why)
            for line in desk.audit.lines(LOOKS, person.tenant, person.blind)
            if line.number != but_line
        ],
        elsewhere=elsewhere(desk.settings, made_ms),
    )


def _purpose(purpose: str, of_tenant: PurposeSettings | None, *parts: Sequence[tuple[str, Any]]) -> Purpose:
    choices, decisions, mappings, rows, disclosures = ([one for name, one in part if name == purpose] for part in parts)
    return Purpose(
        purpose=purpose,
        ceiling=of_tenant.ceiling.word if of_tenant is not None else None,  # type: ignore[arg-type]  # a mode's word
        retention_days=of_tenant.retention_days if of_tenant is not None else None,
        choices=choices,
        decisions=decisions,
        mappings=mappings,
        rows=rows,
        disclosures=disclosures,
    )


def _erasure(person: Person, erased: Sequence[int]) -> Erasure | None:
    if not erased and not person.is_stub:
        return None
    left = person.state.purposes.get(EVERYTHING, {}) if person.state is not None else {}
    counted = not any(consent.mode is Mode.OFF for consent in left.values())
    return Erasure(at=format_time(max(erased)) if erased else None, counted=counted)


def _choices(desk: Desk, person: Person, only_remnants: bool) -> list[tuple[str, Choice]]:
    """`only_remnants`: what the state says for all purposes at once is what an erasure left, and no choice of hers."""
    if person.state is None or person.is_stub:
        return []
    tenant = desk.tenant(person.tenant)
    return [
        # What she has decided for everything has no ceiling of its own.
        (purpose, _choice(kind, consent, Mode.PERSONAL if purpose == EVERYTHING else tenant.ceiling(purpose)))
        for purpose, kinds in person.state.purposes.items()
        if not (only_remnants and purpose == EVERYTHING)
        for kind, consent in kinds.items()
    ]


def _choice(kind: str, consent: Consent, ceiling: Mode) -> Choice:
    anonymous, pseudonymous, personal = (_since(at) for at in consent.since)
    return msgspec.convert(
        {
            "kind": kind,
            "mode": consent.mode.word,
            "in_force": min(consent.mode, ceiling).word,
            "decided_at": _since(consent.decided_at),
            "anonymous_since": anonymous,
            "pseudonymous_since": pseudonymous,
            "personal_since": personal,
        },
        Choice,
    )


def _since(at_ms: int | None) -> str | None:
    return None if at_ms is None or at_ms == ALWAYS else format_time(at_ms)


def _decisions(desk: Desk, person: Person) -> list[tuple[str, Decision, int]]:
    result = []
    for one in ledger(desk, person.tenant, person.blind):
        told = {
            "kind": one.kind,
            "mode": one.mode,
            "effect": one.effect,
            "decided_at": format_time(one.decided_at),
            "recorded_at": format_time(one.recorded_at),
            "preference_id": one.preference_id,
            "proof": None if one.proof is None else {name: one.proof.get(name) for name in Proof.__struct_fields__},
            "proof_state": "cannot_be_opened" if one.unreadable else "none" if one.proof is None else "opened",
        }
        result.append((one.purpose, msgspec.convert(told, Decision), one.recorded_at))
    return result


def _mappings(desk: Desk, person: Person, names: Map[str, str]) -> list[tuple[str, Mapping]]:
    result = []
    for purpose, kind, number, version, at_ms, sealed in desk.identity.rows("reading mappings", _MAPPINGS, names):
        pseudonym = from_number(number)
        told = {
            "kind": kind,
            "pseudonym": pseudonym.hex(),
            "key_version": version,
            "made_at": format_time(at_ms),
            "opens": _opens(desk, person, pseudonym, bytes.fromhex(sealed)),
        }
        result.append((purpose, msgspec.convert(told, Mapping)))
    return result


def _opens(desk: Desk, person: Person, pseudonym: bytes, sealed: bytes) -> bool:
    key = desk.ring.get(KeyKind.DATA, pseudonym.hex())
    try:
        return key is not None and open_recipient(key, sealed, pseudonym) == person.recipient
    except (SealBroken, UnicodeDecodeError):
        return False


def _rows(desk: Desk, person: Person) -> list[tuple[str, Row]]:
    """Rows under every pseudonym that can still be computed; there are no others of hers (P4)."""
    if not person.pseudonyms:
        return []
    found = desk.analytics.rows(
        "reading rows",
        _ROWS,
        {
            "tenant": person.tenant,
            "partition": person.partition,
            "pseudonyms": [str(one.number) for one in person.pseudonyms],
        },
    )
    return [
        (
            purpose,
            Row(
                occurred_at=format_time(at * 1000),
                kind=kind,
                mailing=mailing,
                link=link,
                device=device,
                actor=actor,
                feed=feed,
                pseudonym=from_number(number).hex(),
                key_version=version,
                kept_until=expires,
            ),
        )
        for purpose, at, kind, mailing, link, device, actor, feed, number, version, expires in found
    ]


def _receipts(desk: Desk, person: Person, ids: Iterable[str]) -> list[Receipt]:
    asked = list(dict.fromkeys(ids))
    found: list[Sequence[Any]] = []
    for begin in range(0, len(asked), IDS_AT_ONCE):
        names = {"tenant": person.tenant, "ids": asked[begin : begin + IDS_AT_ONCE]}
        found += desk.identity.rows("reading receipts", _RECEIPTS, names)
    return [
        Receipt(
            id=number,
            kind=kind,
            completed_at=format_time(at),
            rows=rows,
            mappings=mappings,
            gone_by=format_time(gone_ms),
        )
        for number, kind, at, rows, mappings, gone_ms in found
    ]


def elsewhere(settings: Settings, now_ms: int) -> list[Place]:
    """What holds something of hers, or may, beside the rows: Kafka by these settings, keyed hashes, backups."""
    places = []
    for topic in topics(settings):
        if not topic.personal:
            continue
        kept_ms = int(topic.configs["retention.ms"])
        what = PLACES[topic.name].en
        if kept_ms == NO_LIMIT or topic.configs["cleanup.policy"] == "compact":
            places.append(Place(place=topic.name, what=what, kept="no_limit"))
        else:  # the log lets go of whole segments
            gone_ms = now_ms + kept_ms + int(topic.configs.get("segment.ms", BROKER_SEGMENT_MS))
            places.append(Place(place=topic.name, what=what, kept="until", until=format_time(gone_ms)))
    return [
        *places,
        Place(place="seen", what=PLACES["seen"].en, kept="at_most", days=SEEN_DAYS),
        Place(place="cells_unique", what=PLACES["cells_unique"].en, kept="no_limit"),
        Place(place="exports", what=PLACES["exports"].en, kept="at_most", days=settings.exports_days),
        Place(place="backups", what=PLACES["backups"].en, kept="no_limit"),
    ]
