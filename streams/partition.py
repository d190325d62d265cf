"""One partition of events and changes: its buffers, its memory, and the loop that takes and carries out claims.

The numbers are those of the protocol in streams/chain.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import pyarrow as pa
import structlog

from streams import changes as steps
from streams import plan as planning
from streams.buffer import Buffer
from streams.chain import NEWEST_RULES, Claim, Claims, Kind, Moment
from streams.errors import ChainStopped, LostLog, StoreLate
from streams.events import EventsBatch, EventsWork
from streams.keyring import KeyRetired
from streams.keys import SEPARATOR
from streams.patience import patiently
from streams.rejections import Stage
from streams.seen import Seen
from streams.state import StateIndex
from streams.stores import TIME
from streams.topics import CHANGES, EVENTS, MAILINGS, STATE

if TYPE_CHECKING:
    from streams.errors import BadRow
    from streams.resources import Resources
    from streams.tenants import TenantSettings
    from streams.transport import Chunk, Record

T = TypeVar("T")
log = structlog.get_logger("schleuse.partition")

MOST_CHANGES = 20_000  # a run of changes is one claim: a DELETE costs the same for one and for many
CHANGES_SECONDS = 0.1  # how long changes are gathered
LOOK_SECONDS = 20.0  # a deadline that was given longer ago is given anew
AHEAD_SECONDS = 60.0  # how long a state may be ahead of the chain: a worker that is at work writes the next claim soon
MOST_SINCE = 50_000  # claims since one that may be carried out again: half of what the stores remember
SEEN_HOURS = 25  # 24 h and the hour that has begun


class Overtaken(Exception):
    """Somebody else has gone on with the chain: drop everything and read it again."""


@dataclass
class Progress:
    """Where a partition stands, for `status`."""

    state: str = "loading"
    claim: int = -1
    next_event: int = 0
    next_change: int = 0


class Partition:
    """The owner's side of one partition's chain."""

    def __init__(self, number: int, resources: Resources, claims: Claims, state: StateIndex) -> None:
        self.number, self._resources, self._claims, self.state = number, resources, claims, state
        self.seen = Seen()
        self.progress = Progress()
        self._work: EventsWork | None = None
        self._closed: set[str] = set()  # mailings (tenant, separator, mailing) whose closing lies before the next claim
        self._last: Claim | None = None  # the newest claim, or that of an earlier incarnation
        self._again: Claim | None = None  # the last claim, if it has to be carried out again (4)
        self._deadline: tuple[int, float] = (0, 0.0)  # the store's milliseconds, and our clock when it was given
        self.events, self.changes = Buffer(0), Buffer(0)
        self._fed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._stopping = False

    # --- step 4: on assignment ---

    async def load(self) -> tuple[int, int]:
        """Read the newest claim and all that belongs to it; where events and changes begin (4).

        Raises LostLog, ChainStopped, UnknownRules.
        """
        resources = self._resources
        self.progress.state = "loading"
        until = time.monotonic() + AHEAD_SECONDS
        while True:
            _, end = await patiently(lambda: resources.tail.bounds(EVENTS, self.number), resources.waits)
            committed = await patiently(lambda: resources.committed(EVENTS, self.number), resources.waits)
            moment = await self._look()  # after what is compared with it: both only grow, the chain first
            newest = moment.newest
            await patiently(lambda: resources.tail.caught_up(STATE, [self.number]), resources.waits)
            proven = newest is not None and self.state.highest >= (newest.incarnation, newest.next_change)
            ahead = newest is not None and committed is not None and newest.next_event < committed <= end
            if not proven and not ahead:
                break
            if time.monotonic() > until:
                raise ChainStopped(
                    f"partition {self.number}: {'Kafka' if ahead else 'the state'} knows of claims that the chain "
                    "lacks. Was the analytics store put back from a backup? See docs/operations.md"
                )
            log.info("the newest claim is done already, reading again", partition=self.number)
            await asyncio.sleep(0.2)
        self.state.look_for_superseded()
        last, same_events, same_changes = newest, True, True
        if newest is None and (found := await self._inherited()) is not None:
            last, same_events, same_changes = found
        self._last = last
        next_event = last.next_event if last and same_events else None
        next_change = last.next_change if last and same_changes else None
        lives = last is not None and (same_events if last.kind is Kind.EVENTS else same_changes)
        self._again = last if last and lives and not await self._was_committed(last) else None
        if self._again:
            await self._check_tokens(self._again)
        next_event, begin_events = await self._check_log(EVENTS, Kind.EVENTS, next_event)
        next_change, begin_changes = await self._check_log(CHANGES, Kind.CHANGES, next_change)
        await self._load_seen(begin_events)
        await self._load_closed(self._again)
        self._work = EventsWork(
            self.number,
            resources.settings.partitions,
            resources.keys,
            self.state,
            self.seen,
            resources.declarations,
            resources.was_off,
            self._closed,
        )
        self.events, self.changes = Buffer(begin_events), Buffer(begin_changes)
        self._note(next_event, next_change)
        return begin_events, begin_changes

    @property
    def changes_kept_from(self) -> int:
        """tracking.changes may be trimmed below this offset: the newest claim may have to be carried out again."""
        last = self._last
        return (
            min(last.first, self.progress.next_change)
            if last and last.kind is Kind.CHANGES
            else self.progress.next_change
        )

    async def _inherited(self) -> tuple[Claim, bool, bool] | None:
        """The last claim of an earlier incarnation, and whether its events and its changes are still the same topics.

        Where only another topic was made anew, this one's position goes on: what was counted is not counted again.
        """
        return await patiently(
            lambda: self._in_thread(lambda: self._claims.inherited(self.number)), self._resources.waits
        )

    async def _check_log(self, topic: str, kind: Kind, position: int | None) -> tuple[int, int]:
        """The chain's position in a log, and where to begin; a log that does not hold what is needed is lost (4).

        A new chain (`position` None) begins where the log does: what lies below was never received, or carried out
        and trimmed.
        """
        resources = self._resources
        first, end = await patiently(lambda: resources.tail.bounds(topic, self.number), resources.waits)
        if position is None:
            if first:
                log.warning("a new chain, the log begins late", topic=topic, partition=self.number, begins=first)
            return first, first
        begin = self._again.first if self._again and self._again.kind is kind else position
        if first > begin or (end < position and not resources.end_is_a_lower_bound):
            raise LostLog(
                f"{topic}-{self.number} holds offsets {first} to {end}, the chain stands at {position}: records are "
                "lost. See docs/operations.md, 'A lost log'"
            )
        return position, begin

    async def _was_committed(self, claim: Claim) -> bool:
        """Whether the end of a claim was committed: that comes after it was done (3), so it need not be done again."""
        resources = self._resources
        events = claim.kind is Kind.EVENTS
        topic, position = (EVENTS, claim.next_event) if events else (CHANGES, claim.next_change)
        committed = await patiently(lambda: resources.committed(topic, self.number), resources.waits)
        return committed == position  # of the newest claim; anything else was committed in an earlier life

    async def _check_tokens(self, claim: Claim) -> None:
        """A claim may be carried out again only while the stores still remember its tokens (5).

        Raises ChainStopped when others have made so many claims since that they may not: whether it was counted cannot
        be known any more.
        """
        since = await patiently(lambda: self._in_thread(lambda: self._claims.since(claim)), self._resources.waits)
        if since > MOST_SINCE:
            raise ChainStopped(
                f"partition {self.number}: claim {claim.number} was not committed and {since:,} were made since: "
                "whether it was counted cannot be known. See docs/operations.md, 'A claim too old'"
            )

    async def _load_seen(self, below: int) -> None:
        """The event ids of 24 h below the point of resumption, whatever incarnation they were seen in."""
        resources = self._resources
        incarnation = self._again.incarnation if self._again else self._claims.incarnation
        which = "partition = {p:UInt16} AND (incarnation < {i:UInt32} OR first < {below:UInt64})"
        names = {"p": self.number, "i": incarnation, "below": below}
        newest = f"SELECT max(hour) FROM seen WHERE {which}"
        of_hour = f"SELECT hash FROM seen WHERE {which} AND hour = {{hour:UInt32}}"

        def load(hour: int) -> None:
            hashes = resources.analytics.columns("reading seen", of_hour, {**names, "hour": hour})
            if len(hashes):
                at = np.full(len(hashes), hour, np.int64)
                self.seen.load(hashes.column("hash").to_numpy().astype(np.uint64), at)

        ((last,),) = await patiently(
            lambda: self._in_thread(lambda: resources.analytics.rows("reading seen", newest, names)), resources.waits
        )
        for hour in range(max(0, last - SEEN_HOURS), last + 1):  # a day at once would be in memory three times over
            await patiently(lambda hour=hour: self._in_thread(lambda: load(hour)), resources.waits)  # type: ignore[misc]

    async def _load_closed(self, again: Claim | None) -> None:
        """The mailings whose closing lies before the claim carried out next: `again`, or the one after the last.

        Of an earlier incarnation's closings all count, on every partition: partitions may have become more.
        """
        incarnation = again.incarnation if again else self._claims.incarnation
        below = again.number if again else self._number(self._last) + 1
        which = (
            "incarnation < {i:UInt32} OR (incarnation = {i:UInt32} AND partition = {p:UInt16} AND claim < {n:UInt64})"
        )
        names = {"i": incarnation, "p": self.number, "n": below}
        rows = await patiently(
            lambda: self._in_thread(
                lambda: self._resources.analytics.rows(
                    "reading closed mailings",
                    f"SELECT DISTINCT toString(tenant), mailing FROM closings WHERE {which}",
                    names,
                )
            ),
            self._resources.waits,
        )
        self._closed.update(SEPARATOR.join(row) for row in rows)

    # --- feeding ---

    def wants(self, topic: str) -> bool:
        """Whether more of a topic may be fetched: up to one and a half batches ahead, or as far as a claim needs."""
        if topic == EVENTS:
            last = self._last
            if last and last.kind is Kind.EVENTS and self.events.position <= last.last:
                return True
            return len(self.events.records) < self._resources.settings.batch_rows * 3 // 2
        return len(self.changes.records) < MOST_CHANGES or bool(
            self._last and self._last.kind is Kind.CHANGES and self.changes.position <= self._last.last
        )

    def feed(self, chunk: Chunk) -> None:
        """Take a chunk of events or changes."""
        (self.events if chunk.topic == EVENTS else self.changes).add(chunk)
        self._fed.set()

    def start(self, failed: Callable[[BaseException], None]) -> None:
        """Begin to carry out. `failed` is called once if that ends with an error."""

        def ended(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and (error := task.exception()):
                failed(error)

        self._task = asyncio.create_task(self._run(), name=f"partition {self.number}")
        self._task.add_done_callback(ended)

    async def stop(self, seconds: float) -> None:
        """Finish the claim that is being carried out, for at most `seconds`; then give it up."""
        self._stopping = True
        self._fed.set()
        if self._task:
            done, _ = await asyncio.wait({self._task}, timeout=seconds)
            if not done:
                log.warning("gave up a claim that is being carried out", partition=self.number)
                self._task.cancel()
                await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    # --- the loop: steps 1, 2, 3 ---

    async def _run(self) -> None:
        self.progress.state = "running"
        if self._again:
            again = self._again
            log.info("carrying out again", partition=self.number, claim=again.number, kind=str(again.kind))
            await self._carry_out(again)
            await self._load_closed(None)  # of an earlier incarnation's claim: what was closed after it
        while not self._stopping:
            self._fed.clear()
            await self._write_back()
            wanted = self._wanted()
            if wanted is None:
                await self._wait(self._patience())
                continue
            with self._resources.metrics.timed("claim"):
                claim = await self._claim(wanted)
            await self._carry_out(claim)

    def _patience(self) -> float:
        """How long to wait for more before what is there is taken."""
        waiting = [
            limit - buffer.age()
            for buffer, limit in (
                (self.events, self._resources.settings.batch_seconds),
                (self.changes, CHANGES_SECONDS),
            )
            if buffer.records
        ]
        return max(0.001, min(waiting, default=1.0))

    def _wanted(self) -> tuple[Kind, int, int] | None:
        """The next claim worth taking: kind, first and last. Changes go first."""
        next_event, next_change = self.progress.next_event, self.progress.next_change
        changes = self.changes.records
        if changes and (len(changes) >= MOST_CHANGES or self.changes.age() >= CHANGES_SECONDS):
            return Kind.CHANGES, next_change, changes[:MOST_CHANGES][-1].offset
        events, settings = self.events.records, self._resources.settings
        if events and (len(events) >= settings.batch_rows or self.events.age() >= settings.batch_seconds):
            return Kind.EVENTS, next_event, events[: settings.batch_rows][-1].offset
        return None

    async def _claim(self, wanted: tuple[Kind, int, int]) -> Claim:
        """Step 1. The claim with the next number, whoever won it."""
        resources = self._resources
        kind, first, last = wanted
        number = self._number(self._last) + 1
        next_event, next_change = self.progress.next_event, self.progress.next_change
        next_event, next_change = (last + 1, next_change) if kind is Kind.EVENTS else (next_event, last + 1)
        mailings = await patiently(resources.declared, resources.waits)

        async def attempt() -> Claim | None:
            deadline = await self._fresh(number - 1)
            claim = Claim(
                self._claims.incarnation,
                self.number,
                number,
                kind,
                first,
                last,
                next_event,
                next_change,
                0,
                NEWEST_RULES,
                mailings,
                "",  # those in force when the store takes it
                resources.name,
            )
            try:
                await self._in_thread(lambda: self._claims.take(claim, deadline))
            except StoreLate:
                self._deadline = (0, 0.0)
                return None
            newest = (await self._look()).newest
            if newest is None or newest.number != number:
                raise Overtaken
            return newest

        while (claim := await patiently(attempt, resources.waits)) is None:
            pass
        if claim.worker != resources.name:
            log.info("another worker had taken the claim", partition=self.number, claim=number, worker=claim.worker)
        # Who lost goes on from what the winner fixed: its run may be longer, and of the other kind.
        self._last = claim
        return claim

    def _number(self, claim: Claim | None) -> int:
        """The newest number of this incarnation's chain, if this claim is the last one; -1: there is none yet."""
        return claim.number if claim and claim.incarnation == self._claims.incarnation else -1

    async def _carry_out(self, claim: Claim) -> None:
        """Steps 2 and 3."""
        records = await self._records(claim)
        if records is None:
            return
        resources = self._resources
        tenants = await patiently(
            lambda: self._in_thread(lambda: resources.tenants_of(claim.settings)), resources.waits
        )
        if resources.tail.position(MAILINGS, 0) < claim.mailings:  # another worker had read further when it claimed
            await patiently(resources.declared, resources.waits)
        if claim.kind is Kind.EVENTS:
            await self._carry_out_events(claim, records, tenants)
        else:
            await self._carry_out_changes(claim, records, tenants)
        (self.events if claim.kind is Kind.EVENTS else self.changes).drop(claim.last + 1)
        # Of the other kind's topic a claim of an earlier incarnation knows nothing: it may have been made anew.
        if claim.kind is Kind.EVENTS:
            self._note(claim.next_event, self.progress.next_change)
        else:
            self._note(self.progress.next_event, claim.next_change)
        self.progress.claim = claim.number
        self._resources.done(self.number, self.progress.next_event, self.progress.next_change)  # 3

    def _check_not_done(self, claim: Claim) -> None:
        """What was built may have seen a state after the claim: then the claim is done, by somebody else (2).

        A token does not cover that: a target that the true batch left empty has never spent it. The index is fed in the
        event loop only, so a look after the build sees everything that the build saw.
        """
        if self.state.highest >= (claim.incarnation, claim.next_change):
            raise Overtaken

    async def _closed_since(self, claim: Claim) -> Exception:
        """Why a mailing that the claim counts has no secret any more: it closed after the claim, which is done then."""
        newest = (await self._look()).newest
        if newest and newest.number > self._number(claim):
            return Overtaken()
        return ChainStopped(
            f"partition {self.number}: claim {claim.number} counts a mailing whose secret was destroyed, and the "
            "chain does not say that it was closed. Was the analytics store put back from a backup? See "
            "docs/operations.md"
        )

    async def _records(self, claim: Claim) -> list[Record] | None:
        """The run of a claim, as soon as all of it has been fetched; None when the partition is to stop."""
        buffer = self.events if claim.kind is Kind.EVENTS else self.changes
        while buffer.position <= claim.last:
            if self._stopping:
                return None
            self._fed.clear()
            await self._wait(1.0)
        records = buffer.run(claim.last)
        if not records or records[-1].offset != claim.last:
            raise LostLog(f"partition {self.number}: the log lacks the last record of claim {claim.number}")
        return records

    async def _carry_out_events(
        self, claim: Claim, records: list[Record], tenants: Mapping[str, TenantSettings]
    ) -> None:
        work, resources = self._work, self._resources
        assert work
        with resources.metrics.timed("build"):
            try:
                batch = await self._computed(lambda: work.build(claim, records, tenants))
            except KeyRetired:
                raise await self._closed_since(claim) from None
        self._check_not_done(claim)
        await self._reject(Stage.EVENTS, EVENTS, claim, records, batch.bad)
        with resources.metrics.timed("insert"):
            await self._guarded(claim, lambda deadline: self._insert(claim, batch, deadline))
        work.done(batch)
        resources.metrics.events(batch)

    def _insert(self, claim: Claim, batch: EventsBatch, deadline: int) -> None:
        column = pa.repeat(pa.scalar(deadline, pa.int64()).cast(TIME), len(batch.table))
        table = batch.table.append_column("deadline", column)
        self._resources.analytics.insert("inserting a batch of events", "ingest", table, claim.token("events"))

    async def _carry_out_changes(
        self, claim: Claim, records: list[Record], tenants: Mapping[str, TenantSettings]
    ) -> None:
        """The steps a to g of streams/changes.py."""
        resources, timed = self._resources, self._resources.metrics.timed
        identity, analytics, keys = resources.identity, resources.analytics, resources.keys
        with timed("plan"):
            plan = await self._computed(
                lambda: planning.plan(claim, records, tenants, self.state, keys, resources.was_off)
            )
        await self._reject(Stage.CHANGES, CHANGES, claim, records, plan.bad)
        with timed("ledger"):  # a
            await self._guarded(claim, lambda until: steps.write_ledger(claim, plan, identity, keys, until))
            await self._guarded(claim, lambda until: steps.write_closings(claim, plan, analytics, until))
        with timed("removals"):  # b, c
            await self._guarded(claim, lambda until: steps.write_removals(claim, plan, identity, analytics, until))
        with timed("remove"):  # d, e
            await self._guarded(claim, lambda _: steps.remove(claim, plan, identity, analytics, keys))
        with timed("state"):  # f
            states = planning.states(plan)
            await patiently(lambda: resources.send_all(STATE, self.number, states), resources.waits)
            self.state.put_all(states)
        with timed("receipts"):  # g
            receipts = await self._guarded(
                claim,
                lambda until: steps.write_receipts(
                    claim, identity, resources.gone_after_ms, resources.erased_after_ms, until
                ),
            )
            await patiently(lambda: resources.send_receipts(receipts), resources.waits)
        if plan.close:
            self._closed.update(SEPARATOR.join((one.tenant, one.mailing)) for one in plan.close)
            await resources.compute(keys.forget_mailings)  # their secrets are about to be destroyed
        resources.metrics.changes(len(records))

    async def _reject(
        self, stage: Stage, topic: str, claim: Claim, records: list[Record], bad: list[tuple[int, BadRow]]
    ) -> None:
        if bad:
            refused = [(records[row], why) for row, why in bad]
            await patiently(
                lambda: self._resources.reject(stage, topic, self.number, claim.now_ms, refused), self._resources.waits
            )

    async def _write_back(self) -> None:
        """Where the topic's last word is an older state, or that of somebody who was erased: write what holds."""
        stale, self.state.stale = self.state.stale, []
        again = [(key, self.state.written(key)) for key in dict.fromkeys(stale)]
        if again:
            await patiently(lambda: self._resources.send_all(STATE, self.number, again), self._resources.waits)

    # --- step 5: deadlines ---

    async def _look(self) -> Moment:
        moment = await patiently(lambda: self._in_thread(lambda: self._claims.look(self.number)), self._resources.waits)
        until = moment.now_ms + int(self._resources.settings.insert_deadline_seconds * 1000)
        self._deadline = (until, time.monotonic())
        return moment

    async def _fresh(self, number: int) -> int:
        """A deadline that was given together with a look at the newest claim, which must still be `number`."""
        until, given = self._deadline
        if time.monotonic() - given > LOOK_SECONDS:
            newest = (await self._look()).newest
            if (newest.number if newest else -1) != number:
                raise Overtaken
            until, _ = self._deadline
        return until

    async def _guarded(self, claim: Claim, write: Callable[[int], T]) -> T:
        """Make a write of a claim, again and again until the store has taken it, each time before a fresh deadline."""

        async def attempt() -> tuple[bool, T | None]:
            deadline = await self._fresh(self._number(claim))
            try:
                return True, await self._in_thread(lambda: write(deadline))
            except StoreLate:
                self._deadline = (0, 0.0)
                return False, None
            except Exception:
                self._deadline = (0, 0.0)  # whatever went wrong took time: look again before the next try
                raise

        while True:
            written, result = await patiently(attempt, self._resources.waits)
            if written:
                return result  # type: ignore[return-value]

    # --- small things ---

    async def _wait(self, seconds: float) -> None:
        """Until something has been fed, or the partition is to stop."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._fed.wait(), timeout=seconds)

    def _note(self, next_event: int, next_change: int) -> None:
        self.progress = replace(self.progress, next_event=next_event, next_change=next_change)

    async def _computed(self, build: Callable[[], T]) -> T:
        """What is built is built again if the key ring cannot for now."""
        return await patiently(lambda: self._resources.compute(build), self._resources.waits)

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await self._resources.in_thread(call)
