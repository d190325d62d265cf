"""A game from its first message to its last answer: what happens is fed in and published, stage by stage, and read."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import orjson
from kafka import KafkaConsumer, TopicPartition

from aggregates.continual import Floats
from aggregates.figures import Figure
from aggregates.steps import HOUR_MS
from streams.attack import surfaces, tries
from streams.attack.likelihood import Cell
from streams.attack.surfaces import API, AttackFailed, Rows, Sql, Totals, Web, mailing_path
from streams.attack.tries import CROWD, SMALL, STAGES, Message, Tries, Try
from streams.messages import format_time
from streams.publish.publisher import Publisher
from streams.status import status
from streams.topics import RECEIPTS

if TYPE_CHECKING:
    from streams.settings import Settings

LISTS: Final = ("api", "csv", "page")
Cells = Mapping[tuple[Figure, str], Cell]
Said = Sequence[Hashable]
"""What was said of each try, to be compared."""


@dataclass(slots=True)
class Kept:
    """Everything that was ever shown, in an order that fits the guesses. Rows are tries."""

    tries: Tries
    few: int
    """Of how many tries what is dear was read: the first ones of the crowd."""
    measured: Mapping[str, Mapping[tuple[Figure, str], Floats]] = field(default_factory=dict)
    """By tenant: SQL, every number as measured."""
    figures: Mapping[str, Cells] = field(default_factory=dict)
    """By tenant: /api/v1/figures, every cell at every step."""
    lists: dict[str, list[Totals]] = field(default_factory=dict)
    """By surface: the newest totals of the crowd, stage by stage."""
    filtered: Totals = field(default_factory=dict)
    """Totals as the difference of two filters: ten mailings together less nine."""
    moved: dict[str, Said] = field(default_factory=dict)
    """By surface: whether something is different after her withdrawal and erasure."""
    exports: dict[str, Said] = field(default_factory=dict)
    """By surface: whether what was read in an earlier stage is different now."""
    refused: dict[str, Said] = field(default_factory=dict)
    """By way of asking: what an answer to nonsense says, and what another filter makes of an answer."""
    foreign: dict[str, Said] = field(default_factory=dict)
    """By way of asking: what the other tenant's login is told, beside what it is told of nothing."""
    seconds: dict[str, Floats] = field(default_factory=dict)
    """By surface: how long answers took, try by round."""
    removed: int = 0
    """How many rows about her went with withdrawal and erasure."""


@dataclass(frozen=True, slots=True)
class World:
    """A running lock, and the logins that the attacker has got hold of."""

    settings: Settings
    url: str
    """The dashboard's."""
    keys: Mapping[str, str] = field(repr=False)
    """By tenant: an analyst's key."""
    send: Callable[[Sequence[Message]], object]
    """Returns when the broker has them."""
    alive: Callable[[], bool] = lambda: True
    """Whether the worker still runs."""
    said: Callable[[str], object] = lambda _: None
    """Told what is done now."""


def play(world: World, game: Tries, few: int, rounds: int = 1) -> Kept:
    """All of it. `few`: of how many tries what takes a request each is read. Blocking; publishes in this process.

    Raises AttackFailed, StoreUnavailable, StoreRefused, BrokerError: then nothing was found either way.
    """
    with ExitStack() as open_:
        return _Play(world, game, min(few, len(game.crowd)), open_).run(rounds)


class _Play:
    def __init__(self, world: World, game: Tries, few: int, open_: ExitStack) -> None:
        self._world, self._game = world, game
        self._kept = Kept(game, few)
        self._sql = open_.enter_context(closing(Sql(world.settings)))
        self._publisher = open_.enter_context(closing(Publisher.open(world.settings)))
        self._api = {
            tenant: open_.enter_context(closing(Web(world.url, {"Authorization": f"Bearer {key}"})))
            for tenant, key in world.keys.items()
        }
        self._pages = {
            tenant: open_.enter_context(closing(Web(world.url, {"Accept-Language": "en"}))) for tenant in world.keys
        }
        for tenant, key in world.keys.items():
            self._pages[tenant].login(key)
        self._rows = {tenant: Rows(game.of(tenant)) for tenant in world.keys}
        self._kept.lists = {surface: [] for surface in LISTS}

    def run(self, rounds: int) -> Kept:
        kept, game = self._kept, self._game
        changes = self._changes()
        self._world.send(list(tries.choices(game, _now_ms())))
        self._wait(lambda: self._changes() >= changes + 2, "what she agrees to")
        self._stage(0)
        self._snapshot()
        self._stage(1)
        before = self._snapshot() | self._details() | self._trends()
        sql_before = [self._sql.said(game.crowd, tries.reached(stage)) for stage in (0, 1)]
        rows_before = [dict(self._rows[tenant].said) for tenant in (CROWD, SMALL)]
        self._erase()
        after = self._snapshot(keep=False) | self._details() | self._trends()
        kept.moved = {surface: self._compared(before[surface], after[surface]) for surface in before}
        self._stage(2)
        self._snapshot()
        self._at_last(sql_before, rows_before, before)
        self._filters()
        self._nonsense()
        self._foreign()
        self._timing(rounds)
        return kept

    # --- what happens ---

    def _stage(self, number: int) -> None:
        world, game = self._world, self._game
        world.said(f"{STAGES[number]} hours after sending: events come in")
        sent = _now_ms() - STAGES[number] * HOUR_MS
        world.send(list(tries.declarations(game, sent)))
        self._wait(lambda: self._sql.declared(game.all, sent) == len(game.all), "declarations")
        counted, events = status(world.settings)["received"], list(tries.events(game, number, sent))
        world.send(events)
        self._wait(lambda: status(world.settings)["received"] >= counted + len(events), "events to be counted")
        world.said(f"{STAGES[number]} hours after sending: figures are published")

        def done() -> bool:
            self._publisher.run_once()
            return self._sql.published(game.all, tries.reached(number)) == len(game.all)

        self._wait(done, "figures")

    def _erase(self) -> None:
        self._world.said("she withdraws her consent, and has herself erased")
        consumer = KafkaConsumer(bootstrap_servers=self._world.settings.broker, enable_auto_commit=False)
        with closing(consumer):
            partitions = [TopicPartition(RECEIPTS, p) for p in sorted(consumer.partitions_for_topic(RECEIPTS) or ())]
            consumer.assign(partitions)
            consumer.seek_to_beginning(*partitions)
            began = format_time(_now_ms())
            found: list[dict[str, Any]] = []

            def both(kind: str) -> bool:
                """Whether both tenants have a receipt of this game: as a sender reads them."""
                for run in consumer.poll(timeout_ms=200).values():
                    receipts = [orjson.loads(record.value) for record in run]
                    found.extend(one for one in receipts if one["completed_at"] >= began)
                return {one["tenant"] for one in found if one["kind"] == kind} >= {CROWD, SMALL}

            self._world.send(list(tries.withdrawals(self._game, _now_ms())))
            self._wait(lambda: both("withdrawal"), "receipts of the withdrawals")
            self._world.send(list(tries.erasures(self._game, _now_ms())))
            self._wait(lambda: both("erasure"), "receipts of the erasures")
            self._kept.removed = sum(sum(one["removed"].values()) for one in found)

    def _changes(self) -> int:
        return sum(line["next_change"] for line in status(self._world.settings)["partitions"])

    def _wait(self, there: Callable[[], bool], what: str, seconds: float = 180) -> None:
        until = time.monotonic() + seconds
        while not there():
            if not self._world.alive():
                raise AttackFailed("the worker has ended")
            if time.monotonic() > until:
                raise AttackFailed(f"waited {seconds:.0f} s for {what}: nothing can be said")
            time.sleep(0.1)

    # --- what is read ---

    def _snapshot(self, keep: bool = True) -> dict[str, dict[str, bytes]]:
        """What all surfaces show now of the crowd; by surface, what was said of each mailing."""
        self._world.said("everything is read")
        crowd, prefix = self._game.crowd, self._game.prefix
        for tenant, rows in self._rows.items():
            rows.read(self._api[tenant])
        read = {
            "api": surfaces.api_mailings(self._api[CROWD], crowd, prefix),
            "csv": surfaces.csv_mailings(self._pages[CROWD], crowd),
            "page": surfaces.page_mailings(self._pages[CROWD], crowd, prefix),
        }
        if keep:
            for surface, (totals, _) in read.items():
                self._kept.lists[surface].append(totals)
        sql = self._sql.said(crowd, tries.reached(len(STAGES) - 1))
        return {**{surface: said for surface, (_, said) in read.items()}, "sql": sql}

    def _details(self, *only: str) -> dict[str, dict[str, bytes]]:
        """What is shown of single mailings, for a few of them; on all surfaces, or `only` some."""
        ways = {
            "api, one": (self._api[CROWD], API + "/mailings/{}"),
            "csv, one": (self._pages[CROWD], "/mailings/{}/figures.csv"),
            "page, one": (self._pages[CROWD], "/mailings/{}"),
        }
        few = self._game.crowd[: max(1, self._kept.few // 5)]
        return {
            name: {one.mailing: web.read(path.format(mailing_path(one))) for one in few}
            for name, (web, path) in ways.items()
            if name in (only or ways)
        }

    def _trends(self) -> dict[str, dict[str, bytes]]:
        """What is shown of all mailings together: it stands with the first one."""
        ways = {
            "api, trends": (self._api[CROWD], API + "/trends"),
            "csv, trends": (self._pages[CROWD], "/trends.csv"),
            "page, trends": (self._pages[CROWD], "/trends"),
        }
        return {name: {self._game.crowd[0].mailing: web.read(path)} for name, (web, path) in ways.items()}

    def _compared(self, before: Mapping[str, object], after: Mapping[str, object]) -> Said:
        """Whether what was said of each try is the same; of the tries of which there is something."""
        return [before[one.mailing] == after.get(one.mailing) for one in self._game.crowd if one.mailing in before]

    def _at_last(
        self,
        sql_before: Sequence[Mapping[str, bytes]],
        rows_before: Sequence[Mapping[tuple[str, int], int]],
        details: Mapping[str, Mapping[str, bytes]],
    ) -> None:
        kept, game = self._kept, self._game
        self._world.said("old exports are held against new ones")
        kept.measured = {tenant: self._sql.measured(game.of(tenant)) for tenant in (CROWD, SMALL)}
        kept.figures = {tenant: rows.cells for tenant, rows in self._rows.items()}
        for stage, before in enumerate(sql_before):
            now = self._sql.said(game.crowd, tries.reached(stage))
            kept.exports[f"sql, stage {stage}"] = self._compared(before, now)
        anew = Rows(game.crowd)
        anew.read(self._api[CROWD])
        old = rows_before[0]
        kept.exports["api"] = [
            all(anew.said.get((one.mailing, step)) == old[one.mailing, step] for step in range(tries.reached(1) + 1))
            for one in game.crowd
        ]
        now = self._details("csv, one")["csv, one"]
        kept.exports["csv, one"] = [
            set(before.splitlines()) <= set(now[mailing].splitlines())
            for mailing, before in details["csv, one"].items()
        ]

    def _filters(self) -> None:
        """Ten mailings by a filter, less nine of them by a filter each."""
        self._world.said("filters are nested")
        kept, web = self._kept, self._api[CROWD]
        few = self._game.crowd[: kept.few - kept.few % 10]
        blocks = {block: surfaces.api_mailings(web, few, block)[0] for block in dict.fromkeys(one.block for one in few)}
        own = [surfaces.api_mailings(web, [one], one.mailing)[0] for one in few]
        kept.filtered = surfaces.totals_of(few)
        for cell, into in kept.filtered.items():
            for name in Cell._fields:
                alone = np.array([getattr(one[cell], name)[0, 0] for one in own])
                for row, one in enumerate(few):
                    all_ten = getattr(blocks[one.block][cell], name)[:, 0]
                    nine = [n for n, other in enumerate(few) if other.block == one.block and n != row]
                    getattr(into, name)[row, 0] = np.nansum(all_ten) - np.nansum(alone[nine])
            into.recipients[:] = np.nan  # too few to say, in this game: the sums leave them out

    def _nonsense(self) -> None:
        """Requests that are refused, and filters that nobody has: about mailings in which she acted, and others."""
        self._world.said("nonsense is asked")
        api, pages, kept = self._api[CROWD], self._pages[CROWD], self._kept
        ways: dict[str, tuple[Web, str, str]] = {
            "api, a filter that there is not": (api, "GET", API + "/mailings/{}?device=phone&actor=human"),
            "api, of figures": (api, "GET", API + "/figures?mailing={}"),
            "api, no limit": (api, "GET", API + "/mailings?limit=0&named={}"),
            "api, no cursor": (api, "GET", API + "/mailings?cursor={}"),
            "api, her own": (api, "GET", API + "/mailings/{}/recipients/she"),
            "api, another method": (api, "POST", API + "/mailings/{}"),
            "page, her own": (pages, "GET", "/mailings/{}/she"),
            "page, no cursor": (pages, "GET", "/mailings?cursor={}"),
        }
        few = self._game.crowd[: kept.few]
        for name, (web, method, path) in ways.items():
            kept.refused[name] = [
                surfaces.answers(web.ask(path.format(mailing_path(one)), method), one.mailing) for one in few
            ]
        tables = ("engagement", "cells_unique", "cells_hourly", "draws")
        for table, more in product(tables, ("", " AND throwIf(step >= 0)")):
            sql = f"SELECT count() FROM {table} WHERE mailing = '{{}}'{more}"
            kept.refused[f"sql, {table}{more}"] = [
                surfaces.answers(self._sql.ask(sql.format(one.mailing)), one.mailing) for one in few
            ]
        # What pages make of filters that they do not have: the same as without one.
        kept.refused["page, a filter that there is not"] = [
            _without(pages.read(f"/mailings/{mailing_path(one)}{query}"), query)
            == _without(pages.read(f"/mailings/{mailing_path(one)}"), query)
            for one in few[: max(1, kept.few // 5)]
            for query in ("?device=phone&actor=human",)
        ]

    def _foreign(self) -> None:
        """The other tenant's analyst asks for mailings that are not hers, and for some that nobody has."""
        self._world.said("another tenant asks")
        api, pages, kept = self._api[SMALL], self._pages[SMALL], self._kept
        ways = {
            "api": (api, API + "/mailings/{}"),
            "api, by name": (api, API + "/mailings?named={}"),
            "page": (pages, "/mailings/{}"),
            "page, by name": (pages, "/mailings?named={}"),
            "csv": (pages, "/mailings/{}/figures.csv"),
        }
        for name, (web, path) in ways.items():
            nothing = "nobody-has-one".ljust(len(self._game.crowd[0].mailing), "0")
            told = surfaces.answers(web.ask(path.format(nothing)), nothing)
            kept.foreign[name] = [
                surfaces.answers(web.ask(path.format(mailing_path(one))), one.mailing) == told
                for one in self._game.crowd[: kept.few]
            ]

    def _timing(self, rounds: int) -> None:
        self._world.said("answers are timed")
        few = self._game.crowd[: self._kept.few]
        sql = "SELECT sum(recipients), sum(measured) FROM published WHERE mailing = '{}'"
        refused = "SELECT count() FROM cells_unique WHERE mailing = '{}'"
        ways: dict[str, Callable[[Try], float]] = {
            "api": lambda one: self._api[CROWD].ask(f"{API}/mailings/{mailing_path(one)}").seconds,
            "page": lambda one: self._pages[CROWD].ask(f"/mailings/{mailing_path(one)}").seconds,
            "sql": lambda one: self._sql.ask(sql.format(one.mailing)).seconds,
            "sql, refused": lambda one: self._sql.ask(refused.format(one.mailing)).seconds,
            "another tenant": lambda one: self._api[SMALL].ask(f"{API}/mailings/{mailing_path(one)}").seconds,
        }
        for name, seconds in ways.items():
            taken = [[seconds(one) for one in few] for _ in range(rounds)]
            self._kept.seconds[name] = np.array(taken).T


def _without(page: bytes, query: str) -> bytes:
    """A page without what it says of the address that it was asked by."""
    return page.replace(query.encode(), b"").replace(query.replace("&", "&amp;").encode(), b"")


def _now_ms() -> int:
    return int(time.time() * 1000)
