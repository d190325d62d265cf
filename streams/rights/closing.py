"""Closing the windows of mailings: sets become integers, then the sets and the secret that made them go.

A set of visitor hashes is pseudonymous data for as long as it and the mailing's secret exist. When the window is over
nobody new is counted, so nobody needs either. The order of the steps makes it safe; each may be done again after a kill
at any instant, and by several at once:

 A  ask: a `closing` to every partition of tracking.changes, then the note `asked`. The audit trail comes first
 B  wait until every partition has carried it out (`closings`, written by the chain): from that claim on its events are
    `late`, and every claim before it is done. The sets have their last members now
 C  count: the sets become integers in `cells_closed`. The larger figure stands there, and a set that is on its way out
    only ever seems smaller: whoever counts late changes nothing
 D  compare each cell's integer with what its sets say. If one is smaller, nothing is deleted
 E  delete the sets, and look that none is left. The tokens of their batches stay remembered: none comes back
 F  destroy the secret in the key ring, never to be made again: a worker that wakes up within a claim from before the
    closing learns it there, reads the chain again, and counts with no other secret
 G  the note `done`

By itself a mailing closes when its window is over (`sent_at` as declared, else its newest hour, and the tenant's
window, by the store's clock) and nothing has come for it for a day since: so that a backlog or a backfill is counted.
One whose figures are being published waits for the last of them within its window, a week at most: when it closes
depends on what everybody did, and no published number may depend on that.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aggregates.steps import steps_within
from pseudonymizer.keys import KeyKind
from streams import tenants as settings_of
from streams.broker import admin, is_committed, partition_count
from streams.errors import SettingsError, StoreUnavailable
from streams.keys import SEPARATOR
from streams.mailings import NAMED, Mailing, declared
from streams.messages import Closing, encode_change
from streams.outbox import deliver
from streams.rights.audit import Action
from streams.topics import CHANGES, EVENTS, ends

if TYPE_CHECKING:
    from streams.rights.desk import Desk

DAY_MS, HOUR_MS = 86_400_000, 3_600_000
PUBLISHER_MS = 7 * DAY_MS  # how long after its window a mailing waits for a publisher
QUIET_MS = DAY_MS  # how long nothing may have come for a mailing before it closes by itself
ASK_AGAIN_MS = 600_000  # a closing that some partition has not carried out is sent again after this long
SETTLED_MS = 900_000  # longer than any insert of an earlier incarnation may be late
AT_ONCE = 200  # mailings in one DELETE: it costs the same for one and for many


@dataclass(frozen=True, slots=True)
class Window:
    """The window of a mailing that is not closed. Times are epoch milliseconds, by the store's clock."""

    mailing: Mailing
    ends_ms: int
    """When it is over: a caller may NOT assume that the mailing closes at once then."""
    declared: bool
    """Whether its sender has said when it was sent; else the window counts from its newest hour."""
    events: int
    """How many events were counted until now."""
    quiet_since_ms: int | None
    """Since when it was seen to be over with so many events; None: that was never noted."""
    asked_ms: int | None
    """When its closing was last sent to the partitions; None: never."""
    unpublished: bool
    """Whether figures of it are being published, and not all within its window are."""


_NOT_DONE = "(tenant, mailing) NOT IN (SELECT tenant, mailing FROM closing_notes WHERE note = 'done')"


@dataclass(frozen=True, slots=True)
class Where:
    """How far the partitions of the current incarnation are with the closing of a mailing."""

    missing: tuple[int, ...]
    """Partitions that have not carried it out."""
    settled: bool
    """False for some minutes after a new incarnation: a worker of the one before may still be writing."""


def windows(desk: Desk) -> tuple[int, list[Window]]:
    """The store's clock (epoch milliseconds) and all windows that are not done closing, in order of their end.

    Of tenants of the settings in force; of others, with the default window. Raises StoreUnavailable.
    """
    in_force, windows_of = settings_of.in_force(desk.analytics), settings_of.Windows.read(desk.analytics)
    now_ms = desk.analytics.now_ms()
    sent = {mailing: said.sent_ms for mailing, said in declared(desk.analytics, _NOT_DONE).items()}
    newest: dict[Mailing, tuple[int, int]] = {}
    for tenant, mailing, hour, events in desk.analytics.rows(
        "reading the hours of mailings",
        "SELECT toString(tenant), toString(mailing), toUnixTimestamp(max(hour)), sum(events) FROM cells_hourly "
        f"WHERE {_NOT_DONE} GROUP BY ALL",
    ):
        newest[tenant, mailing] = (hour * 1000 + HOUR_MS, events)
    notes: dict[tuple[str, str, str], tuple[int, int]] = {}
    for tenant, mailing, note, count, at in desk.analytics.rows(
        "reading notes of closings",
        "SELECT toString(tenant), mailing, toString(note), argMax(count, at), toUnixTimestamp64Milli(max(at)) "
        f"FROM closing_notes WHERE {_NOT_DONE} GROUP BY ALL",
    ):
        notes[tenant, mailing, note] = (count, at)
    published = {
        (tenant, mailing): step
        for tenant, mailing, step in desk.analytics.rows(
            "reading how far figures are published",
            f"SELECT toString(tenant), toString(mailing), max(step) FROM published WHERE {_NOT_DONE} GROUP BY ALL",
        )
    }
    found = []
    for one in {*sent, *newest}:
        began, events = newest.get(one, (0, 0))
        days = settings_of.window_of(in_force.get(one[0]))
        last = steps_within(windows_of.shortest(one[0], sent.get(one, began))) - 1
        over = notes.get((*one, "over"))
        found.append(
            Window(
                one,
                sent.get(one, began) + days * DAY_MS,
                one in sent,
                events,
                over[1] if over and over[0] == events else None,
                notes.get((*one, "asked"), (0, None))[1],
                published.get(one, last) < last,
            )
        )
    return now_ms, sorted(found, key=lambda window: (window.ends_ms, window.mailing))


def window(desk: Desk, mailing: Mailing) -> tuple[int, Window]:
    """The store's clock and the window of one mailing. Raises SettingsError when nothing is known of it, or it is
    closed."""
    now_ms, found = windows(desk)
    for one in found:
        if one.mailing == mailing:
            return now_ms, one
    if is_closed(desk, mailing):
        raise SettingsError("the mailing that --mailing names is closed already")
    raise SettingsError("nothing was declared or counted for what --tenant and --mailing name: are they written so?")


def is_closed(desk: Desk, mailing: Mailing) -> bool:
    """Whether all steps of its closing are done."""
    ((done,),) = desk.analytics.rows(
        "reading notes of closings",
        f"SELECT count() FROM closing_notes WHERE note = 'done' AND {NAMED}",
        {"mailings": [mailing]},
    )
    return bool(done)


def figures(desk: Desk, mailing: Mailing) -> int:
    """How many figures a closed mailing has: cells, whatever their step."""
    return compare(desk, [mailing]).get(mailing, 0)


def run_once(desk: Desk, quiet_ms: int = QUIET_MS) -> int:
    """The duty of `schleuse rights`: note which windows are over, ask for those that stayed quiet, finish those that
    every partition has carried out. How many mailings were closed.

    Raises StoreUnavailable, StoreRefused, BrokerError: what was done stays done, and the rest is done next time.
    """
    now_ms, found = windows(desk)
    over = [one for one in found if one.ends_ms + PUBLISHER_MS * one.unpublished <= now_ms and one.asked_ms is None]
    _note(desk, "over", {one.mailing: one.events for one in over if one.quiet_since_ms is None})
    quiet = [one.mailing for one in over if one.quiet_since_ms is not None and one.quiet_since_ms + quiet_ms <= now_ms]
    if quiet and _workers_run(desk):
        ask(desk, quiet, "its window is over")
    asked = [one for one in found if one.asked_ms is not None]
    where = carried_out(desk, [one.mailing for one in asked])
    again = [one.mailing for one in asked if where[one.mailing].missing and (one.asked_ms or 0) + ASK_AGAIN_MS < now_ms]
    _send(desk, again)
    ready = [one for one, at in where.items() if not at.missing and at.settled]
    for begin in range(0, len(ready), AT_ONCE):
        finish(desk, ready[begin : begin + AT_ONCE])
    return len(ready)


# --- the steps ---


def ask(desk: Desk, mailings: Sequence[Mailing], why: str) -> None:
    """Step A. Asked twice, the partitions carry it out twice, which changes nothing. Raises BrokerError."""
    for tenant, mailing in mailings:
        desk.audit.record(Action.MAILING_CLOSED, tenant, None, why, {"mailing": mailing})
    _send(desk, mailings)


def _send(desk: Desk, mailings: Sequence[Mailing]) -> None:
    if not mailings:
        return
    every = range(partition_count(desk.settings.broker, CHANGES))
    closings = [encode_change(Closing(secrets.token_hex(8), *mailing)) for mailing in mailings]
    messages = [(CHANGES, number, None, closing) for closing in closings for number in every]
    deliver(desk.settings.broker, "asking for a closing", messages)
    _note(desk, "asked", dict.fromkeys(mailings, 0))


def carried_out(desk: Desk, mailings: Collection[Mailing]) -> dict[Mailing, Where]:
    """Step B: how far the partitions are, of each mailing."""
    if not mailings:
        return {}
    ((number, at_ms, now_ms),) = desk.analytics.rows(
        "reading the incarnation",
        "SELECT max(number), toUnixTimestamp64Milli(argMax(at, number)), toUnixTimestamp64Milli(now64(3)) "
        "FROM incarnations",
    )
    closed: dict[Mailing, set[int]] = {}
    for tenant, mailing, partitions in desk.analytics.rows(
        "reading closings",
        "SELECT toString(tenant), mailing, groupUniqArray(partition) FROM closings "
        f"WHERE incarnation = {{i:UInt32}} AND {NAMED} GROUP BY ALL",
        {"i": number, "mailings": list(mailings)},
    ):
        closed[tenant, mailing] = set(partitions)
    every = range(partition_count(desk.settings.broker, CHANGES))
    settled = number == 1 or at_ms + SETTLED_MS <= now_ms
    return {one: Where(tuple(n for n in every if n not in closed.get(one, ())), settled) for one in mailings}


def finish(desk: Desk, mailings: Sequence[Mailing]) -> None:
    """Steps C to G of mailings that every partition has carried out.

    Raises StoreUnavailable when the integers are not what the sets say, or sets are left: nothing is destroyed then.
    """
    for mailing in mailings:
        count(desk, mailing)
    cells = compare(desk, mailings)
    delete(desk, mailings)
    destroy(desk, mailings)
    _note(desk, "done", {mailing: cells.get(mailing, 0) for mailing in mailings})


_COUNT = """
INSERT INTO cells_closed
SELECT tenant, mailing, kind, dimension, value, actor, step, uniqExactMerge(members) OVER
    (PARTITION BY tenant, mailing, kind, dimension, value, actor ORDER BY step
    ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS recipients
FROM
(
    SELECT tenant, mailing, kind, dimension, value, actor, step, uniqExactMergeState(recipients) AS members
    FROM cells_unique WHERE tenant = {tenant:String} AND mailing = {mailing:String} GROUP BY ALL
)
"""
_CELL = "toString(tenant), toString(mailing), toString(kind), toString(dimension), toString(value), toString(actor)"


def count(desk: Desk, mailing: Mailing) -> None:
    """Step C."""
    names = {"tenant": mailing[0], "mailing": mailing[1]}
    desk.analytics.do("counting the sets of a mailing", _COUNT, names, async_insert=0)


def compare(desk: Desk, mailings: Sequence[Mailing]) -> dict[Mailing, int]:
    """Step D; how many figures each mailing has."""
    names = {"mailings": list(mailings)}
    of_sets = desk.analytics.rows(
        "reading the sets of mailings",
        f"SELECT {_CELL}, uniqExactMerge(recipients) FROM cells_unique WHERE {NAMED} GROUP BY ALL",
        names,
    )
    closed = desk.analytics.rows(
        "reading the figures of closed mailings",
        f"SELECT {_CELL}, max(recipients) FROM cells_closed WHERE {NAMED} GROUP BY ALL",
        names,
    )
    figures = {tuple(row[:6]): row[6] for row in closed}
    if any(figures.get(tuple(row[:6]), 0) < row[6] for row in of_sets):
        raise StoreUnavailable("the figures of a closed mailing are not what its sets say: they are counted again")
    found: dict[Mailing, int] = {}
    for tenant, mailing, *_ in figures:
        found[tenant, mailing] = found.get((tenant, mailing), 0) + 1
    return found


def delete(desk: Desk, mailings: Sequence[Mailing]) -> None:
    """Step E. The sets leave the table now and the disk a minute later, when the old parts do."""
    names = {"mailings": list(mailings)}
    desk.analytics.do(
        "deleting the sets of mailings", f"ALTER TABLE cells_unique DELETE WHERE {NAMED}", names, mutations_sync=2
    )
    ((left,),) = desk.analytics.rows(
        "looking for sets of mailings", f"SELECT count() FROM cells_unique WHERE {NAMED}", names
    )
    if left:
        raise StoreUnavailable(f"{left} sets of closed mailings are still there after they were deleted")


def destroy(desk: Desk, mailings: Iterable[Mailing]) -> None:
    """Step F."""
    desk.ring.retire_many(KeyKind.MAILING, [SEPARATOR.join(mailing) for mailing in mailings])


def _note(desk: Desk, note: str, counts: Mapping[Mailing, int]) -> None:
    if counts:
        desk.analytics.do(
            "noting how far a closing is",
            "INSERT INTO closing_notes (tenant, mailing, note, count) SELECT line.1, line.2, {note:String}, line.3 "
            "FROM (SELECT arrayJoin({lines:Array(Tuple(String, String, UInt64))}) AS line)",
            {"note": note, "lines": [(*mailing, number) for mailing, number in counts.items()]},
            async_insert=0,
        )


def _workers_run(desk: Desk) -> bool:
    """False while records of tracking.events wait and their partition's chain has not moved for some minutes: a closing
    would be carried out before them."""
    settings, ends_at = desk.settings, ends(desk.settings, EVENTS)
    rows = desk.analytics.rows(
        "reading the chains",
        "SELECT partition, argMax(next_event, number), max(now) > now64(3) - INTERVAL 10 MINUTE FROM claims "
        "WHERE incarnation = (SELECT max(number) FROM incarnations) GROUP BY partition",
    )
    chains = {partition: (next_event, bool(moves)) for partition, next_event, moves in rows}
    behind = {
        partition: end
        for partition, end in ends_at.items()
        if not (chain := chains.get(partition, (0, False)))[1] and chain[0] < end
    }
    with admin(settings.broker, "asking what is counted") as client:  # what lies there may be no record
        return is_committed(settings.broker, client, settings.group, EVENTS, behind)
