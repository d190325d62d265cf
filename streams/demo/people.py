"""The people of the demo: addresses under reserved domains (RFC 2606, RFC 6761), and how they read their mail."""

from __future__ import annotations

import random
from dataclasses import dataclass

from pseudonymizer.recipients import canonical
from streams.demo.senders import APPLE_AGENTS, BROWSERS, GOOGLE, PEOPLE_AGENTS, PEOPLE_WEIGHTS, YAHOO, Sender
from streams.partitioner import message_key

NEVER = 1 << 62  # later than every event: is not counted
ALWAYS = -1

_FIRST = (
    *("erika", "max", "anna", "jürgen", "ayşe", "mehmet", "li", "zoë", "björn", "jan", "renée", "françois", "søren"),
    *("małgorzata", "ingrid", "karl", "sabine", "uwe", "fatma", "dieter", "monika", "øyvind", "hans", "petra", "noah"),
    *("emma", "ludwig", "marie", "ida", "paul"),
)
_LAST = (
    *("mustermann", "müller", "schmidt", "schneider", "weiß", "yildiz", "nguyen", "o'neill", "o'brien", "kowalski"),
    *("von-der-heide", "großmann", "garcía", "bauer", "krüger", "wolf", "neumann", "zimmermann", "braun", "hofmann"),
    *("lange", "schröder", "kaya", "peters"),
)
_DOMAINS = (
    *("example.com", "example.org", "example.net", "mail.example", "post.example", "web.example", "firma.example"),
    *("Example.COM", "bücher.example", "müller-söhne.example", "mail.straße.example"),
)
_DOMAIN_WEIGHTS = (22, 12, 12, 16, 10, 14, 5, 2, 1.5, 1.5, 1)


@dataclass(slots=True, repr=False)
class Person:
    """One recipient of one sender. `repr` shows nothing."""

    spelling: str
    """As the sender has it."""
    other_spelling: str
    """As the sender has it in some events: other capitals, a blank. The same canonical form."""
    canonical: str
    key: bytes
    opens_with: int
    clicks_with: int
    prefetched: bool
    gateway: bool
    keenness: float
    counts_from: tuple[int, int] = (ALWAYS, ALWAYS)
    """For opens and clicks: what occurred earlier is `off`."""
    silent: bool = False
    """Gets mail and never does anything, nor does a machine for her."""

    def __repr__(self) -> str:
        return "Person(...)"


def people_of(sender: Sender, count: int, draw: random.Random) -> list[Person]:
    """`count` people, each with a canonical form of her own."""
    agents = draw.choices(range(len(PEOPLE_AGENTS)), PEOPLE_WEIGHTS, k=count)
    domains = draw.choices(_DOMAINS, _DOMAIN_WEIGHTS, k=count)
    taken: set[str] = set()
    people: list[Person] = []
    for number, (agent, domain) in enumerate(zip(agents, domains, strict=True)):
        spelling = f"{_local_part(number, draw)}@{domain}"
        form = canonical(spelling, sender.lower_local)
        if form in taken:
            spelling = f"{spelling.partition('@')[0]}.{number}@{domain}"
            form = canonical(spelling, sender.lower_local)
        taken.add(form)
        people.append(
            Person(
                spelling,
                _respelt(spelling, sender.lower_local),
                form,
                message_key(sender.tenant, form),
                agent,
                draw.choice(BROWSERS) if agent in (GOOGLE, YAHOO) else agent,
                agent in APPLE_AGENTS and draw.random() < 0.7,
                domain == "firma.example" or draw.random() < sender.gateways,
                draw.lognormvariate(-0.3, 0.8),
            )
        )
    return people


def _local_part(number: int, draw: random.Random) -> str:
    first, last = draw.choice(_FIRST), draw.choice(_LAST)
    style = number % 8
    if style == 0:
        return f"{first}.{last}"
    if style == 1:
        return f"{first[0]}.{last}{number % 97}"
    if style == 2:
        return f"{first}+post{number}"
    if style == 3:
        return f"{first.title()}.{last.title()}"
    return f"{first}{number}" if style < 6 else f"{last}.{first}{number % 1000}"


def _respelt(spelling: str, lower_local: bool) -> str:
    local, _, domain = spelling.partition("@")
    return f" {local.title() if lower_local else local}@{domain.title()}"
