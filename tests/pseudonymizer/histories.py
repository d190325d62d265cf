"""Histories of decisions, as hypothesis makes them, and what the state machine makes of them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count

from hypothesis import strategies as st

from pseudonymizer.consent import DEFAULT, Consent, Mode, Step, apply

TIMES = st.integers(0, 12)  # few, so that decisions of the same time are common
MODES = st.sampled_from(Mode)


@dataclass(frozen=True)
class Decided:
    """One decision as it arrives, with the tenant's ceiling at that moment."""

    mode: Mode
    at: int
    ceiling: Mode


DECISIONS = st.lists(st.builds(Decided, MODES, TIMES, MODES), max_size=8)


def play(decisions: list[Decided], known: Consent = DEFAULT) -> tuple[Consent, list[Step]]:
    """Apply decisions in order of arrival, each with a salt of its own."""
    steps = []
    for number, decided in zip(count(1), decisions, strict=False):
        step = apply(known, decided.mode, decided.at, number.to_bytes(16, "big"), 1, decided.ceiling)
        known = step.consent
        steps.append(step)
    return known, steps
