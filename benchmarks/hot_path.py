"""What an event costs in the stages that are ours: decoding, duplicates, partitioning, the whole batch. One core, µs.

    python -m benchmarks.hot_path [--events 50000] [--json]

Budget: decode 2.0, duplicates 1.2 with hashing, partition 0.3 for each distinct key. CPU time, the best of some runs,
since what else the machine does only ever adds. Ratios in one run are worth more than figures across machines.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("POLARS_MAX_THREADS", "1")  # one core: read when polars is imported

import numpy as np  # after the setting above

from pseudonymizer.consent import ALWAYS, Consent, Mode, Salt
from pseudonymizer.pseudonyms import event_hashes
from pseudonymizer.siphash import Messages
from streams.chain import Claim, Kind
from streams.declarations import Declarations
from streams.decode import decode, read_event
from streams.events import EventsWork
from streams.keyring import KeyRing
from streams.keys import Keys
from streams.messages import RecipientState, encode_state
from streams.partitioner import message_key, partitions_of
from streams.seen import Seen
from streams.state import StateIndex
from streams.tenants import parse

NOW = 1_795_435_200_000  # 2026-11-23T12:00:00Z
RUNS = 5


def events(
    count: int, separators: tuple[str, str] = (",", ":"), people: int = 200_000, seed: int = 1, **extra: str
) -> list[bytes]:
    """Events of about 290 bytes, three opens to a click."""
    rng = random.Random(seed)  # not for secrets
    made = []
    for number in range(count):
        clicked = rng.random() < 0.25
        event = {
            "event_id": f"01JD8Z7V1K3TQ0V9{seed:03d}{number:07d}",
            "kind": "click" if clicked else "open",
            "tenant": "acme",
            "mailing": "2026-11-herbst",
            "recipient": f"user{rng.randrange(people):07d}@example.com",
            "occurred_at": f"2026-11-23T09:{rng.randrange(60):02d}:{rng.randrange(60):02d}.{rng.randrange(1000):03d}Z",
            "user_agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/120.0",
            "ip": f"203.0.113.{number % 250}",
        }
        if clicked:
            event |= {"link": "hero", "url": f"https://inxmail.de/produkt/{number % 50}?utm_source=nl"}
        made.append(json.dumps(event | extra, separators=separators).encode())
    return made


def best(work: Callable[[], object], count: int) -> float:
    """CPU µs an event of the fastest of RUNS."""
    times = []
    for _ in range(RUNS):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return round(min(times) / count * 1e6, 2)


def decoding(count: int) -> dict[str, float]:
    good = events(count)
    bad = [raw if number % 100 else raw.replace(b'"kind"', b'"sort"') for number, raw in enumerate(good)]
    shapes = {
        "decode": good,
        "decode, json.dumps' blanks": events(count, (", ", ": ")),
        "decode, 1 % bad": bad,
        "decode, an unknown field in every event": events(count, x_batch="4711"),
    }
    figures = {name: best(lambda values=values: decode(values, NOW), count) for name, values in shapes.items()}  # type: ignore[misc]  # bound early on purpose
    figures["plain reader alone"] = best(lambda: [read_event(raw, NOW) for raw in good[: count // 10]], count // 10)
    return figures


def duplicates(count: int) -> dict[str, float]:
    """Hashing, and a memory that grows to 100 batches, ten an hour."""
    key, ids = b"k" * 32, [b"01JD8Z7V1K3TQ0V9%010d" % number for number in range(count)]
    which = np.zeros(count, np.int64)
    figures = {"hash of the event id": best(lambda: event_hashes(key, ["acme"], which, Messages.of(ids)), count)}
    seen, rng = Seen(), np.random.default_rng(1)
    batches = [rng.integers(0, 2**64, count, np.uint64) for _ in range(100)]
    for earlier, batch in pairwise(batches):
        batch[: count // 100] = earlier[: count // 100]  # 1 % sent again
    look_s = commit_s = longest = 0.0
    for number, batch in enumerate(batches):
        start = time.process_time()
        _, look = seen.look(batch, np.full(count, 490_000 + number // 10))
        between = time.process_time()
        seen.commit(look)
        end = time.process_time()
        look_s, commit_s, longest = look_s + between - start, commit_s + end - between, max(longest, end - between)
    total = count * len(batches)
    return figures | {
        "duplicates: look": round(look_s / total * 1e6, 2),
        "duplicates: commit, growth included": round(commit_s / total * 1e6, 2),
        "duplicates: longest commit, ms": round(longest * 1e3, 1),
        "duplicates: bytes an event remembered": round(seen.nbytes / len(seen), 1),
    }


def building(count: int) -> dict[str, float]:
    """A claim from records to Arrow, half of the people having granted pseudonymous rows: by how many there are.

    Few: nearly all are remembered from the batch before. Many: nearly everybody is met in the batch that names her, as
    in the hour after a large mailing.
    """
    return {
        "build, 25,000 recipients": _building(count, 25_000),
        "build, 2,000,000 recipients": _building(count, 2_000_000),
    }


def _building(count: int, people: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        ring = KeyRing.open(Path(folder) / "ring", Path(folder) / "kek")
        keys, state, rng = Keys(ring), StateIndex(), random.Random(1)
        keys.primary("acme")
        held = (ALWAYS, 0, None)
        for number in range(0, people, 2):
            consent = Consent(Mode.PSEUDONYMOUS, held, 0, (Salt(Mode.PSEUDONYMOUS, 0, rng.randbytes(16), 1),))
            granted = RecipientState((1, number), {"engagement": {"open": consent, "click": consent}})
            state.put(message_key("acme", f"user{number:07d}@example.com"), encode_state(granted))
        work = EventsWork(0, 1, keys, state, Seen(), Declarations())
        tenants, times = parse("[acme]\n"), []
        for number in range(RUNS + 1):
            records = [
                _Fetched(number * count + at, raw, NOW)
                for at, raw in enumerate(events(count, people=people, seed=number))
            ]
            ends = records[0].offset, records[-1].offset
            claim = Claim(1, 0, number, Kind.EVENTS, *ends, ends[1] + 1, 0, NOW, 1, 0, "", "")
            start = time.process_time()
            work.done(work.build(claim, records, tenants))
            times.append(time.process_time() - start)
        ring.close()
    return round(min(times[1:]) / count * 1e6, 2)


class _Fetched(NamedTuple):
    """A record as the transport hands it out."""

    offset: int
    value: bytes
    timestamp: int
    key: bytes | None = None


def main() -> None:
    arguments = argparse.ArgumentParser(description="Cost of the hot path's stages, µs an event.")
    arguments.add_argument("--events", type=int, default=50_000)
    arguments.add_argument("--json", action="store_true")
    options = arguments.parse_args()
    keys = [message_key("acme", f"user{number:06d}@example.com") for number in range(options.events)]
    figures = decoding(options.events) | duplicates(options.events) | building(options.events)
    figures["partition of a distinct key"] = best(lambda: partitions_of(keys, 8), options.events)
    if options.json:
        sys.stdout.write(json.dumps(figures) + "\n")
        return
    for name, figure in figures.items():
        sys.stdout.write(f"{name:42s} {figure:8.2f}\n")


if __name__ == "__main__":
    main()
