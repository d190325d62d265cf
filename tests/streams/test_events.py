"""Carrying out a claim of events: what it writes against a plain reading, one event at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pseudonymizer.consent import ALWAYS, Consent, Mode, Salt
from pseudonymizer.decisions import Counted, Off, Row, decide, thresholds
from pseudonymizer.keys import KeyKind
from streams.chain import Kind
from streams.declarations import Declarations
from streams.errors import Reason
from streams.events import EventsBatch, EventsWork
from streams.incarnation import WasOff
from streams.keyring import KeyRetired
from streams.keys import Keys
from streams.partitioner import message_key, partition_of
from streams.seen import Seen
from streams.state import StateIndex
from streams.tenants import TenantSettings
from tests.claims import NOW, Fetched, blind, claim, event, make_keys, state, tenants
from tests.pseudonymizer.histories import DECISIONS, MODES, Decided, play

SECOND = 1000
BEGAN = NOW - 3600 * SECOND
HOUR = 3600 * SECOND
ERIKA = "Erika@example.com"
OFF = Consent(Mode.OFF, (None, None, None), BEGAN)
EARLY, LATE = Salt(Mode.PSEUDONYMOUS, BEGAN, b"e" * 16, 1), Salt(Mode.PERSONAL, BEGAN + HOUR // 2, b"l" * 16, 1)
RAISED = Consent(Mode.PERSONAL, (ALWAYS, BEGAN, BEGAN + HOUR // 2), BEGAN + HOUR // 2, (EARLY, LATE))


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return make_keys(tmp_path_factory.mktemp("ring"))


@dataclass
class Worker:
    """What a worker that has just taken partition 0 of one knows."""

    keys: Keys
    state: StateIndex
    seen: Seen
    declarations: Declarations
    work: EventsWork

    def build(
        self, records: list[Fetched], of: Mapping[str, TenantSettings] | None = None, number: int = 0, mailings: int = 0
    ) -> EventsBatch:
        return self.work.build(claim(Kind.EVENTS, records, number, mailings), list(records), of or tenants())

    def knows(self, recipient: str, purposes: Mapping[str, Mapping[str, Consent]], offset: int = 0) -> None:
        self.state.put(message_key("acme", recipient), state(offset, purposes))


def worker(keys: Keys, was_off: WasOff | None = None, partition: int = 0, partitions: int = 1) -> Worker:
    index, seen, declarations = StateIndex(), Seen(), Declarations()
    work = EventsWork(partition, partitions, keys, index, seen, declarations, was_off)
    return Worker(keys, index, seen, declarations, work)


def engagement(batch: EventsBatch) -> list[dict[str, Any]]:
    """The rows that become rows of `engagement`."""
    return [row for row in batch.table.to_pylist() if any(row["pseudonym"])]


def counted(batch: EventsBatch) -> list[dict[str, Any]]:
    return [row for row in batch.table.to_pylist() if row["counted"]]


def pseudonym(keys: Keys, recipient: str, salt: Salt, purpose: str = "engagement") -> bytes:
    found = keys.pseudonymizer("acme", purpose, salt.key_version)
    assert found
    return found.pseudonym(salt.value, recipient)


# --- everything at once, against a plain reading ---

PEOPLE = ("a@example.com", "B@example.com", "an-id")
PURPOSES = ("engagement", "advice")
KINDS = ("open", "click")
HISTORIES = st.dictionaries(
    st.tuples(st.sampled_from(PEOPLE), st.sampled_from(PURPOSES), st.sampled_from(KINDS)), DECISIONS, max_size=8
)
ACTS = st.lists(
    st.tuples(st.sampled_from(PEOPLE), st.sampled_from(KINDS), st.integers(-1, 13), st.integers(0, 20)), max_size=25
)


def with_ceilings(ceilings: tuple[Mode, Mode]) -> Mapping[str, TenantSettings]:
    return tenants(
        "".join(f'[acme.purposes.{p}]\nceiling = "{c.word}"\n' for p, c in zip(PURPOSES, ceilings, strict=True))
    )


@given(HISTORIES, ACTS, st.tuples(MODES, MODES), st.sets(st.tuples(st.sampled_from(PEOPLE), st.sampled_from(KINDS))))
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_what_is_written_is_what_a_plain_reading_of_each_event_gives(
    keys: Keys,
    histories: dict[tuple[str, str, str], list[Decided]],
    acts: list[tuple[str, str, int, int]],
    ceilings: tuple[Mode, Mode],
    off_by_ledger: set[tuple[str, str]],
) -> None:
    was_off = {("acme", blind(keys, who), kind): BEGAN for who, kind in off_by_ledger}
    one = worker(keys, was_off)
    consents = {
        cell: play([replace(decided, at=BEGAN + decided.at * SECOND) for decided in history])[0]
        for cell, history in histories.items()
    }
    known: dict[str, dict[str, dict[str, Consent]]] = {}
    for (who, purpose, kind), consent in consents.items():
        known.setdefault(who, {}).setdefault(purpose, {})[kind] = consent
    for offset, (who, purposes) in enumerate(known.items()):
        one.knows(who, purposes, offset)
    records = [
        event(n, who, event_id=f"e{number}", kind=kind, occurred_at=BEGAN + at * SECOND, **of_kind(kind))
        for n, (who, kind, at, number) in enumerate(acts)
    ]

    counts: Counter[tuple[str, int]] = Counter()
    rows: Counter[tuple[str, str, int, bytes, int]] = Counter()
    outcomes: Counter[str] = Counter(received=len(acts))
    met: set[int] = set()
    for who, kind, at, number in acts:
        if number in met:
            outcomes["duplicates"] += 1
            continue
        met.add(number)
        for purpose, ceiling in zip(PURPOSES, ceilings, strict=True):
            consent_of = consents.get((who, purpose, kind))
            if consent_of is None and purpose == "engagement" and (who, kind) in off_by_ledger:
                outcomes["off"] += 1
                continue
            decision = decide(thresholds(consent_of, ceiling), BEGAN + at * SECOND)
            if purpose == "engagement":
                outcomes["off" if isinstance(decision, Off) else "counted"] += 1
                counts[kind, BEGAN + at * SECOND] += isinstance(decision, Counted | Row)
            if isinstance(decision, Row):
                hidden = pseudonym(keys, who, decision.salt, purpose)
                rows[purpose, kind, BEGAN + at * SECOND, hidden, decision.salt.key_version] += 1

    if not records:
        return
    batch = one.build(records, with_ceilings(ceilings))
    got = Counter(
        (row["purpose"], row["kind"], row["occurred_ms"], row["pseudonym"], row["key_version"])
        for row in engagement(batch)
    )
    assert got == rows
    assert Counter((row["kind"], row["occurred_ms"]) for row in counted(batch)) == +counts
    assert Counter({name: n for name, n in batch.outcomes.items() if n}) == +outcomes
    told = {row["outcome"]: row["events"] for row in batch.table.to_pylist() if row["outcome"]}
    assert told == +outcomes
    remembered = [row["event_hash"] for row in batch.table.to_pylist() if row["event_hash"]]
    assert len(remembered) == len(set(remembered)) == len(met)
    without_row = [row for row in batch.table.to_pylist() if not row["counted"] and not any(row["pseudonym"])]
    assert not any(row["tenant"] or row["seed0"] or row["occurred_ms"] for row in without_row), "only a hash is left"

    again = one.build(records, with_ceilings(ceilings))
    fresh = EventsWork(0, 1, keys, one.state, Seen(), Declarations(), was_off)
    elsewhere = fresh.build(claim(Kind.EVENTS, records), list(records), with_ceilings(ceilings))
    assert batch.table.equals(again.table)
    assert batch.table.equals(elsewhere.table), "another worker writes the same"
    one.work.done(batch)
    assert one.build(records, with_ceilings(ceilings)).outcomes["duplicates"] == len(records)


def of_kind(kind: str) -> dict[str, str]:
    return {"url": "https://x.example/a"} if kind == "click" else {}


# --- what went wrong once, by name ---


def test_a_late_event_gets_the_pseudonym_of_the_stretch_in_which_it_occurred(keys: Keys) -> None:
    """docs/decisions/0004: the new pseudonym has a mapping that she had not agreed to yet."""
    one = worker(keys)
    one.knows(ERIKA, {"engagement": {"open": RAISED}})
    times = [BEGAN - 1, BEGAN, BEGAN + HOUR // 2 - 1, BEGAN + HOUR // 2]
    batch = one.build([event(n, ERIKA, occurred_at=at) for n, at in enumerate(times)])
    early, late = pseudonym(keys, ERIKA, EARLY), pseudonym(keys, ERIKA, LATE)
    assert [row["pseudonym"] for row in engagement(batch)] == [early, early, late]
    assert batch.outcomes["counted"] == 4


def test_a_ceiling_that_came_down_uses_no_pseudonym_that_was_seen_beside_a_name(keys: Keys) -> None:
    one = worker(keys)
    one.knows(ERIKA, {"engagement": {"open": RAISED, "click": RAISED._replace(salts=(LATE,))}})
    records = [event(0, ERIKA), event(1, ERIKA, kind="click", url="https://x.example")]
    lower = one.build(records, with_ceilings((Mode.PSEUDONYMOUS, Mode.OFF)))
    assert [(row["kind"], row["pseudonym"]) for row in engagement(lower)] == [("open", pseudonym(keys, ERIKA, EARLY))]
    for ceiling, outcomes in ((Mode.ANONYMOUS, (2, 0)), (Mode.OFF, (0, 2))):
        batch = one.build(records, with_ceilings((ceiling, Mode.OFF)))
        assert engagement(batch) == []
        assert (batch.outcomes["counted"], batch.outcomes["off"]) == outcomes
    assert len(engagement(one.build(records))) == 2, "and when it rises again, what she granted holds"


def test_a_row_says_where_its_event_came_from_and_nothing_else_does(keys: Keys) -> None:
    one = worker(keys)
    one.knows(ERIKA, {"engagement": {"open": Consent(Mode.PSEUDONYMOUS, (ALWAYS, BEGAN, None), BEGAN, (EARLY,))}})
    declared = tenants('[acme.feed]\nnames = ["web"]')
    feeds = ("web", "ses", "Erika", None)
    acts = [event(n, ERIKA, feed=feed) for n, feed in enumerate(feeds)]
    batch = one.build([*acts, event(9, "else@example.com", feed="web")], declared)
    assert [row["feed"] for row in engagement(batch)] == ["web", "ses", "other", ""]
    assert sum(row["feed"] != "" for row in batch.table.to_pylist()) == 3
    assert [row["feed"] for row in engagement(one.build(acts))] == ["other", "ses", "other", ""]


def test_two_purposes_give_two_rows_and_one_count(keys: Keys) -> None:
    one = worker(keys)
    consent = Consent(Mode.PSEUDONYMOUS, (ALWAYS, BEGAN, None), BEGAN, (EARLY,))
    one.knows(ERIKA, {"engagement": {"open": consent}, "advice": {"open": consent}})
    batch = one.build([event(0, ERIKA)])
    rows = engagement(batch)
    assert {row["purpose"]: row["pseudonym"] for row in rows} == {
        purpose: pseudonym(keys, ERIKA, EARLY, purpose) for purpose in ("engagement", "advice")
    }
    assert rows[0]["pseudonym"] != rows[1]["pseudonym"], "purposes cannot be joined"
    assert (batch.outcomes["counted"], len(counted(batch))) == (1, 1)


def test_the_primary_purpose_alone_decides_whether_an_event_is_off(keys: Keys) -> None:
    one = worker(keys)
    advice = Consent(Mode.PSEUDONYMOUS, (ALWAYS, BEGAN, None), BEGAN, (EARLY,))
    one.knows(ERIKA, {"engagement": {"open": OFF}, "advice": {"open": advice, "click": OFF}})
    batch = one.build([event(0, ERIKA), event(1, ERIKA, kind="click", url="https://x.example/")])
    assert [row["purpose"] for row in engagement(batch)] == ["advice"]
    assert [row["kind"] for row in counted(batch)] == ["click"]
    assert (batch.outcomes["counted"], batch.outcomes["off"]) == (1, 1)


def test_who_was_off_when_a_state_was_lost_is_off_until_she_says_otherwise(keys: Keys) -> None:
    one = worker(keys, {("acme", blind(keys, ERIKA), "open"): BEGAN})
    acts = [event(0, ERIKA), event(1, ERIKA, kind="click", link="x"), event(2, "else@example.com")]
    batch = one.build(acts)
    assert (batch.outcomes["off"], batch.outcomes["counted"]) == (1, 2), "opens only, and nobody else"
    one.knows(ERIKA, {"engagement": {"open": Consent(Mode.ANONYMOUS, (ALWAYS, None, None), NOW)}})
    assert one.build(acts).outcomes["off"] == 0


def test_how_addresses_are_compared_may_change_under_a_running_worker(keys: Keys) -> None:
    """She is off under the key of her address in lower case; who worked before the change must look there too."""
    keep, lower = tenants('[acme]\nlocal_part = "keep"'), tenants('[acme]\nlocal_part = "lower"')
    running, fresh = worker(keys), worker(keys)
    acts = [event(0, ERIKA)]
    for one in (running, fresh):
        one.knows(ERIKA.lower(), {"engagement": {"open": OFF}})
    before = running.build(acts, keep)
    assert before.outcomes["counted"] == 1
    after = running.build(acts, lower)
    assert after.outcomes["off"] == 1
    assert after.table.equals(fresh.build(acts, lower).table)
    assert running.build(acts, keep).table.equals(before.table)


def mailing(offset: int, sent_at: int, **links: str) -> Fetched:
    return Fetched(
        offset,
        b'{"tenant":"acme","mailing":"m","name":"n","recipients":3,"sent_at":%d,"links":{%s}}'
        % (sent_at, ",".join(f'"{name}":"{url}"' for name, url in links.items()).encode()),
    )


def test_the_declarations_that_hold_are_those_below_the_position_of_the_claim(keys: Keys) -> None:
    """However much more or less this worker has read by now: who carries a claim out again classifies the same."""
    one = worker(keys)
    one.declarations.apply([mailing(0, NOW - 5 * HOUR, hero="https://x.example/")])
    click = [event(0, ERIKA, kind="click", url="https://x.example/")]
    links = {}
    for declared in (False, True):
        if declared:
            one.declarations.apply([mailing(7, NOW - 48 * HOUR, shop="https://x.example/")])
        for position in (0, 1, 7, 8):
            (row,) = counted(one.build(click, mailings=position))
            links[declared, position] = row["link"], row["step"]
    assert links[True, 0] == ("other", 0)
    assert links[True, 1] == links[True, 7] == links[False, 7]
    assert links[True, 1][0] == "hero"
    assert links[True, 8][0] == "shop"
    assert links[True, 8][1] > links[True, 1][1] > 0, "the step goes by when the mailing is said to have been sent"


def test_a_state_that_cannot_be_read_costs_only_its_recipient(keys: Keys) -> None:
    """A newer release wrote it. Never guessed, and the partition goes on."""
    one = worker(keys)
    key = message_key("acme", ERIKA)
    one.state.apply([Fetched(0, b'{"version":[1,9],"purposes":{"engagement":{"open":[9]}}}', key)])
    acts = [event(0, ERIKA), event(1, "else@example.com"), event(2, ERIKA), event(3, "more@example.com")]
    batch = one.build(acts)
    assert [(row, flaw.reason) for row, flaw in batch.bad] == [(0, Reason.BAD_VALUE), (2, Reason.BAD_VALUE)]
    assert batch.outcomes == {"received": 4, "counted": 2, "off": 0, "duplicates": 0, "rejected": 2}
    assert ERIKA not in "".join(str(flaw) for _, flaw in batch.bad)
    assert not any(row["event_hash"] for row in batch.table.to_pylist() if row["outcome"] == "rejected")
    one.knows(ERIKA, {"engagement": {"open": OFF}}, offset=10)
    assert one.build(acts).outcomes == {"received": 4, "counted": 2, "off": 2, "duplicates": 0, "rejected": 0}


def test_a_root_key_that_was_destroyed_leaves_a_count(keys: Keys) -> None:
    one = worker(keys)
    one.knows(ERIKA, {"engagement": {"open": RAISED._replace(salts=(LATE._replace(key_version=7),))}})
    batch = one.build([event(0, ERIKA)])
    assert (engagement(batch), batch.outcomes["counted"]) == ([], 1)


def test_bad_rows_among_good_ones_add_up(keys: Keys) -> None:
    ours = [who for who in (f"r{n}@example.com" for n in range(40)) if partition_of(message_key("acme", who), 4) == 2]
    theirs = next(w for w in (f"s{n}@example.com" for n in range(40)) if partition_of(message_key("acme", w), 4) != 2)
    one = worker(keys, partition=2, partitions=4)
    one.knows(ours[0], {"engagement": {"open": OFF}})
    acts: Sequence[Fetched] = [
        event(0, ours[0]),
        event(1, ours[1]),
        event(2, ours[1], event_id="e1"),
        event(3, theirs),
        event(4, ours[1], tenant="nobody"),
        Fetched(5, b"\xff"),
        Fetched(6, None),
        event(7, "a@b@" * 100),
        event(8, ours[1]),
    ]
    batch = one.build(list(acts))
    assert batch.outcomes == {"received": 9, "counted": 2, "off": 1, "duplicates": 1, "rejected": 5}
    assert {row: flaw.reason for row, flaw in batch.bad} == {
        3: Reason.MISROUTED,
        4: Reason.UNKNOWN_TENANT,
        5: Reason.NOT_JSON,
        6: Reason.TOMBSTONE,
        7: Reason.BAD_RECIPIENT,
    }
    told = {(row["outcome"], row["reason"]): row["events"] for row in batch.table.to_pylist() if row["outcome"]}
    assert sum(n for (outcome, _), n in told.items() if outcome == "rejected") == 5
    assert sum(n for (outcome, _), n in told.items() if outcome != "received") == told["received", ""] == 9


def test_what_comes_for_a_closed_mailing_is_late_and_asks_for_no_secret(keys: Keys) -> None:
    """Of another tenant the name says nothing; duplicates and who is off are not looked for."""
    index, seen, declarations, closed = StateIndex(), Seen(), Declarations(), {"acme\x1fold"}
    work = EventsWork(0, 1, keys, index, seen, declarations, None, closed)
    one = Worker(keys, index, seen, declarations, work)
    one.knows(ERIKA, {"engagement": {"open": OFF}})
    records = [
        event(0, ERIKA, mailing="old"),
        event(1, "max@example.com", mailing="old"),
        event(2, "max@example.com", mailing="new"),
        event(3, "max@example.com", "beta", mailing="old"),
        event(4, "max@example.com", mailing="old", event_id="e1"),
    ]
    batch = one.build(records)
    assert batch.outcomes == {"received": 5, "counted": 2, "off": 0, "duplicates": 0, "rejected": 3}
    assert batch.reasons == {"late": 3}
    assert [row for row, _ in batch.bad] == [0, 1, 4]
    assert [(row["tenant"], row["mailing"]) for row in counted(batch)] == [("acme", "new"), ("beta", "old")]
    closed.add("acme\x1fnew")  # the next claim carried that out
    assert one.build([event(5, ERIKA, mailing="new"), event(6, ERIKA, mailing="newer")], number=2).reasons == {
        "late": 1
    }
    keys._ring.retire_many(KeyKind.MAILING, ["acme\x1fgone"])  # as after every partition has carried a closing out
    with pytest.raises(KeyRetired):
        one.build([event(7, "max@example.com", mailing="gone")], number=3)


def test_a_claim_of_nothing_but_bad_rows_writes_its_outcomes(keys: Keys) -> None:
    batch = worker(keys).build([Fetched(0, b"{}"), Fetched(1, b"")])
    assert batch.outcomes["rejected"] == batch.outcomes["received"] == 2
    assert {row["outcome"] for row in batch.table.to_pylist()} == {"received", "rejected"}
