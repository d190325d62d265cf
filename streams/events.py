"""Carrying out a claim of events, as columns: decode, dedupe, look up, decide, count.

A record ends in one of four ways, and received = counted + off + duplicates + rejected is asserted for every claim.
Everything here is a function of the claim (its records, its `now`, the settings, declarations and state that hold for
it) and of the memory of event ids below it, so that a claim carried out twice writes the same twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa

from aggregates.actors import NEEDS_IP, classify
from aggregates.devices import family
from aggregates.steps import step_of
from pseudonymizer.consent import Mode
from pseudonymizer.decisions import NEVER, thresholds
from pseudonymizer.keys import KeyKind
from pseudonymizer.pseudonyms import blind_index, event_hashes, visitor_seeds
from pseudonymizer.recipients import BadRecipient, canonical
from streams import ingest
from streams.chain import PRIMARY
from streams.decode import decode
from streams.errors import BadRow, ChainStopped, Reason
from streams.keys import SEPARATOR
from streams.limits import NO_STRETCH, NOTHING_KNOWN, Allowed, Limits, Stretch
from streams.partitioner import message_key, partitions_of

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

KINDS = {"open": 0, "click": 1}
Array = np.ndarray[Any, Any]
REMEMBERED = 200_000  # recipients and user agents whose answers are kept between batches


@dataclass(frozen=True, slots=True)
class EventsBatch:
    """What a claim of events writes: one Arrow table for `ingest`, the rejections, and what to remember afterwards."""

    table: pa.Table
    bad: list[tuple[int, BadRow]]
    remember: Look
    outcomes: Mapping[str, int]
    reasons: Mapping[str, int]


class Person(NamedTuple):
    """What is known of a recipient string of a tenant, whatever she agreed to."""

    key: bytes
    canonical: str
    flaw: Reason | None


OfKind = dict[tuple[str, int], Allowed]
"""(purpose, number of the kind) -> what is allowed; empty: nothing is known."""


class EventsWork:
    """Builds the batches of one partition. Used by one thread at a time.

    `was_off` names who was `off` when a state was lost: she stays `off` until she says otherwise.
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
    ) -> None:
        self._partition, self._partitions = partition, partitions
        self._keys, self._state, self._seen, self._declarations = keys, state, seen, declarations
        self._was_off_before = was_off or {}
        self._tenants: Mapping[str, TenantSettings] | None = None
        self._people: dict[str, Person] = {}
        self._allowed: dict[bytes, tuple[bytes | None, TenantSettings, OfKind]] = {}

    def build(self, claim: Claim, records: Sequence[Record], tenants: Mapping[str, TenantSettings]) -> EventsBatch:
        """The claim's batch. Raises ChainStopped when the sum does not add up; a bad record is never an exception."""
        if tenants is not self._tenants:  # how addresses are compared may have changed
            self._people.clear()
            self._tenants = tenants
        decoded = decode([record.value for record in records], claim.now_ms)
        bad = list(decoded.bad)
        frame = self._of_known_tenants(decoded.frame, tenants, bad)
        frame, people, allowed = self._of_this_partition(frame, tenants, bad)

        # Duplicates: a sender's retry within 24 h of record time counts once.
        stamps = np.fromiter((record.timestamp for record in records), np.int64, len(records)) // HOUR_MS
        hours = stamps[frame["row"].to_numpy()]
        hashes = event_hashes(self._keys.single(KeyKind.SEEN), frame["tenant"].to_list(), frame["event_id"].to_list())
        new, remember = self._seen.look(hashes, hours)
        duplicates = len(frame) - int(new.sum())
        frame, hashes, hours = frame.filter(pl.Series(new)), hashes[new], remember.hours[new]

        parts, counted = self._decided(claim, frame, hashes, hours, people, allowed, tenants)
        reasons = Counter(str(row.reason) for _, row in bad)
        outcomes = {
            "received": len(records),
            "counted": counted,
            "off": len(frame) - counted,
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

    # --- who ---

    def _of_known_tenants(
        self, frame: pl.DataFrame, tenants: Mapping[str, TenantSettings], bad: list[tuple[int, BadRow]]
    ) -> pl.DataFrame:
        known = frame["tenant"].is_in(list(tenants))
        if known.all():
            return frame
        flaw = BadRow(Reason.UNKNOWN_TENANT, "tenant", "a tenant of the settings in force")
        bad.extend((row, flaw) for row in frame.filter(~known)["row"].to_list())
        return frame.filter(known)

    def _of_this_partition(
        self, frame: pl.DataFrame, tenants: Mapping[str, TenantSettings], bad: list[tuple[int, BadRow]]
    ) -> tuple[pl.DataFrame, list[Person], list[OfKind]]:
        """Number the distinct recipients (column `person`), and refuse those that cannot be or belong elsewhere.

        Returns who they are and what is allowed for each. A recipient whose state cannot be read is refused too:
        never above what is known, and never guessed.
        """
        frame = frame.with_columns(who=pl.concat_str("tenant", "recipient", separator=SEPARATOR))
        distinct = frame.select("who", "tenant", "recipient").unique("who", maintain_order=True)
        names = distinct["who"].to_list()
        known = self._people
        if len(known) > REMEMBERED:
            known.clear()
        missing = [index for index, name in enumerate(names) if name not in known]
        of_tenant = distinct["tenant"].to_list()
        if missing:
            recipients = distinct["recipient"].to_list()
            self._meet([(names[i], tenants[of_tenant[i]], recipients[i]) for i in missing])
        people = [known[name] for name in names]
        allowed: list[OfKind] = [{}] * len(people)
        for number, person in enumerate(people):
            if person.flaw is None:
                try:
                    allowed[number] = self._of_person(person, tenants[of_tenant[number]])
                except BadRow as unreadable:
                    people[number] = person._replace(flaw=unreadable.reason)
        numbers = pl.DataFrame(
            {
                "who": distinct["who"],
                "person": np.arange(len(people), dtype=np.uint32),
                "flawed": np.fromiter((person.flaw is not None for person in people), bool, len(people)),
            }
        )
        frame = frame.join(numbers, on="who", how="left", maintain_order="left")
        if numbers["flawed"].any():
            for row, number in frame.filter("flawed").select("row", "person").iter_rows():
                bad.append((row, _flaw(people[number].flaw)))
            frame = frame.filter(~pl.col("flawed"))
        return frame.drop("who", "flawed"), people, allowed

    def _meet(self, strangers: Sequence[tuple[str, TenantSettings, str]]) -> None:
        met: list[tuple[str, str, bytes]] = []
        for name, tenant, recipient in strangers:
            try:
                person = canonical(recipient, tenant.lower_local)
            except BadRecipient:
                self._people[name] = Person(b"", "", Reason.BAD_RECIPIENT)
                continue
            met.append((name, person, message_key(tenant.name, person)))
        if met:
            where = partitions_of([key for _, _, key in met], self._partitions)
            for (name, person, key), partition in zip(met, where.tolist(), strict=True):
                flaw = None if partition == self._partition else Reason.MISROUTED
                self._people[name] = Person(key, person, flaw)

    # --- what is allowed ---

    def _decided(
        self,
        claim: Claim,
        frame: pl.DataFrame,
        hashes: Array,
        hours: Array,
        people: Sequence[Person],
        allowed: Sequence[OfKind],
        tenants: Mapping[str, TenantSettings],
    ) -> tuple[list[pa.Table], int]:
        """The rows of the events that are new, and how many of them count.

        One row an event with its primary purpose; one more for each other purpose that allows one; and for an event
        that is neither counted nor a row nothing but the hash of its id.
        """
        if not len(frame):
            return [], 0
        persons, times = frame["person"].to_numpy(), frame["occurred_ms"].to_numpy()
        by_purpose = _by_purpose(frame["person"].unique().to_list(), allowed)
        at = persons.astype(np.int64) * 2 + (frame["kind"] == "click").to_numpy()
        limits = {purpose: Limits(of_purpose, len(people)) for purpose, of_purpose in by_purpose.items()}
        counted = times >= limits[PRIMARY].counts_from[at]
        columns = self._columns(claim, frame, people, tenants)
        ids = {"event_hash": hashes, "hour": hours.astype(np.uint32)}

        tables: list[pa.Table] = []
        for purpose, of_purpose in limits.items():
            pseudonyms, versions = of_purpose.pseudonyms(at, times)
            is_row = (pseudonyms != 0).any(axis=1)
            own = {
                "pseudonym": pseudonyms,
                "key_version": versions,
                "purpose": _where(is_row, purpose),
                "expires": _expires(frame, times, is_row, purpose, tenants),
            }
            if purpose == PRIMARY:
                kept = counted | is_row
                tables.append(ingest.rows({**columns, **ids, **own, "counted": counted.astype(np.uint8)}, kept))
                tables.append(ingest.rows(ids, ~kept))
            else:
                tables.append(ingest.rows({**columns, **own}, is_row))
        return tables, int(counted.sum())

    def _of_person(self, person: Person, tenant: TenantSettings) -> OfKind:
        raw = self._state.raw(person.key)
        kept = self._allowed.get(person.key)
        if kept is not None and kept[0] is raw and kept[1] is tenant:
            return kept[2]
        if raw is None and not self._was_off_before and tenant.purposes[PRIMARY].ceiling > Mode.OFF:
            return {}
        if len(self._allowed) > REMEMBERED:
            self._allowed.clear()
        found = self._look_up(person, tenant)
        self._allowed[person.key] = raw, tenant, found
        return found

    def _look_up(self, person: Person, tenant: TenantSettings) -> OfKind:
        state = self._state.state(person.key)
        result: OfKind = {}
        for purpose, of_purpose in tenant.purposes.items():
            for kind, number in KINDS.items():
                consent = state.purposes.get(purpose, {}).get(kind) if state else None
                if consent is None and purpose == PRIMARY and self._was_off(person, tenant.name, kind):
                    result[purpose, number] = NOTHING_KNOWN._replace(counts_from=NEVER)
                    continue
                limits = thresholds(consent, of_purpose.ceiling)
                stretches = [NO_STRETCH, NO_STRETCH]
                for begin, salt in limits.rows:
                    pseudonymizer = self._keys.pseudonymizer(tenant.name, purpose, salt.key_version)
                    if pseudonymizer is not None:  # a destroyed key: counted only
                        pseudonym = pseudonymizer.pseudonym(salt.value, person.canonical)
                        stretches.append(Stretch(begin, pseudonym, salt.key_version))
                result[purpose, number] = Allowed(limits.counts_from, stretches[-2], stretches[-1])
        return result

    def _was_off(self, person: Person, tenant: str, kind: str) -> bool:
        if not self._was_off_before:
            return False
        blind = blind_index(self._keys.single(KeyKind.BLIND), tenant, person.canonical)
        return (tenant, blind, kind) in self._was_off_before

    # --- what is counted ---

    def _columns(
        self, claim: Claim, frame: pl.DataFrame, people: Sequence[Person], tenants: Mapping[str, TenantSettings]
    ) -> dict[str, Any]:
        on = ["user_agent", "ip"] if NEEDS_IP else ["user_agent"]
        agents = frame.select(on).unique()
        agents = agents.with_columns(
            pl.Series("device", [str(family(row[0])) for row in agents.iter_rows()], dtype=pl.String),
            pl.Series("by_rules", [str(classify(*row)) for row in agents.iter_rows()], dtype=pl.String),
        )
        frame = frame.join(agents, on=on, how="left", nulls_equal=True, maintain_order="left")
        frame = self._with_links(claim, frame, tenants)
        mailings = frame.select("tenant", "mailing").unique(maintain_order=True)
        sent = [self._declarations.at(tenant, mailing, claim.mailings) for tenant, mailing in mailings.iter_rows()]
        mailings = mailings.with_columns(
            pl.Series("sent_ms", [found[1].sent_at if found else -1 for found in sent], dtype=pl.Int64)
        )
        frame = frame.join(mailings, on=["tenant", "mailing"], how="left", maintain_order="left")
        seeds = self._seeds(frame, people)
        return {
            "tenant": frame["tenant"],
            "mailing": frame["mailing"],
            "kind": frame["kind"],
            "link": frame["of_link"],
            "device": frame["device"],
            "actor": frame["actor"].fill_null(frame["by_rules"]),
            "occurred_ms": frame["occurred_ms"].to_numpy(),
            "step": step_of(frame["occurred_ms"].to_numpy(), frame["sent_ms"].to_numpy()),
            "seed0": seeds[:, 0],
            "seed1": seeds[:, 1],
        }

    def _with_links(self, claim: Claim, frame: pl.DataFrame, tenants: Mapping[str, TenantSettings]) -> pl.DataFrame:
        """Column `of_link`: the link of a click by the declarations that hold for the claim; empty for an open."""
        with_keys = [name for name, tenant in tenants.items() if tenant.url_keys]
        # Personal queries make every URL distinct; without allow-listed keys the part before them decides.
        stripped = pl.col("url").str.extract(r"^([^?#]*)")
        url = pl.when(pl.col("tenant").is_in(with_keys)).then("url").otherwise(stripped) if with_keys else stripped
        frame = frame.with_columns(
            url=pl.when(pl.col("kind") == "click").then(url), link=pl.when(pl.col("kind") == "click").then("link")
        )
        distinct = frame.select("tenant", "mailing", "kind", "link", "url").unique()
        found = [
            self._declarations.links(tenants[tenant], mailing, claim.mailings).of(link, url) if kind == "click" else ""
            for tenant, mailing, kind, link, url in distinct.iter_rows()
        ]
        distinct = distinct.with_columns(pl.Series("of_link", found, dtype=pl.String))
        on = ["tenant", "mailing", "kind", "link", "url"]
        return frame.join(distinct, on=on, how="left", nulls_equal=True, maintain_order="left")

    def _seeds(self, frame: pl.DataFrame, people: Sequence[Person]) -> Array:
        """Two 64-bit halves of the seed of each event's recipient and mailing."""
        frame = frame.with_columns(secret=pl.concat_str("tenant", "mailing", separator=SEPARATOR))
        visits = frame.select("secret", "person").unique(maintain_order=True).sort("secret", maintain_order=True)
        secrets = self._keys.mailings(visits["secret"].unique().to_list())
        halves: list[bytes] = []
        for (secret,), group in visits.group_by("secret", maintain_order=True):
            names = [people[number].canonical for number in group["person"].to_list()]
            halves.append(visitor_seeds(secrets[str(secret)], names))
        seeds = np.frombuffer(b"".join(halves), np.uint64).reshape(-1, 2)
        visits = visits.with_columns(pl.Series("seed0", seeds[:, 0]), pl.Series("seed1", seeds[:, 1]))
        frame = frame.join(visits, on=["secret", "person"], how="left", maintain_order="left")
        return frame.select("seed0", "seed1").to_numpy()


def _by_purpose(present: Sequence[int], allowed: Sequence[OfKind]) -> dict[str, dict[int, Allowed]]:
    """purpose -> 2 * person + kind -> what is allowed, where it is not the default."""
    result: dict[str, dict[int, Allowed]] = {PRIMARY: {}}
    for number in present:
        for (purpose, kind), of_kind in allowed[number].items():
            result.setdefault(purpose, {})[2 * number + kind] = of_kind
    return result


def _flaw(reason: Reason | None) -> BadRow:
    if reason is Reason.BAD_VALUE:
        return BadRow(reason, None, "a recipient whose state this release can read")
    if reason is Reason.MISROUTED:
        return BadRow(reason, None, "the partition of tenant and recipient (Kafka's default partitioner)")
    return BadRow(Reason.BAD_RECIPIENT, "recipient", "an address or an id")


def _expires(
    frame: pl.DataFrame, times: Array, is_row: Array, purpose: str, tenants: Mapping[str, TenantSettings]
) -> Array:
    """Days since 1970 after which each row goes, by its tenant's retention for the purpose; 0 where there is no row."""
    days = {
        name: tenant.purposes[purpose].retention_days if purpose in tenant.purposes else 0
        for name, tenant in tenants.items()
    }
    of_tenant = frame["tenant"].replace_strict(days, return_dtype=pl.Int32).to_numpy()
    return np.where(is_row, times // DAY_MS + of_tenant, 0).astype(np.int32)


def _where(mask: Array, word: str) -> pl.Series:
    return pl.select(pl.when(pl.Series(mask)).then(pl.lit(word)).otherwise(pl.lit(""))).to_series()
