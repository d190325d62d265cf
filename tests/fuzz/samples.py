"""Messages to begin from, and the settings they are read under. Nobody in them is real."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from streams.tenants import parse

FEEDS = Path(__file__).parent.parent / "feeds"
NOW = 1_795_500_000_000  # 24 November 2026, of which all samples are; never the clock: the corpus has to stay good
TENANTS = parse(
    """
[acme]
[acme.purposes.advice]
ceiling = "pseudonymous"
[lower]
local_part = "lower"
[sendgrid]
[mailgun]
[postmark]
[ses]
"""
)
OPEN: dict[str, Any] = {
    "event_id": "01JD8Z7V1K3TQ0V9H6Y2M4C8RA",
    "kind": "open",
    "tenant": "acme",
    "mailing": "2026-11-herbst",
    "recipient": "erika@example.com",
    "occurred_at": "2026-11-23T09:14:05.120Z",
}
CLICK = OPEN | {
    "kind": "click",
    "link": "hero",
    "url": "https://shop.example/produkt?utm_source=nl",
    "user_agent": "Mozilla/5.0 …",
    "ip": "203.0.113.7",
    "actor": "human",
    "feed": "native",
}
PROOF = {"source": "form", "text_version": "2026-05", "evidence": "mail 4711", "conditional": False}
PREFERENCE: dict[str, Any] = {
    "tenant": "acme",
    "recipient": "erika@example.com",
    "decided_at": "2026-11-23T10:00:00Z",
    "purposes": {"engagement": {"open": "personal", "click": "pseudonymous"}, "advice": {"open": "anonymous"}},
    "proof": PROOF,
}
WITHDRAWAL = {**PREFERENCE, "purposes": "*", "mode": "off", "proof": None}
MAILING: dict[str, Any] = {
    "tenant": "acme",
    "mailing": "2026-11-herbst",
    "name": "Herbst",
    "sent_at": "2026-11-23T08:00:00Z",
    "recipients": 12_000,
    "links": {"hero": "https://shop.example/produkt", "pdf": "https://shop.example:8443/a.pdf?page=2"},
}
MODES = ("off", "anonymous", "pseudonymous", "personal")


def feed(vendor: str) -> Iterator[Any]:
    """One body of each shape in a sample feed: shapes differ by the names in them."""
    seen = set()
    for line in (FEEDS / f"{vendor}.ndjson").read_text("utf-8").splitlines():
        body = json.loads(line)
        for hit in body if isinstance(body, list) else [body]:
            inside = json.loads(hit["Message"]) if vendor == "ses" else hit
            shape = str(_shape(inside)) + str(inside.get("event") if vendor != "mailgun" else "")
            if shape not in seen and len(seen) < 12:
                seen.add(shape)
                yield hit


def _shape(value: Any) -> Any:
    return {name: _shape(inner) for name, inner in value.items()} if isinstance(value, dict) else None
