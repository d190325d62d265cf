"""The tries: mailings in which, by lot, one chosen recipient does everything that a figure can show, or nothing.

The attacker knows what all others do, to whom a mailing was sent, and when what happens is counted. Mailings of two
tenants: acme's are sent to a hundred, beta's to one, two or three (the chosen recipient alone among them), each with a
lot of its own. All of it comes in three stages: a mailing is declared anew with an earlier time of sending, and more
of its steps are due.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import orjson

from aggregates.figures import Figure
from aggregates.steps import HOUR_MS, HOURS
from streams.messages import format_time
from streams.partitioner import message_key
from streams.topics import EVENTS, MAILINGS, PREFERENCES, REQUESTS

Message = tuple[str, bytes, bytes]
"""Topic, key, value."""

CROWD: Final = "acme"
SMALL: Final = "beta"
TENANTS: Final = "".join(f'[{tenant}.purposes.engagement]\nceiling = "personal"\n' for tenant in (CROWD, SMALL))
"""The settings of both, as in tenants.toml."""
STAGES: Final = (13, 73, 721)
"""Hours since sending, stage by stage. After the last nothing is published any more."""
LATE: Final = 1
"""The stage in which clicks, and all that machines do, arrive; everything else arrives in the first."""
LINKS: Final = {"hero": "https://x.example/hero", "inxmail.de": "https://inxmail.de"}
AGENTS: Final = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/130.0 Safari/537.36",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148",
    "Mozilla/5.0 (iPad; CPU OS 18_0 like Mac OS X) AppleWebKit/605.1.15",
    "",
)
"""One of each family of devices."""


@dataclass(frozen=True, slots=True)
class Try:
    """One mailing. `others`: how many others do everything that she could do; the attacker knows it, and `sent`."""

    tenant: str
    mailing: str
    others: int
    sent: int
    acted: bool = field(repr=False)

    @property
    def block(self) -> str:
        """The beginning that ten mailings' names share, in the order of their numbers."""
        return self.mailing[:-1]


@dataclass(frozen=True, slots=True)
class Tries:
    """A game: the mailings of both tenants. `she` is the chosen recipient of all of them."""

    prefix: str
    crowd: Sequence[Try]
    small: Sequence[Try]
    she: str = field(repr=False)

    @property
    def all(self) -> Sequence[Try]:
        """The mailings of both."""
        return (*self.crowd, *self.small)

    def of(self, tenant: str) -> Sequence[Try]:
        """The mailings of one."""
        return self.crowd if tenant == CROWD else self.small


def plan(count: int, small: int, seed: int, prefix: str) -> Tries:
    """A game of so many mailings. `prefix` must begin the name of no mailing that there is.

    Of twenty after each other she acts in five of even number and in five others: whoever learns from one half which is
    likelier learns nothing. The seed is not what hides her.
    """
    coin = random.Random(seed)  # noqa: S311  see above
    crowd, few = _coins(count, coin), _coins(small, coin)
    return Tries(
        prefix,
        [Try(CROWD, f"{prefix}-c{n:05}", 2, 100, acted) for n, acted in enumerate(crowd)],
        [Try(SMALL, f"{prefix}-s{n:05}", n % 3, n % 3 + 1, acted) for n, acted in enumerate(few)],
        f"{prefix}-she@example.com",
    )


def _coins(count: int, coin: random.Random) -> list[bool]:
    found: list[bool] = []
    while len(found) < count:
        halves = [[True] * 5 + [False] * 5 for _ in (0, 1)]
        for half in halves:
            coin.shuffle(half)
        found += [one for pair in zip(*halves, strict=True) for one in pair]
    return found[:count]


def reached(stage: int) -> int:
    """The newest step that is published in a stage."""
    return max(step for step, hours in enumerate(HOURS) if hours <= STAGES[stage])


def drawn(figure: Figure, stage: int) -> int:
    """How many steps of a figure are published by the end of a stage."""
    return sum(step <= reached(stage) for step in figure.steps)


def is_late(kind: str, actor: str) -> bool:
    """Whether what is counted here arrives in the stage `LATE`."""
    return kind == "click" or actor == "machine"


def new_at(figure: Figure) -> int:
    """At which of a figure's own steps everybody who acts is new in it: what is late is new in the next one."""
    return drawn(figure, LATE - 1) if is_late(figure.kind, str(figure.actor)) else 0


# --- messages ---


def declarations(tries: Tries, sent_ms: int) -> Iterator[Message]:
    """All mailings, as sent at a moment."""
    for one in tries.all:
        value = {
            "tenant": one.tenant,
            "mailing": one.mailing,
            "name": one.mailing,
            "sent_at": format_time(sent_ms),
            "recipients": one.sent,
            "links": LINKS,
        }
        yield MAILINGS, f"{one.tenant}\x1f{one.mailing}".encode(), orjson.dumps(value)


def events(tries: Tries, stage: int, sent_ms: int) -> Iterator[Message]:
    """What arrives in a stage, all of it from within the first hour after sending.

    In the last one, after her erasure, she does everything once more.
    """
    for one in tries.all:
        who = [f"known{n}@example.com" for n in range(one.others)] if stage <= LATE else []
        for recipient in (*who, *([tries.she] if one.acted else [])):
            for number, (kind, actor, more) in enumerate(_everything()):
                if stage > LATE or is_late(kind, actor) == (stage == LATE):
                    value = {
                        "event_id": f"{one.mailing}:{recipient}:{number}:{stage > LATE}",
                        "kind": kind,
                        "tenant": one.tenant,
                        "mailing": one.mailing,
                        "recipient": recipient,
                        "occurred_at": format_time(sent_ms + 600_000),
                        "actor": actor,
                        **more,
                    }
                    yield EVENTS, message_key(one.tenant, recipient), orjson.dumps(value)


def _everything() -> Iterator[tuple[str, str, dict[str, str]]]:
    """Kind, actor, and the rest: all that moves a figure, once."""
    yield from (("open", "human", {"user_agent": agent}) for agent in AGENTS)
    yield "open", "machine", {}
    yield from (("click", actor, {"link": link}) for actor in ("human", "machine") for link in (*LINKS, "elsewhere"))


def choices(tries: Tries, now_ms: int) -> Iterator[Message]:
    """She agrees to everything, before anything was sent."""
    for tenant in (CROWD, SMALL):
        value = {
            "tenant": tenant,
            "recipient": tries.she,
            "decided_at": format_time(now_ms - 2 * STAGES[-1] * HOUR_MS),
            "purposes": {"engagement": {"open": "personal", "click": "personal"}},
            "proof": {"source": "form", "text_version": "1", "evidence": "attack"},
        }
        yield PREFERENCES, message_key(tenant, tries.she), orjson.dumps(value)


def withdrawals(tries: Tries, now_ms: int) -> Iterator[Message]:
    """She takes it all back."""
    for tenant in (CROWD, SMALL):
        value = {
            "tenant": tenant,
            "recipient": tries.she,
            "decided_at": format_time(now_ms),
            "purposes": {"engagement": {"open": "anonymous", "click": "anonymous"}},
        }
        yield PREFERENCES, message_key(tenant, tries.she), orjson.dumps(value)


def erasures(tries: Tries, now_ms: int) -> Iterator[Message]:
    """She asks for her erasure. The request's id is the prefix and the tenant."""
    for tenant in (CROWD, SMALL):
        value = {
            "tenant": tenant,
            "recipient": tries.she,
            "request_id": f"{tries.prefix}-{tenant}",
            "kind": "erasure",
            "requested_at": format_time(now_ms),
        }
        yield REQUESTS, message_key(tenant, tries.she), orjson.dumps(value)
