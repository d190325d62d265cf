"""The data, the same for every contestant, and the plain truth about it.

Records are our own wire format, keyed by `message_key` on four partitions: a quarter clicks, four mailings, two hours,
recipients drawn evenly, of whom half granted pseudonymous rows. The truth is computed while they are made, from the
values and not from the JSON, by code that shares nothing with the contestants but the order of the answer.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.compare.work import HOUR_MS, KEY, Cell, outcome
from streams.partitioner import message_key

PARTITIONS = 4
BEGIN_MS = (int(time.time() * 1000) // HOUR_MS - 3) * HOUR_MS  # one for all topics of a run
AGENTS = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148",
    "Mozilla/5.0",
    "Microsoft Office/16.0 (Windows NT 10.0; Microsoft Outlook 16.0.17928; Pro)",
)
Message = tuple[str, bytes, bytes]


def person(number: int) -> str:
    """The recipient with this number."""
    return f"user{number:06d}@example.com"


def granted(number: int) -> bool:
    """Whether she granted pseudonymous rows: every second one."""
    return number % 2 == 0


def salt(number: int) -> bytes:
    """Her consent salt in the comparison (the lock draws its own)."""
    return hashlib.sha256(b"salt %d" % number).digest()[:16]


def write_preferences(path: Path, people: int) -> None:
    """One line a recipient: name, tab, salt in hex or nothing."""
    with path.open("w") as file:
        for number in range(people):
            file.write(f"{person(number)}\t{salt(number).hex() if granted(number) else ''}\n")


def grants(people: int) -> Iterator[Message]:
    """The same preferences as the lock takes them, given long before the events."""
    modes = {"engagement": {"open": "pseudonymous", "click": "pseudonymous"}}
    proof = {"source": "benchmark", "text_version": "1"}
    for number in filter(granted, range(people)):
        value: dict[str, object] = {"tenant": "acme", "recipient": person(number), "purposes": modes, "proof": proof}
        value["decided_at"] = "2026-01-01T00:00:00Z"
        yield "tracking.preferences", message_key("acme", person(number)), json.dumps(value).encode()


class Truth:
    """What has to come out; grows while events are made."""

    def __init__(self) -> None:
        self.count = self.rows = self._sum = self.bytes = 0
        self.cells: Counter[Cell] = Counter()
        self.people: dict[str, set[str]] = {}
        self._names: dict[int, int] = {}

    def add(self, number: int, mailing: str, kind: str, link: str, at: int) -> None:
        """One event."""
        self.count += 1
        self.cells[mailing, kind, link, at // HOUR_MS] += 1
        self.people.setdefault(mailing, set()).add(person(number))
        if granted(number):
            if number not in self._names:
                whole = hmac.new(KEY, salt(number) + person(number).encode(), hashlib.sha256).digest()
                self._names[number] = int.from_bytes(whole[:8], "little")
            self.rows += 1
            self._sum += self._names[number]

    def outcome(self) -> dict[str, Any]:
        """As the contestants say it."""
        return outcome(self.count, self.rows, self._sum, dict(self.cells), self.people)


def events(topic: str, count: int, people: int, truth: Truth | None = None, lot: int = 0) -> Iterator[Message]:
    """The events of one lot: the same for every topic, but for the ids, which are other ones in another lot."""
    chance = random.Random(1)
    for index in range(count):
        number, at = chance.randrange(people), BEGIN_MS + chance.randrange(2 * HOUR_MS)
        who, mailing, kind, link = person(number), f"2026-11-m{chance.randrange(4)}", "open", ""
        value = {
            "event_id": f"01J8ZK3V9Q{lot:06d}{index:010d}",
            "kind": kind,
            "tenant": "acme",
            "mailing": mailing,
            "recipient": who,
            "occurred_at": at,
            "user_agent": AGENTS[index & 3],
            "ip": f"203.0.113.{index % 250}",
        }
        if chance.random() < 0.25:
            kind, link = "click", f"https://inxmail.de/produkt/{index % 9}"
            value |= {"kind": kind, "url": f"{link}?utm_source=nl&rid={number}"}
        raw = json.dumps(value, separators=(",", ":")).encode()
        if truth is not None:
            truth.add(number, mailing, kind, link, at)
            truth.bytes += len(raw)
        yield topic, message_key("acme", who), raw
