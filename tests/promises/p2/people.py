"""Recipients who look like people, and as many decoys of the same form who are in no message at all."""

from __future__ import annotations

import random
from dataclasses import dataclass

from streams.partitioner import message_key, partition_of

TENANT, PARTITIONS = "native", 4
CHOICES = ("personal", "personal", "pseudonymous", "anonymous", "off", "unknown")
FIRST = [
    "Erika",
    "Max",
    "Jo",
    "Anneliese",
    "Li",
    "Thuy-Linh",
    "Friedrich-Wilhelm",
    "Pia",
    "Katharina",
    "Maximilian",
    "Bo",
]
LAST = [
    "Mustermann",
    "Ng",
    "Wu",
    "Schmidt",
    "von-Hohenfels",
    "Oberhuber",
    "Meier",
    "Leutheusser-Schnarrenberger",
    "Kim",
]
DOMAINS = ["example.com", "example.org", "mail.example", "x.example", "universitaet-musterstadt.example", "a.example"]


@dataclass(frozen=True, slots=True)
class Pair:
    """A recipient and a decoy who would lie on the same partition; what she chose."""

    mode: str
    recipient: str
    decoy: str
    stranger: str
    """A second decoy, on whatever partition."""


def address(draw: random.Random) -> str:
    """An address as people have them, of very different lengths; the digits make it one of its kind."""
    first, last = draw.choice(FIRST), draw.choice(LAST)
    form = draw.choice(("{f}.{l}{n}", "{f}{n}", "{l}.{n}", "{f}.{l}.{n}+news"))
    return f"{form.format(f=first, l=last, n=draw.randrange(10**5))}@{draw.choice(DOMAINS)}"


def pairs(seed: int, count: int) -> list[Pair]:
    """So many pairs, all addresses different, their choices taking turns."""
    draw = random.Random(seed)
    taken: set[str] = set()

    def fresh() -> str:
        while (found := address(draw)) in taken:
            pass
        taken.add(found)
        return found

    result = []
    for number in range(count):
        recipient, decoy = fresh(), fresh()
        where = partition_of(message_key(TENANT, recipient), PARTITIONS)
        while partition_of(message_key(TENANT, decoy), PARTITIONS) != where:
            decoy = fresh()
        result.append(Pair(CHOICES[number % len(CHOICES)], recipient, decoy, fresh()))
    return result
