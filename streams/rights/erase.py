"""Asking for an erasure and waiting for its receipt. The workers carry it out (streams/changes.py)."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from pseudonymizer.keys import KeyKind
from streams.broker import partition_count
from streams.errors import SettingsError
from streams.messages import MAX_REQUEST, check_id, format_time
from streams.outbox import deliver
from streams.partitioner import message_key, partition_of
from streams.rights.audit import Action
from streams.rights.person import Person, find
from streams.topics import REQUESTS, erased_after_ms

if TYPE_CHECKING:
    from streams.rights.desk import Desk

_EVERY_SECONDS = 0.3
_WHO = "tenant = {tenant:String} AND blind = unhex({blind:String})"


@dataclass(frozen=True, slots=True)
class Held:
    """What is held of one recipient, counted. `repr` does not name her."""

    person: Person
    rows: Mapping[tuple[str, str], int]
    """(purpose, kind) -> rows of `engagement`."""
    mappings: int
    consents: int
    """Lines of the consent ledger, that of an erasure left out."""
    disclosures: int
    disclosed_to: tuple[str, ...]
    """To whom the sender has to pass the erasure on (Art. 19 GDPR)."""
    exports: int
    """Sealed exports whose keys are there."""
    gone_by: int
    """Epoch milliseconds: when the last bytes are gone, topics, old parts and backups included, if it were done now."""

    @property
    def is_nothing(self) -> bool:
        """Whether there is nothing to erase but, perhaps, that she was erased before."""
        counts = self.mappings + self.consents + self.disclosures + self.exports + sum(self.rows.values())
        return not counts and (self.person.state is None or self.person.is_stub)


@dataclass(frozen=True, slots=True)
class Receipt:
    """An erasure that is done, as `tracking.receipts` says it too."""

    request_id: str
    completed_at: int
    removed: Mapping[str, int]
    """`rows`, `mappings`, `consents`, `disclosures`."""
    gone_by: int
    disclosed_to: tuple[str, ...] = field(default=())


def held(desk: Desk, tenant: str, recipient: str, why: str) -> Held:
    """The plan. Opens nothing, and is in the audit trail all the same: that somebody is known is personal data too.

    A caller may NOT assume that it says what a decision of a moment ago has changed.
    Raises SettingsError, BrokerError, StoreUnavailable, StoreRefused.
    """
    name = desk.canonical(desk.tenant(tenant), recipient)
    blind = desk.blind(tenant, name)
    desk.audit.record(Action.ERASURE_PLANNED, tenant, blind, why, {})
    person = find(desk, tenant, name)
    hers = {"tenant": tenant, "blind": blind.hex()}

    def ask(doing: str, sql: str) -> Any:
        return desk.identity.rows(doing, f"{sql} WHERE {_WHO}", hers)

    mapped = [int(row[0]) for row in ask("counting her mappings", "SELECT pseudonym FROM recipients")]
    ((lines,),) = ask("counting her consents", "SELECT countIf(effect != 'erased') FROM consents")
    ((told_of, to_whom),) = ask(
        "counting disclosures", "SELECT count(), arraySort(groupUniqArray(disclosed_to)) FROM disclosures"
    )
    rows = desk.analytics.rows(
        "counting her rows",
        "SELECT toString(purpose), toString(kind), count() FROM engagement "
        "WHERE partition = {partition:UInt16} AND pseudonym IN {some:Array(UInt128)} GROUP BY ALL ORDER BY ALL",
        {"partition": person.partition, "some": sorted({*mapped, *(one.number for one in person.pseudonyms)})},
    )
    exports = sum(name.startswith(f"{blind.hex()}:") for name in desk.ring.names(KeyKind.EXPORT))
    return Held(
        person,
        {(purpose, kind): int(count) for purpose, kind, count in rows},
        len(mapped),
        int(lines),
        int(told_of),
        tuple(to_whom),
        exports,
        int(time.time() * 1000) + erased_after_ms(desk.settings),
    )


def ask(desk: Desk, person: Person, request_id: str, why: str) -> None:
    """Send the request to tracking.requests, on record before. The same request id again is answered once.

    Raises BadRow when the id cannot be one, SettingsError when it was answered already, BrokerError.
    """
    check_id(request_id, "request_id", MAX_REQUEST)
    if receipt(desk, person.tenant, request_id) is not None:
        raise SettingsError("a request with the id that --request-id gives was answered before: take another")
    desk.audit.record(Action.ERASURE_ASKED, person.tenant, person.blind, why, {"request": request_id})
    key = message_key(person.tenant, person.recipient)
    value = orjson.dumps(
        {
            "tenant": person.tenant,
            "recipient": person.recipient,
            "request_id": request_id,
            "kind": "erasure",
            "requested_at": format_time(int(time.time() * 1000)),
        }
    )
    broker = desk.settings.broker
    partition = partition_of(key, partition_count(broker, REQUESTS))
    deliver(broker, "sending a request", [(REQUESTS, partition, key, value)])


def wait(desk: Desk, tenant: str, request_id: str, seconds: float) -> Receipt | None:
    """The receipt of a request, or None: there was none within so many seconds. The request stands all the same."""
    until = time.monotonic() + seconds
    while (found := receipt(desk, tenant, request_id)) is None and time.monotonic() < until:
        time.sleep(_EVERY_SECONDS)
    return found


def receipt(desk: Desk, tenant: str, request_id: str) -> Receipt | None:
    """The receipt of an erasure, or None: it is not done."""
    found = desk.identity.rows(
        "looking for a receipt",
        "SELECT toUnixTimestamp64Milli(completed_at), rows, mappings, consents, disclosures, "
        "toUnixTimestamp64Milli(gone_by), disclosed_to FROM receipts "
        "WHERE tenant = {tenant:String} AND id = {id:String} AND kind = 'erasure' ORDER BY completed_at LIMIT 1",
        {"tenant": tenant, "id": request_id},
    )
    if not found:
        return None
    completed_at, rows, mappings, consents, disclosures, gone_by, to_whom = found[0]
    removed = {"rows": rows, "mappings": mappings, "consents": consents, "disclosures": disclosures}
    return Receipt(request_id, completed_at, removed, gone_by, tuple(to_whom))
