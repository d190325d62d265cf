"""Publishing what is due: exact cells are measured with noise once, and shown.

A number is drawn once for each figure and step, whatever crashes, is done twice, or runs twice:

 1  draws are numbered batches, inserted into `draws` with the number as token. Of two publishers with one number the
    second has drawn nothing, whatever it held in memory; one that slept for longer than tokens are remembered is
    refused by its deadline
 2  nothing is shown from memory: what a batch says is read back, then written to `published`, again under its number.
    What is computed from it is the same whenever it is computed, so whoever comes second writes what is there
 3  what is new in a step is what is distinct up to it, less all that was new in earlier draws, which stand in `draws`
    beside what was measured, in the same row: a batch that is there is all there
 4  a row of `draws` goes when the mailing's last step is published or the mailing closes; from then on nothing is drawn
    of it any more
 5  what a mailing's figures may spend is said by its tenant's settings when its first step is drawn, stands in each of
    its rows of `draws`, and is taken from there ever after: no setting changes it for a mailing that has begun

Whether a mailing closes, and when, depends on what everybody did. So no number does: nothing is drawn of a mailing from
its closing on, nor of steps that lie beyond its window, and it waits to close for those within
(`streams/rights/closing.py`).

A step is due when its hour has passed and everything that lay in Kafka at some later moment is counted: so a backlog
publishes what had arrived, and not its middle. What arrives later is new in the next step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import structlog

from aggregates.continual import measured
from aggregates.figures import FIGURES, Figure
from aggregates.shown import shown
from aggregates.steps import HOUR_MS, HOURS, steps_within
from streams.broker import admin, committed, is_committed, log_ends
from streams.errors import ChainStopped, SchleuseError, StoreLate
from streams.mailings import CLOSING, NAMED, Declared, Mailing, declared
from streams.publish.noise import draw
from streams.stores import TIME, Role, Store, StoreClient, arrow, connect
from streams.tenants import TenantSettings, Windows, in_force
from streams.topics import EVENTS

if TYPE_CHECKING:
    from streams.settings import Settings

log = structlog.get_logger("schleuse.publish")

LAST: Final = len(HOURS) - 1
AT_ONCE: Final = 500  # mailings in one batch,
NUMBERS_AT_ONCE: Final = 200_000  # and numbers: seconds of noise, well within an insert's deadline
_DRAWS: Final = pa.schema(
    {
        "batch": pa.uint64(),
        "tenant": pa.string(),
        "mailing": pa.string(),
        "step": pa.uint8(),
        "kind": pa.string(),
        "dimension": pa.string(),
        "actor": pa.string(),
        "links": pa.list_(pa.string()),
        "new": pa.list_(pa.uint64()),
        "measured": pa.list_(pa.float64()),
        "rho": pa.float64(),
        "budget": pa.float64(),
        "deadline": TIME,
    }
)
_PUBLISHED: Final = pa.schema(
    {
        "tenant": pa.string(),
        "mailing": pa.string(),
        "step": pa.uint8(),
        "hours": pa.uint16(),
        "last_hours": pa.uint16(),
        "kind": pa.string(),
        "dimension": pa.string(),
        "value": pa.string(),
        "actor": pa.string(),
        "recipients": pa.uint64(),
        "margin": pa.uint64(),
        "too_few": pa.bool_(),
        "sent": pa.uint64(),
        "measured": pa.float64(),
        "total": pa.float64(),
        "deviation": pa.float64(),
        "sigma": pa.float64(),
        "rho": pa.float64(),
        "batch": pa.uint64(),
        "deadline": TIME,
    }
)
Cells = dict[tuple[str, ...], list[tuple[int, int]]]
"""Kind, dimension, actor, value -> step and distinct recipients in all steps up to it, where there were any; in no
order, and of one step there may be two: the larger holds."""


class CountsFell(SchleuseError):
    """A cell has fewer distinct recipients than were measured before: nothing can be published that would be right."""


class Measured(NamedTuple):
    """A figure at a step, without noise: nothing of it may be shown."""

    figure: Figure
    step: int
    new: list[int]
    exact: list[float]
    rho: float


@dataclass(slots=True)
class Drawn:
    """What was drawn of a mailing so far; step by cell, the steps in order. `budget`: rho of all its figures.

    `new` is there for drawing, `measured` for showing, never both: there is much of either.
    """

    links: tuple[str, ...]
    budget: float
    new: dict[Figure, list[list[int]]] = field(default_factory=dict)
    measured: dict[Figure, list[list[float]]] = field(default_factory=dict)
    batches: dict[int, int] = field(default_factory=dict)
    """Step -> the batch that drew it."""


class Publisher:
    """Publishes what is due when it is told to. Any number of them may run; one is used by one thread at a time."""

    def __init__(self, settings: Settings, store: StoreClient) -> None:
        """`store`: the analytics store under the login `publisher`."""
        self._settings, self._store = settings, store
        self._marks: list[tuple[int, dict[int, int]]] = []  # moments (ms), and how far Kafka reached then
        self._counted_until = 0

    @classmethod
    def open(cls, settings: Settings) -> Publisher:
        """Log in. Raises StoreUnavailable, StoreRefused, SettingsError."""
        return cls(settings, connect(settings, Store.ANALYTICS, Role.PUBLISHER, connections=2))

    def close(self) -> None:
        """Close the connection."""
        self._store.close()

    @property
    def caught_up(self) -> bool:
        """Whether everything that lay in Kafka at some run of this publisher's was counted by a later one: before that
        nothing is due."""
        return self._counted_until > 0

    def run_once(self) -> int:
        """Publish what is due, and what another has drawn and not published; the number of mailings that have something
        new to read.

        Raises StoreUnavailable, StoreLate, BrokerError: what was done stays done, and the rest is done next time.
        Raises ChainStopped where the store is older than Kafka, and nothing is drawn then; CountsFell where counting on
        would be wrong: everything else that is due was published before.
        """
        told = self._show()
        self._look()
        fell: set[Mailing] = set()
        while self._draw(fell):
            told += self._show()
        self._tidy()
        if fell:
            raise CountsFell(
                f"{len(fell)} mailings have cells with fewer recipients than were measured before, and are not "
                "published any further: were topics or cells taken away by hand? (docs/operations.md)"
            )
        return told

    # --- what is due ---

    def _look(self) -> None:
        """Find out up to which moment everything that lay in Kafka is counted. Raises ChainStopped."""
        broker, group = self._settings.broker, self._settings.group
        ends = log_ends(broker, EVENTS)
        self._marks.append((self._store.now_ms(), ends))
        with admin(broker, "asking what is counted") as client:
            done = committed(client, group, EVENTS, ends)
            self._compare({partition: offset for partition, offset in done.items() if offset <= ends[partition]})
            for at, (moment, ends) in reversed(list(enumerate(self._marks))):
                if is_committed(broker, client, group, EVENTS, ends):
                    self._counted_until, self._marks = moment, self._marks[at + 1 :]
                    break
        if len(self._marks) > 1:  # the oldest will be reached first; of the others the newest says most
            self._marks = [self._marks[0], self._marks[-1]]

    def _compare(self, done: Mapping[int, int]) -> None:
        """`done`: up to which offset of its log the workers said that each partition is counted; they do after their
        claim stands in the store. Raises ChainStopped where it does not stand there any more: what was drawn since is
        forgotten too, and would be drawn again."""
        claimed = self._store.rows(
            "reading the chains",
            "SELECT partition, max(next_event) FROM claims WHERE incarnation = (SELECT max(number) FROM incarnations) "
            "GROUP BY partition",
        )
        if any(done.get(partition, 0) > position for partition, position in claimed):
            raise ChainStopped(
                "Kafka knows of claims that the analytics store lacks, so that figures could be drawn twice: was the "
                "store put back from a backup? See docs/operations.md"
            )

    def _due(
        self, tenants: Mapping[str, TenantSettings], windows: Windows
    ) -> dict[Mailing, tuple[Declared, list[int]]]:
        """Mailings with steps that are due, in order, and were not drawn: within their window, before their closing.
        None begins whose tenant has no settings in force: nobody has said what it may spend."""
        drawn = {
            (tenant, mailing): step
            for tenant, mailing, step in self._store.rows(
                "reading which steps are drawn",
                "SELECT toString(tenant), toString(mailing), max(step) FROM "
                "(SELECT tenant, mailing, step FROM draws UNION ALL SELECT tenant, mailing, step FROM published) "
                "GROUP BY ALL",
            )
        }
        found: dict[Mailing, tuple[Declared, list[int]]] = {}
        for mailing, said in declared(self._store, f"NOT {CLOSING}").items():
            first, tenant = drawn.get(mailing, -1) + 1, tenants.get(mailing[0])
            if not first and tenant is None:
                continue
            passed = (self._counted_until - said.sent_ms) // HOUR_MS
            steps = [step for step in range(first, _steps(windows, mailing, said)) if HOURS[step] <= passed]
            if steps:
                found[mailing] = (said, steps)
        return found

    # --- drawing ---

    def _draw(self, fell: set[Mailing]) -> bool:
        """Rule 1. Whether there was something to draw, whoever has drawn it: then there may be more.

        The number comes first: whatever another publisher draws from here on has this number or a later one, so that
        what is read below is out of date only where this insert does nothing. Adds to `fell` whose counts fell.
        """
        ((newest,),) = self._store.rows(
            "reading the newest batch",
            "SELECT max(batch) FROM (SELECT batch FROM draws UNION ALL SELECT batch FROM published)",
        )
        batch, until = int(newest) + 1, self._deadline()
        tenants, windows = in_force(self._store), Windows.read(self._store)
        due = {mailing: of for mailing, of in self._due(tenants, windows).items() if mailing not in fell}
        some = _batch(due)
        before = self._drawn("new", NAMED, {"mailings": list(some)})
        distinct = self._distinct({mailing: steps for mailing, (_, steps) in some.items()})
        found: list[tuple[Mailing, Drawn, Measured]] = []
        for mailing, (said, steps) in some.items():
            drawn = before.get(mailing)
            if len(drawn.batches if drawn else ()) != steps[0]:
                raise StoreLate("another publisher is at work on the same mailings")
            drawn = drawn or Drawn(said.links, tenants[mailing[0]].rho)
            try:
                found += [(mailing, drawn, one) for one in tuple(_measure(drawn, steps, distinct[mailing]))]
            except CountsFell:
                fell.add(mailing)
        rows = [
            (batch, *mailing, one.step, *_name(one.figure), drawn.links, one.new, noisy, one.rho, drawn.budget, until)
            for (mailing, drawn, one), noisy in zip(found, _with_noise(found), strict=True)
        ]
        if rows:
            self._store.insert("writing draws", "draws", arrow(rows, _DRAWS), f"draws:{batch}")
        return bool(some)

    def _drawn(self, what: Literal["new", "measured"], which: str, names: Mapping[str, Any]) -> dict[Mailing, Drawn]:
        """One of the two things that stand in every draw, of the mailings for which a condition, with its parameters,
        holds."""
        found: dict[Mailing, Drawn] = {}
        by_name = {_name(figure): figure for figure in FIGURES}
        for tenant, mailing, kind, dimension, actor, links, budget, steps in self._store.rows(
            "reading draws",
            "SELECT toString(tenant), mailing, toString(kind), toString(dimension), toString(actor), any(links), "
            f"min(budget), arraySort(groupArray((step, batch, {what}))) "
            f"FROM draws WHERE {which} GROUP BY tenant, mailing, kind, dimension, actor",
            names,
        ):
            drawn = found.setdefault((tenant, mailing), Drawn(tuple(links), budget))
            of_figure = drawn.new if what == "new" else drawn.measured
            of_figure[by_name[kind, dimension, actor]] = [numbers for _, _, numbers in steps]
            drawn.batches.update((step, batch) for step, batch, _ in steps)
        return found

    def _distinct(self, due: Mapping[Mailing, Sequence[int]]) -> dict[Mailing, Cells]:
        """The cells of these mailings, of the figures that have one of these steps: from the sets, and from the
        integers that they became.

        Where a mailing is being closed both are there, and the larger holds.
        """
        found: dict[Mailing, Cells] = {mailing: {} for mailing in due}
        steps = {step for of in due.values() for step in of}
        figures = [_name(figure) for figure in FIGURES if steps.intersection(figure.steps)]
        named = {"mailings": list(due), "figures": figures, "last": max(steps, default=0)}
        cell = "tenant, mailing, kind, dimension, actor, value"
        which = f"{NAMED} AND step <= {{last:UInt8}} AND (kind, dimension, actor) IN "
        which += "{figures:Array(Tuple(String, String, String))}"
        if len(steps) == 1:  # all sets of a cell at once: half the time of one after the other
            joined = f"{{last:UInt8}} AS upto, uniqExactMerge(recipients) AS counted FROM cells_unique WHERE {which} "
            joined += f"GROUP BY {cell}"
        else:
            joined = f"step AS upto, uniqExactMerge(recipients) OVER (PARTITION BY {cell} ORDER BY step) AS counted "
            joined += f"FROM cells_unique WHERE {which}"
        for table, counted in (
            ("cells_unique", joined),  # before the integers: what is gone from the sets is there
            ("cells_closed", f"step AS upto, recipients AS counted FROM cells_closed WHERE {which}"),
        ):
            names = ", ".join(f"toString({name})" for name in cell.split(", "))
            for tenant, mailing, *of, counts in self._store.rows(
                f"reading {table}",
                f"SELECT {names}, groupArray((upto, counted)) FROM (SELECT {cell}, {counted}) GROUP BY {cell}",
                named,
            ):
                found[tenant, mailing].setdefault(tuple(of), []).extend(counts)
        return found

    # --- showing ---

    def _show(self) -> int:
        """Rule 2: all batches that are not published, in their order, another's too. How many mailings have something
        new to read."""
        told, windows = 0, Windows.read(self._store)
        for (batch,) in self._store.rows(
            "reading which batches are not published",
            "SELECT DISTINCT batch FROM draws WHERE batch NOT IN (SELECT batch FROM published) ORDER BY batch",
        ):
            of_batch = "(tenant, mailing) IN (SELECT tenant, mailing FROM draws WHERE batch = {batch:UInt64})"
            drawn = self._drawn("measured", of_batch, {"batch": batch})
            said, deadline = declared(self._store, NAMED, {"mailings": list(drawn)}), self._deadline()
            rows = [
                (*mailing, *row, batch, deadline)
                for mailing, of in drawn.items()
                for row in _read(of, said[mailing].recipients, batch, _steps(windows, mailing, said[mailing]))
            ]
            if rows:  # else another has shown it, and tidied it away
                self._store.insert("publishing", "published", arrow(rows, _PUBLISHED), f"published:{batch}")
                log.info("published", batch=batch, mailings=len(drawn), figures=len(rows))
            told += len(drawn)
        return told

    def _tidy(self) -> None:
        """Rule 4: what is exact goes when its mailing is done, and not before it was shown: a batch stays known by what
        it published, so that its number does not come back."""
        done = f"({CLOSING} OR (tenant, mailing) IN (SELECT tenant, mailing FROM published WHERE step = {LAST}))"
        done += " AND batch IN (SELECT batch FROM published)"
        ((there,),) = self._store.rows("looking for finished draws", f"SELECT count() FROM draws WHERE {done}")
        if there:
            self._store.remove("draws", done, {})

    def _deadline(self) -> int:
        return self._store.now_ms() + int(self._settings.insert_deadline_seconds * 1000)


def _batch(due: Mapping[Mailing, tuple[Declared, list[int]]]) -> dict[Mailing, tuple[Declared, list[int]]]:
    """Of what is due as much as fits into one batch, one mailing at least; with equal steps together."""
    found: dict[Mailing, tuple[Declared, list[int]]] = {}
    numbers = 0
    for mailing, (said, steps) in sorted(due.items(), key=lambda one: one[1][1])[:AT_ONCE]:
        for figure in FIGURES:
            numbers += len(figure.values(said.links)) * len(set(steps).intersection(figure.steps))
        if found and numbers > NUMBERS_AT_ONCE:
            break
        found[mailing] = (said, steps)
    return found


def _measure(drawn: Drawn, steps: Sequence[int], cells: Cells) -> Iterator[Measured]:
    """Rule 3: each figure at those of these steps that it has, without noise. Adds what is new to `drawn`. Raises
    CountsFell."""
    for figure in FIGURES:
        due = [step for step in steps if step in figure.steps]
        if not due:
            continue
        before, name = drawn.new.setdefault(figure, []), _name(figure)
        first = not before
        counted = [_upto(due, cells.get((*name, value), ())) for value in figure.values(drawn.links)]
        gone = [sum(earlier) for earlier in zip(*before, strict=True)] or [0] * len(counted)
        for now in zip(*counted, strict=True):
            new = [after - earlier for after, earlier in zip(now, gone, strict=True)]
            if min(new) < 0:
                raise CountsFell("a cell has fewer recipients than were measured before")
            before.append(new)
            gone = list(now)
        exact = measured(len(figure.steps), np.array(before, float))[-len(due) :].tolist()
        for number, (step, new, numbers) in enumerate(zip(due, before[-len(due) :], exact, strict=True)):
            spent = figure.share * drawn.budget if first and not number else 0.0
            yield Measured(figure, step, new, numbers, spent)


def _upto(due: Sequence[int], counts: Sequence[tuple[int, int]]) -> list[int]:
    """How many there are at each step that is due, when at some steps so many were there."""
    found, rest, highest = [], sorted(counts, reverse=True), 0
    for step in due:
        while rest and rest[-1][0] <= step:
            highest = max(highest, rest.pop()[1])
        found.append(highest)
    return found


def _with_noise(found: Sequence[tuple[Mailing, Drawn, Measured]]) -> Iterator[list[float]]:
    """The measurements with noise, in their order; one draw for all figures of one size and budget."""
    alike: dict[tuple[Figure, int, float], list[float]] = {}
    for _, drawn, one in found:
        alike.setdefault((one.figure, len(one.exact), drawn.budget), []).extend(one.exact)
    noisy = {of: iter(draw(of[0], of[1], exact, of[2])) for of, exact in alike.items()}
    for _, drawn, one in found:
        yield list(islice(noisy[one.figure, len(one.exact), drawn.budget], len(one.exact)))


def _name(figure: Figure) -> tuple[str, str, str]:
    return figure.kind, figure.dimension, str(figure.actor)


def _steps(windows: Windows, mailing: Mailing, said: Declared) -> int:
    """How many steps a mailing has: those within its window. It never has more again."""
    return steps_within(windows.shortest(mailing[0], said.sent_ms))


def _read(drawn: Drawn, sent: int, batch: int, steps_in_all: int) -> list[tuple[Any, ...]]:
    """What a batch publishes of a mailing: from what was measured up to its steps, and what was declared."""
    measurements = {figure: np.array(of) for figure, of in drawn.measured.items()}
    steps = {step for step, by in drawn.batches.items() if by == batch}
    rows: list[tuple[Any, ...]] = []
    last_hours = HOURS[steps_in_all - 1]
    for (figure, value), cell in shown(measurements, sent, drawn.links, drawn.budget, min(steps)).items():
        values = figure.values(drawn.links)
        sigma, rho = figure.sigma(len(values), drawn.budget), figure.share * drawn.budget
        kind, dimension, actor = _name(figure)
        known = measurements[figure][:, values.index(value)].tolist()
        for one, noisy in zip(cell, known[len(known) - len(cell) :], strict=True):
            if one.step in steps:
                what = (one.step, HOURS[one.step], last_hours, kind, dimension, value, actor)
                of_one = one.recipients, one.margin, one.too_few, sent, noisy, one.total, one.deviation
                rows.append((*what, *of_one, sigma, rho))
    return rows
