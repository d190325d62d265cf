"""Why a record was refused, and the sealed message that says so (tracking.rejected).

A rejection has the record's coordinates and what was expected, never a value. The record's key and value lie in it
sealed under a key of the day that is destroyed after 14 days: what cannot be read cannot be found by its recipient, so
it must not be kept. A record that was sent again leaves a note beside its rejection, so that it is not sent twice.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import orjson

from pseudonymizer.keys import encode
from pseudonymizer.sealing import SealBroken, open_sealed, seal
from streams.errors import BadRow, Reason, SchleuseError
from streams.messages import format_time, parse_time

MOST_SEALED = 256_000  # bytes of key and value; what is larger is dropped, and its size says so
_NONE, _BYTES = b"\0", b"\1"


class Stage(StrEnum):
    """Where a record was refused."""

    EVENTS = "events"
    PREFERENCES = "preferences"
    REQUESTS = "requests"
    MAILINGS = "mailings"
    CHANGES = "changes"


class NotARejection(SchleuseError):
    """A record of tracking.rejected is not one of ours."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """One record that was refused.

    `at_ms` is epoch milliseconds; `size` the bytes of its value; `field` a name of our own format. `sealed` is None
    when the content was too large to keep; else `key_id` names the day whose key opens it. A caller may NOT assume that
    each is there once: a claim that is carried out again sends its rejections again, under the same id.
    """

    topic: str
    partition: int
    offset: int
    at_ms: int
    stage: Stage
    reason: Reason
    field: str | None
    expected: str | None
    size: int
    sealed: bytes | None = dataclasses.field(repr=False)
    key_id: str | None

    @property
    def id(self) -> str:
        """The source's coordinates."""
        return rejection_id(self.topic, self.partition, self.offset)

    def encode(self) -> bytes:
        """The message, JSON in UTF-8."""
        message: dict[str, Any] = {
            "rejection_id": self.id,
            "at": format_time(self.at_ms),
            "stage": str(self.stage),
            "reason": str(self.reason),
            "source": {"topic": self.topic, "partition": self.partition, "offset": self.offset},
            "field": self.field,
            "expected": self.expected,
            "size": self.size,
        }
        if self.sealed is not None:
            message |= {"sealed": base64.b64encode(self.sealed).decode(), "key_id": self.key_id}
        return orjson.dumps(message)


@dataclass(frozen=True, slots=True)
class Replayed:
    """A note that a rejected record was sent again, and where to."""

    rejection_id: str
    at_ms: int
    topic: str
    partition: int
    offset: int

    def encode(self) -> bytes:
        """The message, JSON in UTF-8."""
        to = {"topic": self.topic, "partition": self.partition, "offset": self.offset}
        return orjson.dumps({"rejection_id": self.rejection_id, "at": format_time(self.at_ms), "replayed_to": to})


def rejection_id(topic: str, partition: int, offset: int) -> str:
    """The id of a record's rejection: where the record lies."""
    return f"{topic}:{partition}:{offset}"


def parse(value: bytes | None) -> Rejection | Replayed:
    """Read a message of tracking.rejected. Raises NotARejection, without what it holds."""
    try:
        message = orjson.loads(value or b"")
        at_ms = parse_time(message["at"], "at", None)
        if (to := message.get("replayed_to")) is not None:
            return Replayed(
                str(message["rejection_id"]), at_ms, str(to["topic"]), _whole(to["partition"]), _whole(to["offset"])
            )
        source, sealed, texts = message["source"], message.get("sealed"), (message["field"], message["expected"])
        if any(not isinstance(text, str | None) for text in (*texts, message.get("key_id"))):
            raise TypeError
        return Rejection(
            topic=str(source["topic"]),
            partition=_whole(source["partition"]),
            offset=_whole(source["offset"]),
            at_ms=at_ms,
            stage=Stage(message["stage"]),
            reason=Reason(message["reason"]),
            field=texts[0],
            expected=texts[1],
            size=_whole(message["size"]),
            sealed=base64.b64decode(sealed, validate=True) if sealed is not None else None,
            key_id=message.get("key_id") if sealed is not None else None,
        )
    except (ValueError, TypeError, KeyError, AttributeError, BadRow, binascii.Error):
        raise NotARejection("a record of tracking.rejected is not a rejection") from None


def _whole(value: Any) -> int:
    if not isinstance(value, int):
        raise TypeError
    return value


# --- content ---


def seal_content(day_key: bytes, key: bytes | None, value: bytes | None, number: str, nonce: bytes) -> bytes | None:
    """A record's key and value, sealed for the place that `number` (its rejection id) names; None if too large.

    `nonce`: 12 bytes never used with this key before. None and empty stay apart: a tombstone opens as a tombstone.
    """
    if len(key or b"") + len(value or b"") > MOST_SEALED:
        return None
    content = encode(*(_NONE if part is None else _BYTES + part for part in (key, value)))
    return seal(day_key, content, _place(number), nonce)


def open_content(day_key: bytes, sealed: bytes, number: str) -> tuple[bytes | None, bytes | None]:
    """Key and value of a sealed record. Raises SealBroken: another key, another place, or changed bytes."""
    content = open_sealed(day_key, sealed, _place(number))
    size = int.from_bytes(content[:4], "big")
    parts = content[4 : 4 + size], content[8 + size :]
    if len(content) < 10 or encode(*parts) != content:
        raise SealBroken("what was sealed is not a record")
    first, second = (part[1:] if part[:1] == _BYTES else None for part in parts)
    return first, second


def _place(number: str) -> bytes:
    return b"schleuse/rejected/" + number.encode()


# --- what lies in the topic ---


@dataclass(frozen=True, slots=True)
class Listed:
    """A rejection as an operator sees it, and whether it was sent again."""

    rejection: Rejection
    replayed: bool = False


def gather(values: list[bytes | None]) -> tuple[dict[str, Listed], int]:
    """The rejections of a topic's records, each once, oldest first; and how many records were none of ours."""
    found: dict[str, Listed] = {}
    noted: set[str] = set()
    strange = 0
    for value in values:
        try:
            message = parse(value)
        except NotARejection:
            strange += 1
            continue
        if isinstance(message, Replayed):
            noted.add(message.rejection_id)
        else:
            found[message.id] = Listed(message)
    listed = {number: replace(one, replayed=number in noted) for number, one in found.items()}
    return dict(sorted(listed.items(), key=lambda item: item[1].rejection.at_ms)), strange
