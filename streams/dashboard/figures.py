"""The questions that readers ask of `published` and `mailings`, and nothing else.

Every function takes the tenant from the reader's key, never from what she asks for. A mailing of another tenant and one
that does not exist are the same to every question. All numbers were published (docs/publishing.md); what is computed
here from them tells nothing more.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from aggregates.reading import Reading
from aggregates.shown import together
from aggregates.steps import HOUR_MS, HOURS

if TYPE_CHECKING:
    from streams.stores import StoreClient

KINDS: Final = ("open", "click")
ACTORS: Final = ("human", "machine")
OVERDUE_MS: Final = 7 * 24 * HOUR_MS
"""A step that has not come so long after it was due does not come any more (streams/rights/closing.py)."""
Cell = tuple[str, str, str, str]
"""Kind, dimension, value, actor."""


@dataclass(frozen=True, slots=True)
class Mailing:
    """A mailing as its sender last declared it, and how far it is published. Times in epoch milliseconds.

    `recipients`: to how many it was sent, as declared; 0: not known. `totals`: kind, actor -> the newest figure, where
    there is one. `hours`: after sending, of the newest step that is published; 0: none is. `slow_hours`: the same of
    links, devices and machines, which have fewer steps. `last_hours`: of the last step that there will be.
    """

    mailing: str
    name: str
    sent_ms: int
    recipients: int
    links: dict[str, str]
    hours: int
    slow_hours: int
    last_hours: int
    published_ms: int
    totals: dict[tuple[str, str], Reading]

    @property
    def next_ms(self) -> int | None:
        """When the next step is due at the earliest. None after the last, and where that was more than a week ago: the
        mailing was closed by hand, its tenant's window was shortened, or no publisher ran."""
        later = [hours for hours in HOURS if self.hours < hours <= self.last_hours]
        if not later or (due := self.sent_ms + later[0] * HOUR_MS) < time.time_ns() // 1_000_000 - OVERDUE_MS:
            return None
        return due


class Reached(NamedTuple):
    """How far a mailing is published, as the fields of `Mailing` say."""

    hours: int = 0
    slow_hours: int = 0
    last_hours: int = HOURS[-1]
    published_ms: int = 0

    def further(self, hours: int, last_hours: int, at_ms: int, slow: bool) -> Reached:
        """With one more figure. `slow`: of a link, a device, or machines."""
        return Reached(
            max(hours, self.hours),
            max(hours * slow, self.slow_hours),
            last_hours if hours >= self.hours else self.last_hours,
            max(at_ms, self.published_ms),
        )


class Page(NamedTuple):
    """Some mailings, newest first, and where the next ones begin: None when there are no more."""

    mailings: list[Mailing]
    after: tuple[int, str] | None


@dataclass(frozen=True, slots=True)
class History:
    """Everything that is published of a mailing: cell -> (hours after sending, figure), hours rising."""

    mailing: Mailing
    cells: dict[Cell, list[tuple[int, Reading]]]
    budget: float
    """The rho that it has spent, all figures together."""

    def newest(self, *cell: str) -> Reading | None:
        """A cell's newest figure, where there is one."""
        found = self.cells.get((cell[0], cell[1], cell[2], cell[3]))
        return found[-1][1] if found else None

    def values(self, kind: str, dimension: str, actor: str) -> list[str]:
        """The links or devices that have figures, the largest first."""
        found = [cell[2] for cell in self.cells if (cell[0], cell[1], cell[3]) == (kind, dimension, actor)]
        return sorted(found, key=lambda value: (-self.cells[kind, dimension, value, actor][-1][1].recipients, value))


class Usual(NamedTuple):
    """Shares of a tenant's other mailings some hours after sending: a quarter are below `low`, half below `middle`."""

    hours: int
    low: float
    middle: float
    high: float
    mailings: int


class Month(NamedTuple):
    """All mailings sent in a month (UTC), added up. `month` is its first day."""

    month: datetime.date
    mailings: int
    unfinished: int
    """How many of them have steps to come."""
    totals: dict[str, Reading]
    """Kind -> recipients of all mailings together, from their noisy totals."""
    devices: dict[str, Reading]


class Row(NamedTuple):
    """One row of `published`, as it is handed on."""

    mailing: str
    step: int
    hours: int
    kind: str
    dimension: str
    value: str
    actor: str
    reading: Reading
    batch: int
    published_ms: int


def edition(store: StoreClient) -> tuple[int, ...]:
    """What changes whenever something is published or declared, of any tenant."""
    ((batch, count, position),) = store.rows(
        "reading what is newest",
        "SELECT (SELECT max(batch) FROM published), (SELECT count() FROM published), "
        "(SELECT max(position) FROM mailings)",
    )
    return int(batch), int(count), int(position)


# --- one page of mailings ---

_DECLARED: Final = (
    "SELECT mailing, argMax(name, position) AS called, toUnixTimestamp64Milli(argMax(sent_at, position)) AS sent_ms, "
    "argMax(recipients, position) AS people, argMax(links, position) AS targets FROM mailings "
    "WHERE tenant = {tenant:String}"
)
_TOTALS: Final = (
    "SELECT mailing, toString(kind), toString(actor), max(hours), argMax(last_hours, step), "
    "toUnixTimestamp64Milli(max(at)), "
    "argMax(recipients, step), argMax(margin, step), argMax(too_few, step), argMax(sent, step) FROM published "
    "WHERE tenant = {tenant:String} AND mailing IN {mailings:Array(String)} AND dimension = 'all' "
    "GROUP BY mailing, kind, actor"
)


def mailings(
    store: StoreClient, tenant: str, limit: int, after: tuple[int, str] | None = None, named: str = ""
) -> Page:
    """The tenant's mailings, newest first: those that come after `after`, and whose name or id holds `named`.

    Raises StoreUnavailable, StoreRefused, as all questions do.
    """
    where = ["1"]
    if after is not None:
        where.append("(sent_ms, mailing) < ({sent:Int64}, {mailing:String})")
    if named:
        where.append(
            "(positionCaseInsensitiveUTF8(called, {named:String}) > 0 "
            "OR positionCaseInsensitiveUTF8(mailing, {named:String}) > 0)"
        )
    found = store.rows(
        "reading mailings",
        f"{_DECLARED} GROUP BY mailing HAVING {' AND '.join(where)} ORDER BY sent_ms DESC, mailing DESC "
        "LIMIT {limit:UInt32}",
        {
            "tenant": tenant,
            "limit": limit + 1,
            "named": named,
            "sent": after[0] if after else 0,
            "mailing": after[1] if after else "",
        },
    )
    page = _with_totals(store, tenant, found[:limit])
    return Page(page, (page[-1].sent_ms, page[-1].mailing) if len(found) > limit else None)


def _with_totals(store: StoreClient, tenant: str, found: Sequence[Sequence[Any]]) -> list[Mailing]:
    totals: dict[str, dict[tuple[str, str], Reading]] = {}
    reached: dict[str, Reached] = {}
    if found:
        names = {"tenant": tenant, "mailings": [row[0] for row in found]}
        for mailing, kind, actor, hours, last_hours, at, *figure in store.rows("reading figures", _TOTALS, names):
            totals.setdefault(mailing, {})[kind, actor] = _reading(*figure)
            before = reached.get(mailing, Reached())
            reached[mailing] = before.further(hours, last_hours, at, actor == "machine")
    return [
        Mailing(mailing, name, sent_ms, people, dict(links), *reached.get(mailing, Reached()), totals.get(mailing, {}))
        for mailing, name, sent_ms, people, links in found
    ]


# --- one mailing ---


def history(store: StoreClient, tenant: str, mailing: str) -> History | None:
    """Everything that is published of a mailing; None when the tenant has declared none of that name."""
    named = {"tenant": tenant, "mailing": mailing}
    found = store.rows("reading a mailing", f"{_DECLARED} AND mailing = {{mailing:String}} GROUP BY mailing", named)
    cells: dict[Cell, list[tuple[int, Reading]]] = {}
    spent: dict[tuple[str, str, str], float] = {}
    totals: dict[tuple[str, str], Reading] = {}
    reached = Reached()
    for hours, last_hours, kind, dimension, value, actor, rho, at, *figure in store.rows(
        "reading figures",
        "SELECT hours, last_hours, toString(kind), toString(dimension), toString(value), toString(actor), rho, "
        "toUnixTimestamp64Milli(at), recipients, margin, too_few, sent FROM published "
        "WHERE tenant = {tenant:String} AND mailing = {mailing:String} ORDER BY step",
        named,
    ):
        reading = _reading(*figure)
        cells.setdefault((kind, dimension, value, actor), []).append((hours, reading))
        spent[kind, dimension, actor] = rho
        reached = reached.further(hours, last_hours, at, dimension != "all" or actor == "machine")
        if dimension == "all":
            totals[kind, actor] = reading
    if not found:
        return None
    name, sent_ms, people, links = found[0][1:]
    return History(Mailing(mailing, name, sent_ms, people, dict(links), *reached, totals), cells, sum(spent.values()))


COMPARED: Final = 3
"""Other mailings that it takes to compare one with them."""
_USUAL: Final = """
WITH others AS
(
    SELECT mailing FROM published
    WHERE tenant = {tenant:String} AND mailing != {mailing:String} AND dimension = 'all' AND actor = 'human'
    GROUP BY mailing HAVING max(hours) >= {hours:UInt16} AND max(margin) * 10 <= min(sent)
)
SELECT toString(kind), hours, quantiles(0.25, 0.5, 0.75)(recipients / sent), count() AS here FROM published
WHERE tenant = {tenant:String} AND mailing IN others AND dimension = 'all' AND actor = 'human'
GROUP BY kind, hours HAVING here = (SELECT count() FROM others) ORDER BY hours
"""


def usual(store: StoreClient, tenant: str, mailing: str, hours: int) -> dict[str, list[Usual]]:
    """Kind -> how the tenant's other mailings did, hour by hour.

    The same ones at every hour, so that it never falls: those that are published as far as `hours` at least and were
    sent to so many that a margin is less than a tenth of them; three or more. Up to the last hour that all of them
    have.
    """
    found: dict[str, list[Usual]] = {}
    for kind, at, quarters, count in store.rows(
        "reading other mailings' figures", _USUAL, {"tenant": tenant, "mailing": mailing, "hours": hours}
    ):
        if count >= COMPARED:
            found.setdefault(kind, []).append(Usual(at, quarters[0], quarters[1], quarters[2], count))
    return found


# --- over time ---

_MONTHS: Final = """
SELECT toStartOfMonth(fromUnixTimestamp64Milli(sent_ms, 'UTC')) AS month, toString(kind), toString(dimension),
    toString(value), uniqExact(mailing),
    uniqExactIf(mailing, reached < until
        AND sent_ms + 3600000 * arrayFirst(hours -> hours > reached, {hours:Array(UInt16)}) >= {overdue_ms:Int64}),
    sum(newest),
    sqrt(sum(squared)), sum(people)
FROM
(
    SELECT mailing, kind, dimension, value, argMax(total, step) AS newest,
        pow(argMax(deviation, step), 2) AS squared, argMax(sent, step) AS people, max(hours) AS reached,
        argMax(last_hours, step) AS until
    FROM published
    WHERE tenant = {tenant:String} AND actor = 'human' AND dimension IN ('all', 'device') AND sent > 0
    GROUP BY mailing, kind, dimension, value
) AS figures
INNER JOIN
(
    SELECT mailing, toUnixTimestamp64Milli(argMax(sent_at, position)) AS sent_ms FROM mailings
    WHERE tenant = {tenant:String} GROUP BY mailing
) AS declared USING (mailing)
GROUP BY month, kind, dimension, value ORDER BY month
"""


def months(store: StoreClient, tenant: str) -> list[Month]:
    """Month by month, what all of a tenant's mailings with figures come to; the first month first."""
    found: dict[datetime.date, Month] = {}
    for month, kind, dimension, value, count, unfinished, total, deviation, sent in store.rows(
        "reading months",
        _MONTHS,
        {"tenant": tenant, "hours": list(HOURS), "overdue_ms": time.time_ns() // 1_000_000 - OVERDUE_MS},
    ):
        recipients, margin = together(total, deviation, sent)
        reading = _reading(recipients, margin, recipients <= margin, sent)
        of = found.get(month, Month(month, 0, 0, {}, {}))
        if dimension == "all":
            of = of._replace(
                mailings=max(of.mailings, count),
                unfinished=max(of.unfinished, unfinished),
                totals={**of.totals, kind: reading},
            )
        else:
            of = of._replace(devices={**of.devices, value: reading})
        found[month] = of
    return list(found.values())


def rows(store: StoreClient, tenant: str, limit: int, after: Sequence[Any] | None = None) -> Iterator[Row]:
    """Rows of `published` in the order in which they were published, those that come after `after`.

    `after`: `place` of the last row that was read. Who goes on from there later reads what was published since, once.
    """
    place = "(batch, mailing, step, kind, dimension, value, actor)"
    for mailing, step, hours, kind, dimension, value, actor, batch, at, *figure in store.rows(
        "reading figures",
        "SELECT toString(mailing), step, hours, toString(kind), toString(dimension), toString(value), toString(actor), "
        "batch, toUnixTimestamp64Milli(at), recipients, margin, too_few, sent FROM published "
        f"WHERE tenant = {{tenant:String}}{f' AND {place} > {_PLACE}' if after else ''} ORDER BY {place} "
        "LIMIT {limit:UInt32}",
        {"tenant": tenant, "limit": limit, **dict(zip(_PARTS, after or (0, "", 0, "", "", "", ""), strict=True))},
    ):
        yield Row(mailing, step, hours, kind, dimension, value, actor, _reading(*figure), batch, at)


_PARTS: Final = ("batch", "mailing", "step", "kind", "dimension", "value", "actor")
_PLACE: Final = (
    "({batch:UInt64}, {mailing:String}, {step:UInt8}, {kind:String}, {dimension:String}, "
    "{value:String}, {actor:String})"
)


def place(row: Row) -> tuple[int, str, int, str, str, str, str]:
    """Where a row stands in the order of `rows`."""
    return row.batch, row.mailing, row.step, row.kind, row.dimension, row.value, row.actor


def _reading(recipients: int, margin: int, too_few: object, sent: int) -> Reading:
    return Reading(int(recipients), int(margin), bool(too_few), int(sent))
