"""What a lock holds in the end, in one shape for what is expected and for what is there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol


class ReferenceFailed(AssertionError):
    """The log or the chain is not what the protocol allows, or the reference lacks something to say what must be."""


class Record(NamedTuple):
    """One record of a topic."""

    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None


class Log(Protocol):
    """Where records come from: `Files` of a tap, or a test's own."""

    def records(self, topic: str, partition: int) -> Iterator[Record]:
        """The records of a topic's partition, by rising offset."""


class Claim(NamedTuple):
    """One link of the chain, as the table `claims` holds it."""

    incarnation: int
    partition: int
    number: int
    kind: str
    first: int
    last: int
    next_event: int
    next_change: int
    now_ms: int
    mailings: int
    settings: str
    worker: str


class Row(NamedTuple):
    """A pseudonymous row. `pseudonym` is its 16 bytes read as a little-endian number, as ClickHouse shows it."""

    partition: int
    claim: int
    tenant: str
    purpose: str
    mailing: str
    kind: str
    link: str
    occurred: int
    device: str
    actor: str
    pseudonym: int
    key_version: int
    expires: int
    feed: str


class Mapping(NamedTuple):
    """A mapping of the identity store, its recipient opened; `recipient` None: it does not open."""

    partition: int
    claim: int
    tenant: str
    purpose: str
    kind: str
    pseudonym: int
    key_version: int
    blind: str
    recipient: str | None
    at_ms: int


class Decision(NamedTuple):
    """A line of the ledger `consents`."""

    partition: int
    claim: int
    tenant: str
    blind: str
    purpose: str
    kind: str
    mode: str
    effect: str
    decided_at: int
    recorded_at: int
    preference_id: str
    proof: str


class Receipt(NamedTuple):
    """A confirmation: how many rows and mappings a withdrawal removed, and an erasure of the ledger's lines."""

    partition: int
    claim: int
    id: str
    kind: str
    tenant: str
    rows: int
    mappings: int
    consents: int


Outcome = tuple[int, str, str]
"""Partition, outcome, reason."""
Cell = tuple[str, str, str, str, str, str, int]
"""Tenant, mailing, kind, link, device, actor, hour (epoch seconds)."""
Unique = tuple[str, str, str, str, str, str, int]
"""Tenant, mailing, kind, dimension, value, actor, step; step -1: all steps together."""


@dataclass(slots=True)
class Facts:
    """Everything that is compared. Tables in which a row may come twice are counters."""

    outcomes: Counter[Outcome] = field(default_factory=Counter)
    totals: Counter[Cell] = field(default_factory=Counter)
    uniques: Counter[Unique] = field(default_factory=Counter)
    rows: Counter[Row] = field(default_factory=Counter)
    mappings: Counter[Mapping] = field(default_factory=Counter)
    data_keys: Counter[int] = field(default_factory=Counter)
    """By pseudonym."""
    ledger: Counter[Decision] = field(default_factory=Counter)
    receipts: Counter[Receipt] = field(default_factory=Counter)
    """The table. The table `requests` holds the same."""
    requests: Counter[Receipt] = field(default_factory=Counter)
    told: Counter[tuple[str, str, int, int]] = field(default_factory=Counter)
    """What tracking.receipts says: id, tenant, rows, mappings; each once, however often it was sent."""
    rejected: Counter[tuple[str, int, int, str]] = field(default_factory=Counter)
    """What tracking.rejected says of events and changes: topic, partition, offset, reason; each once."""
    states: Counter[tuple[int, bytes, str]] = field(default_factory=Counter)
    """Partition, key, and the state of the highest version as canonical JSON."""
    last_states: Counter[tuple[int, bytes, str]] = field(default_factory=Counter)
    """The same of the last record of each key, which is what compaction leaves."""


TABLES = tuple(Facts.__dataclass_fields__)


@dataclass(slots=True)
class Expected(Facts):
    """What must be there, and why something must not."""

    dropped: dict[int, tuple[int, int, str]] = field(default_factory=dict)
    """Pseudonym that a withdrawal made go -> partition and claim that did it, and its preference id."""
    removed: Counter[str] = field(default_factory=Counter)
    """How many rows and mappings went."""
    size: Counter[str] = field(default_factory=Counter)
    """Records and claims that were replayed."""
    unclaimed: Counter[tuple[str, int]] = field(default_factory=Counter)
    """Records of events and changes that no claim names, preferences that were not forwarded: topic, partition."""
