"""What becomes of one event: nothing, a count, or a count and a row under a pseudonym.

An event gets the highest level that held when it occurred and has held ever since, and never more than the tenant's
ceiling. So a grant does not reach back, a withdrawal does, and an event that comes late is treated as if it had come in
time and had then been withdrawn with the others. `thresholds` says this as a few points in time, which the hot path
uses as columns; `decide` says the same of one event.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from pseudonymizer.consent import ALWAYS, DEFAULT, Consent, Mode, Salt

__all__ = ["ALWAYS", "NEVER", "Counted", "Decision", "Off", "Row", "Thresholds", "decide", "thresholds"]

NEVER = 2**63 - 1
"""A time after every event."""


class Thresholds(NamedTuple):
    """From when on what is allowed, in epoch milliseconds."""

    counts_from: int
    """An event counts if it occurred at this time or later. `ALWAYS` by default, `NEVER` when off."""
    rows: tuple[tuple[int, Salt], ...] = ()
    """At most two (from, salt), rising: an event gets a row under the last one at or before it; before the first none.
    None of them is before `counts_from`: what is a row is also counted."""


@dataclass(frozen=True, slots=True)
class Off:
    """It is not counted, and leaves nothing but the hash of its id."""


@dataclass(frozen=True, slots=True)
class Counted:
    """It is counted, and nothing of it points to its recipient."""


@dataclass(frozen=True, slots=True)
class Row:
    """It is counted, and a row is kept under the pseudonym that this salt gives."""

    salt: Salt


Decision = Off | Counted | Row


def thresholds(consent: Consent | None, ceiling: Mode) -> Thresholds:
    """What a consent (None: nothing was ever decided) and the tenant's ceiling allow, as points in time."""
    known = consent if consent is not None else DEFAULT
    counts_from, *since = known.since
    if counts_from is None or ceiling is Mode.OFF:
        return Thresholds(NEVER)
    rows: list[tuple[int, Salt]] = []
    for level, begin in zip((Mode.PSEUDONYMOUS, Mode.PERSONAL), since, strict=True):
        if begin is None or ceiling < level:
            break
        for salt in reversed(known.salts):
            if salt.level <= level:
                rows.append((begin, salt))
                break
    return Thresholds(counts_from, tuple(rows))


def decide(allowed: Thresholds, occurred_ms: int) -> Decision:
    """What becomes of an event that occurred at this time."""
    if occurred_ms < allowed.counts_from:
        return Off()
    for begin, salt in reversed(allowed.rows):
        if begin <= occurred_ms:
            return Row(salt)
    return Counted()
