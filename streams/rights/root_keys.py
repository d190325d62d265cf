"""What stands on each version of a tenant's root key, and moving people from one version to another.

Who agreed under which version is known from tracking.state, where the recipient is the record's key: so nothing sealed
is opened here. Moving is done by the chain of claims, one `rekey` a recipient (streams/plan.py), so that it has its
place among her decisions and events: whoever withdraws meanwhile has withdrawn.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pseudonymizer.consent import Mode
from pseudonymizer.pseudonyms import STUB_PREFIX
from streams.broker import partition_count
from streams.errors import BadRow, SettingsError
from streams.messages import RecipientState, Rekey, decode_state, encode_change
from streams.outbox import deliver
from streams.partitioner import message_key
from streams.rights.barrier import decided
from streams.rights.person import read_states
from streams.topics import CHANGES, STATE

if TYPE_CHECKING:
    from streams.rights.desk import Desk

AT_ONCE = 10_000  # changes that may be waiting for their claims
CARRIED_OUT_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Holder:
    """A recipient who has consent salts under one version. The repr does not name her."""

    partition: int
    recipient: str = field(repr=False)
    """Canonical."""
    version: int
    named: int
    """How many of them are at the level personal: a mapping puts their pseudonyms beside her name."""
    nameless: int


@dataclass(frozen=True, slots=True)
class Standing:
    """One version of a tenant's root key, and what would be lost with it."""

    version: int
    is_there: bool
    """Whether the ring still has it."""
    rows: int
    mappings: int
    recipients: int
    """Who has consents under it, of either kind."""
    named: int
    """Consents at the level personal."""
    nameless: int
    """Consents at the level pseudonymous."""

    @property
    def anything(self) -> bool:
        """Whether anything stands on it."""
        return bool(self.rows or self.mappings or self.recipients)


def standing(desk: Desk, tenant: str, found: Sequence[Holder]) -> list[Standing]:
    """Every version that the ring has or that something stands on, oldest first; `found` comes from `holders`.

    Raises StoreUnavailable.
    """
    there = {version for name, version in desk.ring.roots() if name == tenant}
    rows = _by_version(desk.analytics.rows("counting rows by key version", _ROWS, {"tenant": tenant}))
    mappings = _by_version(desk.identity.rows("counting mappings by key version", _MAPPINGS, {"tenant": tenant}))
    recipients, named, nameless = Counter[int](), Counter[int](), Counter[int]()
    for one in found:
        recipients[one.version] += 1
        named[one.version] += one.named
        nameless[one.version] += one.nameless
    return [
        Standing(v, v in there, rows[v], mappings[v], recipients[v], named[v], nameless[v])
        for v in sorted({*there, *rows, *mappings, *recipients})
    ]


_ROWS = "SELECT key_version, count() FROM engagement WHERE tenant = {tenant:String} GROUP BY key_version"
_MAPPINGS = "SELECT key_version, count() FROM recipients WHERE tenant = {tenant:String} GROUP BY key_version"


def _by_version(rows: Sequence[Sequence[object]]) -> Counter[int]:
    return Counter({int(str(version)): int(str(count)) for version, count in rows})


def holders(desk: Desk, tenant: str) -> list[Holder]:
    """Everybody who has consent salts, a line for each version of them. Reads tracking.state to its end.

    Time: some 50 s for a million records. A caller may NOT assume that it knows of decisions that are not carried out
    yet (streams/rights/barrier.py waits for that). Raises BrokerError, and SettingsError for a state that this release
    cannot read: then it is not known what stands on which key.
    """
    found = []
    for partition in range(partition_count(desk.settings.broker, STATE)):
        for recipient, state in _states(desk, partition, tenant):
            named, nameless = Counter[int](), Counter[int]()
            for kinds in state.purposes.values():
                for consent in kinds.values():
                    for salt in consent.salts:
                        (named if salt.level is Mode.PERSONAL else nameless)[salt.key_version] += 1
            found += [
                Holder(partition, recipient, version, named[version], nameless[version])
                for version in sorted({*named, *nameless})
            ]
    return found


def _states(desk: Desk, partition: int, tenant: str) -> Iterator[tuple[str, RecipientState]]:
    """The state of each of a tenant's recipients that has salts; whoever was erased has none."""
    prefix = message_key(tenant, "")
    index = read_states(desk, partition, lambda key: key.startswith((prefix, STUB_PREFIX)))
    for key, raw in index.of_tenant(tenant):
        try:
            state = decode_state(raw)
        except BadRow:
            raise SettingsError(
                f"partition {partition} of {STATE} holds a state that this release cannot read: use the release that "
                "the workers run"
            ) from None
        if any(consent.salts for kinds in state.purposes.values() for consent in kinds.values()):
            yield key[len(prefix) :].decode(), state


def move(
    desk: Desk,
    tenant: str,
    found: Sequence[Holder],
    to: int,
    remove: bool,
    moved: Callable[[int], None] = lambda _: None,
) -> None:
    """Send a `rekey` for each holder to her own partition, and return when all are carried out.

    `remove`: rows and mappings under the old version go, in place of being rewritten. `AT_ONCE` are on their way at a
    time, so that a withdrawal need not queue behind all of them; `moved` is told after each time how many are done.
    Sent twice it changes nothing the second time. Raises BrokerError, and StoreUnavailable when they are not carried
    out within `CARRIED_OUT_SECONDS`; what was sent until then stays sent.
    """
    for begin in range(0, len(found), AT_ONCE):
        _send(desk.settings.broker, tenant, found[begin : begin + AT_ONCE], to, remove)
        decided(desk.settings, CARRIED_OUT_SECONDS)
        moved(min(begin + AT_ONCE, len(found)))


def _send(broker: str, tenant: str, found: Sequence[Holder], to: int, remove: bool) -> None:
    deliver(
        broker,
        f"sending to {CHANGES}",
        (
            (
                *(CHANGES, one.partition, message_key(tenant, one.recipient)),
                encode_change(Rekey(tenant, one.recipient, one.version, to, remove)),
            )
            for one in found
        ),
    )
