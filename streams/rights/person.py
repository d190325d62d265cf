"""Finding one person: what tracking.state says of her, and every pseudonym that it still allows to compute."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pseudonymizer.consent import Mode
from streams.broker import partition_count, read_keys
from streams.errors import BadRow
from streams.messages import RecipientState, decode_state, state_version
from streams.partitioner import message_key, partition_of
from streams.topics import STATE

if TYPE_CHECKING:
    from streams.keys import Keys
    from streams.rights.desk import Desk


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
        return int.from_bytes(self.value, "little")


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
    name = desk.canonical(settings, recipient)
    key = message_key(tenant, name)
    stub = _stub_key(desk, tenant, name)
    partition = partition_of(key, partition_count(desk.settings.broker, STATE))
    wanted = [key, stub]
    found = newest_states(desk.settings.broker, partition, wanted)
    newest = max(found, key=lambda which: state_version(found[which]), default=None)
    state = decode_state(found[newest]) if newest is not None else None
    return Person(
        tenant,
        name,
        desk.blind(tenant, name),
        partition,
        state,
        newest is not None and newest == stub,
        pseudonyms(desk.keys, tenant, name, state),
    )


def newest_states(broker: str, partition: int, keys: Collection[bytes]) -> Mapping[bytes, bytes]:
    """The encoded state of the highest version of each of `keys` in a partition of tracking.state, as workers see it.

    Raises BrokerError.
    """
    found: dict[bytes, tuple[tuple[int, int], bytes]] = {}
    for record in read_keys(broker, STATE, partition, keys):
        if record.value is None:
            continue  # a tombstone removes nothing by itself: versions only rise
        try:
            version = state_version(record.value)
        except BadRow:
            continue  # no state of ours
        known = found.get(record.key)
        if known is None or known[0] <= version:
            found[record.key] = version, record.value
    return {key: value for key, (_, value) in found.items()}


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


def _stub_key(desk: Desk, tenant: str, recipient: str) -> bytes:
    """The key under which an erasure leaves its stub."""
    return desk.keys.stub_keys([message_key(tenant, recipient)])[0]
