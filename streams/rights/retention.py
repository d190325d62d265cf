"""Rows and mappings go when their time is over: by the retention in force, not by the one under which they were made.

A row carries the day on which it goes (`expires`), and ClickHouse lets go of it by itself (TTL). That day was told by
the settings of its claim. This duty makes good what that leaves: a retention that was shortened since, purposes and
tenants that are no longer in the settings, rows that no merge has come by. It removes what should have gone a day ago.

What holds is the longest retention of the last day (`GRACE_MS`): settings that were put in force by mistake can be
taken back for that long.

A mapping goes with the consent, by the chain. It also goes here when the retention of its purpose has passed since it
was made and no row under its pseudonym is left: there is nothing then that it could say of whom it is. The consent
stands, and whatever the recipient does from then on is a row under a pseudonym that nobody can open, until she grants
anew after a withdrawal.
"""

from __future__ import annotations

import secrets
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pseudonymizer.keys import KeyKind
from pseudonymizer.pseudonyms import from_number
from streams import tenants as settings_of
from streams.rights.audit import Action
from streams.stores import TIME

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from streams.rights.desk import Desk
    from streams.stores import StoreClient

GRACE_MS = 86_400_000
MOST = 20_000  # mappings looked at in one go, about
_ALL = date(2100, 1, 1)
_WHY = "its retention is over"
_LIST = "SELECT pseudonym FROM removals WHERE incarnation = 0 AND partition = 0 AND claim = {list:UInt64}"

Retentions = dict[tuple[str, str], int]
"""(tenant, purpose) -> days."""


def run_once(desk: Desk, grace_ms: int = GRACE_MS) -> int:
    """The duty of `schleuse rights`: how many rows and mappings it has removed.

    Removes nothing where no settings were ever put in force. Raises StoreUnavailable, StoreRefused, StoreLate: what was
    removed stays removed, and the rest goes next time.
    """
    today, holds = retentions(desk, grace_ms)
    if not holds:
        return 0
    return remove_rows(desk, today, holds) + remove_mappings(desk, today, holds)


def retentions(desk: Desk, grace_ms: int = GRACE_MS) -> tuple[date, Retentions]:
    """The store's date in UTC, and the longest retention of each purpose in all settings of the last `grace_ms`."""
    ((today,),) = desk.analytics.rows("reading the date", "SELECT toDate(now('UTC'))")
    holds: Retentions = {}
    for (body,) in desk.analytics.rows(
        "reading the tenants' settings",
        "SELECT body FROM settings WHERE at >= (SELECT max(at) FROM settings "
        "WHERE at <= now64(3) - toIntervalMillisecond({grace:UInt64}))",
        {"grace": grace_ms},
    ):
        for tenant in settings_of.from_json(body).values():
            for purpose, of in tenant.purposes.items():
                pair = (tenant.name, purpose)
                holds[pair] = max(of.retention_days, holds.get(pair, 0))
    return today, holds


def remove_rows(desk: Desk, today: date, holds: Retentions) -> int:
    """Remove the rows of `engagement` that should have gone by yesterday; how many there were.

    They are out of the table when it returns, and off the disk a minute later, when the old parts go.
    """
    removed = 0
    for tenant, purpose, oldest in desk.analytics.rows(
        "looking for old rows",
        "SELECT toString(tenant), toString(purpose), toDate(min(occurred)) FROM engagement GROUP BY ALL",
    ):
        before = _before(today, holds.get((tenant, purpose)))
        if oldest >= before:
            continue
        which = "tenant = {tenant:String} AND purpose = {purpose:String} AND toDate(occurred) < {before:Date}"
        names = {"tenant": tenant, "purpose": purpose, "before": before}
        ((rows,),) = desk.analytics.rows("counting old rows", f"SELECT count() FROM engagement WHERE {which}", names)
        desk.audit.record(Action.EXPIRED, tenant, None, _WHY, {"purpose": purpose, "rows": int(rows)})
        desk.analytics.do("removing old rows", f"ALTER TABLE engagement DELETE WHERE {which}", names, mutations_sync=2)
        removed += rows
    return removed


def remove_mappings(desk: Desk, today: date, holds: Retentions) -> int:
    """Remove mappings that are older than the retention of their purpose and have no row left; how many there were.

    The data key goes first: what is left of a mapping after a kill opens no more, and is found again.
    """
    removed = 0
    for tenant, purpose, oldest in desk.identity.rows(
        "looking for old mappings",
        "SELECT toString(tenant), toString(purpose), toDate(min(at)) FROM recipients GROUP BY ALL",
    ):
        before = _before(today, holds.get((tenant, purpose)))
        if oldest >= before:
            continue
        names = {"tenant": tenant, "purpose": purpose, "before": before}
        ((old,),) = desk.identity.rows("counting old mappings", f"SELECT count() FROM recipients WHERE {_OLD}", names)
        shares = 1 + int(old) // MOST
        for share in range(shares):
            removed += _unmap(desk, tenant, purpose, _without_rows(desk, {**names, "shares": shares, "share": share}))
    return removed


_OF_PURPOSE = "tenant = {tenant:String} AND purpose = {purpose:String}"
_OLD = f"{_OF_PURPOSE} AND toDate(at) < {{before:Date}}"


def _without_rows(desk: Desk, names: Mapping[str, Any]) -> list[int]:
    """Of a share of the old mappings of a purpose, those whose pseudonym has no row."""
    old = desk.identity.rows(
        "reading old mappings",
        f"SELECT DISTINCT pseudonym FROM recipients WHERE {_OLD} "
        "AND sipHash64(pseudonym) % {shares:UInt64} = {share:UInt64}",
        names,
    )
    used = desk.analytics.rows(
        "looking for rows of old mappings",
        f"SELECT DISTINCT pseudonym FROM engagement WHERE {_OF_PURPOSE} AND pseudonym IN ({_LIST})",
        {**names, "list": _list(desk, desk.analytics, [row[0] for row in old])},
    )
    return sorted({row[0] for row in old} - {row[0] for row in used})


def _unmap(desk: Desk, tenant: str, purpose: str, gone: Sequence[int]) -> int:
    if not gone:
        return 0
    desk.audit.record(Action.EXPIRED, tenant, None, _WHY, {"purpose": purpose, "mappings": len(gone)})
    desk.ring.destroy_many(KeyKind.DATA, [from_number(one).hex() for one in gone])
    names = {"list": _list(desk, desk.identity, gone)}
    desk.identity.remove("recipients", f"pseudonym IN ({_LIST})", names)
    return len(gone)


def _before(today: date, days: int | None) -> date:
    """What is older than this day should have gone by yesterday; of what no settings speak of, everything."""
    return _ALL if days is None else today - timedelta(days)


def _list(desk: Desk, store: StoreClient, pseudonyms: Sequence[int]) -> int:
    """Pass pseudonyms to a store in a list that it forgets after a day: a statement that named them would stay in its
    logs. The list's number; 0 is no incarnation, so no claim has one."""
    number = secrets.randbits(63)
    rows = len(pseudonyms)
    deadline_ms = store.now_ms() + int(desk.settings.insert_deadline_seconds * 1000)
    data = pa.table(
        {
            "incarnation": pa.repeat(pa.scalar(0, pa.uint32()), rows),
            "partition": pa.repeat(pa.scalar(0, pa.uint16()), rows),
            "claim": pa.repeat(pa.scalar(number, pa.uint64()), rows),
            "pseudonym": pa.array([from_number(one) for one in pseudonyms], pa.binary(16)),
            "deadline": pa.repeat(pa.scalar(deadline_ms, pa.int64()).cast(TIME), rows),
        }
    )
    store.insert("passing a list", "removals", data, None)
    return number
