"""One record of tracking.events: what it says, or why it is refused; and which link and step it counts under.

For records with one fault at most. Which of several faults is told is not the reference's business.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from datetime import UTC, datetime, timedelta
from functools import cache, lru_cache
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

from tests.reference.people import Tenant

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)
DAY_MS, HOUR_MS = 86_400_000, 3_600_000
STEP_HOURS = (*range(1, 25), *range(30, 73, 6), *range(96, 169, 24), 336, 504, 672, 720)
NEEDED = ("event_id", "kind", "tenant", "mailing", "recipient")
TEXTS = {
    "event_id": 64,
    "tenant": 64,
    "mailing": 128,
    "recipient": 320,
    "link": 64,
    "url": 8192,
    "user_agent": 2048,
    "ip": 64,
    "feed": 64,
}


class Refused(Exception):
    """The record is a rejection, for this reason."""


class Twice(Exception):
    """An object has a name twice."""


def read(raw: bytes | None, now_ms: int) -> tuple[dict[str, Any], int]:  # noqa: PLR0912  # one rule a branch
    """The event and when it occurred. Raises Refused."""
    if raw is None:
        raise Refused("tombstone")
    try:
        event = _DECODER.decode(raw.decode())
    except Twice:
        raise Refused("duplicate_field") from None
    except ValueError:
        raise Refused("not_json") from None
    if type(event) is not dict:
        raise Refused("not_json")
    for name in NEEDED:
        if event.get(name) is None:
            raise Refused("missing_field")
    for name, longest in TEXTS.items():
        value = event.get(name)
        if value is not None and type(value) is not str:
            raise Refused("wrong_type")
        if value is not None and len(value) > longest:
            raise Refused("bad_recipient" if name == "recipient" else "bad_value")
    kind = event["kind"]
    if kind not in ("open", "click"):
        raise Refused("unknown_kind")
    for name in ("tenant", "mailing"):
        if not event[name] or "@" in event[name]:
            raise Refused("bad_value")
    if event.get("actor") not in (None, "human", "machine"):
        raise Refused("bad_value")
    occurred = time(event.get("occurred_at"))
    if not now_ms - 400 * DAY_MS <= occurred <= now_ms + 600_000:
        raise Refused("bad_time")
    if kind == "click" and not event.get("link") and not event.get("url"):
        raise Refused("missing_field")
    return event, occurred


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise Twice
    return result


_DECODER = json.JSONDecoder(object_pairs_hook=_pairs)


def time(value: Any) -> int:
    """A time as epoch milliseconds. Raises Refused."""
    if value is None:
        raise Refused("missing_field")
    if type(value) is int:
        return value
    if type(value) is not str:
        raise Refused("wrong_type")
    try:
        at = datetime.fromisoformat(value)
    except ValueError:
        raise Refused("bad_time") from None
    if at.tzinfo is None or "T" not in value:
        raise Refused("bad_time")
    return (at - EPOCH) // MILLISECOND


def step_of(occurred: int, sent_ms: int | None) -> int:
    """The step at which an event is published first; of undeclared mailings 0."""
    if sent_ms is None:
        return 0
    return min(bisect_right(STEP_HOURS, (occurred - sent_ms) // HOUR_MS), len(STEP_HOURS) - 1)


class Declared:
    """What tracking.mailings says, by its positions."""

    def __init__(self, records: list[tuple[int, bytes | None]]) -> None:
        self._of: dict[tuple[str, str], list[tuple[int, dict[str, Any]]]] = {}
        for offset, value in records:
            said = json.loads(value or b"{}")
            self._of.setdefault((said["tenant"], said["mailing"]), []).append((offset, said))

    @cache  # noqa: B019  # one object a comparison
    def at(self, tenant: str, mailing: str, position: int) -> tuple[int | None, dict[str, str]]:
        """When the mailing was sent (None: nobody has said) and its links, by what lies below the position."""
        found = [said for offset, said in self._of.get((tenant, mailing), ()) if offset < position]
        return (time(found[-1]["sent_at"]), found[-1].get("links") or {}) if found else (None, {})


def link_of(tenant: Tenant, links: dict[str, str], link: str | None, url: str | None) -> str:
    """The link that a click counts under."""
    if link in links:
        return str(link)
    stripped = strip(url, tenant.url_keys) if url else None
    if stripped is None:
        return "other"
    for known, its_url in links.items():
        if strip(its_url, tenant.url_keys) == stripped:
            return known
    clean = tenant.path_links and len(stripped) <= 200 and "@" not in stripped and "%40" not in stripped
    return stripped if clean else "other"


@lru_cache(maxsize=50_000)
def strip(url: str, keys: tuple[str, ...]) -> str | None:
    """A URL without query and fragment, but for the query keys that stay. For ASCII hosts."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        return None
    port = "" if parts.port in (None, {"http": 80, "https": 443}[parts.scheme]) else f":{parts.port}"
    sent = parse_qsl(parts.query, keep_blank_values=True)
    kept = "&".join(f"{quote(key)}={quote(value)}" for key in keys for name, value in sent if name == key)
    return f"{parts.scheme}://{parts.hostname}{port}{parts.path.rstrip('/') or '/'}" + (f"?{kept}" if kept else "")
