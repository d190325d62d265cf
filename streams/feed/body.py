"""Picking typed fields out of a body that `streams.strict_json` has read.

The outermost value may be an array, and a name that comes twice is refused in whatever object is looked into, also an
inner one. All errors name the field of *our* message and the vendor's place for it, never a value.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from streams.errors import BadRow, Reason
from streams.strict_json import Pairs

MAX_EVENT_ID = 64
_LATEST_SECONDS = 1e11  # the year 5138; `records.record` judges the time itself


def checked_object(value: Any, what: str) -> dict[str, Any]:
    """The value as an object in which no name comes twice; `what` says in fixed words what it should have been."""
    if not isinstance(value, Pairs):
        raise BadRow(Reason.WRONG_TYPE, None, what)
    if value.twice:
        raise BadRow(Reason.DUPLICATE_FIELD, None, "each name once")
    return value


def has_twins(value: Any) -> bool:
    """Whether a name comes twice in an object in this value, however deep."""
    if isinstance(value, Pairs):
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
