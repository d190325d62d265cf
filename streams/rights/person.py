"""Finding one person: what tracking.state says of her, and every pseudonym that it still allows to compute."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

from pseudonymizer.consent import Mode
from pseudonymizer.pseudonyms import as_number
from streams.broker import partition_count, read_partition
from streams.messages import RecipientState, decode_state
from streams.partitioner import message_key, partition_of
from streams.state import StateIndex
from streams.topics import STATE

if TYPE_CHECKING:
    from streams.keys import Keys
    from streams.rights.desk import Desk

AT_ONCE = 5_000  # records of tracking.state


@dataclass(frozen=True, slots=True)
class Pseudonym:
    """One of her pseudonyms: rows under it may still be there, and are hers."""

    purpose: str
    kind: str
    level: Mode
    """personal: a mapping puts it beside her name."""
    since: int
    """Epoch milliseconds: from when on events may stand under it."""
    key_version: int
    value: bytes = field(repr=False)
    """16 bytes, as in the key's name; in the stores' columns they are a little-endian UInt128."""

    @property
    def number(self) -> int:
        """As the stores' columns have it."""
        return as_number(self.value)


@dataclass(frozen=True, slots=True)
class Person:
    """What is known of one recipient. `repr` does not name her."""

    tenant: str
    recipient: str = field(repr=False)
    """Canonical."""
    blind: bytes = field(repr=False)
    """16 bytes: how the identity store and the audit trail know her."""
    partition: int
    """Of the keyed topics, and of her rows in `engagement`."""
    state: RecipientState | None
    """The highest version of her key and of her stub; None: unknown, which means anonymous."""
    is_stub: bool
    """She was erased, and nothing was decided since."""
    pseudonyms: tuple[Pseudonym, ...]
    """Of all salts in her state whose root key is still there."""


def find(desk: Desk, tenant: str, recipient: str) -> Person:
    """Look a recipient up, as she was written by anybody; reads one partition of tracking.state to its end.

    Memory: her own records only; time: some 50 s for a million records. A caller may NOT assume that it says
    what was decided a moment ago and is not carried out yet (streams/rights/barrier.py waits for that), nor that a
    pseudonym it names has rows. Opens nothing sealed, so it writes no line in the audit trail: that is the caller's.

    Raises SettingsError (no such tenant, no recipient), BrokerError, StoreUnavailable, and BadRow when her state
    cannot be read.
    """
    settings = desk.tenant(tenant)
    desk.keys.look()  # the service runs for long: root keys may have been destroyed
    name = desk.canonical(settings, recipient)
    key = message_key(tenant, name)
    partition = partition_of(key, partition_count(desk.settings.broker, STATE))
    state, is_stub = states(desk, partition, [key])[key]
    return Person(
        tenant,
        name,
        desk.blind(tenant, name),
        partition,
        state,
        is_stub,
        pseudonyms(desk.keys, tenant, name, state),
    )


def states(desk: Desk, partition: int, keys: Sequence[bytes]) -> dict[bytes, tuple[RecipientState | None, bool]]:
    """What tracking.state says of each key (tenant, separator, canonical recipient) of one partition.

    As workers see it: the highest version under the key and under its stub, and whether that is the stub.

    Raises BrokerError, and BadRow when a state cannot be read.
    """
    index = read_states(desk, partition, {*keys, *desk.keys.stub_keys(keys)}.__contains__)
    result: dict[bytes, tuple[RecipientState | None, bool]] = {}
    for key, raw in zip(keys, index.raws(keys), strict=True):
        result[key] = (decode_state(raw), index.written(key) is None) if raw is not None else (None, False)
    return result


def read_states(desk: Desk, partition: int, wanted: Callable[[bytes], bool]) -> StateIndex:
    """The index that a worker has of one partition of tracking.state, of the wanted keys only; stubs are keys too.

    Reads the partition to its end. Raises BrokerError.
    """
    index = StateIndex(desk.keys.stub_keys)
    records = read_partition(desk.settings.broker, STATE, partition, wanted)
    while some := list(islice(records, AT_ONCE)):
        index.apply(some)
    return index


def pseudonyms(keys: Keys, tenant: str, recipient: str, state: RecipientState | None) -> tuple[Pseudonym, ...]:
    """Every pseudonym of a canonical recipient that her state's salts and the key ring allow to compute."""
    result = []
    for purpose, kinds in (state.purposes if state is not None else {}).items():
        for kind, consent in kinds.items():
            for salt in consent.salts:
                maker = keys.pseudonymizer(tenant, purpose, salt.key_version)
                if maker is not None:
                    value = maker.pseudonym(salt.value, recipient)
                    result.append(Pseudonym(purpose, kind, salt.level, salt.since, salt.key_version, value))
    return tuple(result)
