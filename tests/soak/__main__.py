"""`python -m tests.soak`: one soak, its report, and 1 if anything differs from what must be."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import signal
import sys
import time
from pathlib import Path

from tests.seed import seed
from tests.soak.report import details, page
from tests.soak.run import LONG, SHORT, soak


def main() -> int:
    """Run it; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--seed", type=int, help="repeat that one; otherwise a new one is drawn")
    parser.add_argument("--short", action="store_true", help="the form of a few minutes that CI runs")
    parser.add_argument("--dir", type=Path, help="where to run, must be new (default: .soak/TIME)")
    parser.add_argument("--seconds", type=float, help="spread it over so many seconds")
    parser.add_argument("--events", type=int, help="so many events")
    given = parser.parse_args()
    number = seed() if given.seed is None else given.seed
    scale = SHORT if given.short else LONG
    scale = dataclasses.replace(scale, seconds=given.seconds or scale.seconds, events=given.events or scale.events)
    directory = (given.dir or Path(".soak") / time.strftime("%Y%m%dT%H%M%S")).resolve()
    directory.mkdir(parents=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # by way of everything that has to be ended
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # that a broker is away is no news here
    print(f"seed {number}, in {directory}", flush=True)
    outcome = soak(number, scale, directory, lambda line: print(line, flush=True))
    report = directory / "soak-report.md"
    report.write_text(page(outcome, f"make soak SEED={number}"))
    (directory / "soak-faults.txt").write_text(details(outcome))
    print(report.read_text())
    print(f"report: {report}")
    return 0 if outcome.holds else 1


if __name__ == "__main__":
    sys.exit(main())
