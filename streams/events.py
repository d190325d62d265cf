"""Carrying out a claim of events, as columns: decode, dedupe, look up, decide, count.

A record ends in one of four ways, and received = counted + off + duplicates + rejected is asserted for every claim.
Everything here is a function of the claim (its records, its `now`, the settings, declarations and state that hold for
it) and of the memory of event ids below it, so that a claim carried out twice writes the same twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pyarrow as pa

from aggregates.actors import NEEDS_IP, classify
from aggregates.devices import family
from aggregates.steps import step_of
from pseudonymizer.keys import KeyKind
from pseudonymizer.pseudonyms import event_hashes, visitor_seeds
from pseudonymizer.siphash import Messages
from streams import ingest
from streams.chain import PRIMARY
from streams.decode import decode
from streams.errors import BadRow, ChainStopped, Reason
from streams.keys import SEPARATOR
from streams.people import FLAWS, People
from streams.tenants import VENDORS

if TYPE_CHECKING:
    from streams.chain import Claim
    from streams.declarations import Declarations
    from streams.incarnation import WasOff
    from streams.keys import Keys
    from streams.seen import Look, Seen
    from streams.state import StateIndex
    from streams.tenants import TenantSettings
    from streams.transport import Record

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
OTHER_FEED = "other"

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class EventsBatch:
    """What a claim of events writes: one Arrow table for `ingest`, the rejections, and what to remember afterwards."""

    table: pa.Table = field(repr=False)
    bad: list[tuple[int, BadRow]]
    remember: Look = field(repr=False)
    outcomes: Mapping[str, int]
    reasons: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class _Events:
    """Events of a batch as columns of one length: `frame` as decoded, the tenant's index, the recipient's slot."""

    frame: pl.DataFrame = field(repr=False)
    tenants: Array
    slots: Array

    def filter(self, kept: Array) -> _Events:
        if kept.all():
            return self
        return _Events(self.frame.filter(pl.Series(kept)), self.tenants[kept], self.slots[kept])


class EventsWork:
    """Builds the batches of one partition. Used by one thread at a time.

    `was_off` names who was `off` when a state was lost: she stays `off` until she says otherwise. `closed` names the
    mailings (tenant, separator, mailing) whose closing lies before the claim: it may grow between two batches.
    """

    def __init__(
        self,
        partition: int,
        partitions: int,
        keys: Keys,
        state: StateIndex,
        seen: Seen,
        declarations: Declarations,
        was_off: WasOff | None = None,
        closed: Collection[str] = (),
    ) -> None:
        self._closed = closed
        self._keys, self._seen, self._declarations = keys, seen, declarations
        self._people = People(partition, partitions, keys, state, was_off)

    def build(self, claim: Claim, records: Sequence[Record], tenants: Mapping[str, TenantSettings]) -> EventsBatch:
        """The claim's batch. Raises ChainStopped when the sum does not add up; a bad record is never an exception."""
        self._people.begin(tenants)
        decoded = decode([record.value for record in records], claim.now_ms)
        bad = list(decoded.bad)
        known = _of_open_mailings(_of_known_tenants(decoded.frame, tenants, bad), self._closed, bad)
        events = self._of_this_partition(known, tenants, bad)

        # Duplicates: a sender's retry within 24 h of record time counts once.
        stamps = np.fromiter((record.timestamp for record in records), np.int64, len(records)) // HOUR_MS
        hours = stamps[events.frame["row"].to_numpy()]
        ids = Messages.of(list(map(str.encode, events.frame["event_id"].to_list())))
        hashes = event_hashes(self._keys.single(KeyKind.SEEN), list(tenants), events.tenants, ids)
        new, remember = self._seen.look(hashes, hours)
        duplicates = len(new) - int(new.sum())
        events, hashes, hours = events.filter(new), hashes[new], remember.hours[new]

        parts, counted = self._decided(claim, events, hashes, hours, tenants)
        reasons = Counter(str(row.reason) for _, row in bad)
        outcomes = {
            "received": len(records),
            "counted": counted,
            "off": len(hashes) - counted,
            "duplicates": duplicates,
            "rejected": len(bad),
        }
        if outcomes["received"] != sum(n for name, n in outcomes.items() if name != "received"):
            raise ChainStopped(f"partition {claim.partition}, claim {claim.number}: the outcomes do not add up")
        parts.append(ingest.outcome_rows(outcomes, reasons))
        return EventsBatch(ingest.of_claim(claim, parts), bad, remember, outcomes, reasons)

    def done(self, batch: EventsBatch) -> None:
        """The batch is in the store: remember its event ids."""
        self._seen.commit(batch.remember)

    def _of_this_partition(
        self, frame: pl.DataFrame, tenants: Mapping[str, TenantSettings], bad: list[tuple[int, BadRow]]
    ) -> _Events:
        """Find the recipients, and refuse those that cannot be, belong elsewhere, or whose state cannot be read."""
        index = {name: number for number, name in enumerate(tenants)}
        of_tenant = frame["tenant"].replace_strict(index, return_dtype=pl.Int64).to_numpy()
        who = frame.select(pl.concat_str("tenant", "recipient", separator=SEPARATOR)).to_series().to_list()
        numbers = self._people.numbers(who, of_tenant)
        kinds = (frame["kind"] == "click").to_numpy().astype(np.int64)
        flaws = self._people.flaws(numbers, kinds)
        events = _Events(frame, of_tenant, 2 * numbers + kinds)
        if flaws.any():
            rows = frame["row"].to_numpy()
            bad.extend((int(rows[at]), _flaw(FLAWS[flaws[at]])) for at in np.flatnonzero(flaws).tolist())
        return events.filter(flaws == 0)

    def _decided(
        self, claim: Claim, events: _Events, hashes: Array, hours: Array, tenants: Mapping[str, TenantSettings]
    ) -> tuple[list[pa.Table], int]:
        """The rows of the events that are new, and how many of them count.

        One row an event with its primary purpose; one more for each other purpose that allows one; and for an event
        that is neither counted nor a row nothing but the hash of its id.
        """
        if not len(hashes):
            return [], 0
        people, times = self._people, events.frame["occurred_ms"].to_numpy()
        counted = times >= people.counts_from(events.slots)
        columns = self._columns(claim, events, tenants)
        ids = {"event_hash": hashes, "hour": hours.astype(np.uint32)}

        tables: list[pa.Table] = []
        for purpose in people.purposes():
            pseudonyms, versions = people.pseudonyms(purpose, events.slots, times)
            is_row = (pseudonyms != 0).any(axis=1)
            own = {
                "pseudonym": pseudonyms,
                "key_version": versions,
                "purpose": _where(is_row, purpose),
                "expires": _expires(events.tenants, times, is_row, purpose, tenants),
                "feed": _feeds(events.frame, is_row, tenants),
            }
            if purpose == PRIMARY:
                kept = counted | is_row
                tables.append(ingest.rows({**columns, **ids, **own, "counted": counted.astype(np.uint8)}, kept))
                if not kept.all():
                    tables.append(ingest.rows(ids, ~kept))
            elif is_row.any():
                tables.append(ingest.rows({**columns, **own}, is_row))
        return tables, int(counted.sum())

    # --- what is counted ---

    def _columns(self, claim: Claim, events: _Events, tenants: Mapping[str, TenantSettings]) -> dict[str, Any]:
        frame = events.frame
        on = ["user_agent", "ip"] if NEEDS_IP else ["user_agent"]
        agents = frame.select(on).unique()
        agents = agents.with_columns(
            pl.Series("device", [str(family(row[0])) for row in agents.iter_rows()], dtype=pl.String),
            pl.Series("by_rules", [str(classify(*row)) for row in agents.iter_rows()], dtype=pl.String),
        )
        told = frame.select(on).join(agents, on=on, how="left", nulls_equal=True, maintain_order="left")
        which, mailings = _numbered(frame.select("tenant", "mailing"))
        declared = [self._declarations.at(tenant, mailing, claim.mailings) for tenant, mailing in mailings.iter_rows()]
        sent_ms = np.array([found[1].sent_at if found else -1 for found in declared], np.int64)
        names = [SEPARATOR.join(row) for row in mailings.iter_rows()]
        secrets = self._keys.mailings(names)
        seeds = visitor_seeds([secrets[name] for name in names], which, self._people.canonical(events.slots >> 1))
        times = frame["occurred_ms"].to_numpy()
        return {
            "tenant": frame["tenant"],
            "mailing": frame["mailing"],
            "kind": frame["kind"],
            "link": self._links(claim, frame, tenants),
            "device": told["device"],
            "actor": frame["actor"].fill_null(told["by_rules"]),
            "occurred_ms": times,
            "step": step_of(times, sent_ms[which]),
            "seed0": seeds[:, 0],
            "seed1": seeds[:, 1],
        }

    def _links(self, claim: Claim, frame: pl.DataFrame, tenants: Mapping[str, TenantSettings]) -> pl.Series:
        """The link of a click by the declarations that hold for the claim; empty for an open."""
        is_click = frame["kind"] == "click"
        with_keys = [name for name, tenant in tenants.items() if tenant.url_keys]
        # Personal queries make every URL distinct; without allow-listed keys the part before them decides.
        stripped = pl.col("url").str.extract(r"^([^?#]*)")
        url = pl.when(pl.col("tenant").is_in(with_keys)).then("url").otherwise(stripped) if with_keys else stripped
        which, distinct = _numbered(frame.filter(is_click).select("tenant", "mailing", "link", url))
        found = [
            self._declarations.links(tenants[tenant], mailing, claim.mailings).of(link, url)
            for tenant, mailing, link, url in distinct.iter_rows()
        ]
        at = np.zeros(len(frame), np.uint32)
        at[is_click.to_numpy()] = which + 1
        return pl.Series(["", *found], dtype=pl.String).gather(at)


def _numbered(frame: pl.DataFrame) -> tuple[Array, pl.DataFrame]:
    """Which of the distinct rows each row is (uint32), and the distinct rows."""
    distinct = frame.unique(maintain_order=True)
    on = frame.columns
    if len(distinct) == 1:
        return np.zeros(len(frame), np.uint32), distinct
    numbers = distinct.with_columns(which=pl.int_range(len(distinct), dtype=pl.UInt32))
    return frame.join(numbers, on=on, how="left", nulls_equal=True, maintain_order="left")["which"].to_numpy(), distinct


def _of_known_tenants(
    frame: pl.DataFrame, tenants: Mapping[str, TenantSettings], bad: list[tuple[int, BadRow]]
) -> pl.DataFrame:
    known = frame["tenant"].is_in(list(tenants))
    if known.all():
        return frame
    flaw = BadRow(Reason.UNKNOWN_TENANT, "tenant", "a tenant of the settings in force")
    bad.extend((row, flaw) for row in frame.filter(~known)["row"].to_list())
    return frame.filter(known)


def _of_open_mailings(frame: pl.DataFrame, closed: Collection[str], bad: list[tuple[int, BadRow]]) -> pl.DataFrame:
    """Before anything asks for a mailing's secret: that of a closed one is gone."""
    if not closed:
        return frame
    mailings = frame.select("tenant", "mailing").unique()
    late = mailings.filter(pl.Series([SEPARATOR.join(row) in closed for row in mailings.iter_rows()], dtype=pl.Boolean))
    if late.is_empty():
        return frame
    flaw = BadRow(Reason.LATE, "mailing", "a mailing whose window has not closed")
    bad.extend(
        (row, flaw)
        for row in frame.join(late, on=["tenant", "mailing"], how="semi", maintain_order="left")["row"].to_list()
    )
    return frame.join(late, on=["tenant", "mailing"], how="anti", maintain_order="left")


def _flaw(reason: Reason | None) -> BadRow:
    if reason is Reason.BAD_VALUE:
        return BadRow(reason, None, "a recipient whose state this release can read")
    if reason is Reason.MISROUTED:
        return BadRow(reason, None, "the partition of tenant and recipient (Kafka's default partitioner)")
    return BadRow(Reason.BAD_RECIPIENT, "recipient", "an address or an id")


def _expires(
    of_tenant: Array, times: Array, is_row: Array, purpose: str, tenants: Mapping[str, TenantSettings]
) -> Array:
    """Days since 1970 after which each row goes, by its tenant's retention for the purpose; 0 where there is no row."""
    days = [tenant.purposes[purpose].retention_days if purpose in tenant.purposes else 0 for tenant in tenants.values()]
    return np.where(is_row, times // DAY_MS + np.array(days, np.int64)[of_tenant], 0).astype(np.int32)


def _feeds(frame: pl.DataFrame, is_row: Array, tenants: Mapping[str, TenantSettings]) -> pl.Series:
    """Where the event of each row came from, for the access export; empty where there is no row, or nothing was said.

    A name that neither a vendor's adapter nor the tenant's settings know is `other`: it could name somebody, and rows
    lie where nobody may be named.
    """
    if frame["feed"].null_count() == len(frame):
        return pl.repeat("", len(frame), eager=True)
    which, distinct = _numbered(frame.select("tenant", pl.when(pl.Series(is_row)).then("feed")))
    kept = [
        "" if not feed else feed if feed in VENDORS or feed in tenants[tenant].feed_names else OTHER_FEED
        for tenant, feed in distinct.iter_rows()
    ]
    return pl.Series(kept, dtype=pl.String).gather(which)


def _where(mask: Array, word: str) -> pl.Series:
    return pl.select(pl.when(pl.Series(mask)).then(pl.lit(word)).otherwise(pl.lit(""))).to_series()
