"""Strict reading of a body, and picking typed fields out of it.

As strict as `streams.strict_json`, which reads single objects of our own: UTF-8, JSON and nothing else, no NaN, no lone
surrogate, bounded in size and depth. Here the outermost value may be an array, and a name that comes twice is refused
in whatever object is looked into, also an inner one. All errors name the field of *our* message and the vendor's place
for it, never a value.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, NoReturn

from streams.errors import BadRow, Reason
from streams.strict_json import MAX_BYTES, MAX_DEPTH, depth

MAX_EVENT_ID = 64
_LATEST_SECONDS = 1e11  # the year 5138; `records.record` judges the time itself


class _Object(dict[str, Any]):
    """An object that remembers whether a name came twice."""

    __slots__ = ("twice",)

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.twice = len(self) != len(pairs)


def _no_constant(_: str) -> NoReturn:
    raise ValueError


_DECODER = json.JSONDecoder(object_pairs_hook=_Object, parse_constant=_no_constant)


def parse(body: bytes) -> Any:
    """Read one JSON value. Raises BadRow with `too_large`, `too_deep` or `not_json`; nothing else."""
    if len(body) > MAX_BYTES:
        raise BadRow(Reason.TOO_LARGE, None, f"at most {MAX_BYTES} bytes")
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        raise BadRow(Reason.NOT_JSON, None, "UTF-8") from None
    return parse_text(text)


def parse_text(text: str) -> Any:
    """`parse` for text that lies in a string of another body (Amazon's SNS packs the event so)."""
    if text.count("{") + text.count("[") > MAX_DEPTH and depth(text) > MAX_DEPTH:
        raise BadRow(Reason.TOO_DEEP, None, f"at most {MAX_DEPTH} levels")
    try:
        value = _DECODER.decode(text)
        if "\\u" in text:  # the only way a lone surrogate gets in
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError):  # UnicodeEncodeError is a ValueError
        raise BadRow(Reason.NOT_JSON, None, "one JSON value") from None
    return value


def checked_object(value: Any, what: str) -> dict[str, Any]:
    """The value as an object in which no name comes twice; `what` says in fixed words what it should have been."""
    if not isinstance(value, _Object):
        raise BadRow(Reason.WRONG_TYPE, None, what)
    if value.twice:
        raise BadRow(Reason.DUPLICATE_FIELD, None, "each name once")
    return value


def has_twins(value: Any) -> bool:
    """Whether a name comes twice in an object in this value, however deep."""
    if isinstance(value, _Object):
        return value.twice or any(map(has_twins, value.values()))
    return isinstance(value, list) and any(map(has_twins, value))


def inner(outer: dict[str, Any], name: str) -> dict[str, Any]:
    """An object inside; absent or null is an empty one."""
    value = outer.get(name)
    return {} if value is None else checked_object(value, f"{name}: an object")


def text(fields: dict[str, Any], name: str, ours: str) -> str | None:
    """A string at the vendor's `name` for our field `ours`; absent, null and empty are all None."""
    value = fields.get(name)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise BadRow(Reason.WRONG_TYPE, ours, f"{name}: a string")
    return value


def needed_text(fields: dict[str, Any], name: str, ours: str) -> str:
    """`text`, but it has to be there."""
    value = text(fields, name, ours)
    if value is None:
        raise BadRow(Reason.MISSING_FIELD, ours, name)
    return value


def milliseconds(fields: dict[str, Any], name: str, ours: str) -> int:
    """Seconds since 1970, whole or with a fraction, as milliseconds."""
    value = fields.get(name)
    if value is None:
        raise BadRow(Reason.MISSING_FIELD, ours, name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadRow(Reason.WRONG_TYPE, ours, f"{name}: seconds since 1970")
    if not 0 <= value < _LATEST_SECONDS:  # 1e999 is infinite, and refused by this too
        raise BadRow(Reason.BAD_TIME, ours, f"{name}: seconds since 1970")
    return round(value * 1000)


def mailing(named: Any, tags: Any, expected: str) -> str:
    """The mailing: what the sender's own field says (`named`), else the first tag (`tags`: a string or an array).

    `expected` says where it was looked for. A number in the sender's own field is taken as its digits.
    """
    if isinstance(named, int) and not isinstance(named, bool):
        return str(named)
    if named is not None and not isinstance(named, str):
        raise BadRow(Reason.WRONG_TYPE, "mailing", expected)
    tag = tags[0] if isinstance(tags, list) and tags else tags
    found = named or tag
    if not isinstance(found, str) or not found:
        raise BadRow(Reason.MISSING_FIELD, "mailing", expected)
    return found


def fitting_id(vendor_id: str) -> str:
    """The vendor's id of an event, or its SHA-256 where it is longer than ours may be."""
    return vendor_id if len(vendor_id) <= MAX_EVENT_ID else made_id("sha256", vendor_id)


def made_id(prefix: str, *parts: str) -> str:
    """An id of 64 characters that is the same for the same parts. Not for hiding the parts: it has no secret."""
    digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    return f"{prefix}-{digest}"[:MAX_EVENT_ID]


def event(**fields: Any) -> dict[str, Any]:
    """The fields of an event that are there, in the order given."""
    return {name: value for name, value in fields.items() if value is not None}


def withdrawal(tenant: str | None, recipient: str, decided_at: str | int, mode: str) -> dict[str, Any]:
    """A message of `tracking.preferences` that lowers everything to `mode`. It needs no proof."""
    return {"tenant": tenant, "recipient": recipient, "decided_at": decided_at, "purposes": "*", "mode": mode}
