"""The rules for what kept libraries do not know, read once from `rules.toml`."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Any

LONGEST = 512
"""Characters of a user agent that are looked at: real ones say what they are long before, and time stays bounded."""


class Actor(StrEnum):
    """Who acted. An image proxy that fetches when a person opens is `HUMAN`."""

    HUMAN = "human"
    MACHINE = "machine"


@dataclass(frozen=True, slots=True)
class AgentRule:
    """Holds for a folded user agent that is one of `whole`, starts with one of `starts` or contains one of `parts`."""

    actor: Actor
    whole: frozenset[str]
    starts: tuple[str, ...]
    parts: tuple[str, ...]

    def holds(self, folded: str) -> bool:
        """`folded` is what `fold` gave."""
        return folded in self.whole or folded.startswith(self.starts) or _has(folded, self.parts)


@dataclass(frozen=True, slots=True)
class Rules:
    """One version of the rules."""

    version: int
    library: str
    """The release of ua-parser-builtins that belongs to this version."""
    image_proxies: tuple[str, ...]
    agents: tuple[AgentRule, ...]
    networks: tuple[tuple[IPv4Network | IPv6Network, Actor], ...]

    def is_image_proxy(self, folded: str) -> bool:
        """Whether a mailbox provider fetched the image for a person who opened."""
        return _has(folded, self.image_proxies)

    def by_agent(self, folded: str) -> Actor | None:
        """What the first rule that holds says; None: no rule knows."""
        if self.is_image_proxy(folded):
            return Actor.HUMAN
        return next((rule.actor for rule in self.agents if rule.holds(folded)), None)

    def by_ip(self, ip: str | None) -> Actor | None:
        """What the first network that holds `ip` says; None: no network does, or `ip` is not an address."""
        if not ip or not self.networks:
            return None
        try:
            address = ip_address(ip.strip())
        except ValueError:
            return None
        return next((actor for network, actor in self.networks if address in network), None)


def fold(user_agent: str) -> str:
    """The user agent as rules look at it: trimmed, the first `LONGEST` characters, in lower case. Never raises."""
    return user_agent[: 2 * LONGEST].strip()[:LONGEST].lower()


def parse(text: str) -> Rules:
    """Rules from TOML. Raises KeyError, TypeError or ValueError when they are not whole: a release's own fault."""
    read = tomllib.loads(text)
    return Rules(
        version=int(read["version"]),
        library=str(read["library"]),
        image_proxies=_folded(read["image_proxies"]),
        agents=tuple(_agent_rule(table) for table in read["user_agent"]),
        networks=tuple(
            (ip_network(network), Actor(table["actor"]))
            for table in read.get("ip", ())
            for network in table["networks"]
        ),
    )


def _agent_rule(table: dict[str, Any]) -> AgentRule:
    unknown = table.keys() - {"name", "source", "actor", "whole", "starts", "contains"}
    if unknown or not table["name"] or not table["source"]:
        raise ValueError("a rule has a name, a source, an actor and whole, starts or contains")
    whole, starts, parts = (_folded(table.get(key, ())) for key in ("whole", "starts", "contains"))
    return AgentRule(Actor(table["actor"]), frozenset(whole), starts, parts)


def _folded(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(value.lower() for value in values)


def _has(folded: str, parts: tuple[str, ...]) -> bool:
    return any(part in folded for part in parts)


RULES = parse(Path(__file__).with_name("rules.toml").read_text("utf-8"))
