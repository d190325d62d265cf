"""Machines, partitions and storage for so many events a day, derived from the newest results of the other benchmarks.

    python -m benchmarks.capacity [--events 1e9] [--recipients 50e6] [--consent 10]

Nothing is measured here. What is assumed stands beside what is measured; every line says how it comes about.
"""

# ruff: noqa: RUF001  a multiplication sign is meant
from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import results
from benchmarks.load import Load

PAGE = results.ROOT / "docs" / "capacity.md"
RETENTION_DAYS, EVENTS_DAYS, SEEN_DAYS, CLAIMS_DAYS, WINDOW_DAYS, COPIES = 395, 3, 4, 14, 30, 3
HEADROOM = 0.3
FRAMING = 12  # bytes that Kafka's record format adds to key and value, about
GB = 1e9


def last(name: str, column: str) -> float | None:
    """A column of the line of a growth result that measured the most; None: it has not run."""
    found = results.read(f"growth-{name}")
    return float(found["lines"][-1][column]) if found and column in found["lines"][-1] else None


def event_bytes() -> float:
    """Bytes of a record as the benchmarks send it, not compressed."""
    sent = list(Load().events(2_000))
    return sum(len(key) + len(value) + FRAMING for _, key, value in sent) / len(sent)


def measured() -> Mapping[str, float | None]:
    """What the derivation stands on."""
    worker, bursts = results.read("worker"), results.read("bursts")
    middle = worker["median"] if worker else None
    # Builds of several partitions wait for one thread, so that the time of `build` is not one partition's own.
    serial = middle["stage_us"]["claim"] + middle["stage_us"]["insert"] + middle["cpu_us"]["worker"] if middle else None
    return {
        "rate": middle["rate"] if middle else None,
        "worker_us": middle["cpu_us"]["worker"] if middle else None,
        "stores_us": middle["cpu_us"]["analytics"] + middle["cpu_us"]["identity"] if middle else None,
        "broker_us": middle["cpu_us"]["broker"] if middle else None,
        "partition_rate": 1e6 / serial if serial else None,
        "peak_ratio": bursts["peak"] / bursts["mean"] if bursts else None,
        "id_bytes": last("ids", "bytes an id"),
        "preference_bytes": last("preferences", "bytes a preference"),
        "row_bytes": last("consent", "engagement bytes a row"),
        "seen_bytes": last("consent", "seen bytes an event"),
        "unique_bytes": last("consent", "cells_unique bytes an event"),
        "claim_bytes": last("claims", "bytes a claim"),
    }


def derived(events: float, recipients: float, consent: float) -> list[tuple[str, str, str]]:
    """(what, how much, how it comes about); a line whose measurement is missing says so."""
    known = measured()
    mean, size = events / 86_400, event_bytes()
    lines: list[tuple[str, str, str]] = []

    def line(what: str, needs: tuple[str, ...], value: Any, unit: str, how: Any) -> float | None:
        missing = [name for name in needs if known[name] is None]
        if missing:
            lines.append((what, "not measured yet", ", ".join(missing)))
            return None
        amount: float = value()
        shown = f"{amount:,.0f}" if amount >= 10 else f"{amount:,.2f}"
        lines.append((what, f"{shown} {unit}".strip(), how()))
        return amount

    k: Any = known
    peak = line(
        "events a second, peak",
        ("peak_ratio",),
        lambda: mean * k["peak_ratio"],
        "",
        lambda: f"{events:,.0f} / 86,400 s = {mean:,.0f} × {k['peak_ratio']:.1f} (the simulation above)",
    )
    top = peak or mean
    line(
        "cores for workers",
        ("worker_us",),
        lambda: top * k["worker_us"] / 1e6 / (1 - HEADROOM),
        "",
        lambda: f"peak × {k['worker_us']:.1f} µs / {1 - HEADROOM:.0%}",
    )
    line(
        "cores for the stores",
        ("stores_us",),
        lambda: top * k["stores_us"] / 1e6 / (1 - HEADROOM),
        "",
        lambda: f"peak × {k['stores_us']:.1f} µs / {1 - HEADROOM:.0%}, merges included",
    )
    line(
        "cores for the brokers",
        ("broker_us",),
        lambda: top * k["broker_us"] * COPIES / 1e6 / (1 - HEADROOM),
        "",
        lambda: f"peak × {k['broker_us']:.1f} µs × {COPIES} copies / {1 - HEADROOM:.0%}; fetching only was measured",
    )
    ids = line(
        "memory for event ids",
        ("id_bytes",),
        lambda: events * k["id_bytes"] / GB,
        "GB",
        lambda: f"{events:,.0f} of 24 h × {k['id_bytes']:.1f} bytes, over all workers",
    )
    preferences = line(
        "memory for preferences",
        ("preference_bytes",),
        lambda: recipients * consent / 100 * k["preference_bytes"] / GB,
        "GB",
        lambda: f"{recipients:,.0f} recipients × {consent:g} % × {k['preference_bytes']:,.0f} bytes, over all workers",
    )
    memory = (ids or 0) + (preferences or 0)
    by_rate = top / (k["rate"] * (1 - HEADROOM)) if known["rate"] else 0
    workers = max(2, math.ceil(memory / 12), math.ceil(by_rate))
    lines.append(
        ("workers of 16 GB", f"{workers}", f"the most of: memory / 12 GB, peak / ({1 - HEADROOM:.0%} of a rate), 2")
    )
    line(
        "partitions",
        ("partition_rate",),
        lambda: max(2 * workers, 2 * math.ceil(top / k["partition_rate"])),
        "",
        lambda: (
            f"twice the workers, and twice peak / {k['partition_rate']:,.0f} a second (claim, insert and CPU, serial)"
        ),
    )
    lines.append(
        (
            "Kafka, tracking.events",
            f"{events * size * EVENTS_DAYS * COPIES / GB:,.0f} GB",
            f"{size:.0f} bytes × {EVENTS_DAYS} days × {COPIES} copies, not compressed",
        )
    )
    line(
        "engagement",
        ("row_bytes",),
        lambda: events * consent / 100 * k["row_bytes"] * RETENTION_DAYS / GB,
        "GB",
        lambda: f"{consent:g} % of the events × {k['row_bytes']:.0f} bytes a row × {RETENTION_DAYS} days, one copy",
    )
    line(
        "seen",
        ("seen_bytes",),
        lambda: events * k["seen_bytes"] * SEEN_DAYS / GB,
        "GB",
        lambda: f"{k['seen_bytes']:.1f} bytes an event × {SEEN_DAYS} days",
    )
    line(
        "cells_unique",
        ("unique_bytes",),
        lambda: events * k["unique_bytes"] * WINDOW_DAYS / GB,
        "GB",
        lambda: f"{k['unique_bytes']:.1f} bytes an event (8 a recipient, cell and step) × {WINDOW_DAYS} days open",
    )
    line(
        "claims",
        ("claim_bytes",),
        lambda: 2 * workers * 86_400 * CLAIMS_DAYS * k["claim_bytes"] / GB,
        "GB",
        lambda: f"a second and partition × {CLAIMS_DAYS} days × {k['claim_bytes']:.0f} bytes; then one a partition",
    )
    return lines


def main() -> None:
    """Print a table; write docs/capacity.md."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--events", type=float, default=1e9, help="a day")
    arguments.add_argument("--recipients", type=float, default=50e6)
    arguments.add_argument("--consent", type=float, default=10, help="percent of recipients, and of events, with rows")
    arguments.add_argument("--out", type=Path, default=results.FOLDER)
    asked = arguments.parse_args()
    lines = derived(asked.events, asked.recipients, asked.consent)
    head = ["| what | how much | how it comes about |", "| --- | ---: | --- |"]
    text = "\n".join([*head, *(f"| {' | '.join(line)} |" for line in lines)])
    page = PAGE if asked.out == results.FOLDER else None
    results.write("capacity", {"lines": lines}, text, asked.out, page, "Derived")


if __name__ == "__main__":
    main()
