"""What grows when something grows: one factor at a time, the others as they are.

    python -m benchmarks.growth [--only workers,mailings] [--events 300000] [--preferences 10000,1000000]

workers      1, 2 and 4 on a backlog of eight partitions; on two cores they share what there is: look at CPU µs an event
preferences  known recipients: start-up until /ready, memory, and the rate afterwards (events of 50,000 of them). The
             states are written straight into tracking.state, as a worker would have (`messages.encode_state`)
mailings     open at once, each with nine links
consent      percent of the people with pseudonymous rows
ids          event ids remembered: 24 h of hashes are put into the store; start-up until /ready and memory
claims       old claims: what reading the chain costs with ten million of them
rows         pseudonymous rows: how long one withdrawal takes to remove what it forbids
erasures     so many recipients erased in one go, of a store whose rows are all theirs and those of nine times as many
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from benchmarks import results
from benchmarks.load import HOUR_MS, Load, Message, address, preference
from benchmarks.lock import Lock, made, used
from benchmarks.worker import measured, prepared
from pseudonymizer.consent import ALWAYS, Consent, Mode, Salt
from streams.chain import Claims
from streams.ingest import SCHEMA
from streams.keyring import KeyRing
from streams.keys import Keys
from streams.messages import RecipientState, decode_state, encode_state
from streams.partitioner import message_key, partition_of
from streams.stores import Role, Store, connect

PAGE = results.ROOT / "docs" / "capacity.md"
GRANTED_MS, PARTITIONS = 1_767_225_600_000, 4
TIME = pa.timestamp("ms", "UTC")
Line = dict[str, Any]


def of_run(said: dict[str, Any]) -> Line:
    """The columns of a run on a backlog."""
    return {
        "events/s": round(said["rate"]),
        "worker CPU µs": round(said["cpu_us"]["worker"], 2),
        "analytics CPU µs": round(said["cpu_us"]["analytics"], 2),
        "build µs": round(said["stage_us"]["build"], 2),
        "insert µs": round(said["stage_us"]["insert"], 2),
        "worker peak MB": round(said["peak_mb"]["worker"]),
        "analytics peak MB": round(said["peak_mb"]["analytics"]),
    }


def size(lock: Lock, table: str) -> tuple[int, int, int]:
    """Rows, bytes on disk and active parts of a table of the analytics store."""
    ((rows, disk, parts),) = lock.rows(
        Store.ANALYTICS,
        "SELECT sum(rows), sum(bytes_on_disk), count() FROM system.parts "
        f"WHERE active AND database = 'analytics' AND table = '{table}'",
        Role.MIGRATIONS,
    )
    return int(rows), int(disk), int(parts)


def workers(events: int) -> Iterator[Line]:
    """1, 2 and 4 on eight partitions."""
    load = Load()
    with made("kafka", 8) as lock:
        prepared(lock, load)
        for number, count in enumerate((1, 2, 4)):
            lock.send(load.events(events, number * events))
            yield {"workers": count, **of_run(measured(lock, events, count))}


def states(count: int) -> Iterator[Message]:
    """Encoded states of recipients who agreed to pseudonymous rows, each with salts of her own."""
    base, rng = Consent(Mode.PSEUDONYMOUS, (ALWAYS, GRANTED_MS, None), GRANTED_MS), np.random.default_rng(4)
    for number in range(count):
        drawn = rng.bytes(32)  # the same ones each time
        kinds = {
            kind: base._replace(salts=(Salt(Mode.PSEUDONYMOUS, GRANTED_MS, drawn[half : half + 16], 1),))
            for kind, half in (("open", 0), ("click", 16))
        }
        value = encode_state(RecipientState((0, number), {"engagement": kinds}))
        yield "tracking.state", message_key("acme", address(number)), value


def preferences(events: int, counts: list[int]) -> Iterator[Line]:
    """So many known recipients, in a lock of their own each."""
    nothing = 0.0
    for count in [0, *counts]:
        with made("kafka", PARTITIONS) as lock:
            load = Load(granted=0)
            prepared(lock, load)  # makes the root keys and a first chain
            lock.send(states(count))
            worker = lock.worker()
            seconds = worker.ready()
            rss = used(worker.pid).rss_mb
            spent = used(worker.pid).cpu_s
            lock.stop_workers()
            lock.workers.clear()
            if not count:
                nothing, ready_empty = rss, seconds
                continue
            lock.send(load.events(events))
            run = of_run(measured(lock, events))
            yield {
                "preferences": count,
                "ready after s": round(seconds, 1),
                "of that for the states s": round(seconds - ready_empty, 1),
                "CPU s": round(spent, 1),
                "worker MB": round(rss),
                "bytes a preference": round((rss - nothing) * 1024 * 1024 / count),
                "events/s": run["events/s"],
                "worker CPU µs": run["worker CPU µs"],
            }


def mailings(events: int) -> Iterator[Line]:
    """So many mailings open at once."""
    for count in (10, 1_000, 10_000):
        with made("kafka", PARTITIONS) as lock:
            load = Load(mailings=count)
            prepared(lock, load)
            lock.send(load.events(events))
            run = of_run(measured(lock, events))
            cells, unique = size(lock, "cells_hourly"), size(lock, "cells_unique")
            yield {
                "mailings": count,
                **run,
                "cells_hourly rows": cells[0],
                "cells_unique rows": unique[0],
                "cells_unique bytes an event": round(unique[1] / events, 1),
            }


def consent(events: int) -> Iterator[Line]:
    """So many percent of the people with rows."""
    for percent in (1, 50, 100):
        with made("kafka", PARTITIONS) as lock:
            load = Load(granted=percent)
            prepared(lock, load)
            lock.send(load.events(events))
            run = of_run(measured(lock, events))
            rows, disk, _ = size(lock, "engagement")
            _, seen, _ = size(lock, "seen")
            yield {
                "percent": percent,
                **run,
                "engagement bytes a row": round(disk / max(1, rows), 1),
                "seen bytes an event": round(seen / events, 1),
                "cells_unique bytes an event": round(size(lock, "cells_unique")[1] / events, 1),
            }


def remembered(partition: int, hour: int, count: int, rng: np.random.Generator) -> pa.Table:
    """Rows of `ingest` that are nothing but hashes of event ids."""
    same: dict[str, Any] = {"incarnation": 1, "partition": partition, "hour": hour}
    columns: list[pa.Array] = []
    for name, kind in zip(SCHEMA.names, SCHEMA.types, strict=True):
        if name == "event_hash":
            columns.append(pa.array(rng.integers(1, 2**63, count).astype(np.uint64)))
        else:
            empty = b"\0" * 16 if name == "pseudonym" else "" if kind == pa.string() else 0
            value = pa.scalar(same.get(name, empty), pa.int32() if kind == pa.date32() else kind)
            columns.append(pa.repeat(value.cast(kind), count))
    until = int(time.time() * 1000) + HOUR_MS
    return pa.Table.from_arrays(
        [*columns, pa.repeat(pa.scalar(until, pa.int64()).cast(TIME), count)], names=[*SCHEMA.names, "deadline"]
    )


def ids(counts: list[int]) -> Iterator[Line]:
    """So many event ids, spread over 24 h and the partitions."""
    nothing, ready_empty = 0.0, 0.0
    for count in [0, *counts]:
        with made("kafka", PARTITIONS) as lock:
            load, rng, now = Load(granted=0), np.random.default_rng(1), int(time.time() // 3600)
            prepared(lock, load)
            lock.send(load.events(40_000))
            measured(lock, 40_000)  # so that each partition has a position, below which all of this lies
            store = connect(lock.settings, Store.ANALYTICS, Role.WORKER, 2)
            each = count // (24 * PARTITIONS)
            for hour in range(24) if each else ():
                for partition in range(PARTITIONS):
                    store.insert("a day of ids", "ingest", remembered(partition, now - hour, each, rng), None)
            worker = lock.worker()
            seconds = worker.ready()
            here, store_peak = used(worker.pid), lock.used()["analytics"].peak_mb
            if not count:
                nothing, ready_empty = here.rss_mb, seconds
                continue
            yield {
                "event ids": each * 24 * PARTITIONS,
                "ready after s": round(seconds, 1),
                "of that for the ids s": round(seconds - ready_empty, 1),
                "worker MB": round(here.rss_mb),
                "worker peak MB": round(here.peak_mb),
                "analytics peak MB": round(store_peak),
                "bytes an id": round((here.rss_mb - nothing) * 1024 * 1024 / count, 1),
            }


def best_ms(call: Callable[[], object]) -> float:
    """Milliseconds of the fastest of five."""
    times = []
    for _ in range(5):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return round(min(times) * 1000, 1)


def claims(counts: list[int]) -> Iterator[Line]:
    """So many claims in the table, by eight partitions, a second apart."""
    with made("kafka", 8) as lock:
        store = connect(lock.settings, Store.ANALYTICS, Role.WORKER, 2)
        there, at_once = 0, 1_000_000
        end = int(time.time() * 1000) - 2 * HOUR_MS
        for count in counts:
            while there < count:
                number = np.arange(there, there + min(at_once, count - there))
                store.insert("old claims", "claims", _old(number, end, counts[-1]), None)
                there += len(number)
            chain = Claims(store, 1, ("a", "b"))
            later = Claims(store, 2, ("a", "b"))
            newest = chain.look(3).newest
            assert newest is not None
            rows, disk, _ = size(lock, "claims")
            yield {
                "claims": rows,
                "bytes a claim": round(disk / rows, 1),
                "look ms": best_ms(lambda chain=chain: chain.look(3)),
                "since ms": best_ms(lambda chain=chain, claim=newest: chain.since(claim)),  # type: ignore[misc]
                "inherited ms": best_ms(lambda later=later: later.inherited(3)),
            }


def _old(number: np.ndarray[Any, Any], end: int, of: int) -> pa.Table:
    def same(value: int, kind: pa.DataType) -> pa.Array:
        return pa.repeat(pa.scalar(value, pa.int64()).cast(kind), len(number))

    ranks = (number // 8).astype(np.uint64)
    return pa.table(
        {
            "incarnation": same(1, pa.uint32()),
            "partition": pa.array((number % 8).astype(np.uint16)),
            "number": ranks,
            "kind": ["events"] * len(number),
            **{name: ranks * np.uint64(1000) for name in ("first", "last", "next_event", "next_change")},
            "now": pa.array(end - (of - number) // 8 * 100).cast(TIME),  # 100 ms apart: within the two weeks
            "rules": same(1, pa.uint16()),
            "mailings": same(0, pa.uint64()),
            "settings": ["0123456789abcdef"] * len(number),
            "worker": ["0.1.0/0123abcd"] * len(number),
            "deadline": same(int(time.time() * 1000) + HOUR_MS, TIME),
        }
    )


def rows(counts: list[int]) -> Iterator[Line]:
    """So many pseudonymous rows in `engagement`; then one recipient withdraws, then a hundred at once."""
    with made("kafka", PARTITIONS) as lock:
        load = Load(granted=1)
        prepared(lock, load)
        worker, there, rng = lock.worker(), 0, np.random.default_rng(2)
        worker.ready()
        store = connect(lock.settings, Store.ANALYTICS, Role.WORKER, 2)
        withdrawn, changes = 0, lock.changes()
        for count in counts:
            while there < count:
                store.insert("rows", "ingest", _rows(500_000, rng), None)
                there += 500_000
            line: Line = {"rows": there}
            for many in (1, 100):
                before = worker.stages().get("remove", (0.0, 0))
                people = range(withdrawn, withdrawn + many)
                now = int(time.time() * 1000)
                lock.send(preference("acme", address(number), "anonymous", now) for number in people)
                withdrawn, changes = withdrawn + many, changes + many
                lock.until(lambda due=changes: lock.changes() >= due)
                after = worker.stages()["remove"]
                line[f"remove, {many} withdrawn, s a claim"] = round(
                    (after[0] - before[0]) / max(1, after[1] - before[1]), 2
                )
            line["engagement bytes a row"] = round(size(lock, "engagement")[1] / there, 1)
            yield line


def _rows(count: int, rng: np.random.Generator) -> pa.Table:
    """Rows of `engagement` of people who are not asked about, in four mailings and 30 days."""
    table = remembered(0, 0, count, rng)
    now = int(time.time() * 1000)
    changed: dict[str, pa.Array] = {
        "partition": pa.array(rng.integers(0, PARTITIONS, count).astype(np.uint16)),
        "incarnation": pa.repeat(pa.scalar(0, pa.uint32()), count),  # of before
        "claim": pa.repeat(pa.scalar(0, pa.uint64()), count),
        "event_hash": pa.repeat(pa.scalar(0, pa.uint64()), count),
        "tenant": pa.repeat("acme", count),
        "purpose": pa.repeat("engagement", count),
        "mailing": pa.array([f"2026-11-m{n}" for n in rng.integers(0, 4, count)]),
        "kind": pa.array(np.where(rng.random(count) < 0.25, "click", "open")),
        "device": pa.repeat("phone", count),
        "actor": pa.repeat("human", count),
        "occurred_ms": pa.array(now - rng.integers(0, 30 * 24 * HOUR_MS, count)),
        "pseudonym": pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(16), count, [None, pa.py_buffer(rng.integers(1, 2**63, count * 2).tobytes())]
        ),
        "expires": pa.repeat(pa.scalar(now // (24 * HOUR_MS) + 395, pa.int32()).cast(pa.date32()), count),
    }
    for name, column in changed.items():
        table = table.set_column(table.column_names.index(name), name, column)
    return table


def erasures(counts: list[int], rows_each: int = 10) -> Iterator[Line]:
    """A tenth of the people of a store asks for erasure, all at once."""
    for count in counts:
        with made("kafka", PARTITIONS) as lock:
            load, people = Load(granted=0), 10 * count
            prepared(lock, load)  # makes the root keys and a first chain
            keys = Keys(KeyRing.open(lock.settings.keyring, lock.settings.keyring_kek))
            keys.primary("acme")
            lock.send(states(people))
            worker = lock.worker()
            worker.ready()
            store, rng = connect(lock.settings, Store.ANALYTICS, Role.WORKER, 2), np.random.default_rng(3)
            for table_ in _rows_of(lock, keys, people, rows_each, rng):
                store.insert("rows", "ingest", table_, None)
            there = size(lock, "engagement")[0]
            cpu = {name: one.cpu_s for name, one in lock.used().items()}
            began = time.monotonic()
            lock.send(erasure(address(number)) for number in range(count))
            sent = time.monotonic() - began
            lock.until(lambda count=count: receipts(lock) >= count)
            seconds = time.monotonic() - began
            ((left,),) = lock.rows(Store.ANALYTICS, "SELECT count() FROM engagement", Role.RIGHTS)
            if left != there - count * rows_each:
                raise SystemExit(f"{left} rows are left of {there}, after {count} erasures of {rows_each} each")
            now = {name: one.cpu_s for name, one in lock.used().items()}
            yield {
                "erased": count,
                "of rows": there,
                "sent after s": round(sent, 1),
                "last receipt after s": round(seconds, 1),
                "erasures/s": round(count / seconds),
                **{f"{name} CPU s": round(now[name] - cpu[name], 1) for name in sorted(now)},
            }


def erasure(who: str) -> Message:
    """A request, as a sender writes it."""
    value = {"tenant": "acme", "recipient": who, "request_id": f"r-{who.partition('@')[0]}", "kind": "erasure"}
    return "tracking.requests", message_key("acme", who), orjson.dumps(value)


def receipts(lock: Lock) -> int:
    """How many erasures are confirmed."""
    ((count,),) = lock.rows(Store.IDENTITY, "SELECT count() FROM receipts WHERE kind = 'erasure'", Role.RIGHTS)
    return int(count)


def _rows_of(lock: Lock, keys: Keys, people: int, each: int, rng: np.random.Generator) -> Iterator[pa.Table]:
    """Rows of people whose states `states` has written: half opens, half clicks, where their keys lie."""
    making, at_once = keys.pseudonymizer("acme", "engagement", 1), 50_000
    assert making is not None
    kept = iter(states(people))
    for begin in range(0, people, at_once):
        names = [address(number) for number in range(begin, min(begin + at_once, people))]
        pseudonyms, partitions = [], []
        for name in names:
            _, key, raw = next(kept)
            consents = decode_state(raw).purposes["engagement"]
            pseudonyms += [making.pseudonym(consents[kind].salts[0].value, name) for kind in ("open", "click")]
            partitions += [partition_of(key, PARTITIONS)] * 2
        which = np.repeat(np.arange(len(pseudonyms)), each // 2)
        table_ = _rows(len(which), rng)
        changed: dict[str, pa.Array] = {
            "partition": pa.array(np.array(partitions, np.uint16)[which]),
            "kind": pa.array(np.where(which % 2, "click", "open")),
            "pseudonym": pa.array(pseudonyms, pa.binary(16)).take(pa.array(which)),
        }
        for name, column in changed.items():
            table_ = table_.set_column(table_.column_names.index(name), name, column)
        yield table_


def table(lines: list[Line]) -> str:
    """Markdown."""

    def shown(value: object) -> str:
        return f"{value:,}" if isinstance(value, int | float) else str(value)

    head = list(lines[0])
    return "\n".join(
        [
            f"| {' | '.join(head)} |",
            f"| {' | '.join('---:' for _ in head)} |",
            *(f"| {' | '.join(shown(line[name]) for name in head)} |" for line in lines),
        ]
    )


def main() -> None:
    """Print a table for each factor; write growth-FACTOR.json and docs/capacity.md."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--only", default="workers,preferences,mailings,consent,ids,claims,rows,erasures")
    arguments.add_argument("--events", type=int, default=300_000, help="of each run")
    arguments.add_argument("--preferences", default="10000,1000000", help="10000000 takes five minutes and 6 GB more")
    arguments.add_argument("--ids", default="20000000")
    arguments.add_argument("--claims", default="10000,1000000,10000000")
    arguments.add_argument("--rows", default="1000000,10000000")
    arguments.add_argument("--erasures", default="100000")
    arguments.add_argument("--out", type=Path, default=results.FOLDER)
    asked = arguments.parse_args()

    def numbers(text: str) -> list[int]:
        return [int(number) for number in text.split(",")]

    factors: dict[str, Callable[[], Iterator[Line]]] = {
        "workers": lambda: workers(asked.events),
        "preferences": lambda: preferences(asked.events, numbers(asked.preferences)),
        "mailings": lambda: mailings(asked.events),
        "consent": lambda: consent(asked.events),
        "ids": lambda: ids(numbers(asked.ids)),
        "claims": lambda: claims(numbers(asked.claims)),
        "rows": lambda: rows(numbers(asked.rows)),
        "erasures": lambda: erasures(numbers(asked.erasures)),
    }
    for factor in asked.only.split(","):
        begin, lines, name = time.monotonic(), list[Line](), f"growth-{factor}"
        for line in factors[factor]():
            print(line, flush=True)
            lines.append(line)
        if asked.out == results.FOLDER:
            lines = merged(name, lines)
        results.write(name, {"lines": lines}, table(lines), asked.out, PAGE if asked.out == results.FOLDER else None)
        print(f"{name}: {time.monotonic() - begin:.0f} s\n", flush=True)


def merged(name: str, lines: list[Line]) -> list[Line]:
    """Lines of an earlier run for other sizes stay: the ten millions need not be measured every time."""
    first = next(iter(lines[0]))
    kept = (results.read(name) or {}).get("lines", [])
    now = {line[first] for line in lines}
    same = [line for line in kept if line.get(first) not in now and list(line) == list(lines[0])]
    return sorted([*same, *lines], key=lambda line: line[first])  # type: ignore[no-any-return]


if __name__ == "__main__":
    main()
