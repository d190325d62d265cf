"""Where everything stands: the sum that adds it all up, the lag of every partition, what the workers say.

The sum comes from the analytics store and so survives every process; what a worker says of itself comes from its web
server on loopback and is left out when there is none.
"""

from __future__ import annotations

import urllib.request
from typing import Any

import orjson

from streams.settings import Settings
from streams.stores import Role, Store, connect
from streams.topics import EVENTS, ends

TERMS = ("received", "counted", "off", "duplicates", "rejected")


def status(settings: Settings) -> dict[str, Any]:
    """Everything `schleuse status` shows. Raises StoreUnavailable, StoreRefused; a silent broker leaves lag None."""
    analytics = connect(settings, Store.ANALYTICS, Role.OPERATOR)
    rows: list[tuple[str, str, int]] = [
        (str(row[0]), str(row[1]), int(row[2]))
        for row in analytics.rows(
            "reading outcomes", "SELECT toString(outcome), toString(reason), sum(events) FROM outcomes GROUP BY ALL"
        )
    ]
    terms = {term: sum(row[2] for row in rows if row[0] == term) for term in TERMS}
    claims = analytics.rows(
        "reading claims",
        "SELECT partition, max(number), max(next_event), max(next_change) FROM claims "
        "WHERE incarnation = (SELECT max(number) FROM incarnations) GROUP BY partition ORDER BY partition",
    )
    log_ends = ends(settings, EVENTS)
    analytics.close()
    return {
        **terms,
        "adds_up": terms["received"] == sum(terms[term] for term in TERMS[1:]),
        "rejected_by_reason": {row[1]: row[2] for row in sorted(rows) if row[0] == "rejected"},
        "partitions": [
            {
                "partition": partition,
                "claim": number,
                "next_event": next_event,
                "next_change": next_change,
                "lag": max(0, log_ends[partition] - next_event) if partition in log_ends else None,
            }
            for partition, number, next_event, next_change in claims
        ],
        "worker": _worker(settings),
    }


def _worker(settings: Settings) -> dict[str, Any] | None:
    if not settings.http_port:
        return None
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{settings.http_port}/status", timeout=2) as answer:
            said: dict[str, Any] = orjson.loads(answer.read())
            return said
    except (OSError, orjson.JSONDecodeError):
        return None
