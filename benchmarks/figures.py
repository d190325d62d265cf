"""How fast figures are published: 50 million events counted in the cells, 2,000 declared mailings of 20 tenants.

    python -m benchmarks.figures                     # the table of docs/publishing.md, and results/figures.json
    python -m benchmarks.figures --keep DIR          # keeps the full store, everything published, for other benchmarks

Events go into the cells through `ingest`, as a worker's do, made up by the store itself. Published is by the real
publisher, with OpenDP's noise.

all at once    a publisher's first run, with all 40 steps of every mailing due
one more       every mailing has one new step: they are declared a little older each time. Ten of the steps have all
               figures, the others only those who opened and who clicked
"""

from __future__ import annotations

import argparse
import contextlib
import os
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from aggregates.devices import Device
from aggregates.figures import FIGURES
from aggregates.steps import HOUR_MS, HOURS
from benchmarks import results
from benchmarks.growth import size, table
from benchmarks.lock import Lock, made
from streams.publish.publisher import Publisher
from streams.stores import TIME, Role, Store, arrow, connect

PAGE = results.ROOT / "docs" / "publishing.md"
LINKS = tuple(f"link{n}" for n in range(8))
MONTHS = 12
AT_ONCE, NAMED_AT_ONCE = 1_000_000, 40  # events an insert, and mailings: they stand in its URL
STEPS = [int(np.searchsorted(HOURS, hour, side="right")) for hour in range(720)]
_MAILINGS = pa.schema(
    {
        "tenant": pa.string(),
        "mailing": pa.string(),
        "name": pa.string(),
        "sent_at": TIME,
        "recipients": pa.uint64(),
        "links": pa.map_(pa.string(), pa.string()),
        "position": pa.uint64(),
    }
)
_ROUND = "toUInt32(720 * pow(u, 6))"  # hours after sending: half of all within half a day
_EVENTS = f"""
INSERT INTO ingest
    (deadline, tenant, mailing, kind, link, device, actor, occurred_ms, counted, step, seed0, seed1)
SELECT now64(3) + INTERVAL 1 HOUR, of.1, of.2, if(clicks, 'click', 'open'),
    if(clicks, if(drawn % 50 = 0, 'other', concat('link', toString(bitCount(bitShiftRight(drawn, 8) % 128)))), ''),
    {[str(device) for device in Device]}[1 + toUInt8(floor(pow(sipHash64(who) / pow(2, 64), 2) * {len(Device)}))],
    if(drawn % 10 = 9, 'machine', 'human'),
    of.3 + hours * {HOUR_MS} + drawn % {HOUR_MS}, 1, {STEPS}[hours + 1],
    sipHash64(of.1, of.2, who), sipHash64(of.2, who, 1)
FROM (
    SELECT of, sipHash64(of.2, number) AS drawn, number % 5 = 0 AS clicks,
        toUInt64(sipHash64(drawn, 1) % greatest(1, toUInt64(of.4 * if(clicks, 0.12, 0.45)))) AS who,
        sipHash64(drawn, 2) / pow(2, 64) AS u, least(719, {_ROUND}) AS hours
    FROM (SELECT arrayJoin({{mailings:Array(Tuple(String, String, Int64, UInt64, UInt64))}}) AS of)
    ARRAY JOIN range(of.5) AS number
)
"""


class Made(NamedTuple):
    """A mailing of the full store. `months_ago`: in which month it was sent; the youngest are of this one."""

    tenant: str
    mailing: str
    recipients: int
    events: int
    months_ago: int


def made_up(mailings: int, events: int, tenants: int, seed: int = 1) -> list[Made]:
    """From 500 to 200,000 recipients, as many small ones as large ones; the same ones each time."""
    rng = np.random.default_rng(seed)
    sizes = np.exp(rng.uniform(np.log(500), np.log(200_000), mailings)).astype(int)
    counts = np.diff(np.round(np.cumsum(sizes) / sizes.sum() * events).astype(int), prepend=0)
    found = []
    for number, (recipients, count) in enumerate(zip(sizes.tolist(), counts.tolist(), strict=True)):
        rank, of = divmod(number, tenants)
        ago = rank * MONTHS // max(1, mailings // tenants) % MONTHS
        found.append(Made(f"tenant{of:02}", f"mailing-{rank:03}", recipients, count, ago))
    return found


def declare(lock: Lock, mailings: list[Made], hours: int | None, position: int) -> None:
    """Declare them all as sent so many hours (and half of one) ago; None: over the last twelve months, all of them with
    every step passed."""
    now = int(time.time() * 1000)
    rows: list[list[Any]] = []
    for number, one in enumerate(mailings):
        ago = hours if hours is not None else 721 + one.months_ago * 730 + number % 29 * 24
        links = {link: f"https://{one.tenant}.example/{link}" for link in LINKS}
        when = now - ago * HOUR_MS - HOUR_MS // 2
        rows.append(
            [one.tenant, one.mailing, f"Mailing {one.mailing}", when, one.recipients, list(links.items()), position]
        )
    with closing(connect(lock.settings, Store.ANALYTICS, Role.WORKER, 2)) as store:
        store.insert("declaring", "mailings", arrow(rows, _MAILINGS), None)


def fill(lock: Lock, mailings: list[Made]) -> float:
    """Count all their events; how many seconds it took."""
    began, sent = time.monotonic(), int(time.time() * 1000) - 721 * HOUR_MS
    with closing(connect(lock.settings, Store.ANALYTICS, Role.WORKER, 2)) as store:
        some: list[Made] = []
        for number, one in enumerate(mailings, 1):
            some.append(one)
            full = len(some) == NAMED_AT_ONCE or sum(of.events for of in some) >= AT_ONCE
            if full or number == len(mailings):
                named = [(of.tenant, of.mailing, sent, of.recipients, of.events) for of in some]
                store.do("events", _EVENTS, {"mailings": named}, max_block_size=AT_ONCE)
                some = []
    return time.monotonic() - began


def publish(lock: Lock) -> tuple[float, float]:
    """What is due, once; seconds, and seconds of CPU of publisher and store together."""
    with closing(Publisher.open(lock.settings)) as publisher:
        cpu = lock.used()["analytics"].cpu_s + time.process_time()
        began = time.monotonic()
        publisher.run_once()
        return time.monotonic() - began, lock.used()["analytics"].cpu_s + time.process_time() - cpu


@contextlib.contextmanager
def filled_stack(
    directory: Path | None = None, mailings: int = 2_000, events: int = 50_000_000, tenants: int = 20
) -> Iterator[tuple[Lock, tuple[float, float] | None]]:
    """A lock whose analytics store holds so many events of so many mailings, of twelve months, everything published.

    `directory`: is kept, and used again as it is when it was filled before (with whatever numbers it was); None: one
    that is deleted. Beside it what publishing all of it at once took (`publish`); None when it was there. Its
    broker is Tansu's, without an event, so that everything is counted.
    """
    done = directory / "filled" if directory is not None else None
    names = "".join(f"[tenant{number:02}]\n" for number in range(tenants))
    with made("tansu", 1, directory, names) as lock:
        took = None
        if done is None or not done.exists():
            of = made_up(mailings, events, tenants)
            print(f"filled in {fill(lock, of):.0f} s", flush=True)
            declare(lock, of, None, 1)
            took = publish(lock)
            if done is not None:
                done.write_text(f"{mailings} mailings, {events} events, {tenants} tenants\n")
        yield lock, took


def stepped(asked: argparse.Namespace, steps: list[int]) -> Iterator[dict[str, Any]]:
    """Every mailing has one new step, again and again, from a store of which the steps before are published."""
    names = "".join(f"[tenant{number:02}]\n" for number in range(asked.tenants))
    with made("tansu", 1, None, names) as lock:
        of = made_up(asked.mailings, asked.events, asked.tenants)
        fill(lock, of)
        for number, step in enumerate(steps):
            if step:
                declare(lock, of, HOURS[step - 1], 2 * number + 1)
                publish(lock)
            declare(lock, of, HOURS[step], 2 * number + 2)
            took = publish(lock)
            due = [figure for figure in FIGURES if step in figure.steps]
            yield line(lock, f"one more, hour {HOURS[step]}", asked.mailings, f"{len(due)} of {len(FIGURES)}", took)


def line(lock: Lock, what: str, mailings: int, figures: str, took: tuple[float, float]) -> dict[str, Any]:
    """One line of the table."""
    return {
        "due": what,
        "mailings": mailings,
        "figures with a step": figures,
        "seconds": round(took[0], 1),
        "CPU seconds": round(took[1], 1),
        "rows of cells_unique": size(lock, "cells_unique")[0],
        "rows published": size(lock, "published")[0],
    }


def main() -> None:
    """Measure, print, and write the page."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--mailings", type=int, default=2_000)
    arguments.add_argument("--events", type=int, default=50_000_000)
    arguments.add_argument("--tenants", type=int, default=20)
    arguments.add_argument("--keep", type=Path, help="a folder in which the full store stays, to be used again")
    arguments.add_argument("--steps", default="0,12,23,30,36,39", help="of 'one more', by number")
    arguments.add_argument("--out", type=Path, default=results.FOLDER)
    asked = arguments.parse_args()
    lines: list[dict[str, Any]] = []
    with filled_stack(asked.keep, asked.mailings, asked.events, asked.tenants) as (lock, took):
        if took:
            lines.append(line(lock, "all 40 steps at once", asked.mailings, "all", took))
            print(lines[-1], flush=True)
    for one in stepped(asked, [int(step) for step in asked.steps.split(",")] if asked.steps else []):
        print(one, flush=True)
        lines.append(one)
    if lines:
        said = {"events": asked.events, "tenants": asked.tenants, "lines": lines, "cores": os.cpu_count()}
        results.write("figures", said, table(lines), asked.out, PAGE if asked.out == results.FOLDER else None)


if __name__ == "__main__":
    main()
