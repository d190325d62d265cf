"""How fast figures are read: 50 million events counted, 2,000 mailings of 20 tenants published, 20 readers at once.

    python -m benchmarks.reading                     # the table of docs/dashboard.md, and results/reading.json
    python -m benchmarks.reading --keep DIR          # a store that benchmarks.figures (or this) filled before

question    one question of the dashboard to the store, asked one after the other
page        a page or an answer of the API, asked by 20 readers at once, each logged in, each at her own mailings, each
            waiting half a second to a second and a half before the next
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import numpy as np

from benchmarks import results
from benchmarks.figures import filled_stack
from benchmarks.growth import table
from benchmarks.lock import Lock
from streams.dashboard import figures, officer
from streams.dashboard.readers import ReaderRole, let_in
from streams.stores import Role, Store, StoreClient, connect

PAGE = results.ROOT / "docs" / "dashboard.md"
READERS, ROUNDS, ASKED = 20, 10, 60
MAILINGS = "SELECT DISTINCT toString(tenant), mailing FROM mailings ORDER BY ALL"
Line = dict[str, Any]


def line(what: str, name: str, seconds: list[float], aim_ms: int) -> Line:
    """One line of the table, in milliseconds."""
    middle, late = (round(1000 * float(np.percentile(seconds, q)), 1) for q in (50, 95))
    return {"what": what, "name": name, "asked": len(seconds), "p50 ms": middle, "p95 ms": late, "aim ms": aim_ms}


def questions(store: StoreClient, mailings: dict[str, list[str]]) -> Iterator[Line]:
    """Every question that a page asks."""
    draw = random.Random(1)
    tenants = sorted(mailings)

    def of(tenant: str) -> str:
        return draw.choice(mailings[tenant])

    second = {tenant: figures.mailings(store, tenant, 25).after for tenant in tenants}
    asked: dict[str, Callable[[str], Any]] = {
        "mailings, first page": lambda tenant: figures.mailings(store, tenant, 25),
        "mailings, next page": lambda tenant: figures.mailings(store, tenant, 25, second[tenant]),
        "mailings by name": lambda tenant: figures.mailings(store, tenant, 25, None, "1"),
        "one mailing": lambda tenant: figures.history(store, tenant, of(tenant)),
        "the tenant's others": lambda tenant: figures.usual(store, tenant, of(tenant), 720),
        "months": lambda tenant: figures.months(store, tenant),
        "rows, 1,000 of them": lambda tenant: list(figures.rows(store, tenant, 1_000)),
        "officer's view": lambda tenant: officer.officer(store, tenant),
        "who may read": lambda _: store.rows("x", "SELECT count() FROM readers"),
    }
    for name, ask in asked.items():
        seconds = []
        for number in range(ASKED):
            began = time.perf_counter()
            ask(tenants[number % len(tenants)])
            seconds.append(time.perf_counter() - began)
        yield line("question", name, seconds, 50)


@contextmanager
def dashboard(lock: Lock) -> Iterator[str]:
    """A dashboard of its own process; where it listens."""
    log = lock.stack.directory / "logs" / "dashboard.log"
    process = subprocess.Popen(
        [sys.executable, "-m", "streams.cli", "--config", str(lock.stack.settings_file), "dashboard"],
        stdout=log.open("wb"),
        stderr=subprocess.STDOUT,
        env={**os.environ, "SCHLEUSE_DASHBOARD_PORT": "0", "SCHLEUSE_DASHBOARD_REQUESTS_PER_MINUTE": "100000"},
    )
    try:
        while b"address" not in log.read_bytes():
            time.sleep(0.1)
        yield json.loads(log.read_text().splitlines()[0])["address"]
    finally:
        process.terminate()
        process.wait(20)


async def pages(address: str, keys: dict[str, str], mailings: dict[str, list[str]]) -> list[Line]:
    """Every page, by all readers at once."""
    draw = random.Random(2)
    paths: dict[str, Callable[[str], str]] = {
        "mailings": lambda _: "/mailings",
        "one mailing": lambda tenant: f"/mailings/{quote(draw.choice(mailings[tenant]), safe='')}",
        "trends": lambda _: "/trends",
        "officer's view": lambda _: "/officer",
        "API: mailings": lambda _: "/api/v1/mailings",
        "API: one mailing": lambda tenant: f"/api/v1/mailings/{quote(draw.choice(mailings[tenant]), safe='')}",
        "API: 1,000 rows": lambda _: "/api/v1/figures",
    }
    taken: dict[str, list[float]] = {name: [] for name in paths}

    async def read(tenant: str, key: str) -> None:
        jar = aiohttp.CookieJar(unsafe=True)
        async with aiohttp.ClientSession(cookie_jar=jar, headers={"Authorization": f"Bearer {key}"}) as session:
            async with session.post(f"{address}/login", data={"key": key, "to": "/about"}) as answer:
                assert answer.status == 200
            for _ in range(ROUNDS):
                for name in draw.sample(list(paths), len(paths)):
                    await asyncio.sleep(0.5 + draw.random())
                    began = time.perf_counter()
                    async with session.get(address + paths[name](tenant), allow_redirects=False) as answer:
                        await answer.read()
                        assert answer.status == 200, (name, answer.status)
                    taken[name].append(time.perf_counter() - began)

    readers: list[Awaitable[None]] = [read(tenant, key) for tenant, key in keys.items()]
    await asyncio.gather(*readers)
    return [line(f"page, {READERS} readers", name, seconds, 200) for name, seconds in taken.items()]


def main() -> None:
    """Measure, print, and write the page."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--keep", type=Path, help="a folder in which the full store stays, to be used again")
    arguments.add_argument("--mailings", type=int, default=2_000)
    arguments.add_argument("--events", type=int, default=50_000_000)
    arguments.add_argument("--out", type=Path, default=results.FOLDER)
    asked = arguments.parse_args()
    with filled_stack(asked.keep, asked.mailings, asked.events, READERS) as (lock, _):
        operator = connect(lock.settings, Store.ANALYTICS, Role.OPERATOR)
        mailings: dict[str, list[str]] = {}
        for tenant, mailing in operator.rows(
            "x", "SELECT DISTINCT toString(tenant), mailing FROM mailings ORDER BY ALL"
        ):
            mailings.setdefault(tenant, []).append(mailing)
        until = time.time_ns() // 1_000_000 + 86_400_000
        keys = {tenant: let_in(operator, tenant, ReaderRole.PRIVACY, "benchmark", until) for tenant in sorted(mailings)}
        operator.close()
        store = connect(lock.settings, Store.ANALYTICS, Role.DASHBOARD)
        ((rows,),) = store.rows("x", "SELECT count() FROM published")
        lines = list(questions(store, mailings))
        store.close()
        with dashboard(lock) as address:
            lines += asyncio.run(pages(address, keys, mailings))
    said = {"published_rows": rows, "mailings": asked.mailings, "lines": lines, "cores": os.cpu_count()}
    results.write("reading", said, table(lines), asked.out, PAGE if asked.out == results.FOLDER else None)


if __name__ == "__main__":
    main()
