"""What a tenant's officer sees over time, counted once a day and again whenever the duty runs later on the same day.

Counts go to `daily` in the analytics store; so whoever shows them needs no way into the identity store. A row is a
number of requests, decisions, people or days; docs/officer.md says from what each is counted, and what it does not say.
A day is the analytics store's, in UTC; the last count of a day holds (ReplacingMergeTree by `at`). Only what differs
from what stands there for today is written: twice is once, and several processes may do it at once.

Modes are read from the consent ledger, not from tracking.state: one pass in the order of its sorting key, with the
memory of one recipient, where the state takes some 50 s a million. A recipient counts once, by the highest mode that
she has for the purpose `engagement`; a kind about which she has said nothing is `anonymous`, as it is for her events.
Her last word of a kind is the line of the latest `decided_at` that had an effect, of two the lower one, as in
pseudonymizer/consent.py; of a state that was lost only `off` is left, as in streams/incarnation.py. What an erasure
leaves counts where it is `off`. docs/officer.md names the one case in which this says too little.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pyarrow as pa

from pseudonymizer.consent import Effect, Mode
from pseudonymizer.keys import KeyKind
from streams.chain import PRIMARY
from streams.messages import KINDS
from streams.rights.audit import Action
from streams.rights.export.requests import WHY
from streams.stores import arrow
from streams.tenants import in_force
from streams.topics import DAY_MS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from streams.rights.desk import Desk

Counts = Counter[tuple[str, str]]
"""(what, value) -> how many, of one tenant."""

ZEROS: tuple[tuple[str, str], ...] = (
    *(("requests", kind) for kind in ("access", "erasure")),
    *(("receipts", kind) for kind in ("access", "ceiling", "erasure", "withdrawal")),
    ("grants", ""),
    ("withdrawals", ""),
    *(("recipients", mode.word) for mode in Mode),
    *(("keys", value) for value in ("kek_age_days", "root_age_days", "root_versions")),
)
"""What is written of every tenant in force, whether there is any or not."""

_SCHEMA = pa.schema(
    {"day": pa.date32(), "tenant": pa.string(), "what": pa.string(), "value": pa.string(), "count": pa.uint64()}
)


def run_once(desk: Desk) -> int:
    """The duty of `schleuse rights`: count, and write what differs from today's last count; how many rows.

    Raises StoreUnavailable, StoreRefused, SettingsError: nothing is written then, and it is counted again next time.
    """
    ((today, now_ms),) = desk.analytics.rows(
        "reading the date", "SELECT toDate(now64(3, 'UTC')) AS day, toUnixTimestamp64Milli(now64(3))"
    )
    names = sorted(in_force(desk.analytics))
    there = {
        (tenant, what, value): count
        for tenant, what, value, count in desk.analytics.rows(
            "reading today's counts",
            "SELECT toString(tenant), toString(what), toString(value), argMax(count, at) FROM daily "
            "WHERE day = {day:Date} GROUP BY ALL",
            {"day": today},
        )
    }
    rows = [
        (today, tenant, what, value, count)
        for tenant, counts in counted(desk, names, now_ms).items()
        for (what, value), count in sorted(counts.items())
        if there.get((tenant, what, value)) != count
    ]
    if rows:
        desk.analytics.insert("writing the counts of a day", "daily", arrow(rows, _SCHEMA), None)
    return len(rows)


def counted(desk: Desk, tenants: Sequence[str], now_ms: int) -> dict[str, Counts]:
    """All counts of each of these tenants as of now, zeros too. Opens nothing sealed.

    `now_ms`: the moment to which keys' ages are told. Raises StoreUnavailable, StoreRefused.
    """
    found = {tenant: Counter(dict.fromkeys(ZEROS, 0)) for tenant in tenants}
    for tenant, what, value, count in (*_asked(desk), *_decisions(desk), *_modes(desk, _state_since(desk))):
        if tenant in found:
            found[tenant][what, value] += count
    for tenant, ages in _keys(desk, tenants, now_ms).items():
        found[tenant].update(ages)
    return found


# --- requests and receipts ---


def _asked(desk: Desk) -> Sequence[Sequence[Any]]:
    """Erasures and receipts from their tables, where each id stands once; access requests from the audit trail, where
    an export that was made again after a kill stands twice under the same reason."""
    return (
        *desk.identity.rows(
            "counting requests",
            "SELECT toString(tenant), 'requests', toString(kind), count() FROM requests "
            "WHERE kind = 'erasure' GROUP BY ALL",
        ),
        *desk.identity.rows(
            "counting receipts",
            "SELECT toString(tenant), 'receipts', toString(kind), count() FROM receipts GROUP BY ALL",
        ),
        *desk.identity.rows(
            "counting access requests",
            "SELECT toString(tenant), arrayJoin(['requests', 'receipts']), 'access', uniqExact(subject, why) "
            "FROM audit WHERE action = {action:String} AND startsWith(why, {why:String}) GROUP BY ALL",
            {"action": str(Action.EXPORTED), "why": WHY},
        ),
    )


# --- the consent ledger ---


def _decisions(desk: Desk) -> Sequence[Sequence[Any]]:
    return desk.identity.rows(
        "counting grants and withdrawals",
        "SELECT toString(tenant), if(effect = {raised:String}, 'grants', 'withdrawals'), '', "
        "uniqExact(incarnation, preference_id) "
        "FROM consents WHERE effect IN ({raised:String}, {lowered:String}) GROUP BY ALL",
        _EFFECTS,
    )


_EFFECTS = {"raised": str(Effect.RAISED), "lowered": str(Effect.LOWERED), "confirmed": str(Effect.CONFIRMED)}
_EFFECTS["erased"] = str(Effect.ERASED)
# Of modes as numbers (Mode): the newest line as (decided_at, lower first, known), (0, 0, 0) where there is none.
_LINE = "(toUnixTimestamp64Milli(decided_at), -rank, effect != {erased:String} OR rank = 0)"
_MODE = ", ".join(f"'{mode.word}'" for mode in Mode)


def _last_word(kind: str) -> str:
    """As (mode, whether she has said it), of one kind."""
    said, lost = (f"maxIf({_LINE}, kind = '{kind}' AND incarnation {sign} {{since:UInt32}})" for sign in (">=", "<"))
    is_off = f"{lost}.1 != 0 AND {lost}.2 = 0 AND {lost}.1 >= {said}.1"
    return f"multiIf({is_off}, (0, 1), {said}.1 != 0 AND {said}.3, (-{said}.2, 1), (toInt8({Mode.ANONYMOUS:d}), 0))"


_MODES = f"""
SELECT toString(tenant), 'recipients', transform(highest, {[int(mode) for mode in Mode]}, [{_MODE}], ''), count()
FROM
(
    SELECT tenant, greatest({", ".join(f"word_{kind}.1" for kind in KINDS)}) AS highest
    FROM
    (
        SELECT tenant, blind, {", ".join(f"{_last_word(kind)} AS word_{kind}" for kind in KINDS)}
        FROM
        (
            SELECT tenant, blind, kind, incarnation, decided_at, effect,
                toInt8(transform(mode, [{_MODE}], {[int(mode) for mode in Mode]}, 0)) AS rank
            FROM consents
            WHERE effect = {{erased:String}} OR purpose = {{purpose:String}}
                AND effect IN ({{raised:String}}, {{lowered:String}}, {{confirmed:String}})
        )
        GROUP BY tenant, blind
    )
    WHERE {" OR ".join(f"word_{kind}.2" for kind in KINDS)}
)
GROUP BY ALL
SETTINGS optimize_aggregation_in_order = 1
"""


def _modes(desk: Desk, since: int) -> Sequence[Sequence[Any]]:
    """`since`: the first incarnation whose decisions are not lost."""
    return desk.identity.rows("counting recipients by mode", _MODES, {**_EFFECTS, "purpose": PRIMARY, "since": since})


def _state_since(desk: Desk) -> int:
    """The first incarnation of the state that there is: what was decided before it is lost, but for `off`."""
    lives = desk.analytics.rows(
        "reading incarnations", "SELECT number, state_id FROM incarnations ORDER BY number DESC"
    )
    since = 0
    for number, state_id in lives:
        if state_id != lives[0][1]:
            break
        since = int(number)
    return since


# --- keys ---


def _keys(desk: Desk, tenants: Sequence[str], now_ms: int) -> dict[str, Mapping[tuple[str, str], int]]:
    """Whole days. The key-encryption key is as old as its last rotation that is on record, else as the ring."""
    entries = desk.ring.entries()
    rotated = desk.identity.rows(
        "looking for rotations",
        "SELECT toUnixTimestamp64Milli(max(at)) FROM audit WHERE action = {action:String} "
        "AND JSONExtractString(detail, 'key') = 'kek'",
        {"action": str(Action.KEY_ROTATED)},
    )[0][0]
    kek = _days(now_ms, [rotated] if rotated else [entry.created_at for entry in entries])
    roots: dict[str, list[int]] = {tenant: [] for tenant in tenants}
    for entry in entries:
        if entry.kind is KeyKind.ROOT and entry.name in roots:
            roots[entry.name].append(entry.created_at)
    return {
        tenant: {
            ("keys", "kek_age_days"): kek,
            ("keys", "root_age_days"): _days(now_ms, made),
            ("keys", "root_versions"): len(made),
        }
        for tenant, made in roots.items()
    }


def _days(now_ms: int, made_ms: Sequence[int]) -> int:
    """The age of the oldest; 0 where there is none, or where another machine's clock is ahead."""
    return max(0, now_ms - min(made_ms, default=now_ms)) // DAY_MS
