"""Mailings in the analytics store: what names them there, and how their senders last declared them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from streams.stores import StoreClient

Mailing = tuple[str, str]
"""Tenant and mailing."""
NAMED: Final = "(tenant, mailing) IN {mailings:Array(Tuple(String, String))}"
"""A condition: what the parameter `mailings` names."""


CLOSING: Final = "(tenant, mailing) IN (SELECT tenant, mailing FROM closing_notes WHERE note = 'asked')"
"""A condition: that the mailing's closing was asked for, or is done (streams/rights/closing.py)."""


class Declared(NamedTuple):
    """A mailing as its sender last declared it."""

    sent_ms: int
    recipients: int
    links: tuple[str, ...]


def declared(
    analytics: StoreClient, which: str = "true", names: Mapping[str, Any] | None = None
) -> dict[Mailing, Declared]:
    """The declared mailings for which a condition, with its parameters, holds. Raises StoreUnavailable,
    StoreRefused."""
    rows = analytics.rows(
        "reading declared mailings",
        "SELECT toString(tenant), mailing, toUnixTimestamp64Milli(argMax(sent_at, position)), "
        f"argMax(recipients, position), argMax(mapKeys(links), position) FROM mailings WHERE {which} GROUP BY ALL",
        names,
    )
    return {
        (tenant, mailing): Declared(sent, recipients, tuple(links)) for tenant, mailing, sent, recipients, links in rows
    }
