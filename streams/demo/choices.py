"""What people of the demo agree to, and what they change midway.

Whatever the interleaving of preferences and events, the truth must be one. So whoever is `off` says so before the first
event (a wave that is carried out before events start), and whoever goes `off` midway never did anything. Grants and
withdrawals above `anonymous` change what is known of a person, never what is counted; they come at any time.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import orjson

from streams.demo.people import ALWAYS, NEVER, Person
from streams.demo.senders import DAY_MS, Sender

GRANTED, OFF, OFF_FOR_OPENS, BACK, SILENT = 0.3, 0.012, 0.005, 0.004, 0.004
"""Shares of the people: have granted something; want no counting; no counting of opens; wanted none and came back
midweek; never act, and go `off` midway."""
PROOF = {"source": "double-opt-in form", "text_version": "2026-05", "evidence": "confirmation mail"}


@dataclass(frozen=True, slots=True, repr=False)
class Choice:
    """One message of tracking.preferences."""

    decided_ms: int
    key: bytes
    value: bytes

    def __repr__(self) -> str:
        return "Choice(...)"


def choose(sender: Sender, people: list[Person], draw: random.Random, now_ms: int) -> tuple[list[Choice], list[Choice]]:
    """What was decided before the events start, and what is decided midway. Sets `counts_from` and `silent`.

    Both in an order that may be sent: of one person, the earlier decision first.
    """
    before: list[Choice] = []
    midway: list[Choice] = []
    week = now_ms - 7 * DAY_MS

    def say(to: list[Choice], person: Person, at: int, purposes: object, proof: bool = False, **more: str) -> None:
        to.append(Choice(at, person.key, _message(sender.tenant, person.spelling, at, purposes, proof, **more)))

    for person in people:
        past = week - int((1 + draw.random() * 380) * DAY_MS)
        later = now_ms - int((0.05 + draw.random() * 6) * DAY_MS)
        share = draw.random()
        if share < GRANTED:
            click = "personal" if draw.random() < 0.4 else "pseudonymous"
            opened = click if draw.random() < 0.7 else "anonymous"
            say(before, person, past, _both(opened, click), proof=True)
            _change_mind(person, draw.random(), later, midway, say)
            continue
        share -= GRANTED
        if share < OFF:
            person.counts_from = (NEVER, NEVER)
            say(before, person, past, "*", mode="off")
        elif share < OFF + OFF_FOR_OPENS:
            person.counts_from = (NEVER, ALWAYS)
            say(before, person, past, {"engagement": {"open": "off"}})
        elif share < OFF + OFF_FOR_OPENS + BACK:
            back = now_ms - 3 * DAY_MS
            person.counts_from = (back, back)
            say(before, person, past, _both("off", "off"))
            say(before, person, back, _both("anonymous", "anonymous"))
        elif share < OFF + OFF_FOR_OPENS + BACK + SILENT:
            person.silent = True
            say(midway, person, later, _both("off", "off"))
        elif share > 0.97 - GRANTED:
            say(midway, person, later, _both("pseudonymous", "pseudonymous"), proof=True)
    return before, midway


def _change_mind(person: Person, share: float, at: int, midway: list[Choice], say: Callable[..., None]) -> None:
    if share < 0.08:
        say(midway, person, at, "*", mode="anonymous")
    elif share < 0.1:
        say(midway, person, at, _both("anonymous", "anonymous"))
        midway.append(midway[-1])  # sent twice
    elif share < 0.13:
        say(midway, person, at, _both("pseudonymous", "pseudonymous"), proof=True)
    elif share < 0.16:
        say(midway, person, at, _both("personal", "personal"), proof=True)


def _both(opened: str, clicked: str) -> dict[str, dict[str, str]]:
    return {"engagement": {"open": opened, "click": clicked}}


def _message(tenant: str, recipient: str, at: int, purposes: object, proof: bool, **more: str) -> bytes:
    decided = datetime.fromtimestamp(at / 1000, UTC).isoformat(timespec="milliseconds")
    said = {"tenant": tenant, "recipient": recipient, "decided_at": decided, "purposes": purposes, **more}
    return orjson.dumps(said | ({"proof": PROOF} if proof else {}))
