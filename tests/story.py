"""A story for proofs: events and preferences of the same recipients, mixed, from a seed; of any length.

In it: four tenants whose settings differ in everything that matters, two purposes, both kinds, ceilings, declared and
undeclared links, a mailing that is declared anew in the middle, machines, spellings, retries, bad rows; grants,
withdrawals, step downs, "*", grants again, decisions that come out of date and two of the same time; erasures, some
asked for twice and some late, with grants before and after them; events that come late and events around the very
moment of a decision.

The same seed and `base_ms` give the same messages. Times end at `base_ms`, which has to lie in the past when the story
is sent: what is decided in the future would count from its arrival.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

from tests.lock import PROOF, Message, iso
from tests.reference.people import MODES, canonical, message_key, partition_of, tenants

HOUR_MS = 3_600_000
SPAN_MS = 6 * HOUR_MS  # how much time the story covers, however long it is
TENANTS = """
[acme.purposes.engagement]
ceiling = "personal"
[acme.purposes.advice]
ceiling = "pseudonymous"
retention = "90 days"
[beta]
local_part = "lower"
links = "path"
url_keys = ["product"]
[gamma.purposes.engagement]
ceiling = "pseudonymous"
[delta.purposes.engagement]
ceiling = "anonymous"
[delta.purposes.advice]
ceiling = "personal"
"""
AGENTS: dict[str | None, tuple[str, str]] = {
    None: ("other", "human"),
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36": (
        "desktop",
        "human",
    ),
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148": (
        "phone",
        "human",
    ),
    "Mozilla/5.0 (iPad; CPU OS 17_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148": (
        "tablet",
        "human",
    ),
    "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)": ("other", "human"),
    "Mozilla/5.0": ("other", "machine"),
    "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)": ("other", "machine"),
}
"""The truth about user agents: device and actor."""
LINKS = {"hero": "https://shop.example/hero?utm_source=nl", "deal": "https://shop.example/deal/"}
LATER_LINKS = {**LINKS, "news": "https://shop.example/news"}
URLS = (
    "https://shop.example/hero?rid={}#top",
    "HTTPS://Shop.example:443/deal?rid={}",
    "https://shop.example/news?rid={}",
    "https://shop.example/undeclared?product=7&rid={}",
    "https://shop.example/u/someone%40example.com?rid={}",
)
MAILINGS = ("m1", "m2", "m3", "undeclared")
MODES_ASKED = ("off", "anonymous", "anonymous", "pseudonymous", "pseudonymous", "personal", "personal", "personal")


class Story:
    """Iterate over `messages()` once."""

    def __init__(
        self,
        seed: int,
        events: int,
        base_ms: int,
        recipients: int = 1200,
        changes: float = 0.06,
        partitions: int = 4,
        erasures: float = 0.004,
    ) -> None:
        """`changes`, `erasures`: preferences and requests for each event; `events` counts retries and bad rows too."""
        self.events, self.base_ms, self._changes, self._partitions = events, base_ms, changes, partitions
        self._erasures = erasures
        self._asked: list[Message] = []
        self._chance = random.Random(seed)
        self._tenants = tenants(TENANTS)
        self._people = [self._person(number) for number in range(recipients)]
        self._decided: dict[int, int] = {}
        self._recent: list[Message] = []
        self._number = 0
        self._name = f"{seed:x}"

    def declarations(self, later: bool = False) -> list[Message]:
        """The mailings; m2 is declared anew, with one more link, when the story says so."""
        links = LATER_LINKS if later else LINKS
        ages = {"m1": 1, "m2": 30, "m3": 200}
        return [self._declared(tenant, name, ages[name], links) for tenant in self._tenants for name in MAILINGS[:3]]

    def messages(self) -> Iterator[Message]:
        """Topic, key, value."""
        yield from self.declarations()
        sent = 0
        again = False
        while sent < self.events:
            if not again and sent > self.events // 2:
                again = True
                yield from self.declarations(later=True)[1::3]
            now = self.base_ms - SPAN_MS + SPAN_MS * sent // self.events
            who = int(len(self._people) * self._chance.random() ** 2)  # some are busy, most are not
            if self._chance.random() < self._erasures:
                yield self._erasure(who, now)
                continue
            if self._chance.random() < self._changes:
                yield self._preference(who, now)
                for _ in range(min(self._chance.choice((0, 0, 1, 2, 3)), self.events - sent)):
                    yield self._event(who, now + self._chance.randint(-500, 500))
                    sent += 1
                continue
            yield self._any_event(who, now)
            sent += 1

    # --- who ---

    def _person(self, number: int) -> tuple[str, tuple[str, ...], bytes]:
        """Her tenant, her spellings, her key."""
        tenant = list(self._tenants)[number % 4]
        if number % 17 == 0:
            spellings: tuple[str, ...] = (f"K-{number}",)
        elif number % 13 == 0:
            spellings = (f"Zoë.{number}@münchen.example", f"Zoe\u0308.{number}@MÜNCHEN.example")
        else:
            spellings = (f"Erika.{number}@example.com", f" Erika.{number}@Example.COM")
        if self._tenants[tenant].lower_local:
            spellings += tuple(one.upper() for one in spellings if "@" in one)
        (name,) = {canonical(one, self._tenants[tenant].lower_local) for one in spellings}
        assert name is not None
        return tenant, spellings, message_key(tenant, name)

    # --- what they do ---

    def _any_event(self, who: int, now: int) -> Message:
        dice = self._chance.random()
        if dice < 0.03 and self._recent:
            return self._chance.choice(self._recent)  # the sender tries again
        if dice < 0.034:
            return self._bad(who, now)
        late = self._chance.choice((0, 0, 0, 0, 0, 0, 600_000, 600_000, 3 * HOUR_MS))
        return self._event(who, now - self._chance.randint(0, 2000 + late))

    def _event(self, who: int, at: int, **fields: Any) -> Message:
        chance = self._chance
        tenant, spellings, key = self._people[who]
        self._number += 1
        kind = chance.choice(("open", "open", "click"))
        value: dict[str, Any] = {
            "event_id": f"{self._name}-{self._number}",
            "kind": kind,
            "tenant": tenant,
            "mailing": chance.choice(MAILINGS),
            "recipient": spellings[0] if chance.random() < 0.9 else chance.choice(spellings),
            "occurred_at": at if tenant == "beta" else iso(at),
            "ip": "192.0.2.1",
        }
        agent = chance.choice(tuple(AGENTS))
        if agent is not None:
            value["user_agent"] = agent
        if chance.random() < 0.03:
            value["actor"] = chance.choice(("human", "machine"))
        if kind == "click":
            way = chance.random()
            if way < 0.5:
                value["link"] = chance.choice(("hero", "deal", "news", "nobody-declared-it"))
            if way > 0.4:
                value["url"] = chance.choice(URLS).format(self._number)
        if self._number % 3:
            value["feed"] = ("ses", "relay")[self._number % 2]
        value |= fields
        message = "tracking.events", key, json.dumps(value, ensure_ascii=self._number % 2 == 0).encode()
        if len(self._recent) < 5000:
            self._recent.append(message)
        else:
            self._recent[self._number % 5000] = message
        return message

    def _bad(self, who: int, now: int) -> Message:
        """A record with one fault. It is not tried again."""
        kept = list(self._recent)
        topic, key, value = self._event(who, now)
        self._recent = kept
        said = json.loads(value)
        match self._chance.randrange(9):
            case 0:
                return topic, key, value[:-2]
            case 1:
                return topic, key, value[:-1] + b', "kind": "open"}'
            case 2:
                del said["mailing"]
            case 3:
                said["occurred_at"] = "yesterday"
            case 4:
                said["kind"] = "bounce"
            case 5:
                said["tenant"] = "nobody"
            case 6:
                said["recipient"] = "erika@example..com"
            case 7:
                said["event_id"] = 4711
            case _:
                return topic, self._elsewhere(key), value
        return topic, key, json.dumps(said).encode()

    def _elsewhere(self, key: bytes) -> bytes:
        """A key of somebody whose records lie on another partition, if there are two at least."""
        here = partition_of(key, self._partitions)
        return next((other for _, _, other in self._people if partition_of(other, self._partitions) != here), key)

    # --- what they decide ---

    def _preference(self, who: int, now: int) -> Message:
        chance = self._chance
        tenant, spellings, key = self._people[who]
        dice = chance.random()
        decided = now - chance.randint(0, 1000)
        if dice < 0.05:
            decided = self._decided.get(who, decided)  # the same time as the newest one
        elif dice < 0.15:
            decided -= chance.randint(0, 2 * HOUR_MS)  # most of them are out of date
        self._decided[who] = max(decided, self._decided.get(who, 0))
        value: dict[str, Any] = {
            "tenant": tenant,
            "recipient": chance.choice(spellings),
            "decided_at": iso(decided),
        }
        if chance.random() < 0.12:
            value |= {"purposes": "*", "mode": chance.choice(("off", "anonymous"))}
        else:
            purposes = list(self._tenants[tenant].purposes)
            chosen = chance.sample(purposes, chance.randint(1, len(purposes)))
            value["purposes"] = {
                purpose: {
                    kind: chance.choice(MODES_ASKED)
                    for kind in chance.choice((("open",), ("click",), ("open", "click")))
                }
                for purpose in chosen
            }
            grants = any(MODES[mode] > 1 for kinds in value["purposes"].values() for mode in kinds.values())
            if grants or chance.random() < 0.5:
                value["proof"] = {**PROOF, "evidence": f"mail {self._number}"}
        return "tracking.preferences", key, json.dumps(value).encode()

    def _erasure(self, who: int, now: int) -> Message:
        chance = self._chance
        if self._asked and chance.random() < 0.15:
            return chance.choice(self._asked)  # the sender tries again: she may have granted anew since
        tenant, spellings, key = self._people[who]
        self._number += 1
        at = now - chance.choice((0, 500, HOUR_MS // 2, 2 * HOUR_MS))
        value = {
            "tenant": tenant,
            "recipient": chance.choice(spellings),
            "request_id": f"{self._name}-{self._number}",
            "kind": "erasure",
            "requested_at": iso(at),
        }
        self._asked.append(("tracking.requests", key, json.dumps(value).encode()))
        return self._asked[-1]

    def _declared(self, tenant: str, name: str, hours: int, links: dict[str, str]) -> Message:
        value = {
            "tenant": tenant,
            "mailing": name,
            "name": name,
            "sent_at": iso(self.base_ms - SPAN_MS - hours * HOUR_MS),
            "recipients": len(self._people),
            "links": links,
        }
        return "tracking.mailings", f"{tenant}\x1f{name}".encode(), json.dumps(value).encode()
