"""The wire messages: preference, mailing, request, change, state, receipt.

Reading is strict; whatever is wrong is a BadRow.

Preferences and mailings come from senders and are read field by field. Changes and states are our own: intake and the
owner of a partition write them, and they are read as a whole against their type. Times are epoch milliseconds, UTC, in
memory; senders write RFC 3339 or epoch milliseconds.

A preference is one decision: any fault in it refuses all of it, and its sender sees the rejection. Two rules keep a
withdrawal from being lost over a formality: it needs no proof, and a proof that cannot be used does not refuse it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Literal, NoReturn, Protocol
from urllib.parse import urlsplit

import msgspec
import orjson

from aggregates.links import plain
from pseudonymizer.consent import Consent, Mode
from pseudonymizer.recipients import BadRecipient, canonical
from streams.errors import BadRow, Reason
from streams.strict_json import read_object

DAY_MS = 86_400_000
BACK_MS = 400 * DAY_MS
AHEAD_MS = 600_000
YEAR_2000_MS, YEAR_2200_MS = 946_684_800_000, 7_258_118_400_000
_FIRST_MS, _LAST_MS = -62_135_596_800_000, 253_402_300_799_999  # years 1 to 9999
_EPOCH_DAY = date(1970, 1, 1).toordinal()

KINDS = ("open", "click")
EVERYTHING = "*"  # the purpose under which a decision for everything is kept, for purposes that come later
MAX_TENANT, MAX_MAILING, MAX_LINK, MAX_NAME = 64, 128, 64, 200
MAX_URL = 2048
MAX_REQUEST = 64
MAX_LINKS = 1000
MAX_RECIPIENTS = 1_000_000_000
MAX_PROOF = 500
_PROOF_TEXTS = ("source", "text_version", "evidence", "age_check", "recorded_by")


class Purposes(Protocol):
    """What has to be known of a tenant to read its messages; streams.tenants.TenantSettings is one."""

    @property
    def lower_local(self) -> bool:
        """Whether local parts of addresses are compared without case."""

    @property
    def purposes(self) -> Mapping[str, object]:
        """The tenant's purposes, by name."""


Tenants = Mapping[str, Purposes]


# --- values ---

_RFC_3339 = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]+))?"
    r"(?:[Zz]|([+-])([0-9]{2}):([0-9]{2}))"
)
_ADDRESS = re.compile(
    r"(?<=[^\s/?&=#:;,<>()@])(?:@|%40)[^\s/?&=#@]"
)  # something@something; not the /@name of a profile
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_BIDI = re.compile("[\u202a-\u202e\u2066-\u2069]")  # they let a text be read in another order than it is in


def parse_time(value: object, field: str, now_ms: int | None) -> int:
    """A time as epoch milliseconds: RFC 3339 with its zone, or an integer of epoch milliseconds.

    Digits of a fraction beyond the third are cut off; a leap second (60) is refused, since no clock here has one. With
    `now_ms`, it must lie from 400 days before to 10 minutes after it, both included; without, in the years 1 to 9999.
    Raises BadRow: `wrong_type` for anything but a string or an integer, `bad_time` for all the rest.
    """
    if isinstance(value, str):
        at = _rfc_3339(value)
        if at is None:
            raise BadRow(Reason.BAD_TIME, field, "RFC 3339 with a zone, or epoch milliseconds")
    elif isinstance(value, int) and not isinstance(value, bool):
        at = value
    else:
        raise BadRow(Reason.WRONG_TYPE, field, "RFC 3339 with a zone, or epoch milliseconds")
    if now_ms is None:
        if not _FIRST_MS <= at <= _LAST_MS:
            raise BadRow(Reason.BAD_TIME, field, "a time in the years 1 to 9999")
    elif not now_ms - BACK_MS <= at <= now_ms + AHEAD_MS:
        raise BadRow(Reason.BAD_TIME, field, "from 400 days ago to 10 minutes ahead")
    return at


def _rfc_3339(text: str) -> int | None:
    """Counted in whole numbers: datetime would overflow in the years 1 and 9999, and has no year 0 for an offset."""
    match = _RFC_3339.fullmatch(text) if len(text) <= 64 else None
    if match is None:
        return None
    *clock, fraction, sign, zone_hours, zone_minutes = match.groups()
    year, month, day, hour, minute, second = map(int, clock)
    if hour > 23 or minute > 59 or second > 59:
        return None
    try:
        days = date(year, month, day).toordinal() - _EPOCH_DAY
    except ValueError:
        return None
    seconds = ((days * 24 + hour) * 60 + minute) * 60 + second
    if sign:
        if int(zone_hours) > 23 or int(zone_minutes) > 59:
            return None
        offset = int(zone_hours) * 3600 + int(zone_minutes) * 60
        seconds += offset if sign == "-" else -offset
    return seconds * 1000 + int((fraction or "")[:3].ljust(3, "0"))


def format_time(at_ms: int) -> str:
    """Epoch milliseconds as RFC 3339 in UTC, to the millisecond. For times of the years 1 to 9999."""
    at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=at_ms)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def check_id(value: object, field: str, max_chars: int, counted: bool = False) -> str:
    """An id: a string of 1 to `max_chars` characters without control characters, lone surrogates, `@` in any disguise.

    Ids go to the analytics store as they are, so none may carry an address, and those of mailings stand in URLs. A
    caller may NOT assume more than that: an id may hold blanks and any script. `counted`: it was taken in before, maybe
    by a release that took more. Raises BadRow: `wrong_type` or `bad_value`.
    """
    if not isinstance(value, str):
        raise BadRow(Reason.WRONG_TYPE, field, "a string")
    if not 1 <= len(value) <= max_chars:
        raise BadRow(Reason.BAD_VALUE, field, f"1 to {max_chars} characters")
    if "@" in value or (("%" in value or not value.isascii()) and "@" in plain(value)):
        raise BadRow(Reason.BAD_VALUE, field, "an id, not an address")
    if not (value.isascii() and value.isprintable()) and (_CONTROL.search(value) or _SURROGATE.search(value)):
        raise BadRow(Reason.BAD_VALUE, field, "no control characters")
    if field == "mailing" and value in (".", "..") and not counted:
        raise BadRow(Reason.BAD_VALUE, field, "any id but . and .., which a URL takes for folders")
    return value


def _needed(record: Mapping[str, Any], name: str) -> Any:
    value = record.get(name)
    if value is None:
        raise BadRow(Reason.MISSING_FIELD, name, "a value")
    return value


def _object(value: object, field: str, expected: str) -> dict[str, Any]:
    """A JSON object below the top level, without a name that comes twice."""
    if not isinstance(value, dict):
        raise BadRow(Reason.WRONG_TYPE, field, expected)
    if getattr(value, "twice", False):
        raise BadRow(Reason.DUPLICATE_FIELD, field, "each name once")
    return value


def is_plain_text(text: str) -> bool:
    """Whether a text is free of control characters, of half surrogate pairs, and of addresses in any disguise."""
    return not (_CONTROL.search(text) or _SURROGATE.search(text) or _holds_address(text))


def _mode(value: object, field: str) -> Mode:
    if not isinstance(value, str):
        raise BadRow(Reason.WRONG_TYPE, field, "off, anonymous, pseudonymous or personal")
    try:
        return Mode.parse(value)
    except ValueError:
        raise BadRow(Reason.BAD_VALUE, field, "off, anonymous, pseudonymous or personal") from None


def _tenant(record: Mapping[str, Any], tenants: Tenants) -> tuple[str, Purposes]:
    name = check_id(_needed(record, "tenant"), "tenant", MAX_TENANT)
    found = tenants.get(name)
    if found is None:
        raise BadRow(Reason.UNKNOWN_TENANT, "tenant", "a tenant of the settings in force")
    return name, found


def _recipient(record: Mapping[str, Any], tenant: Purposes) -> str:
    """The canonical recipient of a message."""
    recipient = _needed(record, "recipient")
    if not isinstance(recipient, str):
        raise BadRow(Reason.WRONG_TYPE, "recipient", "a string")
    try:
        return canonical(recipient, tenant.lower_local)
    except BadRecipient:
        raise BadRow(Reason.BAD_RECIPIENT, "recipient", "an address or an id") from None


# --- tracking.preferences ---

Modes = dict[str, dict[str, Mode]]


@dataclass(frozen=True, slots=True)
class Preference:
    """What a recipient has chosen, as accepted. `repr` shows neither her nor the proof."""

    tenant: str
    recipient: str = field(repr=False)
    """Canonical."""
    decided_at: int
    modes: Modes | None
    """purpose -> kind -> mode, neither level empty; None: `everything` says it."""
    everything: Mode | None
    """off or anonymous, for every purpose and kind; it only lowers. None: `modes` says it."""
    proof: dict[str, Any] | None = field(repr=False)
    """The allow-listed fields of the proof: always there if a mode above anonymous is asked for."""


def parse_preference(raw: bytes | None, tenants: Tenants, arrived_ms: int) -> Preference:
    """Read a message of tracking.preferences; `arrived_ms` is Kafka's time of its record.

    Raises BadRow and nothing else. A `decided_at` later than `arrived_ms` becomes `arrived_ms`. A caller may NOT assume
    that it changes anything: what is known may be newer.
    """
    record = read_object(raw)
    name, tenant = _tenant(record, tenants)
    recipient = _recipient(record, tenant)
    decided_at = parse_time(_needed(record, "decided_at"), "decided_at", None)
    if decided_at < YEAR_2000_MS:
        raise BadRow(Reason.BAD_TIME, "decided_at", "not before the year 2000")
    modes = everything = None
    if _needed(record, "purposes") == "*":
        everything = _mode(_needed(record, "mode"), "mode")
        if everything > Mode.ANONYMOUS:
            raise BadRow(Reason.BAD_VALUE, "mode", "off or anonymous for all purposes at once")
    else:
        modes = _modes(record["purposes"], tenant)
    grants = modes is not None and any(mode > Mode.ANONYMOUS for kinds in modes.values() for mode in kinds.values())
    proof = _proof_of_grant(record.get("proof")) if grants else _proof_of_withdrawal(record.get("proof"))
    return Preference(name, recipient, min(decided_at, arrived_ms), modes, everything, proof)


def _modes(value: object, tenant: Purposes) -> Modes:
    modes: Modes = {}
    for purpose, kinds in _object(value, "purposes", "purposes with modes, or *").items():
        if purpose not in tenant.purposes:
            raise BadRow(Reason.UNKNOWN_PURPOSE, "purposes", "a purpose of the tenant's settings")
        for kind, mode in _object(kinds, "purposes", "a mode for each kind").items():
            if kind not in KINDS:
                raise BadRow(Reason.UNKNOWN_KIND, "purposes", "open or click")
            modes.setdefault(purpose, {})[kind] = _mode(mode, "purposes")
        if purpose not in modes:
            raise BadRow(Reason.BAD_VALUE, "purposes", "a mode for at least one kind")
    if not modes:
        raise BadRow(Reason.BAD_VALUE, "purposes", "at least one purpose")
    return modes


def _proof_of_grant(value: object) -> dict[str, Any]:
    """Article 7(1) GDPR: who asks for more has to be able to show that it was consented to; 7(4): freely."""
    if not isinstance(value, dict):
        raise BadRow(Reason.NO_PROOF, "proof", "source and text_version of the consent")
    proof = _checked_proof(value)
    for name in ("source", "text_version"):
        if not str(proof.get(name, "")).strip():
            raise BadRow(Reason.NO_PROOF, f"proof.{name}", "a text that is not empty")
    if proof.get("conditional"):
        raise BadRow(Reason.CONDITIONAL_CONSENT, "proof.conditional", "a consent that nothing else depends on")
    return proof


def _proof_of_withdrawal(value: object) -> dict[str, Any] | None:
    """Kept if it can be used; article 7(3) GDPR: to withdraw must be as easy as to consent."""
    if not isinstance(value, dict):
        return None
    try:
        return _checked_proof(value) or None
    except BadRow:
        return None


def _checked_proof(value: dict[str, Any]) -> dict[str, Any]:
    """The fields that we know, checked; null is absent, and what we do not know is dropped."""
    given = _object(value, "proof", "an object")
    proof: dict[str, Any] = {}
    for name in _PROOF_TEXTS:
        text = given.get(name)
        if text is None:
            continue
        if not isinstance(text, str):
            raise BadRow(Reason.WRONG_TYPE, f"proof.{name}", "a string")
        if len(text) > MAX_PROOF:
            raise BadRow(Reason.BAD_VALUE, f"proof.{name}", f"at most {MAX_PROOF} characters")
        proof[name] = text
    conditional = given.get("conditional")
    if conditional is not None:
        if not isinstance(conditional, bool):
            raise BadRow(Reason.WRONG_TYPE, "proof.conditional", "true or false")
        proof["conditional"] = conditional
    return proof


# --- tracking.mailings ---


@dataclass(frozen=True, slots=True)
class Declaration:
    """A mailing as its sender declares it. All of it is for analysts to read; none of it is personal."""

    tenant: str
    mailing: str
    name: str
    sent_at: int
    recipients: int
    """To how many it was sent, in the sender's word."""
    links: dict[str, str]
    """link id -> URL."""


def parse_mailing(raw: bytes | None, tenants: Tenants | None) -> Declaration:
    """Read a message of tracking.mailings. Without `tenants`, any tenant is taken.

    Raises BadRow and nothing else. `sent_at` may be ahead (a mailing is declared before it is sent), in the years 2000
    to 2199. No name, id or URL may carry an address, in a path or a query either: analysts read them.
    """
    record = read_object(raw)
    if tenants is None:
        tenant = check_id(_needed(record, "tenant"), "tenant", MAX_TENANT)
    else:
        tenant, _ = _tenant(record, tenants)
    mailing = check_id(_needed(record, "mailing"), "mailing", MAX_MAILING)
    name = _needed(record, "name")
    if not isinstance(name, str):
        raise BadRow(Reason.WRONG_TYPE, "name", "a string")
    if not 1 <= len(name) <= MAX_NAME or _CONTROL.search(name) or _BIDI.search(name) or _holds_address(name):
        raise BadRow(Reason.BAD_VALUE, "name", f"1 to {MAX_NAME} characters, no control characters, no address")
    sent_at = parse_time(_needed(record, "sent_at"), "sent_at", None)
    if not YEAR_2000_MS <= sent_at < YEAR_2200_MS:
        raise BadRow(Reason.BAD_TIME, "sent_at", "a time in the years 2000 to 2199")
    recipients = _needed(record, "recipients")
    if not isinstance(recipients, int) or isinstance(recipients, bool):
        raise BadRow(Reason.WRONG_TYPE, "recipients", "an integer")
    if not 0 <= recipients <= MAX_RECIPIENTS:
        raise BadRow(Reason.BAD_VALUE, "recipients", f"0 to {MAX_RECIPIENTS}")
    return Declaration(tenant, mailing, name, sent_at, recipients, _links(record.get("links")))


def _holds_address(text: str) -> bool:
    return _ADDRESS.search(text) is not None or _ADDRESS.search(plain(text)) is not None


def _links(value: object) -> dict[str, str]:
    if value is None:
        return {}
    links = _object(value, "links", "a URL for each link id")
    if len(links) > MAX_LINKS:
        raise BadRow(Reason.BAD_VALUE, "links", f"at most {MAX_LINKS} links")
    for link, url in links.items():
        if check_id(link, "links", MAX_LINK) == "other":
            raise BadRow(Reason.BAD_VALUE, "links", "any id but other, which is for what nobody declared")
        _check_url(url)
    return dict(links)


def _check_url(url: object) -> None:
    if not isinstance(url, str):
        raise BadRow(Reason.WRONG_TYPE, "links", "a URL for each link id")
    expected = f"an http or https URL of at most {MAX_URL} characters, without user and address"
    if len(url) > MAX_URL or _CONTROL.search(url) or _BIDI.search(url) or " " in url or _holds_address(url):
        raise BadRow(Reason.BAD_VALUE, "links", expected)
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and "@" not in parts.netloc
        good = good and (parts.port is None or parts.port > 0)  # `port` raises ValueError for what is no number
    except ValueError:
        good = False
    if not good:
        raise BadRow(Reason.BAD_VALUE, "links", expected)


# --- tracking.requests ---


@dataclass(frozen=True, slots=True)
class Request:
    """What a recipient asks for, as accepted. `repr` does not show her."""

    kind: Literal["erasure", "access"]
    request_id: str
    """The sender's own, 1 to 64 characters without an address; its receipt is found by it."""
    tenant: str
    recipient: str = field(repr=False)
    """Canonical."""
    requested_at: int


def parse_request(raw: bytes | None, tenants: Tenants, arrived_ms: int) -> Request:
    """Read a message of tracking.requests; `arrived_ms` is Kafka's time of its record.

    Raises BadRow and nothing else. A `requested_at` later than `arrived_ms` becomes `arrived_ms`; one that is missing
    is `arrived_ms`: articles 15 and 17 GDPR ask for no form.
    """
    record = read_object(raw)
    name, tenant = _tenant(record, tenants)
    recipient = _recipient(record, tenant)
    request_id = check_id(_needed(record, "request_id"), "request_id", MAX_REQUEST)
    kind = _needed(record, "kind")
    if kind not in ("erasure", "access"):
        raise BadRow(Reason.UNKNOWN_KIND, "kind", "erasure or access")
    at = record.get("requested_at")
    requested_at = arrived_ms if at is None else parse_time(at, "requested_at", None)
    if requested_at < YEAR_2000_MS:
        raise BadRow(Reason.BAD_TIME, "requested_at", "not before the year 2000")
    return Request(kind, request_id, name, recipient, min(requested_at, arrived_ms))


# --- tracking.changes ---

Salts = dict[str, dict[str, bytes]]
Bytes16 = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
Bytes32 = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]  # msgspec reads integers of any length
Offset = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
KeyVersion = Annotated[int, msgspec.Meta(ge=1, le=2**16 - 1)]


@dataclass(frozen=True, slots=True)
class Change:
    """A preference that intake accepted, with what it drew for it. `repr` shows neither recipient, salts nor proof."""

    preference_id: str
    """The coordinates it came from: topic:partition:offset."""
    tenant: str
    recipient: str = field(repr=False)
    decided_at: int
    modes: Modes | None
    everything: Mode | None
    salts: Salts = field(repr=False)
    """purpose -> kind -> 16 random bytes, for every mode above anonymous that is asked for."""
    key_version: int
    """The version of the tenant's root key for pseudonyms under these salts."""
    proof: dict[str, Any] | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Erasure:
    """A request for erasure that intake accepted. It covers what was decided up to then, and no later grant."""

    request_id: str
    tenant: str
    recipient: str = field(repr=False)
    requested_at: int
    source: str
    """The coordinates it came from: topic:partition:offset."""


@dataclass(frozen=True, slots=True)
class Ceiling:
    """A ceiling that a tenant has lowered: what is above it goes, of everybody. One to every partition."""

    id: str
    tenant: str
    purpose: str
    ceiling: Mode
    seed: bytes = field(repr=False)
    """32 random bytes that the salts of those who step down from personal to pseudonymous are made from."""


@dataclass(frozen=True, slots=True)
class Rekey:
    """A recipient moves from one version of her tenant's root key to another. What she has decided stays as it is."""

    tenant: str
    recipient: str = field(repr=False)
    from_version: int
    to_version: int
    remove: bool
    """False: rows and mappings in personal mode are rewritten, pseudonymous ones stay under the version that they have.
    True: all that is there under the version goes, and what comes is under the other one."""


@dataclass(frozen=True, slots=True)
class Closing:
    """The window of a mailing closes: what comes for it from here on is `late`. One to every partition."""

    id: str
    """Of the sending: it tells two of the same mailing apart, and decides nothing."""
    tenant: str
    mailing: str


AnyChange = Change | Erasure | Ceiling | Rekey | Closing


class _ChangeWire(msgspec.Struct, tag_field="type", tag="preference"):
    """A preference as it stands on the topic. `purposes` and `mode` are as its sender wrote them."""

    preference_id: str
    tenant: str
    recipient: str
    decided_at: Int64
    purposes: Literal["*"] | dict[str, dict[Literal["open", "click"], str]]
    key_version: KeyVersion
    mode: str | None = None
    salts: dict[str, dict[str, Bytes16]] = {}
    proof: dict[str, str | bool] | None = None


class _ErasureWire(msgspec.Struct, tag_field="type", tag="erasure"):
    request_id: str
    tenant: str
    recipient: str
    requested_at: Int64
    source: str


class _CeilingWire(msgspec.Struct, tag_field="type", tag="ceiling"):
    id: str
    tenant: str
    purpose: str
    ceiling: str
    seed: Bytes32


class _RekeyWire(msgspec.Struct, tag_field="type", tag="rekey"):
    tenant: str
    recipient: str
    from_version: KeyVersion = msgspec.field(name="from")
    to_version: KeyVersion = msgspec.field(name="to")
    remove: bool


class _ClosingWire(msgspec.Struct, tag_field="type", tag="closing"):
    id: str
    tenant: str
    mailing: str


class _Typed(msgspec.Struct):
    type: str


_AnyWire = _ChangeWire | _ErasureWire | _CeilingWire | _RekeyWire | _ClosingWire
_change_decoder: msgspec.json.Decoder[_AnyWire] = msgspec.json.Decoder(_AnyWire)
_type_decoder = msgspec.json.Decoder(_Typed)
_NOT_READ = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_TYPES = ("preference", "erasure", "ceiling", "rekey", "closing")


def encode_change(change: AnyChange) -> bytes:
    """The message on tracking.changes.

    Raises ValueError when a preference says neither or both of `modes` and `everything`.
    """
    match change:
        case Erasure():
            wire: _AnyWire = _ErasureWire(
                change.request_id, change.tenant, change.recipient, change.requested_at, change.source
            )
        case Ceiling():
            wire = _CeilingWire(change.id, change.tenant, change.purpose, change.ceiling.word, change.seed)
        case Rekey():
            wire = _RekeyWire(change.tenant, change.recipient, change.from_version, change.to_version, change.remove)
        case Closing():
            wire = _ClosingWire(change.id, change.tenant, change.mailing)
        case Change():
            wire = _wire_of_preference(change)
    return msgspec.json.encode(wire)


def _wire_of_preference(change: Change) -> _ChangeWire:
    if (change.modes is None) == (change.everything is None):
        raise ValueError("a change has either modes or one mode for everything")
    purposes: Any = "*"
    if change.modes is not None:
        purposes = {
            purpose: {kind: mode.word for kind, mode in kinds.items()} for purpose, kinds in change.modes.items()
        }
    return _ChangeWire(
        change.preference_id,
        change.tenant,
        change.recipient,
        change.decided_at,
        purposes,
        change.key_version,
        change.everything.word if change.everything is not None else None,
        change.salts,
        change.proof,
    )


def parse_change(raw: bytes | None) -> AnyChange:
    """Read a message of tracking.changes. Raises BadRow and nothing else: `bad_value` for another type of change."""
    if raw is None:
        raise BadRow(Reason.TOMBSTONE, None, "a value")
    try:
        wire = _change_decoder.decode(raw)
    except _NOT_READ:
        _refuse_change(raw)
    match wire:
        case _ErasureWire():
            return Erasure(wire.request_id, wire.tenant, wire.recipient, wire.requested_at, wire.source)
        case _CeilingWire():
            return Ceiling(wire.id, wire.tenant, wire.purpose, _mode(wire.ceiling, "ceiling"), wire.seed)
        case _RekeyWire():
            return Rekey(wire.tenant, wire.recipient, wire.from_version, wire.to_version, wire.remove)
        case _ClosingWire():
            return Closing(wire.id, wire.tenant, check_id(wire.mailing, "mailing", MAX_MAILING, counted=True))
        case _ChangeWire():
            return _preference_of(wire)


def _preference_of(wire: _ChangeWire) -> Change:
    modes = everything = None
    if wire.purposes == "*":
        everything = _mode(wire.mode, "mode")
        if everything > Mode.ANONYMOUS:
            raise BadRow(Reason.BAD_VALUE, "mode", "off or anonymous for all purposes at once")
    else:
        modes = {
            purpose: {str(kind): _mode(mode, "purposes") for kind, mode in kinds.items()}
            for purpose, kinds in wire.purposes.items()
        }
        for purpose, of_purpose in modes.items():
            for kind, mode in of_purpose.items():
                if mode > Mode.ANONYMOUS and kind not in wire.salts.get(purpose, {}):
                    raise BadRow(Reason.MISSING_FIELD, "salts", "a salt for each mode above anonymous")
    return Change(
        wire.preference_id,
        wire.tenant,
        wire.recipient,
        wire.decided_at,
        modes,
        everything,
        wire.salts,
        wire.key_version,
        wire.proof,
    )


def _refuse_change(raw: bytes) -> NoReturn:
    try:
        kind = _type_decoder.decode(raw).type
    except msgspec.ValidationError:
        raise BadRow(Reason.WRONG_TYPE, "type", "an object with a type") from None
    except _NOT_READ:
        raise BadRow(Reason.NOT_JSON, None, "one JSON object") from None
    if kind not in _TYPES:
        raise BadRow(Reason.BAD_VALUE, "type", "a type of change that this release knows") from None
    raise BadRow(Reason.WRONG_TYPE, None, "a change as intake writes it") from None


# --- tracking.state ---


@dataclass(frozen=True, slots=True)
class RecipientState:
    """All that a recipient has decided, and the change that it stands on. What is not in it is the default."""

    version: tuple[int, int]
    """(incarnation, offset of the newest change in it). Higher is newer."""
    purposes: dict[str, dict[str, Consent]]
    """purpose -> kind -> consent. One that looks like the default stays: its `decided_at` refuses older decisions."""


def consent_of(
    purposes: Mapping[str, Mapping[str, Consent]], purpose: str, kind: str, off_since: int | None = None
) -> Consent | None:
    """What holds of one purpose and kind by a state's `purposes`; None: nothing was ever decided.

    Her own decision; else the newer of that for everything, which also holds for a purpose that came after it, and of
    `off_since`: when she became `off`, where the state that said so was lost (streams/incarnation.py). Of two of the
    same time `off` wins, as the lower mode does.
    """
    own = purposes.get(purpose, {}).get(kind)
    if own is not None:
        return own
    of_all = purposes.get(EVERYTHING, {}).get(kind)
    if off_since is not None and (of_all is None or of_all.decided_at <= off_since):
        return Consent(Mode.OFF, (None, None, None), off_since)
    return of_all


class _StateWire(msgspec.Struct, forbid_unknown_fields=True):
    version: tuple[Offset, Offset]
    purposes: dict[str, dict[str, Consent]]


_state_decoder = msgspec.json.Decoder(_StateWire)
_BEGIN = b'{"version":['


def encode_state(state: RecipientState) -> bytes:
    """The value on tracking.state: `{"version":[INCARNATION,OFFSET],"purposes":{PURPOSE:{KIND:CONSENT}}}`.

    A consent is `[mode, [since anonymous, pseudonymous, personal], decided_at, [[level, since, salt, key version]]]`
    with modes and levels as 0 to 3 and salts in base64. Raises ValueError for a version below zero.
    """
    if min(state.version) < 0:
        raise ValueError("a state that is written stands on a change")
    return msgspec.json.encode({"version": state.version, "purposes": state.purposes})


def state_version(raw: bytes) -> tuple[int, int]:
    """The version of an encoded state, without reading the rest of it. Raises BadRow when it does not begin with one.

    A caller may NOT assume that the rest can be read.
    """
    if raw.startswith(_BEGIN) and (end := raw.find(b"]", 12, 64)) > 0:
        incarnation, _, offset = raw[12:end].partition(b",")
        if incarnation.isdigit() and offset.isdigit():
            return int(incarnation), int(offset)
    raise BadRow(Reason.BAD_VALUE, "version", "a state as a worker writes it")


def decode_state(raw: bytes) -> RecipientState:
    """Read a value of tracking.state. Raises BadRow and nothing else; a tombstone is for the caller to meet."""
    try:
        wire = _state_decoder.decode(raw)
    except _NOT_READ:
        raise BadRow(Reason.BAD_VALUE, None, "a state as a worker writes it") from None
    for kinds in wire.purposes.values():
        for consent in kinds.values():
            if not consent.is_sound():
                raise BadRow(Reason.BAD_VALUE, None, "a state as a worker writes it")
    return RecipientState(wire.version, wire.purposes)


# --- tracking.receipts ---


def encode_receipt(
    number: str,
    kind: str,
    tenant: str,
    completed_at: int,
    removed: Mapping[str, int],
    gone_by: int,
    disclosed_to: Iterable[str] = (),
) -> bytes:
    """The confirmation of a withdrawal, an erasure or a lowered ceiling; times go out as RFC 3339.

    `number` is the preference's id or the request's. `removed` counts what went; `gone_by` is when the bytes have left
    the disks; `disclosed_to` is to whom the sender has to pass an erasure on (Art. 19 GDPR). It names no recipient:
    whoever sent the preference or the request knows.
    """
    return orjson.dumps(
        {
            "preference_id" if kind == "withdrawal" else "request_id": number,
            "kind": kind,
            "tenant": tenant,
            "completed_at": format_time(completed_at),
            "removed": dict(removed),
            "gone_by": format_time(gone_by),
            "disclosed_to": list(disclosed_to),
        }
    )
