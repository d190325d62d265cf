"""The demo's hits as messages of tracking.events, and rows that must be refused."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import orjson

from streams.demo.senders import AGENTS, DAY_MS
from streams.demo.week import OPEN, Hit, Sending

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's, as in ULIDs
_PAIRS = [high + low for high in _ALPHABET for low in _ALPHABET]  # 10 bits at once
_NETWORKS = ("192.0.2.", "198.51.100.", "203.0.113.", "2001:db8::")  # RFC 5737, RFC 3849
_AGENTS = [orjson.dumps(agent) for agent in AGENTS]
_KINDS = (b'","kind":"open"', b'","kind":"click"')


class EventWriter:
    """Writes hits as JSON, 4 µs each. The same hit gives the same bytes."""

    def __init__(self, sendings: Sequence[Sending]) -> None:
        self._sendings = sendings
        self._heads = [
            orjson.dumps({"tenant": sending.sender.tenant, "mailing": sending.plan.mailing})[1:-1]
            for sending in sendings
        ]
        self._minutes: dict[int, str] = {}

    def write(self, hit: Hit) -> bytes:
        """The value of the hit's record."""
        sending = self._sendings[hit.sending]
        person = sending.people[hit.person]
        number = hit.number
        spelling = person.other_spelling if number & 63 == 0 else person.spelling
        parts = [
            b'{"event_id":"',
            _ulid(hit.occurred_ms, number),
            _KINDS[hit.kind],
            b",",
            self._heads[hit.sending],
            b',"recipient":',
            orjson.dumps(spelling),
            b',"occurred_at":',
            self._iso(hit.occurred_ms) if sending.sender.iso_times else b"%d" % hit.occurred_ms,
        ]
        if hit.kind != OPEN:
            target = sending.targets[hit.target]
            if target.link_id is not None:
                parts.append(b',"link":"%b"' % target.link_id.encode())
            if target.link_id is None or number & 256:
                url = target.url.replace("{}", str(hit.person))
                mark = "&" if "?" in url else "?"
                parts.append(b',"url":"%b"' % f"{url}{mark}rid={hit.person * 7919:08x}&utm_source=mail".encode())
        parts.append(b',"user_agent":%b' % _AGENTS[hit.agent])
        ip = f"{_NETWORKS[number >> 70 & 3]}{1 + (hit.person * 31 + hit.agent) % 254}"
        parts.append(b',"ip":"%b"' % ip.encode())
        if hit.flagged:
            parts.append(b',"actor":"machine"' if hit.machine else b',"actor":"human"')
        parts.append(b"}")
        return b"".join(parts)

    def _iso(self, at: int) -> bytes:
        minute, rest = divmod(at, 60_000)
        begin = self._minutes.get(minute)
        if begin is None:
            begin = self._minutes[minute] = datetime.fromtimestamp(minute * 60, UTC).strftime('"%Y-%m-%dT%H:%M:')
        return f'{begin}{rest // 1000:02}.{rest % 1000:03}Z"'.encode()


def _ulid(at: int, number: int) -> bytes:
    """26 characters: 48 bits of milliseconds, then 80 bits. Rises with time, as a sender's own ids often do."""
    value, pairs = at << 80 | number, _PAIRS
    return "".join([pairs[value >> shift & 1023] for shift in range(120, -1, -10)]).encode()


def _cut(event: bytes, _: int) -> bytes:
    return event[: len(event) // 2]


def _without(name: str) -> Callable[[bytes, int], bytes]:
    return lambda event, _: orjson.dumps({key: value for key, value in orjson.loads(event).items() if key != name})


def _with(name: str, made: object) -> Callable[[bytes, int], bytes]:
    return lambda event, _: orjson.dumps(orjson.loads(event) | {name: made})


def _in_two_years(event: bytes, now_ms: int) -> bytes:
    return orjson.dumps(orjson.loads(event) | {"occurred_at": now_ms + 730 * DAY_MS})


def _twice(event: bytes, _: int) -> bytes:
    return event[:-1] + b',"kind":"open"}'


BAD: tuple[tuple[str, Callable[[bytes, int], bytes]], ...] = (
    ("not_json", _cut),
    ("missing_field", _without("mailing")),
    ("bad_time", _in_two_years),
    ("bad_time", _with("occurred_at", "2026-11-20T09:14:05")),
    ("bad_recipient", _with("recipient", "@example.com")),
    ("unknown_tenant", _with("tenant", "stadtwreke")),
    ("unknown_kind", _with("kind", "bounce")),
    ("wrong_type", _with("event_id", 4711)),
    ("bad_value", _with("actor", "robot")),
    ("duplicate_field", _twice),
)
"""Why it is refused, and how a good event is made so."""


def bad_row(event: bytes, draw: random.Random, now_ms: int) -> tuple[str, bytes]:
    """(reason, value): the event, spoilt in one way."""
    reason, spoil = BAD[int(draw.random() * len(BAD))]
    return reason, spoil(event, now_ms)
