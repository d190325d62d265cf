"""Exact totals for an operator: events and distinct recipients a cell. Never for analysts: small cells are shown."""

from __future__ import annotations

from typing import NamedTuple

from streams.stores import StoreClient


class Total(NamedTuple):
    """One line. `link` is None for all links together (and for opens, which have none)."""

    tenant: str
    mailing: str
    kind: str
    link: str | None
    actor: str
    events: int
    recipients: int


_EVENTS = """
SELECT toString(tenant), toString(mailing), toString(kind), link_or_all, toString(actor), sum(events)
FROM cells_hourly
ARRAY JOIN if(kind = 'click', ['', toString(link)], ['']) AS link_or_all
GROUP BY tenant, mailing, kind, link_or_all, actor
"""
_RECIPIENTS = """
SELECT toString(tenant), toString(mailing), toString(kind), toString(value), toString(actor), uniqExactMerge(recipients)
FROM cells_unique WHERE dimension IN ('all', 'link')
GROUP BY tenant, mailing, kind, value, actor
"""
_CLOSED = """
SELECT toString(tenant), toString(mailing), toString(kind), toString(value), toString(actor), max(recipients)
FROM cells_closed WHERE dimension IN ('all', 'link')
GROUP BY tenant, mailing, kind, value, actor
"""


def totals(analytics: StoreClient) -> list[Total]:
    """All totals, ordered by tenant, mailing, kind, link (all links first) and actor.

    Events and recipients come from two tables that one insert feeds: while workers run, a batch may be in one only.
    Recipients of open mailings come from their sets, those of closed ones from the integers that the sets became.
    """
    recipients = {tuple(row[:5]): row[5] for row in analytics.rows("reading recipients", _RECIPIENTS)}
    # After the sets: whatever is deleted by now was counted before. Sets that are half deleted say too little.
    for row in analytics.rows("reading recipients of closed mailings", _CLOSED):
        recipients[tuple(row[:5])] = max(row[5], recipients.get(tuple(row[:5]), 0))
    rows = sorted(tuple(row) for row in analytics.rows("reading events", _EVENTS))
    return [
        Total(
            tenant, mailing, kind, link or None, actor, events, recipients.get((tenant, mailing, kind, link, actor), 0)
        )
        for tenant, mailing, kind, link, actor, events in rows
    ]
