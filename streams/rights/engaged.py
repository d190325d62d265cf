"""Who opened a mailing, or clicked its links: for the one purpose that she agreed to (Art. 5(1)(b), 15(1)(c) GDPR).

Recipients in `personal` mode are named, those in `pseudonymous` mode stand under their pseudonyms, nobody else is in
it.

 1  wait until every decision that Kafka has taken up to now is carried out: who withdrew a second ago is not in it
 2  the rows of this tenant, purpose and mailing, of people (`machine` is nobody's doing)
 3  one line in the audit trail, that so many mappings are to be opened; then they are
 4  the newest state of each of them, read from tracking.state now, and the ceiling in force: a row counts if its
    pseudonym is one that her consent of this purpose and kind still stands on
 5  the file, new, empty and its owner's only; then `disclosures`, a line for each recipient; then the file's content

Where anything fails the file goes again. So what is not on record is not handed out; a line may be on record whose file
was not completed. Of who stands under a pseudonym only the fact is kept (purpose, to whom, when): the identity store
learns nothing of what she did.
"""

from __future__ import annotations

import csv
import io
import os
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pseudonymizer.consent import Mode
from pseudonymizer.keys import KeyKind
from pseudonymizer.pseudonyms import as_number, from_number
from pseudonymizer.sealing import SealBroken
from streams.broker import partition_count, read_partition
from streams.errors import BadRow, SettingsError
from streams.ledger import open_recipient
from streams.messages import RecipientState, decode_state, format_time
from streams.partitioner import message_key, partition_of
from streams.rights import barrier
from streams.rights.audit import Action
from streams.rights.export.tables import cell
from streams.rights.person import Pseudonym, pseudonyms, states
from streams.stores import arrow
from streams.topics import STATE

if TYPE_CHECKING:
    from streams.rights.desk import Desk

AT_ONCE = 2_500  # pseudonyms in one parameter: a ClickHouse server takes up to 128 KiB
HEADING = ("recipient", "pseudonym", "kind", "link", "events", "first", "last")
_DISCLOSURES = pa.schema(
    [
        *((name, pa.string()) for name in ("tenant", "purpose", "mailing", "kind", "link")),
        *((name, pa.string()) for name in ("disclosed_to", "why", "disclosure_id")),
        ("blind", pa.binary(16)),
    ]
)


@dataclass(frozen=True, slots=True)
class Question:
    """Of whom one asks: those who did something in a mailing, for a purpose."""

    tenant: str
    purpose: str
    mailing: str
    kind: str | None = None
    """`open` or `click`; None: both."""
    link: str | None = None
    """The id of a link; None: any, and none."""


@dataclass(frozen=True, slots=True)
class Did:
    """What rows of one pseudonym say, by kind and link. `repr` does not show the pseudonym."""

    pseudonym: bytes = field(repr=False)
    """16 bytes."""
    partition: int
    kind: str
    link: str
    events: int
    first: int
    """Epoch milliseconds."""
    last: int


@dataclass(frozen=True, slots=True)
class Counted:
    """Before anything is opened: how many pseudonyms have rows, with a mapping to a name and without."""

    mapped: int
    unmapped: int


@dataclass(frozen=True, slots=True)
class Holder:
    """Whose pseudonym it is, by her state now. `repr` names nobody."""

    recipient: str = field(repr=False)
    level: Mode


@dataclass(frozen=True, slots=True)
class Disclosed:
    """What was handed out."""

    disclosure: str
    """The id under which it is on record."""
    recipients: int
    """How many are named."""
    pseudonymous: int
    """How many stand under a pseudonym."""
    left_out: int
    """How many pseudonyms have rows and no consent that still holds."""


def count(desk: Desk, question: Question) -> Counted:
    """The plan: counts only, from both stores; opens nothing. Raises SettingsError, StoreUnavailable."""
    _check(desk, question)
    found = {one.pseudonym for one in rows(desk, question)}
    mapped = len(_mappings(desk, question, found))
    return Counted(mapped, len(found) - mapped)


def disclose(desk: Desk, question: Question, to_whom: str, why: str, path: Path, wait_seconds: float) -> Disclosed:
    """Write the list to a new file at `path`, and on record to whom and why (steps 1 to 5).

    `to_whom` and `why` come from `check_text`. `wait_seconds`: how long step 1 may take. A caller may NOT assume
    that it may be done again with the same result, nor that it did nothing where it raises: lines may be on record.

    Raises SettingsError (no such tenant or purpose; a file that is there), StoreUnavailable, BrokerError.
    """
    _check(desk, question)
    barrier.decided(desk.settings, wait_seconds)  # (1)
    did = rows(desk, question)  # (2)
    sealed = _mappings(desk, question, {one.pseudonym for one in did})
    disclosure = secrets.token_hex(8)
    detail: dict[str, int | str] = {
        "disclosure": disclosure,
        "purpose": question.purpose,
        "mailing": question.mailing,
        "kind": question.kind or "",
        "link": question.link or "",
        "to": to_whom,
        "mappings": len(sealed),
    }
    desk.audit.record(Action.ENGAGED_DISCLOSED, question.tenant, None, why, detail)  # (3)
    names = _open(desk, sealed)
    held = holders(desk, question, did, names, known=set(sealed))  # (4)
    lines = [(one, held[one.kind, one.pseudonym]) for one in did if (one.kind, one.pseudonym) in held]
    named = {who.recipient for _, who in lines if who.level is Mode.PERSONAL}
    others = {one.pseudonym for one, who in lines if who.level is not Mode.PERSONAL}
    with _new_file(path) as file:  # (5)
        _put_on_record(desk, question, lines, (to_whom, why, disclosure))
        file.write(_csv(lines))
    left_out = len({one.pseudonym for one in did}) - len({one.pseudonym for one, _ in lines})
    return Disclosed(disclosure, len(named), len(others), left_out)


def _check(desk: Desk, question: Question) -> None:
    if question.purpose not in desk.tenant(question.tenant).purposes:
        raise SettingsError("the purpose that --purpose names is none of the tenant's: schleuse tenants show")


# --- what the stores have ---


def rows(desk: Desk, question: Question) -> list[Did]:
    """What was done, by pseudonym, kind and link. Of this purpose only."""
    named: dict[str, str] = {"tenant": question.tenant, "purpose": question.purpose, "mailing": question.mailing}
    which = [f"{name} = {{{name}:String}}" for name in named]
    for name, value in (("kind", question.kind), ("link", question.link)):
        if value is not None:
            named[name] = value
            which.append(f"{name} = {{{name}:String}}")
    found = desk.analytics.rows(
        "reading who did it",
        "SELECT pseudonym, partition, toString(kind), toString(link), count(), toUnixTimestamp(min(occurred)), "
        f"toUnixTimestamp(max(occurred)) FROM engagement WHERE {' AND '.join(which)} AND actor = 'human' "
        "GROUP BY pseudonym, partition, kind, link",
        named,
    )
    return [
        Did(from_number(number), partition, kind, link, events, 1000 * first, 1000 * last)
        for number, partition, kind, link, events, first, last in found
    ]


def _mappings(desk: Desk, question: Question, wanted: Iterable[bytes]) -> dict[bytes, bytes]:
    """The sealed recipient of each pseudonym that has one."""
    numbers = [as_number(pseudonym) for pseudonym in wanted]
    found: dict[bytes, bytes] = {}
    for begin in range(0, len(numbers), AT_ONCE):
        for number, sealed in desk.identity.rows(
            "looking for mappings",
            "SELECT pseudonym, hex(sealed) FROM recipients WHERE tenant = {tenant:String} "
            "AND purpose = {purpose:String} AND pseudonym IN {some:Array(UInt128)}",
            {"tenant": question.tenant, "purpose": question.purpose, "some": numbers[begin : begin + AT_ONCE]},
        ):
            found[from_number(number)] = bytes.fromhex(sealed)
    return found


def _open(desk: Desk, sealed: Mapping[bytes, bytes]) -> dict[bytes, str]:
    """The recipients. One whose data key is gone is gone."""
    keys = desk.ring.get_many(KeyKind.DATA, (pseudonym.hex() for pseudonym in sealed))
    names: dict[bytes, str] = {}
    for pseudonym, content in sealed.items():
        key = keys.get(pseudonym.hex())
        if key is not None:
            try:
                names[pseudonym] = open_recipient(key, content, pseudonym)
            except SealBroken:
                continue
    return names


# --- who still agrees ---


def holders(
    desk: Desk, question: Question, did: Sequence[Did], names: Mapping[bytes, str], known: set[bytes]
) -> dict[tuple[str, bytes], Holder]:
    """(kind, pseudonym) -> whose it is, for those that a consent of this purpose and kind still stands on, by
    tracking.state and the ceiling in force as they are now. Above `pseudonymous` only who is in `names`.

    `known`: the pseudonyms that have a mapping; one that has and is not in `names` is nobody's any more. The others are
    looked for among all of the tenant's states of their partitions. Reads each of these partitions twice at most;
    keeps in memory only who is looked for.
    """
    tenant = question.tenant
    purpose = desk.tenant(tenant).purposes.get(question.purpose)
    wanted = {(one.kind, one.pseudonym) for one in did}
    unmapped: dict[int, set[tuple[str, bytes]]] = {}
    for one in did:
        if one.pseudonym not in known:
            unmapped.setdefault(one.partition, set()).add((one.kind, one.pseudonym))
    partitions = partition_count(desk.settings.broker, STATE)
    asked: dict[int, set[bytes]] = {number: _whose(desk, question, number, of) for number, of in unmapped.items()}
    for recipient in names.values():
        key = message_key(tenant, recipient)
        asked.setdefault(partition_of(key, partitions), set()).add(key)
    ceiling = purpose.ceiling if purpose is not None else Mode.OFF
    found: dict[tuple[str, bytes], Holder] = {}
    for number, keys in asked.items():
        if not keys:
            continue
        for key, (state, _) in states(desk, number, sorted(keys)).items():
            recipient = _recipient(tenant, key)
            for hers in _pseudonyms(desk, question, recipient, state):
                which = hers.kind, hers.value
                if which not in wanted or hers.level > ceiling:
                    continue
                if hers.level is Mode.PERSONAL and names.get(hers.value) == recipient:
                    found[which] = Holder(recipient, Mode.PERSONAL)
                elif hers.value not in known:
                    found[which] = Holder(recipient, Mode.PSEUDONYMOUS)
    return found


def _whose(desk: Desk, question: Question, partition: int, wanted: set[tuple[str, bytes]]) -> set[bytes]:
    """The keys under which any state, old ones included, allows one of these pseudonyms."""
    prefix = message_key(question.tenant, "")
    found: set[bytes] = set()
    for record in read_partition(desk.settings.broker, STATE, partition, lambda key: key.startswith(prefix)):
        if record.value is None or record.key in found:
            continue
        try:
            state = decode_state(record.value)
        except BadRow:
            continue  # her newest state is read strictly, if anybody's
        recipient = _recipient(question.tenant, record.key)
        if any((one.kind, one.value) in wanted for one in _pseudonyms(desk, question, recipient, state)):
            found.add(record.key)
    return found


def _pseudonyms(desk: Desk, question: Question, recipient: str, state: RecipientState | None) -> Sequence[Pseudonym]:
    kinds = state.purposes.get(question.purpose) if state is not None else None
    if state is None or kinds is None:
        return ()
    return pseudonyms(desk.keys, question.tenant, recipient, RecipientState(state.version, {question.purpose: kinds}))


def _recipient(tenant: str, key: bytes) -> str:
    return key[len(message_key(tenant, "")) :].decode()


# --- handing out ---


def _put_on_record(
    desk: Desk, question: Question, lines: Sequence[tuple[Did, Holder]], of_all: tuple[str, str, str]
) -> None:
    told: dict[tuple[Any, ...], None] = {}
    for one, who in lines:
        what = (question.mailing, one.kind, one.link) if who.level is Mode.PERSONAL else ("", "", "")
        blind = desk.blind(question.tenant, who.recipient)
        told[question.tenant, question.purpose, *what, *of_all, blind] = None
    if told:
        # Twice on record does no harm.
        desk.identity.insert("writing disclosures", "disclosures", arrow(told, _DISCLOSURES), None)


class _new_file:  # noqa: N801  used as a function
    """A file that was not there, for its owner's eyes only; it goes again where the block does not end well."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> io.BufferedWriter:
        try:
            descriptor = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        except OSError as error:
            raise SettingsError(f"{self._path} cannot be made as a new file ({type(error).__name__})") from None
        self._file = os.fdopen(descriptor, "wb")
        return self._file

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._file.flush()
                os.fsync(self._file.fileno())
            self._file.close()
        except OSError:
            self._path.unlink(missing_ok=True)
            raise SettingsError(f"{self._path} could not be written: nothing was handed out") from None
        if kind is not None:
            self._path.unlink(missing_ok=True)


def _csv(lines: Sequence[tuple[Did, Holder]]) -> bytes:
    """RFC 4180 in UTF-8 with a byte order mark, by recipient; a name is never beside a pseudonym."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\r\n")
    writer.writerow(HEADING)
    cells = (
        (
            *((who.recipient, "") if who.level is Mode.PERSONAL else ("", one.pseudonym.hex())),
            *(one.kind, one.link, str(one.events), format_time(one.first), format_time(one.last)),
        )
        for one, who in lines
    )
    writer.writerows([cell(value) for value in line] for line in sorted(cells))
    return text.getvalue().encode("utf-8-sig")
