"""Carrying out a claim of changes: ledger, mappings, removal, state, receipts. What it is, streams/plan.py says.

The order of the steps is what makes a receipt true; each is the same done twice (streams/chain.py, step 2):

 a  the consent ledger and the mappings of new grants, and which mailings are closed, under the claim's token
 b  the rows of whoever moves to another root key are rewritten, out of a list, `rekeys`, and counted that none is left;
    then the pseudonyms that must go, into `removals` of both stores, and who is erased into `erasing`; without a token,
    since the lists are forgotten after a day and a claim may be resumed later than that; the same line twice is the
    same list
 c  what will be removed, counted into `requests`, under the claim's token: the first count is what the receipt says
 d  remove: rows of claims below this one, mappings, and the data keys that sealed them; of whoever is erased her lines
    in the ledger, what is on record of disclosures, and the keys of sealed exports
 e  count that nothing is left; if something is, d again
 f  the state, to tracking.state and its index. Salts that were dropped are in no state from here on; of whoever is
    erased a stub first, then a tombstone for what lies under her address
 g  the receipts, from `requests`, to `receipts` (the first one stands) and tracking.receipts

A recipient whose state already holds a change's version is passed over: a to e were done before it was written.
Rows that a stalled worker inserts late cannot come back: the tokens of their claims are remembered.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pseudonymizer.keys import KeyKind
from pseudonymizer.pseudonyms import as_number, from_number
from streams.errors import StoreUnavailable
from streams.ledger import seal_proof, seal_recipient
from streams.messages import encode_receipt
from streams.plan import ALL_OF_IT, ChangesPlan, Erased
from streams.stores import TIME, arrow

if TYPE_CHECKING:
    from streams.chain import Claim
    from streams.keys import Keys
    from streams.stores import StoreClient

IDS_AT_ONCE = 1_000  # in one parameter: a ClickHouse server takes up to 128 KiB

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
ERASING = pa.schema([("tenant", pa.string()), ("blind", pa.binary(16)), ("until", pa.int64())])
REKEYS = pa.schema([("old", pa.binary(16)), ("new", pa.binary(16)), ("key_version", pa.uint16())])
REQUESTS = pa.schema(
    [
        ("id", pa.string()),
        ("kind", pa.string()),
        ("tenant", pa.string()),
        ("rows", pa.uint64()),
        ("mappings", pa.uint64()),
        ("consents", pa.uint64()),
        ("disclosures", pa.uint64()),
        ("disclosed_to", pa.list_(pa.string())),
    ]
)
CLOSINGS = pa.schema([("tenant", pa.string()), ("mailing", pa.string()), ("id", pa.string())])
RECEIPTS = pa.schema([*REQUESTS, ("gone_by", TIME)])


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
    data = arrow(rows, schema)
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
        (line.tenant, line.number, line.proof): seal_proof(
            keys.single(KeyKind.PROOF, line.tenant), line.proof, line.number
        )
        if line.proof
        else b""
        for line in changes.consents
    }
    ledger = [(*line[:9], proofs[line.tenant, line.number, line.proof]) for line in changes.consents]
    _insert(identity, "consents", CONSENTS, ledger, claim, deadline_ms)
    data_keys = keys.data_keys(row[3].hex() for row in changes.mappings)
    sealed = [(*row[:6], seal_recipient(data_keys[row[3].hex()], row[6], row[3]), row[7]) for row in changes.mappings]
    _insert(identity, "recipients", RECIPIENTS, sealed, claim, deadline_ms)
    if sealed:
        there = identity.rows("looking for the mappings of a claim", _MAPPED, _names(claim))
        left = {from_number(row[0]).hex() for row in there}
        keys.drop_data_keys(name for name in data_keys if name not in left)


def write_closings(claim: Claim, changes: ChangesPlan, analytics: StoreClient, deadline_ms: int) -> None:
    """Step a, of the mailings that close. That every partition has such a line is what the sets' end waits for: it
    says that all claims below this one are done here, and that every later one refuses the mailing's events."""
    rows = [(one.tenant, one.mailing, one.id) for one in changes.close]
    _insert(analytics, "closings", CLOSINGS, rows, claim, deadline_ms)


_THIS_CLAIM = "incarnation = {incarnation:UInt32} AND partition = {partition:UInt16} AND claim = {claim:UInt64}"
# Claims of other partitions with this number map other pseudonyms: they do no harm here.
_MAPPED = "SELECT pseudonym FROM recipients WHERE incarnation = {incarnation:UInt32} AND claim = {claim:UInt64}"
_MAPPINGS_THAT_GO = f"pseudonym IN (SELECT pseudonym FROM removals WHERE {_THIS_CLAIM})"
# What intake forwards twice it has read twice: tracking.preferences keeps a record for seven days.
_LATELY = "at > now64(3) - INTERVAL 14 DAY"
# What this claim and later ones wrote is nobody's that this claim withdraws: their salts came after it.
_BELOW = "(incarnation < {incarnation:UInt32} OR claim < {claim:UInt64})"
# All of her rows lie in this partition: others' are not looked through.
_ROWS_THAT_GO = f"{_MAPPINGS_THAT_GO} AND partition = {{partition:UInt16}} AND {_BELOW}"
# Of whoever is erased: what was decided, or disclosed, up to the time until which she is.
_OF_ERASED = f"(tenant, blind) IN (SELECT tenant, blind FROM erasing WHERE {_THIS_CLAIM} AND until = {{until:Int64}})"
_LINES_THAT_GO = (  # with those that say of an earlier erasure
    f"{_OF_ERASED} AND {_BELOW} AND (toUnixTimestamp64Milli(decided_at) <= {{until:Int64}} OR effect = 'erased')"
)
_DISCLOSURES_THAT_GO = f"{_OF_ERASED} AND toUnixTimestamp64Milli(at) <= {{until:Int64}}"


def _names(claim: Claim) -> dict[str, int]:
    return {"incarnation": claim.incarnation, "partition": claim.partition, "claim": claim.number}


def write_removals(
    claim: Claim, changes: ChangesPlan, identity: StoreClient, analytics: StoreClient, deadline_ms: int
) -> None:
    """Steps b and c."""
    _rewrite(claim, changes, analytics, deadline_ms)
    erase = [(one.tenant, one.blind, one.until) for one in changes.erase]
    _insert(identity, "erasing", ERASING, erase, claim, deadline_ms, guarded=False)
    unmap, gone = list(changes.unmap), list(changes.remove)
    if erase:  # whatever else is mapped to her, though no state knows of it
        left = _pseudonyms(
            identity,
            f"SELECT DISTINCT pseudonym FROM recipients WHERE {_OF_ERASED} AND {_BELOW}",
            {**_names(claim), "until": ALL_OF_IT},
        )
        unmap += left
        gone += left
    _insert(analytics, "removals", REMOVALS, [(p,) for p in gone], claim, deadline_ms, guarded=False)
    _insert(identity, "removals", REMOVALS, [(p,) for p in unmap], claim, deadline_ms, guarded=False)
    if changes.confirm:
        _insert(identity, "requests", REQUESTS, _found(claim, changes, identity, analytics), claim, deadline_ms)


_REKEYED = f"SELECT DISTINCT old, new, key_version FROM rekeys WHERE {_THIS_CLAIM} ORDER BY old"
_ROWS_THAT_MOVE = (
    f"partition = {{partition:UInt16}} AND {_BELOW} AND pseudonym IN (SELECT old FROM rekeys WHERE {_THIS_CLAIM})"
)


def _rewrite(claim: Claim, changes: ChangesPlan, analytics: StoreClient, deadline_ms: int) -> None:
    """The rows of whoever moves to another root key, of claims below this one. Raises StoreUnavailable if one is left.

    No pseudonym stands in the statement, which stays in system.mutations. `transform` takes texts, and no UInt128.
    """
    moves = [(old, new, version) for old, (new, version) in changes.rewrite.items()]
    _insert(analytics, "rekeys", REKEYS, moves, claim, deadline_ms, guarded=False)
    if not moves:
        return

    def listed(column: str) -> str:
        return f"(SELECT groupArray(toString({column})) FROM ({_REKEYED}))"

    old = "toString(pseudonym)"
    analytics.do(
        "rewriting engagement",
        "ALTER TABLE engagement UPDATE "
        f"pseudonym = toUInt128(transform({old}, {listed('old')}, {listed('new')}, {old})), "
        f"key_version = toUInt16(transform({old}, {listed('old')}, {listed('key_version')}, '0')) "
        f"WHERE {_ROWS_THAT_MOVE}",
        _names(claim),
        mutations_sync=2,
    )
    ((left,),) = analytics.rows(
        "counting what was not rewritten", f"SELECT count() FROM engagement WHERE {_ROWS_THAT_MOVE}", _names(claim)
    )
    if left:
        raise StoreUnavailable(f"{left} rows are still under their old pseudonyms (partition {claim.partition})")


def _found(claim: Claim, changes: ChangesPlan, identity: StoreClient, analytics: StoreClient) -> list[tuple[Any, ...]]:
    """What there is of everything that gets a receipt, before it is removed."""
    rows = _counts(analytics, f"SELECT pseudonym, count() FROM engagement WHERE {_ROWS_THAT_GO}", claim)
    mapped = _counts(identity, f"SELECT pseudonym, count() FROM recipients WHERE {_MAPPINGS_THAT_GO}", claim)
    told = _told(claim, changes, identity)
    # What intake forwarded twice was confirmed by the first claim that met it, which is done: one receipt an id.
    asked = list({number for _, number in changes.confirm})
    confirmed = {
        (row[0], row[1])
        for begin in range(0, len(asked), IDS_AT_ONCE)
        for row in identity.rows(
            "reading requests",
            "SELECT toString(tenant), id FROM requests "
            f"WHERE id IN {{ids:Array(String)}} AND NOT ({_THIS_CLAIM}) AND {_LATELY}",
            {**_names(claim), "ids": asked[begin : begin + IDS_AT_ONCE]},
        )
    }
    found = []
    taken: dict[tuple[str, bytes], tuple[int, int]] = {}
    for which, one in changes.confirm.items():
        of_her: tuple[int, int, list[str]] = (0, 0, [])
        if one.erased is not None:  # of two requests within a claim the first took what it covers, a retry too
            who = (one.tenant, one.erased.blind)
            lines, disclosures, disclosed_to = told.get(one.erased, of_her)
            before = taken.get(who, (0, 0))
            taken[who] = (max(lines, before[0]), max(disclosures, before[1]))
            of_her = (taken[who][0] - before[0], taken[who][1] - before[1], disclosed_to)
        if which not in confirmed:
            went = sum(rows.get(as_number(p), 0) for p in one.remove)
            unmapped = sum(mapped.get(as_number(p), 0) for p in one.unmap)
            found.append((one.id, one.kind, one.tenant, went, unmapped, *of_her))
    return found


def _told(claim: Claim, changes: ChangesPlan, identity: StoreClient) -> dict[Erased, tuple[int, int, list[str]]]:
    """Of whoever is erased: lines of the ledger, disclosures, and to whom."""
    found: dict[Erased, tuple[int, int, list[str]]] = {}
    for names in _untils(claim, changes):
        lines = identity.rows(
            "counting what goes",
            "SELECT toString(tenant), blind, countIf(effect != 'erased') FROM consents "
            f"WHERE {_LINES_THAT_GO} GROUP BY ALL",
            names,
        )
        disclosed = identity.rows(
            "counting what goes",
            "SELECT toString(tenant), blind, count(), arraySort(groupUniqArray(disclosed_to)) FROM disclosures "
            f"WHERE {_DISCLOSURES_THAT_GO} GROUP BY ALL",
            names,
        )
        for tenant, blind, count in lines:
            found[Erased(tenant, bytes(blind), names["until"])] = (int(count), 0, [])
        for tenant, blind, count, to_whom in disclosed:
            who = Erased(tenant, bytes(blind), names["until"])
            found[who] = (found.get(who, (0, 0, []))[0], int(count), list(to_whom))
    return found


def _untils(claim: Claim, changes: ChangesPlan) -> list[dict[str, int]]:
    """The parameters of a statement about whoever is erased, once for each time up to which it is."""
    return [{**_names(claim), "until": until} for until in sorted({one.until for one in changes.erase})]


def _counts(store: StoreClient, select: str, claim: Claim) -> dict[int, int]:
    return dict(store.rows("counting what goes", f"{select} GROUP BY pseudonym", _names(claim)))  # type: ignore[arg-type]


def _pseudonyms(identity: StoreClient, select: str, names: dict[str, int]) -> list[bytes]:
    return [from_number(row[0]) for row in identity.rows("reading pseudonyms", select, names)]


def remove(claim: Claim, changes: ChangesPlan, identity: StoreClient, analytics: StoreClient, keys: Keys) -> None:
    """Steps d and e. Raises StoreUnavailable when something is left, so that it is tried again."""
    names, here = _names(claim), f" (partition {claim.partition})"
    if changes.remove or changes.erase:
        analytics.remove("engagement", _ROWS_THAT_GO, names, here)
    if changes.unmap or changes.erase:
        identity.remove("recipients", _MAPPINGS_THAT_GO, names, here)
        listed = f"SELECT DISTINCT pseudonym FROM removals WHERE {_THIS_CLAIM}"
        gone = _pseudonyms(identity, listed, names) if changes.erase else changes.unmap
        keys.drop_data_keys(pseudonym.hex() for pseudonym in gone)
    for until in _untils(claim, changes):
        identity.remove("consents", _LINES_THAT_GO, until, here)
        identity.remove("disclosures", _DISCLOSURES_THAT_GO, until, here)
    if changes.erase:
        keys.drop_exports(one.blind for one in changes.erase)


def write_receipts(
    claim: Claim, identity: StoreClient, gone_after_ms: int, erased_after_ms: int, deadline_ms: int
) -> list[tuple[str, bytes]]:
    """Step g: id and value of every record of tracking.receipts that the claim sends; the first count stands.

    `gone_after_ms` and `erased_after_ms`: how long after now the bytes of a withdrawal, and of an erasure, are gone.
    """
    columns = "id, toString(kind), toString(tenant), rows, mappings, consents, disclosures, disclosed_to"
    asked = identity.rows("reading requests", f"SELECT {columns} FROM requests WHERE {_THIS_CLAIM}", _names(claim))
    if not asked:
        return []
    after = {"erasure": erased_after_ms}
    found = [(*row, deadline_ms + after.get(str(row[1]), gone_after_ms)) for row in asked]
    _insert(identity, "receipts", RECEIPTS, found, claim, deadline_ms)
    written = identity.rows(
        "reading receipts",
        f"SELECT {columns}, toUnixTimestamp64Milli(completed_at), toUnixTimestamp64Milli(gone_by) FROM receipts "
        f"WHERE {_THIS_CLAIM}",
        _names(claim),
    )
    result = []
    for number, kind, tenant, rows, mappings, consents, disclosures, disclosed_to, completed_at, gone_by in written:
        removed = {"rows": rows, "mappings": mappings}
        if kind == "erasure":
            removed |= {"consents": consents, "disclosures": disclosures}
        result.append((number, encode_receipt(number, kind, tenant, completed_at, removed, gone_by, disclosed_to)))
    return result
