"""What must have come out of a lock, computed from the log by plain code that shares nothing with the worker.

It is written from the pages in docs/ (the contract, the test vectors, tenants), with json, hmac, sqlite3 and AES-GCM.
From the worker it takes one thing only, the chain of claims, since that fixes the order of events and changes; and it
refuses a chain that leaves a record out or takes one twice.

    tap = Tap(broker, folder, TOPICS); tap.start()      # a process of its own, before the first worker starts
    ... the story is played, workers are killed, everything settles ...
    tap.stop()                                          # reads to the end first
    ring = Ring(ring_file, kek_file)
    log = Files(folder)
    claims = read_claims(rows)                          # rows(store, sql) -> rows; tests.lock.Lock.rows is one
    expected = expect(log, claims, tenants(TOML text), ring, agents, partitions)
    actual = read(log, rows, ring, partitions)
    report = compare(expected, actual)
    print(report.summary("seed 7"))
    assert not report.lines, report.text()
    report.lost, report.doubled, report.ignored         # numbers: all 0

`agents` is the truth of the story about user agents: user agent (None: absent) -> (device, actor). tests/story.py tells
a story with everything that matters in it, of any length, from a seed.
`Watch` looks on while it runs: no row of a recipient is seen after her receipt.

What it does not know: records with more than one fault (which reason is told first is the worker's business),
closed mailings, a second incarnation of the topics, tenants' settings that change during the run.
"""

from __future__ import annotations

from tests.reference.actual import read, read_claims
from tests.reference.compare import Report, compare, differences
from tests.reference.facts import Claim, Expected, Facts, Record, ReferenceFailed
from tests.reference.people import Ring, tenants
from tests.reference.replay import expect
from tests.reference.tap import TOPICS, Files, Tap
from tests.reference.watch import Watch

__all__ = [
    "TOPICS",
    "Claim",
    "Expected",
    "Facts",
    "Files",
    "Record",
    "ReferenceFailed",
    "Report",
    "Ring",
    "Tap",
    "Watch",
    "compare",
    "differences",
    "expect",
    "read",
    "read_claims",
    "tenants",
]
