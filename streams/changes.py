"""Carrying out a claim of changes: ledger, mappings, removal, state, receipts.

The order of the steps is what makes a receipt true; each is the same done twice (streams/chain.py, step 2):

 a  the consent ledger and the mappings of new grants, under the claim's token
 b  the pseudonyms that must go, into `removals` of both stores; without a token, since the list is forgotten after a
    day and a claim may be resumed later than that; the same pseudonym twice is the same list
 c  what will be removed, counted into `requests`, under the claim's token: the first count is what the receipt says
 d  remove: rows of claims below this one, mappings, and the data keys that sealed them
 e  count that nothing is left; if something is, d again
 f  the state, to tracking.state and its index. Salts that were dropped are in no state from here on
 g  the receipts, from `requests`, to `receipts` (the first one stands) and tracking.receipts

A recipient whose state already holds a change's version is passed over: a to e were done before it was written.
Rows that a stalled worker inserts late cannot come back: the tokens of their claims are remembered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pseudonymizer.consent import DEFAULT, Consent, Effect, Mode, Salt, apply
from pseudonymizer.keys import KeyKind
from pseudonymizer.pseudonyms import blind_index
from streams.chain import PRIMARY
from streams.errors import BadRow, Reason, StoreUnavailable
from streams.ledger import proof_text, seal_proof, seal_recipient
from streams.messages import KINDS, Change, RecipientState, encode_receipt, encode_state, parse_change

if TYPE_CHECKING:
    from streams.chain import Claim
    from streams.incarnation import WasOff
    from streams.keys import Keys
    from streams.state import StateIndex
    from streams.stores import StoreClient
    from streams.tenants import TenantSettings
    from streams.transport import Record

EVERYTHING = "*"  # the purpose under which a decision for everything is kept, for purposes that come later
IDS_AT_ONCE = 1_000  # in one parameter: a ClickHouse server takes up to 128 KiB
TIME = pa.timestamp("ms", "UTC")

CONSENTS = pa.schema(
    [
        ("tenant", pa.string()),
        ("blind", pa.binary(16)),
        ("purpose", pa.string()),
        ("kind", pa.string()),
        ("mode", pa.string()),
        ("effect", pa.string()),
        ("decided_at", TIME),
        ("recorded_at", TIME),
        ("preference_id", pa.string()),
        ("proof", pa.binary()),
    ]
)
RECIPIENTS = pa.schema(
    [
        ("tenant", pa.string()),
        ("purpose", pa.string()),
        ("kind", pa.string()),
        ("pseudonym", pa.binary(16)),
        ("key_version", pa.uint16()),
        ("blind", pa.binary(16)),
        ("sealed", pa.binary()),
        ("at", TIME),
    ]
)
REMOVALS = pa.schema([("pseudonym", pa.binary(16))])
REQUESTS = pa.schema(
    [
        ("id", pa.string()),
        ("kind", pa.string()),
        ("tenant", pa.string()),
        ("rows", pa.uint64()),
        ("mappings", pa.uint64()),
    ]
)
RECEIPTS = pa.schema([*REQUESTS, ("gone_by", TIME)])


@dataclass(slots=True)
class Withdrawal:
    """A preference that gets a receipt, and the pseudonyms that it makes go."""

    preference_id: str
    tenant: str
    remove: list[bytes] = field(default_factory=list, repr=False)
    unmap: list[bytes] = field(default_factory=list, repr=False)


@dataclass(slots=True)
class ChangesPlan:
    """What a claim of changes will write; computed from the state after all changes before it. `repr` names nobody."""

    consents: list[tuple[Any, ...]] = field(default_factory=list, repr=False)
    mappings: list[tuple[Any, ...]] = field(default_factory=list, repr=False)
    confirm: dict[str, Withdrawal] = field(default_factory=dict)  # by preference id: one receipt an id
    states: dict[bytes, RecipientState] = field(default_factory=dict, repr=False)
    bad: list[tuple[int, BadRow]] = field(default_factory=list)
    remove: list[bytes] = field(default_factory=list, repr=False)
    unmap: list[bytes] = field(default_factory=list, repr=False)

    @property
    def withdrawals(self) -> list[Withdrawal]:
        """What gets a receipt, in the order of the log."""
        return list(self.confirm.values())


def plan(
    claim: Claim,
    records: Sequence[Record],
    tenants: Mapping[str, TenantSettings],
    state: StateIndex,
    keys: Keys,
    was_off: WasOff,
) -> ChangesPlan:
    """What the claim's records change. A record that cannot be read costs only itself (`bad`).

    `was_off` names who was `off` when a state was lost (streams/incarnation.py): that decision is known, no other.
    """
    result = ChangesPlan()
    for row, record in enumerate(records):
        try:
            change = parse_change(record.value)
            tenant = tenants.get(change.tenant)
            if tenant is None or record.key is None:
                raise BadRow(Reason.UNKNOWN_TENANT, "tenant", "a tenant of the settings in force")
            known = result.states.get(record.key) or state.state(record.key) or RecipientState((0, -1), {})
        except BadRow as flaw:
            result.bad.append((row, flaw))
            continue
        version = (claim.incarnation, record.offset)
        if known.version < version:
            result.states[record.key] = _changed(claim, change, tenant, known, version, keys, was_off, result)
    return result


def _changed(
    claim: Claim,
    change: Change,
    tenant: TenantSettings,
    known: RecipientState,
    version: tuple[int, int],
    keys: Keys,
    was_off: WasOff,
    result: ChangesPlan,
) -> RecipientState:
    blind = blind_index(keys.single(KeyKind.BLIND), tenant.name, change.recipient)
    proof = proof_text(change.proof)
    purposes = {purpose: dict(kinds) for purpose, kinds in known.purposes.items()}
    withdrawal = Withdrawal(change.preference_id, tenant.name)
    effects: set[Effect] = set()
    for purpose, kind, asked in _asked(change, tenant, purposes):
        before = purposes.get(purpose, {}).get(kind)
        if before is None:
            off_since = was_off.get((tenant.name, blind, kind)) if purpose == PRIMARY else None
            of_all = purposes.get(EVERYTHING, {}).get(kind, DEFAULT)  # also for a purpose that came after it
            before = of_all if off_since is None else Consent(Mode.OFF, (None, None, None), off_since)
        mode = min(asked, before.mode) if change.everything is not None else asked
        step = apply(
            before,
            mode,
            change.decided_at,
            change.salts.get(purpose, {}).get(kind),
            change.key_version,
            _ceiling(tenant, purpose),
        )
        effects.add(step.effect)
        if step.consent is not before:
            purposes.setdefault(purpose, {})[kind] = step.consent
        result.consents.append(
            (
                *(tenant.name, blind, purpose, kind, mode.word, str(step.effect)),
                *(change.decided_at, claim.now_ms, change.preference_id, proof),
            )
        )
        withdrawal.remove += _pseudonyms(keys, change, purpose, step.remove)
        withdrawal.unmap += _pseudonyms(keys, change, purpose, step.unmap)
        if step.map is not None:
            for pseudonym in _pseudonyms(keys, change, purpose, (step.map,)):  # none under a key that is gone
                result.mappings.append(
                    (tenant.name, purpose, kind, pseudonym, step.map.key_version, blind, change.recipient, claim.now_ms)
                )
    result.remove += withdrawal.remove
    result.unmap += withdrawal.unmap
    # What holds already is confirmed too, also where a part of it was decided at this very time before.
    holds = Effect.CONFIRMED in effects and effects <= {Effect.CONFIRMED, Effect.UNCHANGED}
    if Effect.LOWERED in effects or (holds and _lowest(change) <= Mode.ANONYMOUS):
        result.confirm.setdefault(withdrawal.preference_id, withdrawal)
    return RecipientState(version, purposes)


def _asked(
    change: Change, tenant: TenantSettings, held: Mapping[str, Mapping[str, Consent]]
) -> list[tuple[str, str, Mode]]:
    if change.everything is not None:
        purposes = dict.fromkeys([*tenant.purposes, *held, EVERYTHING])
        return [(purpose, kind, change.everything) for purpose in purposes for kind in KINDS]
    return [(purpose, kind, mode) for purpose, kinds in (change.modes or {}).items() for kind, mode in kinds.items()]


def _lowest(change: Change) -> Mode:
    if change.everything is not None:
        return change.everything
    return min((mode for kinds in (change.modes or {}).values() for mode in kinds.values()), default=Mode.PERSONAL)


def _ceiling(tenant: TenantSettings, purpose: str) -> Mode:
    """A purpose that the tenant no longer has allows nothing new."""
    found = tenant.purposes.get(purpose)
    return found.ceiling if found else Mode.ANONYMOUS


def _pseudonyms(keys: Keys, change: Change, purpose: str, salts: Sequence[Salt]) -> list[bytes]:
    result = []
    for salt in salts:
        pseudonymizer = keys.pseudonymizer(change.tenant, purpose, salt.key_version)
        if pseudonymizer is not None:
            result.append(pseudonymizer.pseudonym(salt.value, change.recipient))
    return result


# --- the steps; each is called in a thread of its own and may be called again ---


def _guard(claim: Claim, deadline_ms: int) -> dict[str, tuple[pa.DataType, int]]:
    return {
        "incarnation": (pa.uint32(), claim.incarnation),
        "partition": (pa.uint16(), claim.partition),
        "claim": (pa.uint64(), claim.number),
        "deadline": (TIME, deadline_ms),
    }


def _insert(
    store: StoreClient,
    table: str,
    schema: pa.Schema,
    rows: Sequence[Sequence[Any]],
    claim: Claim,
    deadline_ms: int,
    guarded: bool = True,
) -> None:
    if not rows:
        return
    columns = zip(zip(*rows, strict=True), schema.types, strict=True)
    data = pa.Table.from_arrays([pa.array(column, kind) for column, kind in columns], schema=schema)
    for name, (kind, value) in _guard(claim, deadline_ms).items():
        data = data.append_column(name, pa.repeat(pa.scalar(value, pa.int64()).cast(kind), len(data)))
    store.insert(f"writing {table}", table, data, claim.token("changes") if guarded else None)


def write_ledger(claim: Claim, changes: ChangesPlan, identity: StoreClient, keys: Keys, deadline_ms: int) -> None:
    """Step a. The recipient is sealed under a data key of her own, named for the pseudonym that it maps.

    A proof is sealed once for all rows of its preference: they lie side by side, and the store packs what repeats.
    A worker that slept may come here when the mapping has gone again, and its data key with it: the token lets it write
    no mapping, and the key that it has just made anew goes too.
    """
    proofs = {
        (tenant, number, proof): seal_proof(keys.single(KeyKind.PROOF, tenant), proof, number) if proof else b""
        for tenant, *_, number, proof in changes.consents
    }
    ledger = [(*row[:9], proofs[row[0], row[8], row[9]]) for row in changes.consents]
    _insert(identity, "consents", CONSENTS, ledger, claim, deadline_ms)
    data_keys = keys.data_keys(row[3].hex() for row in changes.mappings)
    sealed = [(*row[:6], seal_recipient(data_keys[row[3].hex()], row[6], row[3]), row[7]) for row in changes.mappings]
    _insert(identity, "recipients", RECIPIENTS, sealed, claim, deadline_ms)
    if sealed:
        there = identity.rows("looking for the mappings of a claim", _MAPPED, _names(claim))
        left = {int(row[0]).to_bytes(16, "little").hex() for row in there}
        keys.drop_data_keys(name for name in data_keys if name not in left)


_THIS_CLAIM = "incarnation = {incarnation:UInt32} AND partition = {partition:UInt16} AND claim = {claim:UInt64}"
# Claims of other partitions with this number map other pseudonyms: they do no harm here.
_MAPPED = "SELECT pseudonym FROM recipients WHERE incarnation = {incarnation:UInt32} AND claim = {claim:UInt64}"
_MAPPINGS_THAT_GO = f"pseudonym IN (SELECT pseudonym FROM removals WHERE {_THIS_CLAIM})"
# What intake forwards twice it has read twice: tracking.preferences keeps a record for seven days.
_LATELY = "at > now64(3) - INTERVAL 14 DAY"
# Rows of this claim and of later ones are nobody's that this claim withdraws: their salts came after it.
# All of her rows lie in this partition: others' are not looked through.
_ROWS_THAT_GO = (
    f"{_MAPPINGS_THAT_GO} AND partition = {{partition:UInt16}} "
    "AND (incarnation < {incarnation:UInt32} OR claim < {claim:UInt64})"
)


def _names(claim: Claim) -> dict[str, int]:
    return {"incarnation": claim.incarnation, "partition": claim.partition, "claim": claim.number}


def write_removals(
    claim: Claim, changes: ChangesPlan, identity: StoreClient, analytics: StoreClient, deadline_ms: int
) -> None:
    """Steps b and c."""
    _insert(analytics, "removals", REMOVALS, [(p,) for p in changes.remove], claim, deadline_ms, guarded=False)
    _insert(identity, "removals", REMOVALS, [(p,) for p in changes.unmap], claim, deadline_ms, guarded=False)
    if not changes.confirm:
        return
    rows = _counts(analytics, f"SELECT pseudonym, count() FROM engagement WHERE {_ROWS_THAT_GO}", claim)
    mapped = _counts(identity, f"SELECT pseudonym, count() FROM recipients WHERE {_MAPPINGS_THAT_GO}", claim)
    # What intake forwarded twice was confirmed by the first claim that met it, which is done: one receipt an id.
    asked = list(changes.confirm)
    confirmed = {
        row[0]
        for begin in range(0, len(asked), IDS_AT_ONCE)
        for row in identity.rows(
            "reading requests",
            f"SELECT id FROM requests WHERE id IN {{ids:Array(String)}} AND NOT ({_THIS_CLAIM}) AND {_LATELY}",
            {**_names(claim), "ids": asked[begin : begin + IDS_AT_ONCE]},
        )
    }
    counted = [
        (
            withdrawal.preference_id,
            "withdrawal",
            withdrawal.tenant,
            sum(rows.get(_number(p), 0) for p in withdrawal.remove),
            sum(mapped.get(_number(p), 0) for p in withdrawal.unmap),
        )
        for withdrawal in changes.withdrawals
        if withdrawal.preference_id not in confirmed
    ]
    _insert(identity, "requests", REQUESTS, counted, claim, deadline_ms)


def _number(pseudonym: bytes) -> int:
    return int.from_bytes(pseudonym, "little")


def _counts(store: StoreClient, select: str, claim: Claim) -> dict[int, int]:
    return dict(store.rows("counting what goes", f"{select} GROUP BY pseudonym", _names(claim)))  # type: ignore[arg-type]


def remove(claim: Claim, changes: ChangesPlan, identity: StoreClient, analytics: StoreClient, keys: Keys) -> None:
    """Steps d and e. Raises StoreUnavailable when something is left, so that it is tried again."""
    for store, table, pseudonyms, which in (
        (analytics, "engagement", changes.remove, _ROWS_THAT_GO),
        (identity, "recipients", changes.unmap, _MAPPINGS_THAT_GO),
    ):
        if not pseudonyms:
            continue
        store.do(
            f"removing from {table}", f"DELETE FROM {table} WHERE {which}", _names(claim), lightweight_deletes_sync=2
        )
        ((left,),) = store.rows(
            f"counting what is left in {table}", f"SELECT count() FROM {table} WHERE {which}", _names(claim)
        )
        if left:
            raise StoreUnavailable(
                f"{left} rows are still in {table} after their removal (partition {claim.partition})"
            )
    if changes.unmap:
        keys.drop_data_keys(pseudonym.hex() for pseudonym in changes.unmap)


def states(changes: ChangesPlan) -> list[tuple[bytes, bytes]]:
    """Step f: key and value of every record of tracking.state that the claim writes."""
    return [(key, encode_state(state)) for key, state in changes.states.items()]


def write_receipts(
    claim: Claim, identity: StoreClient, gone_after_ms: int, deadline_ms: int
) -> list[tuple[str, bytes]]:
    """Step g: id and value of every record of tracking.receipts that the claim sends; the first count stands."""
    asked = identity.rows(
        "reading requests",
        f"SELECT id, toString(kind), toString(tenant), rows, mappings FROM requests WHERE {_THIS_CLAIM}",
        _names(claim),
    )
    if not asked:
        return []
    gone_by = deadline_ms + gone_after_ms
    _insert(identity, "receipts", RECEIPTS, [(*row, gone_by) for row in asked], claim, deadline_ms)
    written = identity.rows(
        "reading receipts",
        "SELECT id, toString(kind), toString(tenant), rows, mappings, toUnixTimestamp64Milli(completed_at), "
        f"toUnixTimestamp64Milli(gone_by) FROM receipts WHERE {_THIS_CLAIM}",
        _names(claim),
    )
    return [
        (row[0], encode_receipt(row[0], row[1], row[2], row[5], {"rows": row[3], "mappings": row[4]}, row[6]))
        for row in written
    ]
