"""The targets by name. Each is a module with `seeds()` and `check(data)`; imported only when it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from typing import NamedTuple

NAMES = (
    "agent",
    "events",
    "preferences",
    "changes",
    "states",
    "mailings",
    "rejections",
    "strict_json",
    "native",
    "sendgrid",
    "mailgun",
    "postmark",
    "ses",
    "links",
    "recipients",
    "user_agents",
    "partitioner",
)


class Target(NamedTuple):
    """What can be fuzzed."""

    check: Callable[[bytes], None]
    """Raises when the bytes break a promise; else returns. The same bytes do the same at any time."""
    seeds: Callable[[], Iterable[bytes]]
    words: tuple[str, ...]
    """What the input is made of, for the engine's dictionary."""


def load(name: str) -> Target:
    """The target of a name out of `NAMES`."""
    module = importlib.import_module(f"tests.fuzz.targets.{name}")
    return Target(module.check, module.seeds, getattr(module, "WORDS", ()))
