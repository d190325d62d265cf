"""Changing JSON as JSON: bytes changed at random are hardly ever JSON any more, and never get past the first check."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Sequence
from typing import Any

VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**53, 2**63, -(2**63), 10**30, 1.5, 1e300, float("inf")),
    *("", " ", "*", "@", "%40", "\0", "\x85", "\xa0", "\ud800", "ü", "\N{GRINNING FACE}", "a@b.example", "x" * 600),
    *([], {}, [[]], [None], {"": 0}, [{}, {}]),
)


def mutate(data: bytes, words: Sequence[str], dice: random.Random) -> bytes | None:
    """The same JSON with one to three places changed, or None if it is not JSON."""
    try:
        value = json.loads(data)
        for _ in range(dice.randint(1, 3)):
            value = _changed(value, words, dice)
        text = json.dumps(value, ensure_ascii=dice.random() < 0.5, separators=dice.choice(((",", ":"), (", ", ": "))))
    except (ValueError, RecursionError):
        return None
    if dice.random() < 0.1:  # a name twice
        name = json.dumps(dice.choice(words) if words else "x")
        text = text.replace("{", f"{{{name}:{json.dumps(_value(dice))},", 1)
    return text.encode("utf-8", "surrogatepass")


def _changed(value: Any, words: Sequence[str], dice: random.Random) -> Any:
    places = list(_places(value))
    if not places or dice.random() < 0.02:
        return _value(dice)
    container, key = dice.choice(places)
    inner = container[key]
    match dice.randrange(5):
        case 0:
            del container[key]
        case 1:
            container[key] = _value(dice)
        case 2 if isinstance(inner, str) and inner[:1] in ("{", "["):
            packed = mutate(inner.encode(), words, dice)
            container[key] = packed.decode("utf-8", "replace") if packed else _value(dice)
        case 3 if words and isinstance(container, dict):
            container[dice.choice(words)] = dice.choice((inner, _value(dice), dice.choice(words)))
        case 4:  # what stands elsewhere
            other, place = dice.choice(places)
            container[key] = other[place]
            value = json.loads(json.dumps(value))  # two places, not one place twice, and never a ring
        case _:
            container[key] = dice.choice(words) if words else _value(dice)
    return value


def _value(dice: random.Random) -> Any:
    return copy.deepcopy(dice.choice(VALUES))  # it may be changed within later


def _places(value: Any) -> Any:
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _places(value[key])
