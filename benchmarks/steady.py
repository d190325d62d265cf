"""A steady rate for as long as you like: does memory stay flat, does the lag, do parts and open files?

    python -m benchmarks.steady [--rate 1500] [--hours 1] [--workers 1] [--out DIR]

Beside the events (1 % of them sent again) a preference changes every other second, grants and withdrawals by turns,
and a mailing is declared every ten minutes; events belong to the six newest. Every ten seconds a line of all
processes and of the store goes into steady.csv; at the end the slopes after the warm-up are fitted. The worker's
memory of event ids has to grow for 24 h, so it is named beside the slope of the worker's memory."""

from __future__ import annotations

import argparse
import asyncio
import csv
import itertools
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import results
from benchmarks.load import AGENTS, PAGES, Message, Pacer, address, preference
from benchmarks.lock import Lock, made
from streams.partitioner import message_key
from streams.stores import Role, Store, connect

PEOPLE, MAILING_SECONDS, OPEN, EVERY, WARM_UP = 50_000, 600, 6, 10.0, 0.2
MODES = [("pseudonymous", 0.30), ("personal", 0.05), ("off", 0.05)]
TENANT = "acme"


def mode_of(number: int) -> str | None:
    """What the recipient with this number decided at the beginning; None: nothing."""
    share = (number * 2_654_435_761 % 2**32) / 2**32
    for mode, part in MODES:
        if share < part:
            return mode
        share -= part
    return None


def events(begin: float) -> Iterator[Message]:
    """Events of the mailings that are open at this moment, without end; every hundredth is one sent again."""
    chance = random.Random(1)
    keys = [message_key(TENANT, address(number)) for number in range(PEOPLE)]
    last: Message | None = None
    for number in itertools.count():
        if last is not None and number % 100 == 0:
            yield last
            continue
        person = int(chance.random() * PEOPLE)
        newest = int((time.monotonic() - begin) / MAILING_SECONDS)
        mailing = max(0, newest - int(chance.random() * OPEN))
        occurred = int(time.time() * 1000) - int(chance.random() * 60_000)
        kind, url = "open", ""
        if number % 4 == 0:
            kind, url = "click", f',"url":"https://inxmail.de/p{number % PAGES}?rid={person}"'
        last = (
            "tracking.events",
            keys[person],
            (
                f'{{"event_id":"steady{number:012d}","kind":"{kind}","tenant":"{TENANT}","mailing":"s{mailing}",'
                f'"recipient":"{address(person)}","occurred_at":{occurred},"user_agent":"{AGENTS[number & 3]}",'
                f'"ip":"203.0.113.{number % 250}"{url}}}'
            ).encode(),
        )
        yield last


def declared(number: int) -> Message:
    """The mailing with this number."""
    links = ",".join(f'"l{page}":"https://inxmail.de/p{page}"' for page in range(PAGES))
    value = (
        f'{{"tenant":"{TENANT}","mailing":"s{number}","name":"s{number}","sent_at":{int(time.time() * 1000)},'
        f'"recipients":{PEOPLE},"links":{{{links}}}}}'
    )
    return "tracking.mailings", f"{TENANT}\x1fs{number}".encode(), value.encode()


async def change(pacer: Pacer, seconds: float) -> int:
    """A decision every other second, and the mailings; how many decisions were sent."""
    chance, begin, mailings, changes = random.Random(2), time.monotonic(), 1, 0
    while (passed := time.monotonic() - begin) < seconds:
        if passed > mailings * MAILING_SECONDS:
            await pacer.now(declared(mailings))
            mailings += 1
        mode = ("pseudonymous", "anonymous")[changes % 2]
        await pacer.now(preference(TENANT, address(chance.randrange(PEOPLE)), mode, int(time.time() * 1000)))
        changes += 1
        await asyncio.sleep(2.0)
    return changes


_PARTS = "SELECT sum(active), count(), sumIf(bytes_on_disk, active) FROM system.parts WHERE database = '{store}'"
_AGE = """
SELECT max(age), count() FROM (SELECT toUnixTimestamp64Milli(now64(3)) - toUnixTimestamp64Milli(max(now)) AS age
FROM claims GROUP BY partition)
"""


class Sampler:
    """Looks at everything at once."""

    def __init__(self, lock: Lock) -> None:
        self._lock = lock
        self._stores = {store: connect(lock.settings, store, Role.MIGRATIONS, 2) for store in Store}
        self._operator = connect(lock.settings, Store.ANALYTICS, Role.OPERATOR, 2)

    def line(self, begin: float, sent: int) -> dict[str, Any]:
        """One line of the file."""
        said = [status for worker in self._lock.workers if (status := worker.status())]
        partitions = [line for one in said for line in one["partitions"]]
        ((claim_age, _),) = self._operator.rows("reading claims", _AGE)
        line: dict[str, Any] = {
            "seconds": round(time.monotonic() - begin, 1),
            "load": os.getloadavg()[0],
            "sent": sent,
            "received": sum(one["outcomes"]["received"] for one in said),
            "lag": sum(one["lag"] for one in partitions),
            "oldest_s": max((one["oldest_uncommitted_seconds"] or 0.0 for one in partitions), default=0.0),
            "claim_age_s": round((claim_age or 0) / 1000, 1),
            "claims": sum(one["claim"] + 1 for one in partitions),
            "changes": sum(one["next_change"] for one in partitions),
            "waits": sum(one["waits"] for one in said),
            "preferences": sum(one["preferences_known"] for one in partitions),
            "event_ids": sum(one["event_ids_remembered"] for one in partitions),
        }
        for store, client in self._stores.items():
            ((active, parts, size),) = client.rows("reading parts", _PARTS.format(store=store))
            line |= {f"{store}_parts": active, f"{store}_parts_all": parts, f"{store}_disk_mb": round(size / 1e6, 1)}
        for name, one in sorted(self._lock.used().items()):
            line |= {f"{name}_rss_mb": one.rss_mb, f"{name}_cpu_s": one.cpu_s}
            line |= {f"{name}_files": one.files, f"{name}_threads": one.threads}
        return line


async def sampled(sampler: Sampler, pacer: Pacer, seconds: float, path: Path) -> list[dict[str, Any]]:
    """A line every `EVERY` seconds, each written at once."""
    begin, lines = time.monotonic(), list[dict[str, Any]]()
    with path.open("w", newline="") as file:
        writer: csv.DictWriter[str] | None = None
        while time.monotonic() - begin < seconds:
            await asyncio.sleep(EVERY)
            try:
                line = await asyncio.to_thread(sampler.line, begin, pacer.sent)
            except Exception as error:  # a store under somebody else's load: the next line says more
                print(f"no line at {time.monotonic() - begin:.0f} s ({type(error).__name__})", flush=True)
                continue
            if writer is None:
                writer = csv.DictWriter(file, list(line))
                writer.writeheader()
            writer.writerow(line)
            file.flush()
            lines.append(line)
    return lines


def slope(lines: list[dict[str, Any]], name: str) -> float:
    """Least squares, per hour."""
    x = np.array([line["seconds"] for line in lines]) / 3600
    return float(np.polyfit(x, [float(line[name]) for line in lines], 1)[0])


def verdict(lines: list[dict[str, Any]], rate: float) -> dict[str, Any]:
    """Slopes after the warm-up, and how the lag was."""
    sending = [line for line in lines if line["sent"] < lines[-1]["sent"]]
    after = sending[int(len(sending) * WARM_UP) :]
    lag = np.array([line["lag"] for line in after])
    age = np.array([line["claim_age_s"] for line in after])
    names = [name for name in after[0] if name.endswith(("_rss_mb", "_files", "_threads", "_parts", "_parts_all"))]
    seconds = after[-1]["seconds"] - after[0]["seconds"]
    cpu = {
        name.removesuffix("_cpu_s"): round((after[-1][name] - after[0][name]) / seconds * 100, 1)
        for name in after[0]
        if name.endswith("_cpu_s")
    }
    return {
        "rate": rate,
        "hours": round(lines[-1]["seconds"] / 3600, 2),
        "received": lines[-1]["received"],
        "changes": lines[-1]["changes"],
        "per_hour": {name: round(slope(after, name), 1) for name in [*names, "lag", "event_ids"]},
        "at_the_end": {name: after[-1][name] for name in names},
        "most": {name: max(line[name] for line in after) for name in names},
        "cpu_percent": cpu,
        "lag": {"p50": int(np.median(lag)), "p99": int(np.percentile(lag, 99)), "max": int(lag.max())},
        "claim_age_s": {"p50": float(np.median(age)), "p99": float(np.percentile(age, 99)), "max": float(age.max())},
        "load": {"p50": float(np.median([line["load"] for line in after])), "max": max(line["load"] for line in after)},
        "disk_mb_per_hour": {store: round(slope(after, f"{store}_disk_mb"), 1) for store in ("identity", "analytics")},
    }


def table(said: dict[str, Any]) -> str:
    """For people."""
    lag, age, load = said["lag"], said["claim_age_s"], said["load"]
    lines = [
        f"{said['rate']:,.0f} events/s for {said['hours']} h: {said['received']:,} events, "
        f"{said['changes']:,} changes. Lag in records: median {lag['p50']:,}, p99 {lag['p99']:,}, most {lag['max']:,}. "
        f"Age of the newest claim, partition furthest behind: median {age['p50']:.1f} s, most {age['max']:.1f} s. "
        f"Load average: median {load['p50']:.1f}, most {load['max']:.1f}.",
        "",
        "| process | MB at the end | MB an hour | CPU % of a core | files at the end | files an hour |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, cpu in said["cpu_percent"].items():
        lines.append(
            f"| {name} | {said['at_the_end'][f'{name}_rss_mb']:,.0f} | {said['per_hour'][f'{name}_rss_mb']:+,.1f} "
            f"| {cpu:.0f} | {said['at_the_end'][f'{name}_files']:.0f} | {said['per_hour'][f'{name}_files']:+,.1f} |"
        )
    for store in ("identity", "analytics"):
        lines.append(
            f"\n{store}: {said['at_the_end'][f'{store}_parts']:.0f} active parts at the end, most "
            f"{said['most'][f'{store}_parts']:.0f} ({said['per_hour'][f'{store}_parts']:+.1f} an hour); "
            f"{said['disk_mb_per_hour'][store]:+.1f} MB of disk an hour."
        )
    lines.append(
        f"\nEvent ids remembered: {said['per_hour']['event_ids']:,.0f} more an hour, which is what 24 h of memory is "
        "made of: the worker's own growth until then."
    )
    return "\n".join(lines)


async def steady(lock: Lock, rate: float, seconds: float, path: Path) -> list[dict[str, Any]]:
    """Send, change and sample."""
    async with (
        Pacer(lock.stack.broker_address, lock.partitions) as pacer,
        Pacer(lock.stack.broker_address, lock.partitions) as slow,
    ):
        await slow.now(declared(0))
        _, _, lines = await asyncio.gather(
            pacer.run(events(time.monotonic()), rate, seconds),
            change(slow, seconds),
            sampled(Sampler(lock), pacer, seconds, path),
        )
    return lines


def main() -> None:
    """Print a table; write steady.csv and steady.json."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rate", type=float, default=1500, help="events a second")
    arguments.add_argument("--hours", type=float, default=1.0)
    arguments.add_argument("--workers", type=int, default=1)
    arguments.add_argument("--partitions", type=int, default=4)
    arguments.add_argument("--broker", choices=["kafka", "tansu"], default="kafka")
    arguments.add_argument("--out", type=Path, default=results.FOLDER)
    asked = arguments.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    with made(asked.broker, asked.partitions) as lock:
        decided = [(number, mode) for number in range(PEOPLE) if (mode := mode_of(number))]
        lock.send(preference(TENANT, address(number), mode) for number, mode in decided)
        workers = [lock.worker() for _ in range(asked.workers)]
        for worker in workers:
            worker.ready()
        lock.until(lambda: lock.changes() >= len(decided))
        print(f"ready, {len(decided):,} preferences known", flush=True)
        lines = asyncio.run(steady(lock, asked.rate, asked.hours * 3600, asked.out / "steady.csv"))
        sent = lines[-1]["sent"]
        lock.until(lambda: lock.received() >= sent, 120)
        counted = lock.received()
        lock.stop_workers()
    said = verdict(lines, asked.rate) | {"sent": sent, "received_at_the_end": counted}
    ours = asked.out == results.FOLDER
    results.write("steady", said, table(said), asked.out, results.ROOT / "docs" / "capacity.md" if ours else None)


if __name__ == "__main__":
    main()
