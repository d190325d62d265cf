"""The log, replayed in the order of the chain: one partition after the other, one record at a time."""

from __future__ import annotations

import base64
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from tests.reference import events
from tests.reference.consent import ANONYMOUS, NEVER, PSEUDONYMOUS, WORDS, Salt, Standing
from tests.reference.facts import (
    Claim,
    Decision,
    Expected,
    Log,
    Receipt,
    Record,
    ReferenceFailed,
    Row,
)
from tests.reference.facts import Mapping as Mapped
from tests.reference.people import MODES, Ring, Tenant, canonical, message_key, number, partition_of, pseudonym

KINDS = ("open", "click")
PRIMARY = "engagement"
TOPICS = {"events": "tracking.events", "changes": "tracking.changes"}
Agents = Mapping[str | None, tuple[str, str]]


def expect(
    log: Log, claims: Sequence[Claim], tenants: Mapping[str, Tenant], ring: Ring, agents: Agents, partitions: int
) -> Expected:
    """What must be there after these claims. Raises ReferenceFailed when log and chain do not fit together."""
    result = Expected()
    lives, settings = {claim.incarnation for claim in claims}, {claim.settings for claim in claims}
    if len(lives) > 1 or len(settings) > 1:
        raise ReferenceFailed("the chain has more than one incarnation, or settings that changed during the run")
    declared = events.Declared([(record.offset, record.value) for record in log.records("tracking.mailings", 0)])
    for partition in range(partitions):
        chain = sorted((claim for claim in claims if claim.partition == partition), key=lambda claim: claim.number)
        _Replay(partition, partitions, declared, tenants, ring, agents, result).play(log, chain)
    _check_intake(log, tenants, partitions, result)
    for pseudonym_ in [mapping.pseudonym for mapping in result.mappings]:
        result.data_keys[pseudonym_] += 1
    return result


def _check_intake(log: Log, tenants: Mapping[str, Tenant], partitions: int, result: Expected) -> None:
    """Every preference was rejected, or is in tracking.changes as it was sent; once more does no harm."""
    forwarded: defaultdict[str, list[Any]] = defaultdict(list)
    refused = set()
    for partition in range(partitions):
        for record in log.records("tracking.changes", partition):
            change = json.loads(record.value or b"")
            if change["type"] == "rekey":  # not from a topic, but from the command
                continue
            forwarded[change["source" if change["type"] == "erasure" else "preference_id"]].append(change)
        for record in log.records("tracking.rejected", partition):
            refused.add(json.loads(record.value or b"{}").get("rejection_id"))
    for partition in range(partitions):
        for record in log.records("tracking.preferences", partition):
            id_ = f"tracking.preferences:{partition}:{record.offset}"
            if id_ in refused:
                continue
            asked = json.loads(record.value or b"")
            tenant = tenants[asked["tenant"]]
            decided_at = min(events.time(asked["decided_at"]), record.timestamp)
            as_sent = (tenant.name, canonical(asked["recipient"], tenant.lower_local), decided_at)
            as_sent += (asked["purposes"], asked.get("mode"))
            fields = ("tenant", "recipient", "decided_at", "purposes", "mode")
            made = [tuple(change[name] for name in fields) for change in forwarded[id_]]
            if not made or any(one != as_sent for one in made):
                result.unclaimed["tracking.preferences", partition] += 1
        for record in log.records("tracking.requests", partition):
            id_ = f"tracking.requests:{partition}:{record.offset}"
            asked = json.loads(record.value or b"")
            tenant = tenants[asked["tenant"]]
            at = min(events.time(asked["requested_at"]), record.timestamp)
            as_sent = (tenant.name, canonical(asked["recipient"], tenant.lower_local), at, asked["request_id"])
            fields = ("tenant", "recipient", "requested_at", "request_id")
            made = [tuple(change[name] for name in fields) for change in forwarded[id_]]
            if not made or any(one != as_sent for one in made):
                result.unclaimed["tracking.requests", partition] += 1


def check(chain: Sequence[Claim]) -> None:
    """Whether every record of both logs is in one claim and in one only, up to the end of the chain."""
    for index, claim in enumerate(chain):
        if claim.number != chain[0].number + index or claim.last < claim.first:
            raise ReferenceFailed(f"partition {claim.partition}: claim {claim.number} is not the next one")
    if chain and chain[0].number != 0:
        raise ReferenceFailed(f"partition {chain[0].partition}: the chain does not begin with 0")
    for before, claim in pairwise(chain):
        is_event = claim.kind == "events"
        begins = before.next_event if is_event else before.next_change
        stays = claim.next_change == before.next_change if is_event else claim.next_event == before.next_event
        ends = claim.next_event if is_event else claim.next_change
        if claim.first != begins or ends != claim.last + 1 or not stays:
            raise ReferenceFailed(f"partition {claim.partition}: claim {claim.number} leaves out or repeats records")


@dataclass(slots=True)
class _Person:
    """What a recipient has agreed to, and, by kind, what that allows for an event."""

    offset: int = -1
    """Of the change that her state stands on; below zero: there is none under her address."""
    standing: dict[tuple[str, str], Standing] = field(default_factory=dict)
    stub: tuple[int, dict[str, Any]] | None = None
    """What her last erasure has left: its offset and the purposes."""
    lines: list[Decision] = field(default_factory=list)
    allowed: dict[str, list[tuple[str, Any]]] = field(default_factory=dict)


class _Run:
    """The records of a topic's partition, taken run by run."""

    def __init__(self, log: Log, topic: str, partition: int) -> None:
        self._topic, self._partition = topic, partition
        self._records = log.records(topic, partition)

    def take(self, claim: Claim) -> Iterator[Record]:
        """The records of a claim."""
        expected = claim.first
        for record in self.rest():
            if record.offset != expected:
                raise ReferenceFailed(f"{self._topic}-{self._partition}: the log lacks offset {expected}")
            yield record
            if record.offset == claim.last:
                return
            expected += 1
        raise ReferenceFailed(f"{self._topic}-{self._partition}: the log ends at {expected}, before {claim.last}")

    def rest(self) -> Iterator[Record]:
        """All that is left."""
        return self._records


class _Replay:
    """One partition."""

    def __init__(
        self,
        partition: int,
        partitions: int,
        declared: events.Declared,
        tenants: Mapping[str, Tenant],
        ring: Ring,
        agents: Agents,
        result: Expected,
    ) -> None:
        self._partition, self._partitions, self._declared = partition, partitions, declared
        self._tenants, self._ring, self._agents, self._result = tenants, ring, agents, result
        self._people: dict[bytes, _Person] = {}
        self._where: dict[bytes, int] = {}
        self._seen: dict[str, int] = {}
        self._clock = -1
        self._visits: defaultdict[tuple[Any, ...], set[bytes]] = defaultdict(set)
        self._rows: defaultdict[int, list[Row]] = defaultdict(list)
        self._mapped: dict[int, Mapped] = {}
        self._told: set[tuple[str, str]] = set()

    def play(self, log: Log, chain: Sequence[Claim]) -> None:
        """Carry out all claims, and add what came of it to the result."""
        check(chain)
        runs = {kind: _Run(log, topic, self._partition) for kind, topic in TOPICS.items()}
        size = self._result.size
        for claim in chain:
            size[f"claims of {claim.kind}"] += 1
            one = self._event if claim.kind == "events" else self._change
            for record in runs[claim.kind].take(claim):
                size[claim.kind] += 1
                one(claim, record)
        for kind, run in runs.items():
            self._result.unclaimed[TOPICS[kind], self._partition] += sum(1 for _ in run.rest())
        self._result.unclaimed += Counter()
        self._add_up(chain[-1].incarnation if chain else 1)

    # --- events ---

    def _event(self, claim: Claim, record: Record) -> None:
        outcomes, partition = self._result.outcomes, self._partition
        outcomes[partition, "received", ""] += 1
        try:
            event, occurred = events.read(record.value, claim.now_ms)
            tenant = self._tenants.get(event["tenant"])
            if tenant is None:
                raise events.Refused("unknown_tenant")
            who = self._who(tenant, event["recipient"])
        except events.Refused as why:
            outcomes[partition, "rejected", str(why)] += 1
            self._result.rejected["tracking.events", partition, record.offset, str(why)] += 1
            return
        if self._is_retry(f"{tenant.name}\x1f{event['event_id']}", record.timestamp // events.HOUR_MS):
            outcomes[partition, "duplicates", ""] += 1
            return
        sent_ms, links = self._declared.at(tenant.name, event["mailing"], claim.mailings)
        kind = event["kind"]
        link = events.link_of(tenant, links, event.get("link"), event.get("url")) if kind == "click" else ""
        device, actor = self._agents[event.get("user_agent") or None]
        actor = event.get("actor") or actor
        counted = False
        for purpose, (counts, pseudonymous, early, personal, late) in self._allowed(who, tenant, kind):
            if purpose == PRIMARY:
                counted = occurred >= counts
            salt = late if late is not None and occurred >= personal else early if occurred >= pseudonymous else None
            if salt is not None:
                self._rows[salt.pseudonym].append(
                    Row(
                        *(partition, claim.number, tenant.name, purpose, event["mailing"], kind, link),
                        *(occurred // 1000, device, actor, salt.pseudonym, salt.key_version),
                        expires=occurred // events.DAY_MS + tenant.purposes[purpose][1],
                        feed=_feed(tenant, event.get("feed")),
                    )
                )
        if not counted:
            outcomes[partition, "off", ""] += 1
            return
        outcomes[partition, "counted", ""] += 1
        cell = (tenant.name, event["mailing"], kind, link, device, actor)
        self._result.totals[(*cell, occurred // events.HOUR_MS * 3600)] += 1
        self._visits[(*cell, events.step_of(occurred, sent_ms))].add(who)

    def _who(self, tenant: Tenant, recipient: str) -> bytes:
        name = canonical(recipient, tenant.lower_local)
        if name is None:
            raise events.Refused("bad_recipient")
        key = message_key(tenant.name, name)
        at = self._where.get(key)
        if at is None:
            at = self._where[key] = partition_of(key, self._partitions)
        if at != self._partition:
            raise events.Refused("misrouted")
        return key

    def _is_retry(self, event_id: str, hour: int) -> bool:
        """24 h of record time: an hour never counts as earlier than one that was remembered before it."""
        hour = max(hour, self._clock)
        before = self._seen.get(event_id)
        if before is not None and hour - before <= 24:
            return True
        self._seen[event_id] = self._clock = hour
        return False

    def _allowed(self, who: bytes, tenant: Tenant, kind: str) -> list[tuple[str, Any]]:
        person = self._people.get(who)
        if person is None:
            person = self._people[who] = _Person()
        found = person.allowed.get(kind)
        if found is None:
            found = person.allowed[kind] = [
                (
                    purpose,
                    (person.standing.get((purpose, kind)) or person.standing.get(("*", kind), Standing())).allows(
                        ceiling
                    ),
                )
                for purpose, (ceiling, _) in tenant.purposes.items()
            ]
        return found

    # --- changes ---

    def _change(self, claim: Claim, record: Record) -> None:
        change = json.loads(record.value or b"")
        tenant, recipient = self._tenants[change["tenant"]], change["recipient"]
        if record.key != message_key(tenant.name, recipient) or partition_of(record.key, self._partitions) != (
            self._partition
        ):
            raise ReferenceFailed(f"tracking.changes-{self._partition}: {record.offset} lies under another key")
        person = self._people.setdefault(record.key, _Person())
        person.allowed.clear()
        if change["type"] == "erasure":
            self._erase(claim, record, change, person)
        elif change["type"] == "rekey":
            self._move(claim, record, change, person)
        else:
            self._decide(claim, record, change, person)

    def _decide(self, claim: Claim, record: Record, change: Any, person: _Person) -> None:
        tenant, recipient = self._tenants[change["tenant"]], change["recipient"]
        was_erased = bool(person.standing) and all(purpose == "*" for purpose, _ in person.standing)
        blind = self._ring.blind(tenant.name, recipient)
        proof = json.dumps(change.get("proof") or {}, sort_keys=True)
        effects, lowest, lines = set(), [], []
        rows = mappings = 0
        for purpose, kind, asked in _asked(change, tenant, person):
            lowest.append(asked)
            standing = person.standing.get((purpose, kind))
            is_new = standing is None
            if standing is None:  # what she decided for everything holds for a purpose that came later
                standing = deepcopy(person.standing.get(("*", kind), Standing()))
            mode = min(asked, standing.mode) if change["purposes"] == "*" else asked
            salt = self._salt(tenant, recipient, purpose, change, change["salts"].get(purpose, {}).get(kind))
            ceiling = tenant.purposes.get(purpose, (ANONYMOUS, 0))[0]
            effect, dropped, drawn = standing.decide(mode, change["decided_at"], salt, ceiling)
            if not is_new or effect not in ("out_of_date", "unchanged"):
                person.standing[purpose, kind] = standing
            effects.add(effect)
            lines.append(
                Decision(
                    *(self._partition, claim.number, tenant.name, blind, purpose, kind, WORDS[mode], effect),
                    *(change["decided_at"], claim.now_ms, change["preference_id"], proof),
                )
            )
            went = self._drop(dropped, claim, change["preference_id"])
            rows, mappings = rows + went[0], mappings + went[1]
            if drawn is not None and drawn.level > PSEUDONYMOUS:
                self._mapped[drawn.pseudonym] = Mapped(
                    *(self._partition, claim.number, tenant.name, purpose, kind, drawn.pseudonym, drawn.key_version),
                    *(blind, recipient, claim.now_ms),
                )
        if was_erased and effects <= {"out_of_date", "unchanged"}:
            return  # nothing of what is older than her erasure is kept
        person.offset = record.offset
        person.lines += lines
        holds = {"confirmed"} <= effects <= {"confirmed", "unchanged"}
        if "lowered" in effects or (holds and min(lowest, default=ANONYMOUS + 1) <= ANONYMOUS):
            self._confirm(claim, change["preference_id"], "withdrawal", tenant.name, rows, mappings, 0)

    def _erase(self, claim: Claim, record: Record, change: Any, person: _Person) -> None:
        """What was granted anew after the request stands. Of the rest: whether she is off, and a time."""
        tenant, at, id_ = self._tenants[change["tenant"]], change["requested_at"], change["request_id"]
        blind = self._ring.blind(tenant.name, change["recipient"])
        standing = {which: one for which, one in person.standing.items() if one.outlives(at)}
        dropped = [salt for which, one in person.standing.items() if which not in standing for salt in one.salts]
        rows, mappings = self._drop(dropped, claim, id_)
        until = at if standing else NEVER
        going = [line for line in person.lines if line.decided_at <= until or line.effect == "erased"]
        consents = sum(line.effect != "erased" and line.claim < claim.number for line in going)
        person.lines = [line for line in person.lines if line not in going]
        left = {}
        for kind in KINDS:
            before = person.standing.get((PRIMARY, kind)) or person.standing.get(("*", kind), Standing())
            if (PRIMARY, kind) in standing:
                before = Standing()
            times = [
                one.decided_at for which, one in person.standing.items() if which not in standing and which[1] == kind
            ]
            left["*", kind] = before.remnant(max([at, before.decided_at, *times]))
            person.lines.append(
                Decision(
                    *(self._partition, claim.number, tenant.name, blind, "*", kind, WORDS[left["*", kind].mode]),
                    *("erased", left["*", kind].decided_at, claim.now_ms, id_, "{}"),
                )
            )
        person.standing = {**standing, **left}
        person.offset = record.offset if standing else -1
        if not standing:
            person.stub = (record.offset, _told(person.standing))
        self._confirm(claim, id_, "erasure", tenant.name, rows, mappings, consents)

    def _move(self, claim: Claim, record: Record, change: Any, person: _Person) -> None:
        """Salts under one root key go on under another: rows and mappings of the level personal with them."""
        tenant, recipient, to = self._tenants[change["tenant"]], change["recipient"], change["to"]
        for (purpose, kind), standing in person.standing.items():
            for salt in standing.salts:
                named = salt.level > PSEUDONYMOUS
                if salt.key_version != change["from"] or not (named or change["remove"]):
                    continue
                old, key = salt.pseudonym, self._ring.purpose(tenant.name, purpose, to)
                salt.key_version = to
                salt.pseudonym = number(pseudonym(key, base64.b64decode(salt.text), recipient))
                rows = self._rows.pop(old, [])
                if not change["remove"]:
                    self._rows[salt.pseudonym] += [
                        row._replace(pseudonym=salt.pseudonym, key_version=to) for row in rows
                    ]
                if named:
                    del self._mapped[old]
                    self._mapped[salt.pseudonym] = Mapped(
                        *(self._partition, claim.number, tenant.name, purpose, kind, salt.pseudonym, to),
                        *(self._ring.blind(tenant.name, recipient), recipient, claim.now_ms),
                    )
                self._result.dropped[old] = (self._partition, claim.number, "rekey")
                self._result.removed["moved"] += 1
                person.offset = record.offset

    def _drop(self, salts: Sequence[Salt], claim: Claim, id_: str) -> tuple[int, int]:
        """Remove what lies under these salts: how many rows and mappings that were."""
        rows = mappings = 0
        for old in salts:
            rows += len(self._rows.pop(old.pseudonym, ()))
            mappings += self._mapped.pop(old.pseudonym, None) is not None
            self._result.dropped[old.pseudonym] = (self._partition, claim.number, id_)
        self._result.removed["rows"] += rows
        self._result.removed["mappings"] += mappings
        return rows, mappings

    def _confirm(self, claim: Claim, id_: str, kind: str, tenant: str, rows: int, mappings: int, consents: int) -> None:
        if (tenant, id_) in self._told:
            return
        self._told.add((tenant, id_))
        receipt = Receipt(self._partition, claim.number, id_, kind, tenant, rows, mappings, consents)
        self._result.receipts[receipt] += 1
        self._result.requests[receipt] += 1
        self._result.told[id_, tenant, rows, mappings] += 1

    def _salt(self, tenant: Tenant, recipient: str, purpose: str, change: Any, text: str | None) -> Salt | None:
        if text is None:
            return None
        version = change["key_version"]
        key = self._ring.purpose(tenant.name, purpose, version)
        return Salt(0, 0, text, version, number(pseudonym(key, base64.b64decode(text), recipient)))

    # --- what is left in the end ---

    def _add_up(self, incarnation: int) -> None:
        result = self._result
        for rows in self._rows.values():
            result.rows.update(rows)
        result.mappings.update(self._mapped.values())
        people: defaultdict[tuple[Any, ...], set[bytes]] = defaultdict(set)
        for (tenant, mailing, kind, link, device, actor, step), who in self._visits.items():
            dimensions = [("all", ""), ("device", device)] + ([("link", link)] if link else [])
            for dimension, value in dimensions:
                for at in (step, -1):
                    people[tenant, mailing, kind, dimension, value, actor, at] |= who
        for cell, who in people.items():  # no recipient is on two partitions
            result.uniques[cell] += len(who)
        for key, person in self._people.items():
            self._result.ledger.update(person.lines)
            if person.stub is not None:
                self._state(self._ring.stub(key), incarnation, *person.stub)
            if person.offset >= 0:
                self._state(key, incarnation, person.offset, _told(person.standing))

    def _state(self, key: bytes, incarnation: int, offset: int, purposes: dict[str, Any]) -> None:
        state = {"version": [incarnation, offset], "purposes": purposes}
        told = (self._partition, key, json.dumps(state, sort_keys=True))
        self._result.states[told] += 1
        self._result.last_states[told] += 1


def _told(standing: Mapping[tuple[str, str], Standing]) -> dict[str, Any]:
    """As tracking.state says it."""
    purposes: dict[str, dict[str, Any]] = {}
    for (purpose, kind), one in standing.items():
        purposes.setdefault(purpose, {})[kind] = one.told()
    return purposes


def _asked(change: Any, tenant: Tenant, person: _Person) -> list[tuple[str, str, int]]:
    if change["purposes"] == "*":
        purposes = dict.fromkeys([*tenant.purposes, *(purpose for purpose, _ in person.standing), "*"])
        return [(purpose, kind, MODES[change["mode"]]) for purpose in purposes for kind in KINDS]
    return [
        (purpose, kind, MODES[mode]) for purpose, kinds in change["purposes"].items() for kind, mode in kinds.items()
    ]


def _feed(tenant: Tenant, said: str | None) -> str:
    """What a row keeps of where its event came from: a name that the tenant declared, or a vendor's."""
    return "" if not said else said if said in tenant.feeds else "other"
