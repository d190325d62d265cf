"""The audit trail: who did what to whom, when and why (articles 5(2), 24 and 32 GDPR).

One numbered chain of lines in the identity store, written before what it speaks of is done: a line that cannot be
written forbids the deed. Any number of processes append at once:

 1  read the newest line's number n and MAC, and the store's clock
 2  insert line n + 1, its MAC over the line and the MAC of n, under the token `audit:n+1`
 3  read n + 1 back: the first writer has fixed it. If that was another, begin again

The MAC is HMAC-SHA-256 under a key of its own in the key ring. Whoever has the store and not the ring can neither
change a line, nor put one in, take one out or move one. Lines cut off at the end are not missed by the chain itself:
`verify` compares with a head that was noted somewhere else before. Whoever holds the ring as well can write the trail
anew, but not so that it still runs through such a head.

No line names a recipient: `subject` is her keyed blind index, and texts that hold an address are refused. The trail is
not touched by an erasure: that something was done, under a hash that only the key holder can compute, is what the
controller has to be able to show (article 17(3)(b) and (e)).
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow as pa

from pseudonymizer.keys import KeyKind, encode
from pseudonymizer.pseudonyms import keyed, mac
from streams.errors import SchleuseError, SettingsError, StoreLate, StoreUnavailable
from streams.messages import is_plain_text
from streams.stores import TIME, arrow

if TYPE_CHECKING:
    from streams.keys import Keys
    from streams.stores import StoreClient

MAX_TEXT = 300
NOBODY = bytes(16)
_LABEL = b"schleuse/audit/1"
_BEGIN = bytes(32)  # in the place of the MAC before the first line
_TRIES = 50  # losing so often needs as many others that write in the same moments
_PAGE = 10_000
_SCHEMA = pa.schema(
    [
        ("number", pa.uint64()),
        ("at", TIME),
        ("actor", pa.string()),
        ("action", pa.string()),
        ("tenant", pa.string()),
        ("subject", pa.binary(16)),
        ("why", pa.string()),
        ("detail", pa.string()),
        ("mac", pa.binary(32)),
        ("deadline", TIME),
    ]
)
_COLUMNS = (
    "number, toUnixTimestamp64Milli(at), actor, toString(action), toString(tenant), hex(subject), why, detail, hex(mac)"
)


class Action(StrEnum):
    """What can be done. The value stands in the trail and is never given another meaning."""

    CONSENTS_SHOWN = "consents_shown"
    """A recipient's consents were opened, with their proofs."""
    LOOKED_UP = "looked_up"
    """A mapping was to be opened by its pseudonym; if a `lookup_refused` follows that names this line, it was not."""
    LOOKUP_REFUSED = "lookup_refused"
    ERASURE_PLANNED = "erasure_planned"
    """It was looked at what is held of a recipient; nothing was opened."""
    ERASURE_ASKED = "erasure_asked"
    ENGAGED_DISCLOSED = "engaged_disclosed"
    """Mappings were opened to be handed out; each recipient is in `disclosures` under the line's `disclosure`."""
    EXPORTED = "exported"
    """Everything held of a recipient was opened for her."""
    EXPORT_OPENED = "export_opened"
    EXPORT_EXPIRED = "export_expired"
    REJECTED_OPENED = "rejected_opened"
    """The content of rejections was opened, to be shown or to plan their replay."""
    REJECTED_REPLAYED = "rejected_replayed"
    """It was opened to be sent again."""
    MAILING_CLOSED = "mailing_closed"
    EXPIRED = "expired"
    """Rows or mappings went because their time was over."""
    KEY_ROTATED = "key_rotated"
    KEY_DESTROYED = "key_destroyed"
    REKEYED = "rekeyed"
    """Recipients were moved to the newest root key of their tenant; nothing was opened for it."""
    VERIFIED = "verified"


class AuditBroken(SchleuseError):
    """The trail is not as it was written. The text names the first line that is wrong."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the trail."""

    number: int
    """From 1, without a gap."""
    at_ms: int
    """Epoch milliseconds, by the identity store's clock."""
    actor: str
    """Login and operating system's user: `rights/alice`. It is as true as that system's accounts are."""
    action: str
    tenant: str
    subject: bytes | None = field(repr=False)
    """The blind index of whom it is about; None: nobody in particular."""
    why: str
    detail: Mapping[str, int | str]
    mac: bytes = field(repr=False)

    @property
    def head(self) -> str:
        """`NUMBER:MAC`: to be noted where whoever runs the stores cannot change it."""
        return f"{self.number}:{self.mac.hex()}"


def check_text(text: str, name: str) -> str:
    """A text for the trail: 3 to `MAX_TEXT` characters, in one line, without an address. Raises SettingsError.

    It stays for good, also when she whom it is about has been erased: it names a ticket, never her.
    """
    text = text.strip()
    if not 3 <= len(text) <= MAX_TEXT or not is_plain_text(text):
        raise SettingsError(
            f"{name} must be 3 to {MAX_TEXT} characters in one line, and hold no address: it is kept for good"
        )
    return text


class Audit:
    """The trail, for one actor. Blocking; used by one thread at a time. The repr shows no key."""

    def __init__(self, identity: StoreClient, keys: Keys, actor: str, deadline_ms: int) -> None:
        """`deadline_ms`: how late, by the store's clock, a line may reach it. Makes the trail's key if need be."""
        self._identity, self._actor, self._deadline_ms = identity, actor, deadline_ms
        self._state = keyed(keys.single(KeyKind.AUDIT))

    def __repr__(self) -> str:
        return f"<Audit of {self._actor}>"

    def record(
        self, action: Action, tenant: str, subject: bytes | None, why: str, detail: Mapping[str, int | str]
    ) -> Line:
        """Append a line and return it as it stands. Call it before the deed; where it raises, do not do the deed.

        `subject`: a blind index of 16 bytes. `why` comes from `check_text` or is a fixed text of ours; `detail` holds
        ids and counts. A caller may NOT assume that no line was written when it raises StoreUnavailable, nor that its
        line comes right after the last one that it has read.
        """
        for _ in range(_TRIES):
            number, previous, now_ms = self._newest()
            line = Line(number + 1, now_ms, self._actor, str(action), tenant, subject, why, dict(detail), b"")
            line = replace(line, mac=self._mac(line, previous))
            try:
                self._insert(line)
            except StoreLate:
                continue
            fixed = self._read(f"number = {line.number}", 2)
            if [one.mac for one in fixed] == [line.mac]:
                return line
        raise StoreUnavailable("the audit trail took no line: too many others write to it at this moment")

    def lines(self, last: int, tenant: str | None = None, subject: bytes | None = None, action: str = "") -> list[Line]:
        """The newest so many lines, oldest first; of one tenant, one subject, one action. They are not verified."""
        which, names = ["1"], dict[str, Any]()
        for column, kind, value in (
            ("tenant", "String", tenant),
            ("hex(subject)", "String", subject.hex().upper() if subject is not None else None),
            ("action", "String", action or None),
        ):
            if value is not None:
                names[f"p{len(names)}"] = value
                which.append(f"{column} = {{p{len(names) - 1}:{kind}}}")
        return self._read(" AND ".join(which), last, names, newest=True)[::-1]

    def count(self, action: Action, up_to: int, seconds: int) -> int:
        """How many lines up to number `up_to` and not older than so many seconds say that an action was done."""
        ((count,),) = self._identity.rows(
            "counting lines of the audit trail",
            "SELECT count() FROM audit WHERE action = {action:String} AND number <= {up_to:UInt64} "
            "AND at > now64(3) - toIntervalSecond({seconds:UInt32})",
            {"action": str(action), "up_to": up_to, "seconds": seconds},
        )
        return int(count)

    def head(self) -> Line | None:
        """The newest line, or None: there is none yet. Not verified."""
        found = self.lines(1)
        return found[0] if found else None

    # --- is it whole? ---

    def verify(self, since: str | None = None) -> Line | None:
        """Walk the whole trail and return its newest line; None: it has none.

        `since`: a head that was noted before; the trail must still run through it. Raises AuditBroken at the first line
        that is missing, there twice or not as it was written, and SettingsError when `since` is no head.
        """
        noted = _parse_head(since) if since is not None else None
        last: Line | None = None
        previous = _BEGIN
        for line in self._walk():
            expected = last.number + 1 if last is not None else 1
            if line.number > expected:
                raise AuditBroken(f"the audit trail is broken: line {expected} is missing")
            if line.number < expected:
                raise AuditBroken(f"the audit trail is broken: line {line.number} is there twice")
            if not hmac.compare_digest(line.mac, self._mac(line, previous)):
                raise AuditBroken(
                    f"the audit trail is broken: line {line.number} is not as it was written, or this is not the key "
                    "ring that it was written with"
                )
            if noted is not None and noted[0] == line.number and noted[1] != line.mac:
                raise AuditBroken(f"the audit trail is broken: line {line.number} is another one than was noted")
            last, previous = line, line.mac
        end = last.number if last is not None else 0
        if noted is not None and noted[0] > end:
            raise AuditBroken(f"the audit trail is broken: it ends at line {end}, and line {noted[0]} was noted before")
        return last

    def _walk(self) -> Iterator[Line]:
        after = 0
        while lines := self._read(f"number > {after}", _PAGE):
            yield from lines
            after = lines[-1].number

    # --- inside ---

    def _newest(self) -> tuple[int, bytes, int]:
        """Number and MAC of the newest line, and the store's clock in epoch milliseconds."""
        ((number, code, now_ms),) = self._identity.rows(
            "reading the end of the audit trail",
            "SELECT max(number), hex(argMax(mac, number)), toUnixTimestamp64Milli(now64(3)) FROM audit",
        )
        return int(number), bytes.fromhex(code) if number else _BEGIN, int(now_ms)

    def _mac(self, line: Line, previous: bytes) -> bytes:
        """Over a length-prefixed encoding: nothing can move from one field to another."""
        return mac(
            self._state,
            encode(
                _LABEL,
                previous,
                line.number.to_bytes(8, "big"),
                line.at_ms.to_bytes(8, "big", signed=True),
                line.actor.encode(),
                line.action.encode(),
                line.tenant.encode(),
                line.subject or NOBODY,
                line.why.encode(),
                _canonical(line.detail),
            ),
        )

    def _insert(self, line: Line) -> None:
        values = (
            *(line.number, line.at_ms, line.actor, line.action, line.tenant, line.subject or NOBODY, line.why),
            *(_canonical(line.detail).decode(), line.mac, line.at_ms + self._deadline_ms),
        )
        self._identity.insert("writing the audit trail", "audit", arrow([values], _SCHEMA), f"audit:{line.number}")

    def _read(self, which: str, limit: int, names: Mapping[str, Any] | None = None, newest: bool = False) -> list[Line]:
        order = "DESC" if newest else "ASC"
        rows = self._identity.rows(
            "reading the audit trail",
            f"SELECT {_COLUMNS} FROM audit WHERE {which} ORDER BY number {order} LIMIT {limit} WITH TIES",
            names,
        )
        return [_read_line(row) for row in rows]


def _canonical(detail: Mapping[str, int | str]) -> bytes:
    return orjson.dumps(dict(detail), option=orjson.OPT_SORT_KEYS)


def _read_line(row: Any) -> Line:
    number, at_ms, actor, action, tenant, subject, why, detail, code = row
    try:
        said = orjson.loads(detail)
    except orjson.JSONDecodeError:
        said = None
    if not isinstance(said, dict):
        raise AuditBroken(f"the audit trail is broken: line {number} is not as it was written")
    who = bytes.fromhex(subject)
    return Line(
        int(number), int(at_ms), actor, action, tenant, who if who != NOBODY else None, why, said, bytes.fromhex(code)
    )


def _parse_head(text: str) -> tuple[int, bytes]:
    number, _, code = text.strip().partition(":")
    try:
        found = int(number), bytes.fromhex(code)
    except ValueError:
        found = 0, b""
    if found[0] < 1 or len(found[1]) != 32:
        raise SettingsError("a head of the audit trail is NUMBER:MAC, as `schleuse audit verify` prints it")
    return found
