"""The figures and the chain (P3, P6, P8), and the audit trail.

Figures that one insert feeds lie in several tables, so while workers write they are never of one moment. What is
compared is a figure read first; then what had begun by then is finished; then the other: it has to lie between.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from streams.broker import log_begins, log_ends, partition_count, read_all
from streams.rejections import NotARejection, Rejection, Stage, parse
from streams.rights.audit import AuditBroken
from streams.rights.verify import SURELY, About, Look, Sight, Sweep
from streams.topics import CHANGES, EVENTS, REJECTED, committed

TOTALS, CELLS, CHAIN, POSITIONS = "totals", "cells", "chain", "positions"
OUTCOMES, RECEIVED, REJECTIONS, TRAIL = "outcomes", "received", "rejections", "audit"

ABOUT = {
    TOTALS: About(
        "P3, P6",
        TOTALS,
        "Every event that counts is in the figures once: the cells add up to what was counted.",
        "keep the workers stopped and look at docs/verify.md under totals: a table was changed by hand, or put back",
    ),
    CELLS: About(
        "P3",
        CELLS,
        "No cell has more distinct recipients than events, and no mailing more pseudonymous rows than events.",
        "look at docs/verify.md under cells: a table was changed by hand, or put back",
    ),
    CHAIN: About(
        "P6",
        CHAIN,
        "The chain of claims has no gap and no number twice, and every claim begins where the one before it ended.",
        "keep the workers stopped (docs/operations.md, 'Two rows for one number') and ask for help",
    ),
    POSITIONS: About(
        "P6",
        POSITIONS,
        "No committed offset is beyond the chain, and Kafka's log still holds all that the chain has not counted.",
        "keep the workers stopped: docs/operations.md, 'A lost log'",
    ),
    OUTCOMES: About(
        "P8",
        OUTCOMES,
        "Of every partition: received = counted + off + duplicates + rejected.",
        "look at docs/verify.md under outcomes: a table was changed by hand, or put back",
    ),
    RECEIVED: About(
        "P6, P8",
        RECEIVED,
        "What was received is what the claims of events span: no record is missing and none was taken twice.",
        "look at docs/verify.md under received: a table was changed by hand, or a sender uses transactions",
    ),
    REJECTIONS: About(
        "P8",
        REJECTIONS,
        "Every rejected event has its rejection on the topic, and every rejection was counted.",
        "look at docs/verify.md under rejections: something else writes to the topic, or its records went too early",
    ),
    TRAIL: About(
        "P5",
        TRAIL,
        "The audit trail is whole: no line is missing, changed or there twice.",
        "find out who can write to the identity store; `schleuse audit verify --since` with a head noted before",
    ),
}

# --- P3 ---

_COUNTED = "SELECT sum(events) FROM outcomes WHERE outcome = 'counted'"
_CELL_SUM = "SELECT sum(events) FROM cells_hourly"
_UNIQUES = """
SELECT toString(tenant), toString(mailing), toString(kind), toString(dimension), toString(value), toString(actor),
    uniqExactMerge(recipients)
FROM cells_unique GROUP BY tenant, mailing, kind, dimension, value, actor
"""
_CLOSED = """
SELECT toString(tenant), toString(mailing), toString(kind), toString(dimension), toString(value), toString(actor),
    max(recipients)
FROM cells_closed GROUP BY tenant, mailing, kind, dimension, value, actor
"""
_EVENTS = """
SELECT toString(tenant), toString(mailing), toString(kind), cell.1, cell.2, toString(actor), sum(events)
FROM cells_hourly
ARRAY JOIN if(link = '', [('all', ''), ('device', toString(device))],
    [('all', ''), ('link', toString(link)), ('device', toString(device))]) AS cell
GROUP BY tenant, mailing, kind, cell, actor
"""
_ROWS = """
SELECT toString(tenant), toString(mailing), toString(kind), 'all', '', toString(actor), count() FROM engagement
WHERE purpose = 'engagement' GROUP BY tenant, mailing, kind, actor
"""


def totals(sight: Sight) -> Mapping[str, Look]:
    """Sums of the tables that one insert feeds."""
    look = Look()
    at_least = _one(sight, _COUNTED)
    sight.undone(sight.positions())
    cells = _one(sight, _CELL_SUM)
    sight.undone(sight.positions())
    at_most = _one(sight, _COUNTED)
    look.looked_at["events counted"] = cells
    if cells < at_least:
        look.flaw("events that were counted and are in no cell", "less", at_least - cells)
    if cells > at_most:
        look.flaw("events in cells that were not counted", "more", cells - at_most)
    return {TOTALS: look}


def _one(sight: Sight, sql: str) -> int:
    ((value,),) = sight.figures.rows("adding up", sql)
    return int(value)


def cells(sight: Sight) -> Mapping[str, Look]:
    """Cell by cell: first what has to be the smaller, then the larger."""
    look = Look()
    uniques = [*sight.figures.rows("looking at distinct recipients", _UNIQUES)]
    uniques += sight.figures.rows("looking at closed cells", _CLOSED)
    rows = sight.desk.analytics.rows("counting rows", _ROWS)
    sight.undone(sight.positions())
    events = {tuple(row[:6]): int(row[6]) for row in sight.figures.rows("looking at events", _EVENTS)}
    for row in uniques:
        look.looked_at["cells"] += 1
        if row[6] > events.get(tuple(row[:6]), 0):
            look.flaw("cells with more distinct recipients than events", tuple(row[:6]))
    for row in rows:
        look.looked_at["mailings, kinds and actors with rows"] += 1
        if row[6] > events.get(tuple(row[:6]), 0):
            look.flaw("mailings with more pseudonymous rows than events", tuple(row[:6]))
    return {CELLS: look}


# --- P6 ---

# Claims older than two weeks become one a partition (analytics/003): a gap there is none.
_CHAIN = """
SELECT incarnation, partition, count(), count() - uniqExact(number), countIf(nth > 1 AND number > before + 1),
    countIf(nth > 1 AND number = before + 1 AND NOT (
        (kind = 'events' AND first = event_before AND next_change = change_before)
        OR (kind = 'changes' AND first = change_before AND next_event = event_before))),
    countIf(last < first OR next_event != last + 1 AND kind = 'events' OR next_change != last + 1 AND kind = 'changes')
FROM
    (SELECT *, row_number() OVER chain AS nth, lagInFrame(number) OVER chain AS before,
        lagInFrame(next_event) OVER chain AS event_before, lagInFrame(next_change) OVER chain AS change_before
    FROM claims WHERE now > now64(3) - INTERVAL 13 DAY
    WINDOW chain AS (PARTITION BY incarnation, partition ORDER BY number))
GROUP BY incarnation, partition
"""
_CHAIN_FLAWS = (
    "numbers that were claimed twice",
    "gaps in the numbers",
    "claims that do not follow",
    "impossible claims",
)


def chain(sight: Sight) -> Mapping[str, Look]:
    """The table of claims by itself."""
    look = Look()
    for incarnation, partition, count, *flaws in sight.figures.rows("looking at the chain", _CHAIN):
        look.looked_at["chains"] += 1
        look.looked_at["claims"] += count
        for what, times in zip(_CHAIN_FLAWS, flaws, strict=True):
            if times:
                look.flaw(what, (incarnation, partition), int(times))
    return {CHAIN: look}


def positions(sight: Sight) -> Mapping[str, Look]:
    """The chain against Kafka: what only grows is read in the order in which it can only be right."""
    look = Look()
    broker = sight.settings.broker
    count = partition_count(broker, EVENTS)
    for topic in (EVENTS, CHANGES):
        begins, done = log_begins(broker, topic), committed(sight.settings, topic, range(count))
        newest = sight.positions()
        ends = log_ends(broker, topic)
        for partition, position in newest.items():
            next_one = position.next_event if topic == EVENTS else position.next_change
            look.looked_at["positions"] += 1
            if done.get(partition, 0) > next_one:
                look.flaw(f"committed offsets of {topic} beyond the chain", partition)
            if begins.get(partition, 0) > next_one:
                look.flaw(f"logs of {topic} that begin after the chain's position", partition)
            if ends.get(partition, next_one) < next_one:
                look.flaw(f"logs of {topic} that end before the chain's position", partition)
    return {POSITIONS: look}


# --- P8 ---

_OUTCOMES = """
SELECT incarnation, partition, sumIf(events, outcome = 'received'),
    sumIf(events, outcome IN ('counted', 'off', 'duplicates', 'rejected'))
FROM outcomes GROUP BY incarnation, partition
"""
# Of chains whose first claim is still there; `done`: without the newest claim, which may not be.
_SPANS = """
SELECT incarnation, partition, min(number), countIf(kind = 'events'), minIf(first, kind = 'events'),
    argMax(if(kind = 'events', first, next_event), number), argMax(next_event, number)
FROM claims GROUP BY incarnation, partition
"""


def outcomes(sight: Sight) -> Mapping[str, Look]:
    """The outcomes by themselves: they are rows of one insert into one table, and so always of one moment."""
    look = Look()
    for incarnation, partition, received, rest in sight.figures.rows("looking at outcomes", _OUTCOMES):
        look.looked_at["partitions"] += 1
        look.looked_at["events received"] += received
        if received != rest:
            look.flaw("partitions whose outcomes do not add up", (incarnation, partition))
    return {OUTCOMES: look}


def received(sight: Sight) -> Mapping[str, Look]:
    """The outcomes against the chain."""
    look = Look()
    before = _spans(sight)
    undone = set(sight.undone(sight.positions(), 0))
    found = {(row[0], row[1]): int(row[2]) for row in sight.figures.rows("looking at outcomes", _OUTCOMES)}
    after = _spans(sight)
    for which, (number, done, whole) in before.items():
        if number != 0:
            look.looked_at["chains older than their first claim, not compared"] += 1
            continue
        look.looked_at["chains"] += 1
        at_least = done if which[1] in undone else whole
        missing, extra = at_least - found.get(which, 0), found.get(which, 0) - after[which][2]
        if missing > 0:
            look.flaw("records of claims that were not received", which, missing, which[1])
        if extra > 0:
            look.flaw("records that were received and are in no claim", which, extra, which[1])
    return {RECEIVED: look}


def _spans(sight: Sight) -> dict[tuple[int, int], tuple[int, int, int]]:
    """(incarnation, partition) -> the lowest number, events of claims that are surely done, events of all claims."""
    found = {}
    for incarnation, partition, lowest, runs, begin, done, end in sight.figures.rows("looking at the chain", _SPANS):
        spans = (int(done - begin), int(end - begin)) if runs else (0, 0)
        found[int(incarnation), int(partition)] = (int(lowest), *spans)
    return found


_REJECTED = """
SELECT toString(reason), sum(events) FROM outcomes WHERE outcome = 'rejected' GROUP BY reason
"""


def rejections(sight: Sight) -> Mapping[str, Look]:
    """The topic against the outcomes. A rejection is sent before its claim is counted."""
    look = Look()
    lives = _one(sight, "SELECT count() FROM incarnations")
    at_least = {str(row[0]): int(row[1]) for row in sight.figures.rows("looking at outcomes", _REJECTED)}
    is_whole = lives <= 1 and not any(log_begins(sight.settings.broker, REJECTED).values())
    numbers: dict[str, str] = {}
    for record in read_all(sight.settings.broker, REJECTED):
        try:
            found = parse(record.value)
        except NotARejection:
            look.flaw(
                "records of the topic that are no rejections", (record.partition, record.offset), partition=SURELY
            )
            continue
        if isinstance(found, Rejection) and found.stage is Stage.EVENTS:
            numbers[found.id] = str(found.reason)
    there = Counter(numbers.values())
    sight.undone(sight.positions())
    at_most = {str(row[0]): int(row[1]) for row in sight.figures.rows("looking at outcomes", _REJECTED)}
    look.looked_at["rejections of events"] = len(numbers)
    for reason in {*there, *at_least}:
        if there[reason] > at_most.get(reason, 0):
            look.flaw("rejections that were not counted", reason, there[reason] - at_most.get(reason, 0))
        if is_whole and there[reason] < at_least.get(reason, 0):
            look.flaw("rejected events without a rejection", reason, at_least.get(reason, 0) - there[reason])
    if not is_whole:
        look.skipped.append("whether each rejected event has its rejection: the topic no longer holds all of them")
    return {REJECTIONS: look}


def trail(sight: Sight) -> Mapping[str, Look]:
    """The audit trail."""
    look = Look()
    try:
        newest = sight.desk.audit.verify()
    except AuditBroken as broken:
        look.flaw(str(broken), "trail")
    else:
        look.looked_at["lines"] = newest.number if newest is not None else 0
    return {TRAIL: look}


SWEEPS = (
    Sweep(totals, {TOTALS: ABOUT[TOTALS]}),
    Sweep(cells, {CELLS: ABOUT[CELLS]}),
    Sweep(chain, {CHAIN: ABOUT[CHAIN]}, moves=False),
    Sweep(positions, {POSITIONS: ABOUT[POSITIONS]}, moves=False),
    Sweep(outcomes, {OUTCOMES: ABOUT[OUTCOMES]}, moves=False),
    Sweep(received, {RECEIVED: ABOUT[RECEIVED]}),
    Sweep(rejections, {REJECTIONS: ABOUT[REJECTIONS]}),
    Sweep(trail, {TRAIL: ABOUT[TRAIL]}, moves=False),
)
