"""What an access export says: one shape, from which JSON, CSV and the page are made.

The shape is the documented format. `schema()` is its JSON Schema (draft 2020-12), which lies beside this module as
`export.schema.json`; a test keeps the two in step. Times are RFC 3339 in UTC, to the millisecond. Pseudonyms are 32 hex
digits. A field that is null is not known or does not apply; a list that is empty says that nothing of the kind is held.

Every value here is personal data: no repr shows one.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

VERSION = 1
SCHEMA_FILE = "export.schema.json"

Time = Annotated[
    str,
    msgspec.Meta(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z$", title="Time"),
]
Day = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$", title="Day")]
Hex = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}$", title="Hex")]
Count = Annotated[int, msgspec.Meta(ge=0)]
ModeWord = Literal["off", "anonymous", "pseudonymous", "personal"]
Kind = Literal["open", "click"]


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A part of an export. `repr` shows that it is there and nothing of it."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(...)"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return []


class Proof(Part, frozen=True):
    """Of a consent: what its sender recorded when it was given (Art. 7(1) GDPR). Null: nothing was recorded of it.

    `conditional`: whether something else was made to depend on it; never true of a consent, which is refused then.
    """

    source: str | None = None
    text_version: str | None = None
    evidence: str | None = None
    age_check: str | None = None
    recorded_by: str | None = None
    conditional: bool | None = None


class Choice(Part, frozen=True):
    """What holds now for one kind of event.

    `mode` is what she has chosen, `in_force` the lower of that and the sender's ceiling. `…_since`: since when this
    level has held without a break; null: it does not hold, or has held from the beginning.
    """

    kind: Kind
    mode: ModeWord
    in_force: ModeWord
    decided_at: Time | None
    anonymous_since: Time | None
    pseudonymous_since: Time | None
    personal_since: Time | None


class Decision(Part, frozen=True):
    """A line of the consent ledger.

    `effect`: raised, lowered, confirmed, unchanged, out_of_date, capped. `preference_id`: where the message lay
    (topic:partition:offset), so where the decision came from.
    """

    kind: Kind
    mode: ModeWord
    effect: str
    decided_at: Time
    recorded_at: Time
    preference_id: str
    proof: Proof | None
    proof_state: Literal["opened", "none", "cannot_be_opened"]


class Mapping(Part, frozen=True):
    """Identity data: the line that leads from a pseudonym to her, sealed under a key of her own.

    `opens`: whether it still opens, and to her. False: its key is gone, and it leads to nobody.
    """

    kind: Kind
    pseudonym: Hex
    key_version: Count
    made_at: Time
    opens: bool


class Row(Part, frozen=True):
    """One event of hers that is held as a row.

    `link` of a click is the link's id, or `other`. `feed` is where the event came from, in the sender's word; empty:
    the sender named none. `kept_until` is the last day on which it is held.
    """

    occurred_at: Time
    kind: Kind
    mailing: str
    link: str
    device: str
    actor: str
    feed: str
    pseudonym: Hex
    key_version: Count
    kept_until: Day


class Disclosure(Part, frozen=True):
    """That something of this purpose was handed to somebody under her name (Art. 15(1)(c) GDPR)."""

    at: Time
    disclosed_to: str
    why: str
    mailing: str
    kind: str
    link: str
    disclosure_id: str


class Purpose(Part, frozen=True):
    """Everything held for one purpose; `*` is what she decided for all purposes at once.

    `ceiling`: the most that the sender allows itself; null, as `retention_days`: the sender does not pursue this
    purpose (any more).
    """

    purpose: str
    ceiling: ModeWord | None
    retention_days: Count | None
    choices: list[Choice]
    decisions: list[Decision]
    mappings: list[Mapping]
    rows: list[Row]
    disclosures: list[Disclosure]


class Receipt(Part, frozen=True):
    """A confirmation that a withdrawal of hers was carried out."""

    id: str
    kind: str
    completed_at: Time
    rows: Count
    mappings: Count
    gone_by: Time


class Look(Part, frozen=True):
    """That something of hers was opened, looked up or exported, from the audit trail (this export is not yet in it)."""

    at: Time
    action: str
    why: str


class Erasure(Part, frozen=True):
    """That she was erased, and all that is left of it.

    `at`: when it was carried out. `counted`: whether events of hers would be counted, without her: who was `off`
    before stays `off`.
    """

    at: Time | None
    counted: bool


class Place(Part, frozen=True):
    """Somewhere else that holds something of hers, or may; it is not among the rows above.

    `kept`: `until` (what lies there now is gone at `until`), `at_most` (each thing goes after `days`) or `no_limit` (it
    stays until it is replaced or trimmed, as `what` says).
    """

    place: str
    what: str
    kept: Literal["until", "at_most", "no_limit"]
    until: Time | None = None
    days: Count | None = None


class Export(Part, frozen=True):
    """The whole: everything held about one recipient of one sender.

    `tenant` is the sender. `recipient` is in the form in which it is compared. `found_by` is the keyed hash under which
    the identity store finds her. `nothing_held`: neither store and no state holds anything of hers; what `elsewhere`
    names may.
    """

    format: Literal["schleuse-export"]
    version: Literal[1]
    made_at: Time
    tenant: str
    recipient: str
    found_by: Hex
    nothing_held: bool
    erasure: Erasure | None
    purposes: list[Purpose]
    receipts: list[Receipt]
    looks: list[Look]
    elsewhere: list[Place]


def encode(export: Export) -> bytes:
    """The JSON file, indented, UTF-8."""
    return msgspec.json.format(msgspec.json.encode(export), indent=2) + b"\n"


def decode(raw: bytes) -> Export:
    """Read a JSON file strictly: no field too many, none missing, every value of its form. Raises msgspec's errors."""
    return msgspec.json.decode(raw, type=Export)


def schema() -> bytes:
    """The JSON Schema of the JSON file."""
    made = msgspec.json.schema(Export)
    told = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Schleuse access export",
        "description": "Everything held about one recipient (Art. 15 and 20 GDPR), version 1.",
        **made,
    }
    return msgspec.json.format(msgspec.json.encode(told), indent=2) + b"\n"
