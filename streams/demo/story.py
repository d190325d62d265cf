"""The believable week that `schleuse demo` plays, and the truth that its generator knows.

Pure: the same (events, seed, now_ms) gives the same story, byte for byte. The truth is made from what was meant, not
from the messages; tests recompute it from the messages.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import itemgetter
from typing import Any, NamedTuple

import orjson

from streams.demo.choices import Choice, choose
from streams.demo.people import ALWAYS, people_of
from streams.demo.senders import DAY_MS, SENDERS, TENANTS_TOML, sent
from streams.demo.week import Hit, Sending, hits_of, targets_of
from streams.demo.wire import EventWriter, bad_row

EVENTS, PREFERENCES, MAILINGS = "tracking.events", "tracking.preferences", "tracking.mailings"
PER_SENDING = 1.34
"""Events a recipient and mailing, measured: from it the number of people follows."""
BAD_ROWS = 0.001
_KINDS = ("open", "click")

Cell = tuple[str, str, str, str | None, str]
"""tenant, mailing, kind, link (None: all links together, and opens), actor."""


class Message(NamedTuple):
    """One record to send. Key: what our partitioner makes of tenant and canonical recipient."""

    topic: str
    key: bytes
    value: bytes

    def __repr__(self) -> str:
        return f"Message({self.topic})"


@dataclass(frozen=True, slots=True)
class Truth:
    """What must come out, whatever the interleaving of the topics. Cells without events are not in `cells`."""

    received: int
    outcomes: Mapping[str, int]
    """counted, off, duplicates, rejected: they add up to `received`."""
    rejected_by_reason: Mapping[str, int]
    cells: Mapping[Cell, tuple[int, int]]
    """Events and distinct recipients."""


@dataclass(frozen=True, slots=True, repr=False)
class Story:
    """Send `declarations_as_messages()`, then `waves`; when the waves are carried out, `timeline()`."""

    tenants_toml: str
    declarations: list[dict[str, Any]]
    """Messages of tracking.mailings."""
    earlier: frozenset[str]
    """Mailings of the months before the week."""
    waves: list[Message]
    """Preferences that have to be carried out before the first event: each is accepted, and makes one change."""
    truth: Truth
    _items: list[Hit | tuple[int, Message]]
    _sendings: list[Sending]

    def declarations_as_messages(self) -> Iterator[Message]:
        """`declarations` under their keys."""
        for declared in self.declarations:
            key = f"{declared['tenant']}\x1f{declared['mailing']}".encode()
            yield Message(MAILINGS, key, orjson.dumps(declared))

    def timeline(self) -> Iterator[Message]:
        """Events, some of them bad, and preferences, in the order in which they are sent. May be asked for again."""
        writer = EventWriter(self._sendings)
        for item in self._items:
            if isinstance(item, Hit):
                yield Message(EVENTS, self._sendings[item.sending].people[item.person].key, writer.write(item))
            else:
                yield item[1]

    def __repr__(self) -> str:
        return f"Story({len(self._items)} messages)"


def plan(events: int, seed: int, now_ms: int) -> Story:
    """A week of about `events` events, a few of them months earlier, that ends at `now_ms` (milliseconds since 1970);
    7 µs of CPU an event.

    No event lies after `now_ms`; a caller may not assume that it gets `events` to the unit.
    """
    draw = random.Random(seed)  # noqa: S311  a made-up week, not a secret
    sendings: list[Sending] = []
    declarations: list[dict[str, Any]] = []
    waves: list[Choice] = []
    midway: list[Choice] = []
    before_the_week: set[str] = set()
    for sender in SENDERS:
        mailings = list(sent(sender, now_ms))
        reach = sum(mailing.reach * mailing.interest for mailing, _ in mailings)
        people = people_of(sender, max(8, round(events * sender.share / reach / PER_SENDING)), draw)
        before, after = choose(sender, people, draw, now_ms)
        waves += before
        midway += after
        for mailing, when in mailings:
            earlier = mailing not in sender.mailings
            if earlier:  # to those who never wanted no counting: what they did in all those months is counted
                before_the_week.add(mailing.mailing)
            to = [
                number
                for number, person in enumerate(people)
                if draw.random() < mailing.reach and not (earlier and person.counts_from != (ALWAYS, ALWAYS))
            ]
            sendings.append(Sending(sender, mailing, when, people, to, targets_of(sender, mailing)))
            declarations.append(
                {
                    "tenant": sender.tenant,
                    "mailing": mailing.mailing,
                    "name": mailing.name,
                    "sent_at": datetime.fromtimestamp(when / 1000, UTC).isoformat(timespec="milliseconds"),
                    "recipients": len(to),
                    "links": dict(mailing.links),
                }
            )
    hits = [hit for index, sending in enumerate(sendings) for hit in hits_of(index, sending, draw, now_ms)]
    bad, reasons = _bad_rows(hits, sendings, draw, now_ms)
    items: list[Any] = [*hits, *bad, *((choice.decided_ms, _preference(choice)) for choice in midway)]
    items.sort(key=itemgetter(0))  # stable: of one moment, and of one person, what was said first comes first
    return Story(
        TENANTS_TOML,
        declarations,
        frozenset(before_the_week),
        [_preference(choice) for choice in sorted(waves, key=lambda choice: choice.decided_ms)],
        _truth(hits, sendings, reasons),
        items,
        sendings,
    )


def _preference(choice: Choice) -> Message:
    return Message(PREFERENCES, choice.key, choice.value)


def _bad_rows(
    hits: list[Hit], sendings: list[Sending], draw: random.Random, now_ms: int
) -> tuple[list[tuple[int, Message]], Counter[str]]:
    writer = EventWriter(sendings)
    rows: list[tuple[int, Message]] = []
    reasons: Counter[str] = Counter()
    for _ in range(max(3, round(len(hits) * BAD_ROWS))):
        like = hits[int(draw.random() * len(hits))]
        at = now_ms - int(draw.random() * 6 * DAY_MS)
        reason, value = bad_row(writer.write(like), draw, now_ms)
        reasons[reason] += 1
        rows.append((at, Message(EVENTS, sendings[like.sending].people[like.person].key, value)))
    return rows, reasons


def _truth(hits: list[Hit], sendings: list[Sending], reasons: Counter[str]) -> Truth:
    outcomes = {"counted": 0, "off": 0, "duplicates": 0, "rejected": reasons.total()}
    counts: Counter[Cell] = Counter()
    distinct: dict[Cell, set[int]] = {}
    for hit in hits:
        if hit.again:
            outcomes["duplicates"] += 1
            continue
        sending = sendings[hit.sending]
        if hit.occurred_ms < sending.people[hit.person].counts_from[hit.kind]:
            outcomes["off"] += 1
            continue
        outcomes["counted"] += 1
        links = [None, sending.targets[hit.target].counts_as] if hit.kind else [None]
        for link in links:
            actor = "machine" if hit.machine else "human"
            cell = (sending.sender.tenant, sending.plan.mailing, _KINDS[hit.kind], link, actor)
            counts[cell] += 1
            distinct.setdefault(cell, set()).add(hit.person)
    cells = {cell: (count, len(distinct[cell])) for cell, count in counts.items()}
    return Truth(sum(outcomes.values()), outcomes, dict(sorted(reasons.items())), cells)
