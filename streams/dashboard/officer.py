"""What a tenant's data protection officer sees: daily counts, the newest reports, and the budget that is spent.

All of it was counted and filed by others (streams/rights/daily.py, `schleuse verify`, `schleuse attack`) in the
analytics store; nothing here can reach an identity. The counts are exact, not published figures: they are for whoever
may see the officer's view, and for no analyst (docs/officer.md).
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from streams.stores import StoreClient


@dataclass(frozen=True, slots=True)
class Series:
    """One count over time: `what` and `value` as streams/rights/daily.py writes them (`ZEROS`)."""

    what: str
    value: str
    days: Sequence[tuple[datetime.date, int]]
    """The last count of each day (UTC), the first day first. A day on which nobody counted is missing."""

    @property
    def newest(self) -> int:
        """The count of the last day that there is."""
        return self.days[-1][1]


@dataclass(frozen=True, slots=True)
class Report:
    """A report of the system as a whole, not of a tenant."""

    kind: str
    """`verify`, `attack`."""
    at_ms: int
    """When it was filed, epoch milliseconds."""
    held: bool
    """Whether all held. False says also of `verify` that something could not be said: `body` tells which."""
    body: Mapping[str, Any] = field(repr=False)
    """What the command's `--json` printed; empty where it was written by something else."""


@dataclass(frozen=True, slots=True)
class Officer:
    """The officer's view of one tenant. A tenant of which nothing was counted yet has no series."""

    series: Sequence[Series]
    """By `what` and `value`."""
    reports: Mapping[str, Report]
    """The newest of each kind."""
    spent: Mapping[str, float]
    """Mailing -> the rho that its published figures have spent, all together: at most the budget it began with."""

    def of(self, what: str) -> dict[str, Series]:
        """The series of one `what`, by value."""
        return {one.value: one for one in self.series if one.what == what}


_DAILY = """
SELECT toString(what), toString(value), groupArray((day, last))
FROM
(
    SELECT what, value, day, argMax(count, at) AS last FROM daily WHERE tenant = {tenant:String}
    GROUP BY what, value, day ORDER BY what, value, day
)
GROUP BY what, value ORDER BY what, value
"""
_REPORTS = """
SELECT toString(kind), toUnixTimestamp64Milli(at), held, body FROM reports ORDER BY at DESC LIMIT 1 BY kind
"""
_SPENT = """
SELECT toString(mailing), sum(spent)
FROM
(
    SELECT mailing, kind, dimension, actor, max(rho) AS spent FROM published WHERE tenant = {tenant:String}
    GROUP BY mailing, kind, dimension, actor
)
GROUP BY mailing ORDER BY mailing
"""


def officer(store: StoreClient, tenant: str) -> Officer:
    """The officer's view, as it is now. `store`: the analytics store under the login `dashboard`.

    The tenant comes from the reader's key, never from what she asks for. Raises StoreUnavailable, StoreRefused.
    """
    names = {"tenant": tenant}
    series = [
        Series(what, value, [(day, int(count)) for day, count in days])
        for what, value, days in store.rows("reading daily counts", _DAILY, names)
    ]
    reports = {
        kind: Report(kind, int(at), bool(held), _body(body))
        for kind, at, held, body in store.rows("reading reports", _REPORTS)
    }
    return Officer(series, reports, spent(store, tenant))


def spent(store: StoreClient, tenant: str) -> dict[str, float]:
    """Mailing -> the rho that its published figures have spent. Raises StoreUnavailable, StoreRefused."""
    found = store.rows("reading what is spent", _SPENT, {"tenant": tenant})
    return {mailing: float(rho) for mailing, rho in found}


def _body(text: str) -> Mapping[str, Any]:
    try:
        body = json.loads(text)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}
