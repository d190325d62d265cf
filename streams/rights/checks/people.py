"""What stands in the stores about people, against what they agreed to (P1, P4, P5).

A partition at a time, since all that is about a recipient lies in the partition of her key: first the rows and the
mappings, then the state, then the ledger. A row of a recipient is removed before her state lets go of its salt, and a
state is written before the next claim begins: so a row whose pseudonym the later state does not allow, and that is
there again after that, is one that should not be there. Mappings and ledger lines of a claim that may not be done yet
are left out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pseudonymizer.consent import Mode
from pseudonymizer.keys import KeyKind
from pseudonymizer.pseudonyms import STUB_PREFIX, from_number
from streams.broker import partition_count, read_partition
from streams.errors import BadRow
from streams.messages import EVERYTHING, RecipientState, decode_state, state_version
from streams.partitioner import SEPARATOR
from streams.rights.person import pseudonyms
from streams.rights.verify import ANYWHERE, SURELY, About, Look, Position, Sight, Sweep
from streams.tenants import TenantSettings
from streams.topics import STATE

ROWS, MAPPINGS, LEDGER, ERASED, STATES = "rows", "mappings", "ledger", "erased", "states"

ABOUT = {
    ROWS: About(
        "P1, P4",
        ROWS,
        "Every pseudonym in the analytics store is one that a recipient's state allows, for that purpose and kind, not "
        "before she agreed, and within the tenant's ceiling.",
        "stop handing rows to anybody; look at docs/verify.md under rows; what nobody agreed to has to be deleted",
    ),
    MAPPINGS: About(
        "P1, P4",
        MAPPINGS,
        "Every mapping in the identity store is of a recipient in personal mode, under her own blind index, within the "
        "ceiling; each has a data key, and no data key is without a mapping.",
        "look at docs/verify.md under mappings; a mapping that nobody agreed to has to be deleted, with its data key",
    ),
    LEDGER: About(
        "P1, P4",
        LEDGER,
        "Every recipient with a pseudonym has a line in the consent ledger by which she agreed to it, with a proof, "
        "and no later one by which she withdrew.",
        "keep the workers running and look at docs/verify.md under ledger: a consent that cannot be proven is none",
    ),
    ERASED: About(
        "P5",
        ERASED,
        "Of every erased recipient nothing is left but the fact: no state under her address, no earlier line in the "
        "ledger, no mapping, no disclosure and no sealed export of before.",
        "ask for her erasure again (schleuse erase), then look at docs/verify.md under erased",
    ),
    STATES: About(
        "P1",
        STATES,
        "Every state can be read: what cannot be read is refused, and so is every event of its recipient.",
        "a newer release may have written it: use that one; else look at docs/verify.md under states",
    ),
}
_CLOCKS_MS = 60_000  # by how much the clock of who made a key may be behind the stores'


@dataclass(frozen=True, slots=True)
class Allowed:
    """What a pseudonym may stand for."""

    tenant: str
    purpose: str
    kind: str
    level: Mode
    since_ms: int
    """From when on events may stand under it."""
    key_version: int
    blind: bytes = field(repr=False)


class _Erased(NamedTuple):
    """The fact that somebody was erased, as the ledger has it, and what else it has of her."""

    decided_ms: int
    recorded_ms: int
    earlier: int
    """Lines of claims before her erasure."""
    grants: int
    """Those of them that raised a mode before it."""


_Key = tuple[str, bytes]  # tenant and blind index
Tenants = Mapping[str, TenantSettings]


def sweep(sight: Sight) -> Mapping[str, Look]:
    """One look at all partitions."""
    looks = {name: Look() for name in ABOUT}
    positions, tenants = sight.done_below(), sight.tenants()
    data_keys = set(sight.desk.ring.names(KeyKind.DATA))
    mapped: set[str] = set()
    exports = _exports(sight)
    for partition in range(partition_count(sight.settings.broker, STATE)):
        newest = positions.get(partition)
        for look in looks.values():
            look.partition = partition
        rows, mappings = _rows(sight, partition), _mappings(sight, partition, newest)
        erased = _erased(sight, partition, newest)
        allowed: dict[int, Allowed] = {}
        standing: set[_Key] = set()  # those of the erased who have a state under their own address
        for tenant, name, state in _people(sight, partition, looks[STATES]):
            _allow(sight, tenant, name, state, allowed)
            if erased and (who := (tenant, sight.desk.blind(tenant, name))) in erased:
                standing.add(who)
                _check_state(who, state, erased[who], looks[ERASED])
        _check_rows(rows, allowed, tenants, looks[ROWS])
        _check_mappings(mappings, allowed, tenants, data_keys, looks[MAPPINGS])
        _check_ledger(_ledger(sight, partition), allowed, looks[LEDGER])
        _check_erased(erased, standing, exports, looks[ERASED])
        for row in mappings:
            if (str(row[0]), bytes(row[5])) in erased and int(row[3]) not in allowed:
                looks[ERASED].flaw("mappings of erased recipients", row[3])
        mapped |= {_name(row[3]) for row in _mappings(sight, partition, None)}
    for look in looks.values():
        look.partition = ANYWHERE
    _check_disclosures(sight, looks[ERASED])
    for name in data_keys - mapped:
        looks[MAPPINGS].flaw("data keys without a mapping", name)
    looks[MAPPINGS].looked_at["data keys"] = len(data_keys)
    return looks


SWEEPS = (Sweep(sweep, ABOUT),)


def _name(pseudonym: int) -> str:
    """The name of the data key of a mapping."""
    return from_number(pseudonym).hex()


# --- what is there ---

_ROWS = """
SELECT toString(tenant), toString(purpose), toString(kind), pseudonym, key_version, toUnixTimestamp(min(occurred)),
    count()
FROM engagement WHERE partition = {partition:UInt16} GROUP BY tenant, purpose, kind, pseudonym, key_version
"""
_DONE = "partition = {partition:UInt16} AND (incarnation < {incarnation:UInt32} OR claim < {claim:UInt64})"
_MAPPINGS = f"""
SELECT toString(tenant), toString(purpose), toString(kind), pseudonym, key_version, blind FROM recipients WHERE {_DONE}
"""
_MODE = "indexOf(['off', 'anonymous', 'pseudonymous', 'personal'], toString(mode)) - 1"  # as in Mode
_LEDGER = f"""
SELECT toString(tenant), blind, toString(purpose), toString(kind),
    groupArrayIf((toUnixTimestamp64Milli(decided_at), {_MODE}, proof != ''), effect = 'raised' AND {_MODE} >= 2) AS up,
    argMaxIf({_MODE}, (decided_at, -({_MODE})), effect IN ('raised', 'lowered', 'confirmed'))
FROM consents WHERE partition = {{partition:UInt16}} GROUP BY tenant, blind, purpose, kind HAVING notEmpty(up)
"""
_ERASED = f"""
SELECT toString(tenant), blind, toUnixTimestamp64Milli(any(until)), toUnixTimestamp64Milli(any(recorded)),
    countIf(effect != 'erased' AND (incarnation, claim) < at),
    countIf(effect = 'raised' AND (incarnation, claim) < at AND decided_at < until)
FROM consents INNER JOIN
    (SELECT tenant, blind, min(decided_at) AS until, max(recorded_at) AS recorded, max((incarnation, claim)) AS at
     FROM consents WHERE effect = 'erased' AND {_DONE} GROUP BY tenant, blind) AS erased USING (tenant, blind)
GROUP BY tenant, blind
"""
_DISCLOSED = """
SELECT toString(tenant), blind, count() FROM disclosures INNER JOIN
    (SELECT tenant, blind, min(decided_at) AS until FROM consents WHERE effect = 'erased' GROUP BY tenant, blind)
    AS erased USING (tenant, blind)
WHERE at < until GROUP BY tenant, blind
"""
_ALL = Position(0, 2**63, "", 0, 0)


def _rows(sight: Sight, partition: int) -> Any:
    return sight.desk.analytics.rows("looking at rows", _ROWS, {"partition": partition})


def _done(partition: int, newest: Position | None) -> dict[str, int]:
    """Names for `_DONE`: what claims wrote that are done, whatever moves; None: what any claim wrote."""
    below = newest if newest is not None else _ALL
    return {"partition": partition, "incarnation": below.incarnation, "claim": below.number}


def _mappings(sight: Sight, partition: int, newest: Position | None) -> Any:
    return sight.desk.identity.rows("looking at mappings", _MAPPINGS, _done(partition, newest))


def _ledger(sight: Sight, partition: int) -> Any:
    return sight.desk.identity.rows("looking at the ledger", _LEDGER, {"partition": partition})


def _erased(sight: Sight, partition: int, newest: Position | None) -> dict[_Key, _Erased]:
    rows = sight.desk.identity.rows("looking for erasures", _ERASED, _done(partition, newest))
    return {(str(row[0]), bytes(row[1])): _Erased(*map(int, row[2:])) for row in rows}


def _exports(sight: Sight) -> dict[str, int]:
    """Blind index (hex) -> when the oldest key of a sealed export of hers was made, in epoch milliseconds."""
    found: dict[str, int] = {}
    for entry in sight.desk.ring.entries():
        if entry.kind is KeyKind.EXPORT:
            blind = entry.name.partition(":")[0]
            found[blind] = min(entry.created_at, found.get(blind, entry.created_at))
    return found


def _people(sight: Sight, partition: int, look: Look) -> Iterator[tuple[str, str, RecipientState]]:
    """Tenant, canonical recipient and state of everybody whose state lies under her own key and stands."""
    newest: dict[bytes, tuple[tuple[int, int], bytes]] = {}
    for record in read_partition(sight.settings.broker, STATE, partition, lambda _: True):
        if record.value is None:
            continue  # a tombstone removes nothing by itself: versions only rise
        try:
            version = state_version(record.value)
        except BadRow:
            look.flaw("records without a version", (partition, record.offset), partition=SURELY)
            continue
        if record.key not in newest or newest[record.key][0] <= version:
            newest[record.key] = version, record.value
    names = [key for key in newest if not key.startswith(STUB_PREFIX)]
    superseded = dict(zip(names, sight.desk.keys.stub_keys(names) if names else [], strict=True))
    look.looked_at["states"] += len(newest)
    for key, (version, raw) in newest.items():
        try:
            state = decode_state(raw)
        except BadRow:
            look.flaw("states that cannot be read", key, partition=SURELY)
            continue
        if key.startswith(STUB_PREFIX):
            look.looked_at["stubs of erased recipients"] += 1
            if any(consent.salts for kinds in state.purposes.values() for consent in kinds.values()):
                look.flaw("stubs that hold a salt", key)
        elif (stub := newest.get(superseded[key])) is None or stub[0] < version:
            tenant, _, name = key.partition(SEPARATOR)
            yield tenant.decode(), name.decode(), state


def _allow(sight: Sight, tenant: str, name: str, state: RecipientState, allowed: dict[int, Allowed]) -> None:
    """Add every pseudonym that a state's salts and the key ring allow to compute."""
    for one in pseudonyms(sight.desk.keys, tenant, name, state):
        since = state.purposes[one.purpose][one.kind].held_since(one.level)
        assert since is not None  # decode_state has checked that no salt is above the mode
        blind = sight.desk.blind(tenant, name)
        allowed[one.number] = Allowed(tenant, one.purpose, one.kind, one.level, since, one.key_version, blind)


# --- what is wrong ---


def _check_rows(rows: Any, allowed: Mapping[int, Allowed], tenants: Tenants, look: Look) -> None:
    look.looked_at["pseudonyms"] += len(rows)
    for tenant, purpose, kind, pseudonym, key_version, first, count in rows:
        look.looked_at["rows"] += count
        one = allowed.get(int(pseudonym))
        if one is None:
            look.flaw("rows under a pseudonym that no recipient's state allows", pseudonym, count)
        elif (one.tenant, one.purpose, one.kind) != (tenant, purpose, kind):
            look.flaw("rows for another purpose or kind than she agreed to", (pseudonym, purpose, kind), count)
        elif one.key_version != key_version:
            look.flaw("rows under another version of the root key than the state names", pseudonym, count)
        elif first < one.since_ms // 1000:
            look.flaw("pseudonyms with a row from before she agreed", pseudonym)
        elif _ceiling(tenants, tenant, purpose) < Mode.PSEUDONYMOUS:
            look.flaw("rows above the tenant's ceiling", pseudonym, count)


def _ceiling(tenants: Tenants, tenant: str, purpose: str) -> Mode:
    """What is not in the settings any more is not judged by them: it goes by itself (docs/retention.md)."""
    found = tenants.get(tenant)
    limits = found.purposes.get(purpose) if found is not None else None
    return limits.ceiling if limits is not None else Mode.PERSONAL


def _check_mappings(
    mappings: Any, allowed: Mapping[int, Allowed], tenants: Tenants, data_keys: Collection[str], look: Look
) -> None:
    look.looked_at["mappings"] += len(mappings)
    for tenant, purpose, kind, pseudonym, key_version, blind in mappings:
        one = allowed.get(int(pseudonym))
        if one is None or one.level is not Mode.PERSONAL:
            look.flaw("mappings that no recipient's state allows", pseudonym)
        elif (one.tenant, one.purpose, one.kind, one.key_version) != (tenant, purpose, kind, key_version):
            look.flaw("mappings for another purpose, kind or key than she agreed to", pseudonym)
        elif one.blind != bytes(blind):
            look.flaw("mappings under somebody else's blind index", pseudonym)
        elif _ceiling(tenants, tenant, purpose) < Mode.PERSONAL:
            look.flaw("mappings above the tenant's ceiling", pseudonym)
        if _name(pseudonym) not in data_keys:
            look.flaw("mappings without a data key", pseudonym)


def _check_ledger(ledger: Any, allowed: Mapping[int, Allowed], look: Look) -> None:
    lines = {(str(row[0]), bytes(row[1]), str(row[2]), str(row[3])): (row[4], int(row[5])) for row in ledger}
    look.looked_at["recipients, purposes and kinds"] += len(lines)
    look.looked_at["pseudonyms"] += len(allowed)
    for number, one in allowed.items():
        grants, last = lines.get((one.tenant, one.blind, one.purpose, one.kind), ((), -1))
        proofs = [proof for at, mode, proof in grants if at == one.since_ms and mode >= one.level]
        if not proofs:
            look.flaw("pseudonyms of recipients without a line by which she agreed", number)
        elif not any(proofs):
            look.flaw("pseudonyms whose consent has no proof", number)
        elif last < one.level:
            look.flaw("pseudonyms of recipients whose last word is lower", number)


def _check_state(who: _Key, state: RecipientState, erased: _Erased, look: Look) -> None:
    for purpose, kinds in state.purposes.items():
        if purpose != EVERYTHING and any(one.decided_at < erased.decided_ms for one in kinds.values()):
            look.flaw("states of erased recipients with decisions of before", who)


def _check_erased(
    erased: Mapping[_Key, _Erased], standing: Collection[_Key], exports: Mapping[str, int], look: Look
) -> None:
    """Whoever has granted anew while her erasure was on its way keeps what she decided after she asked."""
    look.looked_at["erased recipients"] += len(erased)
    for who, fact in erased.items():
        left = fact.grants if who in standing else fact.earlier
        if left:
            look.flaw("lines of the ledger from before an erasure", who, left)
        if exports.get(who[1].hex(), fact.recorded_ms) < fact.recorded_ms - _CLOCKS_MS:
            look.flaw("keys of sealed exports from before an erasure", who)


def _check_disclosures(sight: Sight, look: Look) -> None:
    for tenant, blind, count in sight.desk.identity.rows("looking at disclosures", _DISCLOSED):
        look.flaw("disclosures from before an erasure", (tenant, blind), count)
