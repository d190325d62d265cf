"""The commit protocol: exactly-once effect without transactions, by one numbered chain of claims a partition.

A claim is a run of events or a run of changes, so events and changes have one order that everybody who ever owned the
partition agrees on. Being the consumer group's owner only makes it fast; the chain makes it right, also with a worker
that wakes up after its partitions have gone. The steps, by number (the same numbers stand in the code):

 1  Claim number n: insert it with the token `INCARNATION:claim:partition:n`, then read n back. The first writer won
    and has fixed what n is; who lost takes what the winner fixed. Two rows for one number stop the partition. `now`
    and every deadline come from the store's clock. The claim names the rules, the tenants' settings (by their hash)
    and the position in tracking.mailings that hold for it. A worker that lacks a claim's rules stops.
 2  Carry n out; nobody starts n + 1 before n is done. What n writes, emptiness included, is a function of the claim
    alone: its run, its `now`, its rules, the declarations up to its positions, and the state after all changes
    before n.
    Events: streams/events.py. Changes: streams/changes.py. Either may be done twice.
    A state that holds a version at or above n's next change proves that n is done.
 3  Commit the offsets up to the end of the last claim that is done. They are a hint; the chain is the truth.
 4  On assignment: read the newest claim, load the state, carry that claim out again unless its end was committed (it
    may not have been done), go on after it. Records below the chain's position are skipped. A log that begins after
    the position, read again, or ends before it, is lost: stop and say so.
 5  Every insert carries a deadline well inside the stores' memory of tokens (100,000 inserts a table) and the table
    refuses it by its own clock. A fresh deadline is given only together with a fresh look at the newest claim: whoever
    slept finds out before it can write.

Why not a transaction: neither ClickHouse nor Kafka spans the other. Why the token is a compare-and-set: an insert token
that many writers use at once has exactly one winner.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from streams.errors import ChainStopped, UnknownRules
from streams.stores import StoreClient

# What this release can carry out, and the release that brought it: decoding, classification, cells, canonical form.
RULES = {1: "0.1.0"}
NEWEST_RULES = max(RULES)
PRIMARY = "engagement"  # the purpose that decides whether an event is `off`


class Kind(StrEnum):
    """What a claim is a run of."""

    EVENTS = "events"
    CHANGES = "changes"


@dataclass(frozen=True, slots=True)
class Claim:
    """Claim `number` of a partition, as its winner fixed it.

    `first` and `last` are offsets, inclusive; `next_event` and `next_change` are the chain's positions after it;
    `now_ms` is the store's clock when it was taken. `worker` is RELEASE/NAME.
    `mailings` is the position in tracking.mailings (the next offset) and
    `settings` the hash of the tenants' settings that hold for it.
    """

    incarnation: int
    partition: int
    number: int
    kind: Kind
    first: int
    last: int
    next_event: int
    next_change: int
    now_ms: int
    rules: int
    mailings: int
    settings: str
    worker: str

    def token(self, what: str) -> str:
        """The deduplication token of what this claim writes: the same for everybody who carries it out."""
        return f"{self.incarnation}:{what}:{self.partition}:{self.number}"


@dataclass(frozen=True, slots=True)
class Moment:
    """What the store said at one moment: its clock and the newest claim."""

    now_ms: int
    newest: Claim | None


_LOOK = """
SELECT toUnixTimestamp64Milli(now64(3)), (SELECT max(number) FROM incarnations),
    (SELECT groupArray(claim) FROM
        (SELECT tuple(number, toString(kind), first, last, next_event, next_change, toUnixTimestamp64Milli(now), rules,
            mailings, settings, worker) AS claim
         FROM claims WHERE incarnation = {incarnation:UInt32} AND partition = {partition:UInt16}
         ORDER BY number DESC LIMIT 2))
"""
_BEFORE = """
SELECT incarnation, lives.events_id, lives.changes_id, last.number, toString(kind), first, last.last, next_event,
    next_change, toUnixTimestamp64Milli(now), rules, mailings, settings, worker
FROM (SELECT * FROM claims WHERE incarnation < {incarnation:UInt32} AND partition = {partition:UInt16}
    ORDER BY incarnation DESC, number DESC LIMIT 1) AS last
INNER JOIN incarnations AS lives ON lives.number = last.incarnation
"""
_TAKE = """
INSERT INTO claims (incarnation, partition, number, kind, first, last, next_event, next_change, rules, mailings,
    settings, worker, deadline)
SELECT {incarnation:UInt32}, {partition:UInt16}, {number:UInt64}, {kind:String}, {first:UInt64}, {last:UInt64},
    {next_event:UInt64}, {next_change:UInt64}, {rules:UInt16}, {mailings:UInt64},
    (SELECT argMax(hash, at) FROM settings), {worker:String},
    fromUnixTimestamp64Milli({deadline:Int64})
"""


class Claims:
    """The table of claims, for one incarnation. Blocking. Raises what `StoreClient` raises, and ChainStopped."""

    def __init__(self, analytics: StoreClient, incarnation: int, ids: tuple[str, ...]) -> None:
        """`ids`: Kafka's ids of events and changes (and whatever else makes an incarnation), in that order."""
        self._analytics, self.incarnation, self._ids = analytics, incarnation, ids

    def look(self, partition: int) -> Moment:
        """The newest claim of a partition and the store's clock, in one query.

        Raises ChainStopped when a number was claimed twice (1), UnknownRules when this release is too old (1).
        """
        parameters = {"incarnation": self.incarnation, "partition": partition}
        ((now_ms, newest_life, found),) = self._analytics.rows("reading the newest claim", _LOOK, parameters)
        if newest_life > self.incarnation:
            raise ChainStopped(
                "the topics were made anew: this worker belongs to an earlier incarnation, start it again"
            )
        claims = [self._claim(self.incarnation, partition, row) for row in found]
        if len(claims) == 2 and claims[0].number == claims[1].number:
            raise ChainStopped(
                f"partition {partition}: number {claims[0].number} was claimed twice; the store has lost its memory of "
                "tokens. Nothing was counted wrongly yet: keep the workers stopped and ask for help"
            )
        newest = claims[0] if claims else None
        if newest and newest.rules not in RULES:
            raise UnknownRules(
                f"partition {partition}: claim {newest.number} was made by release {newest.worker.split('/')[0]} under "
                f"rules {newest.rules}; this release knows up to {NEWEST_RULES}: start that release or a newer one"
            )
        return Moment(now_ms, newest)

    def since(self, claim: Claim) -> int:
        """How many claims of all partitions were made after this one: at most that many inserts a table."""
        ((count,),) = self._analytics.rows(
            "counting claims",
            "SELECT count() FROM claims WHERE now > fromUnixTimestamp64Milli({now:Int64})",
            {"now": claim.now_ms},
        )
        return int(count)

    def take(self, wanted: Claim, deadline_ms: int) -> None:
        """Step 1: try to be the first to claim the number. Who won is only known after `look`.

        The store itself puts in the tenants' settings that are in force at this moment; those of `wanted` count for
        nothing. So whatever was sent after settings came into force is carried out under them, or newer ones.
        """
        parameters: dict[str, Any] = {
            "incarnation": wanted.incarnation,
            "partition": wanted.partition,
            "number": wanted.number,
            "kind": str(wanted.kind),
            "first": wanted.first,
            "last": wanted.last,
            "next_event": wanted.next_event,
            "next_change": wanted.next_change,
            "rules": wanted.rules,
            "mailings": wanted.mailings,
            "worker": wanted.worker,
            "deadline": deadline_ms,
        }
        self._analytics.do("claiming", _TAKE, parameters, token=wanted.token("claim"))

    def inherited(self, partition: int) -> tuple[Claim, bool, bool] | None:
        """The last claim of an earlier incarnation; whether its events, and its changes, are topics of this one too."""
        parameters = {"incarnation": self.incarnation, "partition": partition}
        rows = self._analytics.rows("reading the claim before this incarnation", _BEFORE, parameters)
        if not rows:
            return None
        incarnation, events_id, changes_id, *claim = rows[0]
        return (
            self._claim(incarnation, partition, claim),
            events_id == self._ids[0],
            changes_id == self._ids[1],
        )

    def _claim(self, incarnation: int, partition: int, row: Sequence[Any]) -> Claim:
        number, kind, first, last, next_event, next_change, now_ms, rules, mailings, settings, worker = row
        return Claim(
            incarnation,
            partition,
            number,
            Kind(kind),
            first,
            last,
            next_event,
            next_change,
            now_ms,
            rules,
            mailings,
            settings,
            worker,
        )
