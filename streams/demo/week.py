"""What happens in the week: who opens and clicks what, when, and which machines do it for her.

After a mailing there is a burst that decays (delays are log-normal), most people sleep at night, some open again, few
click. Apple's prefetch opens for those who have it on, gateways click every link within seconds, and the sender's
system now and then sends an event twice, minutes later.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from typing import NamedTuple

from streams.demo.people import Person
from streams.demo.senders import AGENTS, DAY_MS, HOUR_MS, POSING, PREFETCH, SCANNERS, MailingPlan, Sender

OPEN, CLICK = 0, 1
SECOND, MINUTE = 1_000, 60_000
RETRIED = 0.015
PREFETCH_AGENT = AGENTS.index(PREFETCH)
SCANNER_AGENTS = tuple(AGENTS.index(agent) for agent in SCANNERS)


class Hit(NamedTuple):
    """One event message: what it says, and what it is."""

    arrives_ms: int
    """Its place in the stream."""
    sending: int
    """Index of the sending."""
    kind: int
    person: int
    occurred_ms: int
    target: int
    """Index in the sending's targets; -1 for an open."""
    agent: int
    machine: bool
    flagged: bool
    """Whether the event says `actor` itself."""
    number: int
    """80 bits: the random part of its id, and of what does not matter."""
    again: bool
    """Whether it was there before."""


class Target(NamedTuple):
    """Where a click can go. `url` has `{}` where a recipient's number stands."""

    link_id: str | None
    url: str
    counts_as: str


@dataclass(frozen=True, slots=True)
class Sending:
    """A mailing on its way: to whom (indices), when, and the targets of its clicks."""

    sender: Sender
    plan: MailingPlan
    sent_ms: int
    people: Sequence[Person]
    to: Sequence[int]
    targets: Sequence[Target]


def targets_of(sender: Sender, plan: MailingPlan) -> list[Target]:
    """The declared links in their order, then the undeclared URLs."""
    declared = [Target(link if sender.names_link_ids else None, url, link) for link, url in plan.links.items()]
    return declared + [Target(None, url, counts_as) for url, counts_as in sender.undeclared.items()]


def hits_of(index: int, sending: Sending, draw: random.Random, now_ms: int) -> list[Hit]:
    """All events of one mailing until now, unsorted."""
    hits: list[Hit] = []
    rand, bits = draw.random, draw.getrandbits
    weights = [*sending.plan.weights]
    rest = max(0.02, 1 - sum(weights))
    undeclared = len(sending.targets) - len(weights)
    weights += [rest / undeclared] * undeclared
    spread = 2 * MINUTE + 5 * len(sending.to)  # 200 mails a second
    declared = len(sending.plan.links)

    def add(kind: int, person: int, at: float, target: int, agent: int, machine: bool, flagged: bool) -> None:
        occurred = int(at)
        if occurred > now_ms - SECOND:
            return
        arrives = occurred + int(200 + rand() * 20 * SECOND)
        number = bits(80)
        hits.append(Hit(arrives, index, kind, person, occurred, target, agent, machine, flagged, number, False))
        if rand() < RETRIED:
            arrives += int((1 + rand() * 30) * MINUTE)
            hits.append(Hit(arrives, index, kind, person, occurred, target, agent, machine, flagged, number, True))

    for number in sending.to:
        person = sending.people[number]
        if person.silent:
            continue
        delivered = sending.sent_ms + SECOND + rand() * spread
        if person.gateway:
            posing = rand() < 0.3
            agent = POSING if posing else SCANNER_AGENTS[int(rand() * len(SCANNER_AGENTS))]
            add(OPEN, number, delivered + rand() * 5 * SECOND, -1, agent, True, posing)
            for target in range(declared):
                add(CLICK, number, delivered + (2 + rand() * 20) * SECOND, target, agent, True, posing)
        if person.prefetched:
            at = delivered + (0.5 + rand() * 40) * MINUTE
            add(OPEN, number, at, -1, PREFETCH_AGENT, True, sending.sender.names_link_ids and rand() < 0.5)
        if rand() > min(0.95, 0.62 * person.keenness * sending.plan.interest):
            continue
        at = delivered + _awake(delivered, draw)
        while True:
            if not person.prefetched:  # else every open is Apple's, and only her clicks tell that she reads
                add(OPEN, number, at, -1, person.opens_with, False, False)
            if rand() < 0.14:
                clicked = at + (5 + rand() * 120) * SECOND
                for target in draw.choices(range(len(weights)), weights, k=1 + (rand() < 0.25)):
                    add(CLICK, number, clicked, target, person.clicks_with, False, False)
                    clicked += (2 + rand() * 60) * SECOND
            if rand() < 0.5:
                break
            at += draw.lognormvariate(log(6 * HOUR_MS), 1.3)
    return hits


def _awake(delivered: float, draw: random.Random) -> float:
    """Milliseconds until she looks at it: 2 hours for half of them; at night (CET) most wait until the morning."""
    delay = draw.lognormvariate(log(2 * HOUR_MS), 1.4)
    hour = (delivered + delay + HOUR_MS) % DAY_MS / HOUR_MS
    return delay + (6.5 - hour + 2 * draw.random()) * HOUR_MS if hour < 6 and draw.random() < 0.85 else delay
