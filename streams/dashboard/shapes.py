"""What the API answers, as types: the JSON is encoded from them and its description (OpenAPI) is made from them."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from typing import Annotated

import msgspec

from aggregates.reading import Reading
from streams.dashboard import figures
from streams.dashboard import officer as proof

Moment = Annotated[datetime.datetime, msgspec.Meta(tz=True)]
"""A time with its zone, always UTC."""


def moment(ms: int) -> datetime.datetime:
    """Epoch milliseconds as a time in UTC."""
    return datetime.datetime.fromtimestamp(ms / 1000, datetime.UTC)


class Figure(msgspec.Struct, frozen=True):
    """A number of distinct recipients with noise, so that nobody can tell whether any one of them is among them.

    The truth is within `margin` recipients of `recipients` in 95 of 100 cases; `share` and `share_margin` are both
    divided by the number sent. Where the noise drowns the figure (`too_few`) all there is to say is `at_most`.
    """

    recipients: int | None
    margin: int
    at_most: int
    share: float | None
    share_margin: float | None
    too_few: bool


class Mailing(msgspec.Struct, frozen=True):
    """A mailing and its newest figures. `hours`: after sending, of the newest step that is published; `slow_hours`: the
    same of links, devices and machines, which have fewer steps.

    `sent`: recipients as its sender declared them; null: not known, and there are no shares. A figure that is null is
    not published yet; `next_at` is when more is due at the earliest, null after the last step.
    """

    mailing: str
    name: str
    sent_at: Moment
    sent: int | None
    hours: int | None
    slow_hours: int | None
    published_at: Moment | None
    next_at: Moment | None
    opened: Figure | None
    clicked: Figure | None
    opened_by_machines: Figure | None
    clicked_by_machines: Figure | None


class Mailings(msgspec.Struct, frozen=True):
    """Some mailings, the newest first. `next`: the cursor of what comes after them, null at the end."""

    mailings: list[Mailing]
    next: str | None


class Link(msgspec.Struct, frozen=True):
    """A link: how many recipients clicked it, and how many were clicked for by machines. `other` is all links that
    nobody declared."""

    link: str
    url: str | None
    clicked: Figure | None
    clicked_by_machines: Figure | None


class Device(msgspec.Struct, frozen=True):
    """A family of devices, and how many recipients opened on one."""

    device: str
    opened: Figure


class Point(msgspec.Struct, frozen=True):
    """Figures some hours after sending."""

    hours: int
    opened: Figure | None
    clicked: Figure | None


class Budget(msgspec.Struct, frozen=True):
    """What the mailing's figures have cost of their privacy, in rho of zero-concentrated differential privacy."""

    rho: float


class OneMailing(msgspec.Struct, frozen=True):
    """A mailing: its links, devices, and its figures hour by hour."""

    mailing: Mailing
    links: list[Link]
    devices: list[Device]
    history: list[Point]
    spent: Budget


class Month(msgspec.Struct, frozen=True):
    """All mailings of a month (UTC) that have figures, added up; a recipient of two mailings is in both.

    `unfinished`: of how many of them more figures are to come.
    """

    month: datetime.date
    mailings: int
    unfinished: int
    opened: Figure | None
    clicked: Figure | None
    devices: list[Device]


class Trends(msgspec.Struct, frozen=True):
    """Month by month, the first one first."""

    months: list[Month]


class Row(msgspec.Struct, frozen=True):
    """One published row: a cell at a step. `value` is a link or a device, empty for all."""

    mailing: str
    step: int
    hours: int
    kind: str
    dimension: str
    value: str
    actor: str
    sent: int | None
    figure: Figure
    published_at: Moment


class Rows(msgspec.Struct, frozen=True):
    """Rows in the order in which they were published. `next` goes on after them: keep it, and ask with it later for
    what was published since; null where there was no row at all."""

    rows: list[Row]
    next: str | None
    more: bool


class Count(msgspec.Struct, frozen=True):
    """The last count of a day (UTC), exact: docs/officer.md says of what."""

    day: datetime.date
    what: str
    value: str
    count: int


class Result(msgspec.Struct, frozen=True):
    """One line of a report: a check of `schleuse verify`, or an attack: how often it was right of so many `tries`, the
    bound, and how far above it chance may take it (`limit`)."""

    name: str
    says: str
    held: bool
    right: float | None
    tries: int | None
    bound: float | None
    limit: float | None


class Report(msgspec.Struct, frozen=True):
    """The newest report of its kind, `verify` or `attack`. It is about the system as a whole."""

    kind: str
    at: Moment
    held: bool
    results: list[Result]


class Spent(msgspec.Struct, frozen=True):
    """What a mailing's figures have cost of their privacy."""

    mailing: str
    rho: float


class Officer(msgspec.Struct, frozen=True):
    """What a tenant's data protection officer sees: counts by day, reports, and the budget spent of each mailing."""

    counts: list[Count]
    reports: list[Report]
    spent: list[Spent]


class Me(msgspec.Struct, frozen=True):
    """Whom the key belongs to."""

    reader: str
    tenant: str
    role: str
    until: Moment


class Problem(msgspec.Struct, frozen=True):
    """An error (RFC 9457). `detail` says what to do; nothing in it was sent by whoever asked."""

    type: str
    title: str
    status: int
    detail: str


def figure(reading: Reading) -> Figure:
    """A figure as it is answered."""
    return Figure(
        None if reading.too_few else reading.recipients,
        reading.margin,
        reading.at_most,
        reading.share,
        reading.share_margin,
        reading.too_few,
    )


def maybe(reading: Reading | None) -> Figure | None:
    """A figure, where it is published."""
    return None if reading is None else figure(reading)


def mailing(one: figures.Mailing) -> Mailing:
    """A mailing as it is answered."""
    next_ms = one.next_ms
    return Mailing(
        one.mailing,
        one.name,
        moment(one.sent_ms),
        one.recipients or None,
        one.hours or None,
        one.slow_hours or None,
        moment(one.published_ms) if one.hours else None,
        None if next_ms is None else moment(next_ms),
        maybe(one.totals.get(("open", "human"))),
        maybe(one.totals.get(("click", "human"))),
        maybe(one.totals.get(("open", "machine"))),
        maybe(one.totals.get(("click", "machine"))),
    )


def one_mailing(of: figures.History) -> OneMailing:
    """A mailing with everything that is published of it."""
    return OneMailing(
        mailing(of.mailing),
        [
            Link(
                link,
                of.mailing.links.get(link),
                maybe(of.newest("click", "link", link, "human")),
                maybe(of.newest("click", "link", link, "machine")),
            )
            for link in of.values("click", "link", "human")
        ],
        devices((value, of.newest("open", "device", value, "human")) for value in of.values("open", "device", "human")),
        points(of),
        Budget(round(of.budget, 6)),
    )


def devices(found: Iterable[tuple[str, Reading | None]]) -> list[Device]:
    """Devices that have a figure."""
    return [Device(device, figure(reading)) for device, reading in found if reading is not None]


def points(of: figures.History) -> list[Point]:
    """The totals hour by hour."""
    kinds = [dict(of.cells.get((kind, "all", "", "human"), ())) for kind in figures.KINDS]
    hours = sorted({hour for kind in kinds for hour in kind})
    return [Point(hour, *(maybe(kind.get(hour)) for kind in kinds)) for hour in hours]


def month(one: figures.Month) -> Month:
    """A month as it is answered."""
    order = sorted(one.devices.items(), key=lambda item: -item[1].recipients)
    opened, clicked = (maybe(one.totals.get(kind)) for kind in figures.KINDS)
    return Month(one.month, one.mailings, one.unfinished, opened, clicked, devices(order))


def officer(of: proof.Officer) -> Officer:
    """The officer's view as it is answered."""
    return Officer(
        [Count(day, one.what, one.value, count) for one in of.series for day, count in one.days],
        [Report(one.kind, moment(one.at_ms), one.held, results(one)) for one in of.reports.values()],
        [Spent(mailing, round(rho, 6)) for mailing, rho in of.spent.items()],
    )


def results(report: proof.Report) -> list[Result]:
    """What stands in a report for everybody: names and verdicts; the rest is the operator's."""
    found: list[Result] = []
    for check in report.body.get("checks", ()):
        found.append(
            Result(str(check["name"]), str(check["says"]), check["verdict"] == "holds", None, None, None, None)
        )
    for attack in report.body.get("attacks", ()):
        right, tries, bound = float(attack["right"]), int(attack["tries"]), float(report.body["bound"])
        limit = min(1.0, bound + float(report.body.get("standard_errors", 4)) * float(attack["standard_error"]))
        within = bool(attack["within"])
        found.append(Result(str(attack["name"]), str(attack["reads"]), within, right, tries, bound, limit))
    return found


def row(one: figures.Row) -> Row:
    """A published row as it is answered."""
    return Row(
        *one[:7], sent=one.reading.sent or None, figure=figure(one.reading), published_at=moment(one.published_ms)
    )
