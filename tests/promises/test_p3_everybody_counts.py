"""P3: totals and uniques include everybody who is not `off`, and stay as they are when people change their minds."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

import pytest

from streams.stores import Store
from tests.lock import Lock, Message, event, key, mailing, now_ms, preference

pytestmark = pytest.mark.stack

MAILINGS = ("p3-a", "p3-b")
LINKS = {"hero": "https://x.example/produkt", "pdf": "https://x.example/liste.pdf"}
URLS = {
    "https://x.example/produkt?rid=4711": "hero",
    "https://X.example:443/produkt/#oben": "hero",
    "https://x.example/liste.pdf?email=erika%40example.com": "pdf",
    "https://x.example/konto/erika": "other",
}
AGENTS = {
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko)": "human",
    "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)": "human",
    "Mozilla/5.0": "machine",
    "Barracuda Sentinel (EE)": "machine",
}
# How a person came to her mode; nobody in the first two has ever said anything that is above anonymous.
MODES = ("unknown", "anonymous", "pseudonymous", "personal", "off")
Cell = tuple[str, str, str, str | None, str]


def spellings(tenant: str, who: str) -> list[str]:
    """The same mailbox, written as senders write it."""
    local, _, domain = who.partition("@")
    found = [who, f"  {who}", f"{local}@{domain.upper()}"]
    return [*found, f"{local.upper()}@{domain}"] if tenant == "beta" else found


@dataclass
class Truth:
    """A plain count of everything that is sent."""

    events: Counter[Cell] = field(default_factory=Counter)
    people: dict[Cell, set[str]] = field(default_factory=lambda: defaultdict(set))
    off: int = 0
    retries: int = 0

    def note(self, cell: Cell, who: str) -> None:
        for one in {cell, (*cell[:3], None, cell[4])}:
            self.events[one] += 1
            self.people[one].add(who)

    def totals(self) -> dict[Cell, tuple[int, int]]:
        return {cell: (count, len(self.people[cell])) for cell, count in self.events.items()}


def hits(
    chance: random.Random, people: list[tuple[str, str, str]], off: set[str], number: int, truth: Truth
) -> list[Message]:
    """So many events of people of all modes, one in ten sent again; those who are `off` are told apart in the truth."""
    messages: list[Message] = []
    for _ in range(number):
        tenant, who, _ = chance.choice(people)
        name, agent = chance.choice(MAILINGS), chance.choice(list(AGENTS))
        fields: dict[str, Any] = {
            "mailing": name,
            "user_agent": agent,
            "occurred_at": now_ms() - chance.randrange(5000),
        }
        link = None
        if chance.random() < 0.4:
            fields["kind"] = "click"
            url = chance.choice(list(URLS))
            link = URLS[url]
            fields |= {"link": link} if chance.random() < 0.3 else {"url": url}
        if chance.random() < 0.1:
            fields["actor"] = "machine"
        written = chance.choice(spellings(tenant, who))
        message = event(tenant, written, key=key(tenant, who), **fields)
        messages.append(message)
        if chance.random() < 0.1:
            messages.append(message)
            truth.retries += 1
        if who in off:
            truth.off += 1
        else:
            truth.note((tenant, name, fields.get("kind", "open"), link, fields.get("actor", AGENTS[agent])), who)
    return messages


def of_these(totals: dict[tuple[Any, ...], tuple[int, int]]) -> dict[tuple[Any, ...], tuple[int, int]]:
    return {cell: total for cell, total in totals.items() if cell[1] in MAILINGS}


def test_figures_count_all_modes_and_stay_when_people_change_their_minds(lock: Lock) -> None:
    chance = random.Random(11)
    people = [(t, f"p3.{mode}.{n}@example.com", mode) for t in ("acme", "beta") for mode in MODES for n in range(12)]
    who_is = {mode: [(t, who) for t, who, of in people if of == mode] for mode in MODES}
    both = {
        mode: [
            preference(t, who, {"engagement": {"open": mode, "click": mode}}, now_ms() - 60_000)
            for t, who in who_is[mode]
        ]
        for mode in MODES[1:]
    }
    start = lock.settle()
    changes = sum(line["next_change"] for line in start["partitions"])
    lock.send([mailing(t, name, LINKS) for t in ("acme", "beta") for name in MAILINGS])
    decided = [one for of_mode in both.values() for one in of_mode]
    lock.send(decided)
    changes += len(decided)
    lock.settle(changes=changes)

    truth, off = Truth(), {who for _, who in who_is["off"]}
    lock.send(hits(chance, people, off, 1500, truth))
    said = lock.settle()
    assert of_these(lock.totals()) == truth.totals()
    assert (said["off"] - start["off"], said["duplicates"] - start["duplicates"]) == (truth.off, truth.retries)
    rows = "SELECT count(), uniqExact(pseudonym) FROM engagement WHERE mailing IN ('p3-a', 'p3-b')"
    ((before, pseudonyms),) = lock.rows(Store.ANALYTICS, rows)
    agreed = {
        (tenant, who, cell[2])
        for cell, them in truth.people.items()
        for tenant, who in [*who_is["pseudonymous"], *who_is["personal"]]
        if cell[0] == tenant and who in them
    }
    assert pseudonyms == len(agreed) > 80, "everybody who agreed has a row, opens and clicks under two pseudonyms"

    # A third withdraws to anonymous, a third to off; of those who are known, the rest steps down. Nobody is uncounted.
    minds: list[Message] = []
    for mode in MODES[:4]:
        for index, (tenant, who) in enumerate(who_is[mode]):
            if index % 3 == 0:
                minds.append(preference(tenant, who, "*", mode="anonymous"))
            elif index % 3 == 1:
                minds.append(preference(tenant, who, "*", mode="off"))
                off.add(who)
            elif mode == "personal":
                minds.append(preference(tenant, who, {"engagement": {"open": "pseudonymous", "click": "pseudonymous"}}))
    back = [who for _, who in who_is["off"]][::2]
    minds += [
        preference(tenant, who, {"engagement": {"open": "anonymous", "click": "anonymous"}}, now_ms() - 30_000)
        for tenant, who in who_is["off"]
        if who in back
    ]
    lock.send(minds)
    changes += len(minds)
    lock.settle(changes=changes)
    lock.until(lambda: 0 < lock.rows(Store.ANALYTICS, rows)[0][0] < before, what="rows to go")
    assert of_these(lock.totals()) == truth.totals(), "figures did not"

    # Who comes back is the same person in the same cell; who is off now does not count; what she did before stays.
    off -= set(back)
    lock.send(hits(chance, people, off, 1500, truth))
    late = [
        event("acme", who, mailing="p3-a", occurred_at=now_ms() - 40_000)
        for who in back
        if ("acme", who) in who_is["off"]
    ]
    lock.send(late)  # of the time when they were off
    truth.off += len(late)
    said = lock.settle()
    assert of_these(lock.totals()) == truth.totals()
    assert (said["off"] - start["off"], said["duplicates"] - start["duplicates"]) == (truth.off, truth.retries)
    assert said["adds_up"]
    assert said["rejected"] == start["rejected"]
