"""The reference itself: it says what a reader of the pages would say, and it can fail.

A small log, its outcome worked out by hand; the published vectors; a right result made wrong in one place each time.
"""

from __future__ import annotations

import base64
import copy
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.reference import Claim, Expected, Record, ReferenceFailed, compare, differences, expect, people, tenants
from tests.reference.facts import TABLES

HOUR = 3_600_000
NOW = 1_763_985_600_000  # 2025-11-24T12:00:00Z
ERIKA, KIM = "erika@example.com", "kim@example.com"
TOML = '[acme.purposes.engagement]\nceiling = "personal"\n'
AGENTS = {None: ("other", "human"), "curl/8": ("other", "machine")}
VECTORS = Path(__file__).parents[2] / "docs" / "test-vectors.md"


def salt(number: int, kind: str) -> str:
    """What intake drew for a kind of a change: each another one."""
    return base64.b64encode(kind[:1].encode() + bytes([number]) * 15).decode()


class Ring(people.Ring):
    """Two keys, known to everybody."""

    def __init__(self) -> None:
        self._blind, self._purposes = b"b" * 32, {}

    def get(self, kind: str, name: str, version: int = 1) -> bytes | None:
        return b"r" * 32


class Story:
    """Records of one partition, and the claims that took them; it is a log."""

    def __init__(self) -> None:
        self._records: dict[str, list[Record]] = {}
        self.claims: list[Claim] = []
        self._next = {"tracking.events": 0, "tracking.changes": 0}

    def records(self, topic: str, partition: int) -> Iterator[Record]:
        return iter(self._records.get(topic, []))

    def add(self, topic: str, who: str, value: dict[str, Any] | bytes) -> None:
        log = self._records.setdefault(topic, [])
        raw = value if isinstance(value, bytes) else json.dumps(value).encode()
        log.append(Record(0, len(log), NOW, people.message_key("acme", who), raw))

    def event(self, who: str, at: int, **fields: Any) -> None:
        number = len(self._records.get("tracking.events", []))
        value = {"event_id": f"e{number}", "kind": "open", "tenant": "acme", "mailing": "m", "recipient": who}
        self.add("tracking.events", who, {**value, "occurred_at": at, **fields})

    def change(self, who: str, at: int, purposes: Any, mode: str | None = None) -> None:
        number = len(self._records.get("tracking.changes", []))
        salts = {} if purposes == "*" else {p: {k: salt(number, k) for k in kinds} for p, kinds in purposes.items()}
        said: dict[str, Any] = {
            "type": "preference",
            "preference_id": f"tracking.preferences:0:{number}",
            "tenant": "acme",
            "recipient": who,
        }
        said |= {"decided_at": at, "purposes": purposes, "mode": mode, "salts": salts, "key_version": 1}
        self.add("tracking.changes", who, said)

    def claim(self, kind: str) -> None:
        """Everything of this kind that no claim has yet."""
        topic = f"tracking.{kind}"
        first, self._next[topic] = self._next[topic], len(self._records[topic])
        ends = self._next["tracking.events"], self._next["tracking.changes"]
        number = len(self.claims)
        self.claims.append(Claim(1, 0, number, kind, first, ends[kind != "events"] - 1, *ends, NOW, 9, "s", "w"))

    def expected(self) -> Expected:
        return expect(self, self.claims, tenants(TOML), Ring(), AGENTS, 1)


@pytest.fixture(scope="module")
def told() -> Expected:
    """Erika grants, clicks, steps down, clicks, withdraws her opens; Kim is counted, then off; and a retry."""
    story = Story()
    story.add("tracking.mailings", "", {"tenant": "acme", "mailing": "m", "sent_at": NOW - 2 * HOUR, "links": {}})
    begin = NOW - HOUR
    story.event(ERIKA, begin - 1)  # 0: before her grant
    story.event(KIM, begin, user_agent="curl/8")  # 1
    story.claim("events")
    story.change(ERIKA, begin, {"engagement": {"open": "pseudonymous", "click": "personal"}})  # 0
    story.claim("changes")
    story.event(ERIKA, begin - 1)  # 2: not covered
    story.event(ERIKA, begin)  # 3: the first row
    story.event(ERIKA, begin, event_id="e3")  # 4: tried again
    story.event(ERIKA, begin + 5, kind="click", url="https://x.example/1")  # 5: a row beside a name
    story.add("tracking.events", KIM, b"{")  # 6
    story.claim("events")
    story.change(ERIKA, begin + 10, {"engagement": {"click": "pseudonymous"}})  # 1: the row of 5 goes, and the mapping
    story.change(KIM, begin, "*", "off")  # 2
    story.change(ERIKA, begin + 9, {"engagement": {"click": "personal"}})  # 3: out of date
    story.claim("changes")
    story.event(ERIKA, begin + 6, kind="click", url="https://x.example/2")  # 7: held then, holds now: a new pseudonym
    story.event(KIM, begin + 11)  # 8: off
    story.claim("events")
    story.change(ERIKA, begin + 20, {"engagement": {"open": "anonymous"}})  # 4: the row of 3 goes
    story.claim("changes")
    return story.expected()


def test_what_is_expected_is_what_the_pages_say(told: Expected) -> None:
    assert told.outcomes == {
        (0, "received", ""): 9,
        (0, "counted", ""): 6,
        (0, "off", ""): 1,
        (0, "duplicates", ""): 1,
        (0, "rejected", "not_json"): 1,
    }
    of_purpose, drawn = Ring().purpose("acme", "engagement", 1), base64.b64decode(salt(1, "click"))
    second = people.number(people.pseudonym(of_purpose, drawn, ERIKA))
    (row,) = told.rows
    assert (row.claim, row.kind, row.link, row.occurred, row.pseudonym) == (
        4,
        "click",
        "other",
        NOW // 1000 - 3600,
        second,
    )
    assert row.expires == (NOW - HOUR) // 86_400_000 + 390
    assert told.mappings == {}, "her click was mapped, and is not any more"
    assert told.data_keys == {}
    assert {receipt.id: (receipt.rows, receipt.mappings) for receipt in told.receipts} == {
        "tracking.preferences:0:1": (1, 1),
        "tracking.preferences:0:2": (0, 0),
        "tracking.preferences:0:4": (1, 0),
    }
    assert sorted((line.preference_id, line.kind, line.mode, line.effect) for line in told.ledger) == [
        ("tracking.preferences:0:0", "click", "personal", "raised"),
        ("tracking.preferences:0:0", "open", "pseudonymous", "raised"),
        ("tracking.preferences:0:1", "click", "pseudonymous", "lowered"),
        ("tracking.preferences:0:2", "click", "off", "lowered"),  # for each purpose, and for those to come
        ("tracking.preferences:0:2", "click", "off", "lowered"),
        ("tracking.preferences:0:2", "open", "off", "lowered"),
        ("tracking.preferences:0:2", "open", "off", "lowered"),
        ("tracking.preferences:0:3", "click", "personal", "out_of_date"),
        ("tracking.preferences:0:4", "open", "anonymous", "lowered"),
    ]
    assert told.totals["acme", "m", "open", "", "other", "human", (NOW - HOUR) // HOUR * 3600] == 1
    assert told.totals["acme", "m", "open", "", "other", "human", (NOW - 2 * HOUR) // HOUR * 3600] == 2
    assert told.totals["acme", "m", "click", "other", "other", "human", (NOW - HOUR) // HOUR * 3600] == 2
    assert told.uniques["acme", "m", "open", "all", "", "human", -1] == 1
    assert told.uniques["acme", "m", "open", "all", "", "human", 0] == 1
    assert told.uniques["acme", "m", "open", "all", "", "human", 1] == 1, "the second step begins after an hour"
    assert told.uniques["acme", "m", "open", "all", "", "machine", -1] == 1
    states = {key: json.loads(state) for _, key, state in told.states}
    erika = states[people.message_key("acme", ERIKA)]
    assert erika["version"] == [1, 4]
    always = -(2**63)
    assert erika["purposes"]["engagement"] == {
        "open": [1, [always, None, None], NOW - HOUR + 20, []],
        "click": [
            2,
            [always, NOW - HOUR, None],
            NOW - HOUR + 10,
            [[2, NOW - HOUR, salt(1, "click"), 1]],
        ],
    }
    assert compare(told, told).text() == "lost = 0, doubled = 0, ignored = 0"


def drop_a_row(facts: Expected) -> None:
    facts.rows[next(iter(facts.rows))] -= 1
    facts.rows += type(facts.rows)()


def double_a_row(facts: Expected) -> None:
    facts.rows[next(iter(facts.rows))] += 1


def keep_a_forbidden_row(facts: Expected) -> None:
    facts.rows[next(iter(facts.rows))._replace(pseudonym=next(iter(facts.dropped)))] += 1


def keep_a_data_key(facts: Expected) -> None:
    facts.data_keys[next(iter(facts.dropped))] += 1


def shift_a_count(facts: Expected) -> None:
    one, other = list(facts.totals)[:2]
    facts.totals[one] += 1
    facts.totals[other] -= 1


def shift_a_unique_count(facts: Expected) -> None:
    facts.uniques[next(iter(facts.uniques))] += 1


def forget_a_decision(facts: Expected) -> None:
    del facts.ledger[next(iter(facts.ledger))]


def confirm_another_number(facts: Expected) -> None:
    receipt = next(iter(facts.receipts))
    del facts.receipts[receipt]
    facts.receipts[receipt._replace(rows=receipt.rows + 1)] = 1


def keep_an_older_state(facts: Expected) -> None:
    partition, key, state = next(iter(facts.last_states))
    del facts.last_states[partition, key, state]
    facts.last_states[partition, key, state.replace('"version": [1, ', '"version": [1, 9')] = 1


def count_an_outcome_twice(facts: Expected) -> None:
    facts.outcomes[0, "counted", ""] += 1


Spoiled = tuple[Callable[[Expected], None], str, str]
SPOILED: list[Spoiled] = [
    (drop_a_row, "rows: lost: ", "100"),
    (double_a_row, "rows: doubled: ", "010"),
    (keep_a_forbidden_row, "rows: a withdrawal ignored: ", "001"),
    (keep_a_data_key, "data_keys: a withdrawal ignored: ", "001"),
    (shift_a_count, "totals: ", "110"),
    (shift_a_unique_count, "uniques: doubled: ", "010"),
    (forget_a_decision, "ledger: lost: ", "100"),
    (confirm_another_number, "receipts: ", "110"),
    (keep_an_older_state, "last_states: ", "110"),
    (count_an_outcome_twice, "outcomes: doubled: ", "010"),
]
"""What is done to a right result; how the lines must begin; which of lost, doubled and ignored must not be 0.

Also done to what a real lock has left, in tests/promises/test_p6_exactly_once.py."""


def assert_it_is_noticed(expected: Expected, right: Any, spoiled: Spoiled) -> None:
    """One thing is made wrong in a copy of what is right: each line names it, and the numbers say it."""
    spoil, begins, numbers = spoiled
    wrong = Expected(**{table: copy.copy(getattr(right, table)) for table in TABLES}, dropped=expected.dropped)
    spoil(wrong)
    report = compare(expected, wrong)
    assert report.lines
    assert all(line.startswith(begins) for line in report.lines), report.text()
    assert [report.lost, report.doubled, report.ignored] == [int(number) for number in numbers], report.text()


@pytest.mark.parametrize("spoiled", SPOILED, ids=lambda spoiled: spoiled[0].__name__)
def test_whatever_is_wrong_is_named(told: Expected, spoiled: Spoiled) -> None:
    assert_it_is_noticed(told, told, spoiled)


def test_a_chain_that_leaves_records_out_or_repeats_them_is_refused() -> None:
    story = Story()
    for at in range(4):
        story.event(ERIKA, NOW - HOUR + at)
    story.claim("events")
    story.event(ERIKA, NOW)
    story.claim("events")
    good = list(story.claims)
    for wrong in (
        [good[0], good[1]._replace(first=5, last=5)],
        [good[0], good[1]._replace(first=3)],
        [good[0], good[1]._replace(number=2)],
        [good[0]._replace(first=1), good[1]],
        [good[0], good[1]._replace(last=6, next_event=7)],
    ):
        story.claims = wrong
        with pytest.raises(ReferenceFailed):
            story.expected()
    story.claims = good[:1]
    assert differences(story.expected(), story.expected()) == ["tracking.events-0: 1 records are in no claim"]


@pytest.mark.parametrize(("sent", "good"), [("*", True), ({"engagement": {"open": "off"}}, False)])
def test_a_preference_that_was_not_forwarded_as_it_was_sent_is_noticed(sent: Any, good: bool) -> None:
    story = Story()
    said = {"tenant": "acme", "recipient": f" {ERIKA}", "decided_at": NOW - HOUR, "purposes": sent, "mode": "off"}
    story.add("tracking.preferences", ERIKA, said)
    story.change(ERIKA, NOW - HOUR, "*", "off")
    story.claim("changes")
    lost = [] if good else ["tracking.preferences-0: 1 records were not forwarded as they were sent"]
    assert differences(story.expected(), story.expected()) == lost


def test_it_speaks_the_published_vectors() -> None:
    page = VECTORS.read_text()
    found = {name: json.loads(body) for name, body in re.findall(r"```json (\w+)\n(.*?)```", page, re.DOTALL)}
    for v in found["canonical"]:
        assert people.canonical(v["recipient"], v["lower_local"]) == v["canonical"]
    for v in found["purpose_key"]:
        assert people.purpose_key(bytes.fromhex(v["root"]), v["tenant"], v["purpose"], v["version"]).hex() == v["key"]
    for v in found["pseudonym"]:
        made = people.pseudonym(bytes.fromhex(v["key"]), bytes.fromhex(v["salt"]), v["recipient"])
        assert made.hex() == v["pseudonym"]
    for v in found["seal_text"]:
        opened = people.open_mapping(bytes.fromhex(v["key"]), bytes.fromhex(v["sealed"]), bytes.fromhex(v["aad"]))
        assert opened == v["text"]
    assert [people.partition_of(key.encode(), 1 << 31) for key in ("21", "foobar", "")] == [
        -973932308 & 0x7FFFFFFF,  # Kafka's own vectors (UtilsTest.testMurmur2)
        -790332482 & 0x7FFFFFFF,
        275646681,
    ]
