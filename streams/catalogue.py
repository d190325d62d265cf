"""What is held where: every field of every topic, every column of every table, every kind of key, and what lies beside.

The record of processing (Art. 30 GDPR) is rendered from these tables, and a test compares them with the definitions
and with the columns of live stores: a field that is added without a line here fails it. Who may read and write a
column is not written here a second time: that comes from the table of grants and the table of topics.

`kept` texts have slots that are filled from the settings in force (streams/rights/record.py, `slots`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from pseudonymizer.keys import KeyKind
from streams import topics


class Personal(StrEnum):
    """In what way a field is about a person; the value stands in the record."""

    NONE = "no"
    ADDRESS = "address"
    """The recipient in the clear."""
    DEVICE = "device"
    """IP address and user agent."""
    TEXT = "text"
    """A sender's own words, in the clear: may name a person."""
    BEHAVIOUR = "behaviour"
    """What she did and when, beside something that stands for her."""
    CHOICE = "choice"
    """What she decided and when, beside something that stands for her."""
    PSEUDONYM = "pseudonym"
    """Stands for her in one purpose and kind; only her salt and the key ring together make it again."""
    KEYED_HASH = "keyed hash"
    """Stands for her or for her event; who holds the key can confirm a guess."""
    SECRET = "secret"  # noqa: S105  a word, not a password
    """What pseudonyms or seals are made with: a salt, a key."""
    SEALED = "sealed"
    """Encrypted; opens with a key of the key ring."""
    COORDINATES = "coordinates"
    """Where the record of one person lay in Kafka: tells who she is for as long as that record is kept."""


class Use(StrEnum):
    """What a place is for; the value stands in the record."""

    CONSENTED = "the purposes that the recipient agreed to"
    COUNTING = "counting everybody who is not off"
    CHOICES = "carrying out and proving what recipients chose"
    RIGHTS = "answering recipients about themselves: access, erasure, and to whom data went"
    ONCE = "counting every event once, also after a fault"
    RUNNING = "running the system"


@dataclass(frozen=True, slots=True)
class Field:
    """One field, column or kind of key."""

    name: str
    personal: Personal
    what: str


@dataclass(frozen=True, slots=True)
class Place:
    """A topic, a table, a file: what it holds, what for, where it comes from, how long it stays.

    `store` is kafka, identity, analytics, keyring or beside. `people` says whose data it is. `who` says who writes and
    reads it where neither the grants nor the topics say so.
    """

    store: str
    name: str
    what: str
    uses: tuple[Use, ...]
    source: str
    kept: str
    fields: tuple[Field, ...]
    who: str = ""

    @property
    def personal(self) -> bool:
        """Whether anything in it is about a person."""
        return any(field.personal is not Personal.NONE for field in self.fields)


_Line = tuple[str, Personal, str]
NO, ADDRESS, DEVICE, TEXT = Personal.NONE, Personal.ADDRESS, Personal.DEVICE, Personal.TEXT
BEHAVIOUR, CHOICE, PSEUDONYM, KEYED_HASH = (
    Personal.BEHAVIOUR,
    Personal.CHOICE,
    Personal.PSEUDONYM,
    Personal.KEYED_HASH,
)
SECRET, SEALED, COORDINATES = Personal.SECRET, Personal.SEALED, Personal.COORDINATES


def _fields(*lines: _Line) -> tuple[Field, ...]:
    return tuple(Field(*line) for line in lines)


_KEY: _Line = ("(key)", ADDRESS, "tenant and recipient in canonical form")
_AT: _Line = ("(timestamp)", BEHAVIOUR, "the broker's time of the record")
_STAMP: _Line = ("(timestamp)", NO, "the broker's time of the record")
_TENANT: _Line = ("tenant", NO, "the sender")
_RECIPIENT: _Line = ("recipient", ADDRESS, "the recipient as the sender names her")
_PROOF: tuple[_Line, ...] = (
    ("proof.source", TEXT, "where she agreed"),
    ("proof.text_version", TEXT, "which text she agreed to"),
    ("proof.evidence", TEXT, "what shows it"),
    ("proof.age_check", TEXT, "how her age was checked"),
    ("proof.recorded_by", TEXT, "who recorded it"),
    ("proof.conditional", NO, "whether something else was made to depend on it (then it is refused)"),
)
_SENDERS = "the sender, or its mail vendor's webhooks through `schleuse feed`"

TOPICS: tuple[Place, ...] = (
    Place(
        "kafka",
        topics.EVENTS,
        "opens and clicks as they came in",
        (Use.CONSENTED, Use.COUNTING),
        _SENDERS,
        "{topic}",
        _fields(
            _KEY,
            _AT,
            ("event_id", BEHAVIOUR, "the sender's number of the event; vendors build addresses into it"),
            ("kind", BEHAVIOUR, "open or click"),
            _TENANT,
            ("mailing", BEHAVIOUR, "in which mailing"),
            _RECIPIENT,
            ("occurred_at", BEHAVIOUR, "when"),
            ("link", BEHAVIOUR, "which link"),
            ("url", BEHAVIOUR, "the URL clicked, with its query; the query is never stored"),
            ("user_agent", DEVICE, "read for device family and actor, never stored"),
            ("ip", DEVICE, "read for the actor, never stored"),
            ("actor", NO, "human or machine, in the vendor's word"),
            ("feed", NO, "where the event came from"),
        ),
    ),
    Place(
        "kafka",
        topics.PREFERENCES,
        "what recipients chose",
        (Use.CHOICES,),
        "the sender's forms and preference centre",
        "{topic}",
        _fields(
            _KEY,
            _AT,
            _TENANT,
            _RECIPIENT,
            ("decided_at", CHOICE, "when she decided"),
            ("purposes", CHOICE, "a mode for each purpose and kind, or * for everything"),
            ("mode", CHOICE, "off or anonymous, where it is for everything"),
            *_PROOF,
        ),
    ),
    Place(
        "kafka",
        topics.REQUESTS,
        "what recipients asked for: erasure, access",
        (Use.RIGHTS,),
        "the sender's forms, and `schleuse erase`",
        "{topic}",
        _fields(
            _KEY,
            _AT,
            _TENANT,
            _RECIPIENT,
            ("request_id", COORDINATES, "the sender's number of the request"),
            ("kind", CHOICE, "erasure or access"),
            ("requested_at", CHOICE, "when she asked"),
        ),
    ),
    Place(
        "kafka",
        topics.MAILINGS,
        "what senders declare about their mailings",
        (Use.COUNTING,),
        "the sender",
        "{topic}",
        _fields(
            ("(key)", NO, "tenant and mailing"),
            _STAMP,
            _TENANT,
            ("mailing", NO, "its id; an address in it is refused"),
            ("name", NO, "its name; an address in it is refused"),
            ("sent_at", NO, "when it was sent"),
            ("recipients", NO, "to how many"),
            ("links", NO, "link id and URL; an address in either is refused"),
        ),
    ),
    Place(
        "kafka",
        topics.CHANGES,
        "what intake accepted, in the order in which it is carried out",
        (Use.CHOICES, Use.RIGHTS),
        "the workers, from preferences and requests",
        "until it is carried out; then the partition's owner lets go of it, and leaves the disk in an hour or two",
        _fields(
            _KEY,
            _AT,
            ("type", NO, "which kind of change"),
            ("preference_id", COORDINATES, "where the preference lay"),
            _TENANT,
            ("recipient", ADDRESS, "the recipient, canonical"),
            ("decided_at", CHOICE, "when she decided"),
            ("purposes", CHOICE, "a mode for each purpose and kind, or * for everything"),
            ("mode", CHOICE, "off or anonymous, where it is for everything"),
            ("salts", SECRET, "16 random bytes a purpose and kind: her pseudonyms are made with them"),
            ("key_version", NO, "the version of the tenant's root key"),
            *_PROOF,
            ("request_id", NO, "the sender's id of a request for erasure; an address in it is refused"),
            ("requested_at", CHOICE, "when she asked for erasure"),
            ("source", COORDINATES, "where the request lay"),
            ("id", NO, "which lowering of a ceiling, or which closing, this is"),
            ("purpose", NO, "whose ceiling was lowered"),
            ("ceiling", NO, "to which mode"),
            ("mailing", NO, "whose window closes"),
            ("seed", SECRET, "32 random bytes: salts of whoever steps down are made from them"),
            ("from", NO, "the version of the root key that she moves from"),
            ("to", NO, "and to which"),
            ("remove", NO, "whether what is there under it goes"),
        ),
    ),
    Place(
        "kafka",
        topics.STATE,
        "the last word of every recipient who has ever decided anything",
        (Use.CHOICES,),
        "the workers, from changes",
        "as long as she has decided something; what a newer word replaces goes within {compaction}",
        _fields(
            _KEY,
            _AT,
            ("version", NO, "incarnation and offset of the change it stands on"),
            ("purposes.*.*.mode", CHOICE, "the mode by purpose and kind"),
            ("purposes.*.*.since", CHOICE, "since when each level holds without a break"),
            ("purposes.*.*.decided_at", CHOICE, "when she decided"),
            ("purposes.*.*.salts.level", CHOICE, "for which level a salt was drawn"),
            ("purposes.*.*.salts.since", CHOICE, "since when it is used"),
            ("purposes.*.*.salts.value", SECRET, "her pseudonyms are made with it; dropped when she withdraws"),
            ("purposes.*.*.salts.key_version", NO, "the version of the tenant's root key"),
        ),
    ),
    Place(
        "kafka",
        topics.REJECTED,
        "records that were refused, and why",
        (Use.RUNNING,),
        "the workers",
        "{topic}; sealed content opens no longer than its day's key is kept (14 days)",
        _fields(
            ("(key)", COORDINATES, "the rejection's id"),
            _STAMP,
            ("rejection_id", COORDINATES, "where the record lay"),
            ("at", NO, "when it was refused"),
            ("stage", NO, "where it was refused"),
            ("reason", NO, "why, of a closed list"),
            ("source.topic", NO, "where the record lay"),
            ("source.partition", NO, "where the record lay"),
            ("source.offset", COORDINATES, "where the record lay"),
            ("field", NO, "a name of our own format"),
            ("expected", NO, "what would have been right"),
            ("size", NO, "bytes of the record's value"),
            ("sealed", SEALED, "key and value of the record, under the key of the day"),
            ("key_id", NO, "the day"),
            ("replayed_to.topic", NO, "where it was sent again"),
            ("replayed_to.partition", NO, "where it was sent again"),
            ("replayed_to.offset", COORDINATES, "where it was sent again"),
        ),
    ),
    Place(
        "kafka",
        topics.RECEIPTS,
        "confirmations for senders",
        (Use.CHOICES, Use.RIGHTS),
        "the workers and the rights service",
        "{topic}",
        _fields(
            ("(key)", COORDINATES, "the receipt's id"),
            _STAMP,
            ("preference_id", COORDINATES, "where the preference lay"),
            ("request_id", NO, "the sender's number of the request"),
            ("kind", NO, "what is confirmed"),
            _TENANT,
            ("completed_at", CHOICE, "when it was done"),
            ("removed", NO, "how much was removed where"),
            ("gone_by", NO, "when the bytes have left the disks"),
            ("disclosed_to", NO, "to whom the sender has to pass it on (Art. 19)"),
            ("export.file", KEYED_HASH, "where the sealed answer to an access request lies"),
            ("export.sha256", NO, "of that file"),
            ("export.until", NO, "until when it can be opened"),
        ),
    ),
)

# Columns that nearly every table has, and what guards its inserts.
_CLAIM: tuple[_Line, ...] = (
    ("incarnation", NO, "which life of the topics"),
    ("partition", NO, "the partition of the claim that wrote it"),
    ("claim", NO, "the number of the claim that wrote it"),
)
_DEADLINE: _Line = ("deadline", NO, "until when the insert could come")
_FROM_EVENTS = "the workers, from tracking.events"
_FROM_CHANGES = "the workers, from tracking.changes"
_MIGRATIONS = _fields(
    ("number", NO, "which file of SQL"),
    ("name", NO, "its name"),
    ("sha256", NO, "its fingerprint"),
    ("done", NO, "how many of its statements are done"),
    ("at", NO, "when"),
)
_REMOVALS = _fields(
    *_CLAIM,
    ("pseudonym", PSEUDONYM, "whose rows this claim removes"),
    ("at", CHOICE, "when"),
    _DEADLINE,
)
_WITHDRAWN_BY = "a day"

TABLES: tuple[Place, ...] = (
    Place(
        "identity",
        "recipients",
        "mappings: who a pseudonym is, for those in personal mode",
        (Use.CONSENTED,),
        _FROM_CHANGES,
        "as long as she agrees to personal mode: it goes with her withdrawal or erasure, and its data key with it; "
        "also when the retention has passed since and no row is left",
        _fields(
            _TENANT,
            ("purpose", CHOICE, "for which purpose she agreed"),
            ("kind", CHOICE, "for opens or clicks"),
            ("pseudonym", PSEUDONYM, "her pseudonym in the analytics store"),
            ("key_version", NO, "the version of the tenant's root key"),
            ("blind", KEYED_HASH, "blind index, under a key of the identity store's own"),
            ("sealed", SEALED, "the recipient, under a data key of her own"),
            *_CLAIM,
            ("at", CHOICE, "when it was written"),
            _DEADLINE,
        ),
    ),
    Place(
        "identity",
        "consents",
        "the ledger: every decision, with its proof",
        (Use.CHOICES,),
        _FROM_CHANGES,
        "until she is erased: then one line a kind stays, the fact and the date under her blind index",
        _fields(
            _TENANT,
            ("blind", KEYED_HASH, "blind index, under a key of the identity store's own"),
            ("purpose", CHOICE, "purpose decided on"),
            ("kind", CHOICE, "kind decided on"),
            ("mode", CHOICE, "mode asked for"),
            ("effect", CHOICE, "what the decision did"),
            ("decided_at", CHOICE, "when she decided"),
            ("recorded_at", CHOICE, "when it was carried out"),
            ("preference_id", COORDINATES, "where the preference lay"),
            ("proof", SEALED, "the proof of consent, under a key of the tenant's"),
            *_CLAIM,
            _DEADLINE,
        ),
    ),
    Place(
        "identity",
        "requests",
        "what was asked for, and what was found before it was removed",
        (Use.CHOICES, Use.RIGHTS),
        _FROM_CHANGES,
        "without end: proof that it was done (Art. 5(2) GDPR); it names nobody",
        _fields(
            ("id", COORDINATES, "where the preference lay, or the sender's number of the request"),
            ("kind", NO, "what was asked for"),
            _TENANT,
            ("rows", NO, "how many rows went"),
            ("mappings", NO, "how many mappings went"),
            ("consents", NO, "how many lines of the ledger went"),
            ("disclosures", NO, "how many disclosures were on record"),
            ("disclosed_to", NO, "to whom her data had been disclosed"),
            *_CLAIM,
            ("at", CHOICE, "when it was counted"),
            _DEADLINE,
        ),
    ),
    Place(
        "identity",
        "receipts",
        "what was confirmed",
        (Use.CHOICES, Use.RIGHTS),
        _FROM_CHANGES,
        "without end: proof that it was done (Art. 5(2) GDPR); it names nobody",
        _fields(
            ("id", COORDINATES, "where the preference lay, or the sender's number of the request"),
            ("kind", NO, "what is confirmed"),
            _TENANT,
            ("rows", NO, "how many rows went"),
            ("mappings", NO, "how many mappings went"),
            ("consents", NO, "how many lines of the ledger went"),
            ("disclosures", NO, "how many disclosures were on record"),
            ("disclosed_to", NO, "to whom her data had been disclosed"),
            *_CLAIM,
            ("completed_at", CHOICE, "when it was done"),
            ("gone_by", NO, "when the bytes have left the disks"),
            _DEADLINE,
        ),
    ),
    Place(
        "identity",
        "disclosures",
        "who was told about whom (`schleuse engaged`)",
        (Use.RIGHTS,),
        "the rights commands, before they hand anything out",
        "until she is erased; the receipt then names `disclosed_to`",
        _fields(
            _TENANT,
            ("blind", KEYED_HASH, "blind index of whom it was about"),
            ("purpose", CHOICE, "for which purpose"),
            ("mailing", BEHAVIOUR, "which mailing"),
            ("kind", BEHAVIOUR, "opened or clicked"),
            ("link", BEHAVIOUR, "which link"),
            ("disclosed_to", NO, "to whom"),
            ("why", NO, "why"),
            ("disclosure_id", NO, "one for each time that the command was run"),
            ("at", NO, "when"),
        ),
    ),
    Place(
        "identity",
        "erasing",
        "whom a claim erases",
        (Use.RIGHTS,),
        _FROM_CHANGES,
        "a day",
        _fields(
            _TENANT,
            ("blind", KEYED_HASH, "blind index of whom it is about"),
            ("until", NO, "lines of the ledger decided up to then go"),
            *_CLAIM,
            ("at", CHOICE, "when"),
            _DEADLINE,
        ),
    ),
    Place(
        "identity",
        "audit",
        "the audit trail: who opened, disclosed, asked for and destroyed what, and why",
        (Use.RIGHTS,),
        "the rights commands",
        "without end: the controller has to be able to show it (Art. 5(2), 17(3)(b) GDPR)",
        _fields(
            ("number", NO, "from 1, without a gap"),
            ("at", NO, "when"),
            ("actor", TEXT, "login and user of the operating system: of whoever works at the desk, not of a recipient"),
            ("action", NO, "what was done"),
            _TENANT,
            ("subject", KEYED_HASH, "blind index of whom it was about"),
            ("why", TEXT, "why; an address in it is refused"),
            ("detail", NO, "ids and counts"),
            ("mac", NO, "by which a changed line is noticed"),
            _DEADLINE,
        ),
    ),
    Place(
        "identity",
        "removals",
        "pseudonyms whose mappings a claim removes",
        (Use.CHOICES,),
        _FROM_CHANGES,
        _WITHDRAWN_BY,
        _REMOVALS,
    ),
    Place(
        "identity",
        "migrations",
        "which SQL was applied",
        (Use.RUNNING,),
        "schleuse migrate",
        "without end",
        _MIGRATIONS,
    ),
    Place(
        "analytics",
        "ingest",
        "a batch of events on its way into the tables below (Null engine)",
        (Use.CONSENTED, Use.COUNTING),
        _FROM_EVENTS,
        "not stored: it passes through memory",
        _fields(
            _DEADLINE,
            *_CLAIM,
            ("first", NO, "the first offset of the batch"),
            _TENANT,
            ("mailing", BEHAVIOUR, "in which mailing"),
            ("kind", BEHAVIOUR, "open or click"),
            ("link", BEHAVIOUR, "which link"),
            ("device", BEHAVIOUR, "device family"),
            ("actor", NO, "human or machine"),
            ("occurred_ms", BEHAVIOUR, "when"),
            ("counted", NO, "whether it counts"),
            ("step", BEHAVIOUR, "in which step after sending"),
            ("seed0", KEYED_HASH, "half of her seed in this mailing; never stored"),
            ("seed1", KEYED_HASH, "half of her seed in this mailing; never stored"),
            ("purpose", CHOICE, "for which purpose she agreed to a row"),
            ("pseudonym", PSEUDONYM, "hers for that purpose and kind; 0 where she did not agree"),
            ("key_version", NO, "the version of the tenant's root key"),
            ("expires", NO, "when the row goes"),
            ("feed", NO, "where the event came from: a vendor's name, the tenant's own word, or other"),
            ("event_hash", KEYED_HASH, "of tenant and event id"),
            ("hour", NO, "hour of arrival"),
            ("outcome", NO, "how records of the batch ended"),
            ("reason", NO, "why they were refused"),
            ("events", NO, "how many"),
        ),
    ),
    Place(
        "analytics",
        "engagement",
        "pseudonymous rows: what those who agreed did",
        (Use.CONSENTED,),
        _FROM_EVENTS,
        "{rows} after the event; sooner when she withdraws or is erased",
        _fields(
            ("incarnation", NO, "which life of the topics"),
            ("partition", KEYED_HASH, "the partition of her key: unkeyed, some bits of her address"),
            ("claim", NO, "the number of the claim that wrote it"),
            _TENANT,
            ("purpose", CHOICE, "for which purpose she agreed"),
            ("mailing", BEHAVIOUR, "in which mailing"),
            ("kind", BEHAVIOUR, "open or click"),
            ("link", BEHAVIOUR, "which link"),
            ("occurred", BEHAVIOUR, "when, to the second"),
            ("device", BEHAVIOUR, "device family"),
            ("actor", NO, "human or machine"),
            ("pseudonym", PSEUDONYM, "hers for that purpose and kind"),
            ("key_version", NO, "the version of the tenant's root key"),
            ("expires", NO, "when the row goes"),
            ("feed", NO, "where the event came from: a vendor's name, the tenant's own word, or other"),
        ),
    ),
    Place(
        "analytics",
        "cells_hourly",
        "counts of events: nobody is in them, but small ones may speak of one",
        (Use.COUNTING,),
        _FROM_EVENTS,
        "without end; analysts may not read it",
        _fields(
            _TENANT,
            ("mailing", NO, "which mailing"),
            ("kind", NO, "open or click"),
            ("link", NO, "which link"),
            ("device", NO, "device family"),
            ("actor", NO, "human or machine"),
            ("hour", NO, "which hour"),
            ("events", BEHAVIOUR, "how many; a count of one is one person's"),
        ),
    ),
    Place(
        "analytics",
        "cells_unique",
        "sets of visitor hashes, to count distinct recipients of everybody who is not off",
        (Use.COUNTING,),
        _FROM_EVENTS,
        "until the mailing's window closes ({window}): then the secret of its hashes is destroyed as well",
        _fields(
            _TENANT,
            ("mailing", NO, "which mailing"),
            ("kind", NO, "open or click"),
            ("dimension", NO, "all, link or device"),
            ("value", NO, "which link or device"),
            ("actor", NO, "human or machine"),
            ("step", BEHAVIOUR, "in which step after sending"),
            ("recipients", KEYED_HASH, "64 bits a recipient and cell, under the mailing's secret"),
        ),
    ),
    Place(
        "analytics",
        "closings",
        "from which claim on a mailing is closed",
        (Use.RUNNING,),
        _FROM_CHANGES,
        "without end: closed stays closed",
        _fields(
            *_CLAIM,
            _TENANT,
            ("mailing", NO, "which mailing"),
            ("id", NO, "of the sending that closed it"),
            ("at", NO, "when"),
            _DEADLINE,
        ),
    ),
    Place(
        "analytics",
        "cells_closed",
        "how many distinct recipients the cells of a closed mailing had: what its sets became",
        (Use.COUNTING,),
        "schleuse rights and schleuse close, from cells_unique",
        "without end",
        _fields(
            _TENANT,
            ("mailing", NO, "which mailing"),
            ("kind", NO, "open or click"),
            ("dimension", NO, "all, link or device"),
            ("value", NO, "which link or device"),
            ("actor", NO, "human or machine"),
            ("step", NO, "up to which step after sending"),
            ("recipients", NO, "how many"),
        ),
    ),
    Place(
        "analytics",
        "closing_notes",
        "how far a mailing is on its way to be closed",
        (Use.RUNNING,),
        "schleuse rights and schleuse close",
        "without end",
        _fields(
            _TENANT,
            ("mailing", NO, "which mailing"),
            ("note", NO, "over, asked or done"),
            ("count", NO, "events counted until then, or figures"),
            ("at", NO, "when"),
        ),
    ),
    Place(
        "analytics",
        "draws",
        "what was measured of a mailing for its published figures, beside the exact numbers that later steps subtract",
        (Use.COUNTING,),
        "schleuse publish, from cells_unique and cells_closed",
        "until the mailing's last step is published, 30 days after its sending",
        _fields(
            ("batch", NO, "which batch of figures"),
            _TENANT,
            ("mailing", NO, "which mailing"),
            ("step", NO, "which step after sending"),
            ("kind", NO, "open or click"),
            ("dimension", NO, "all, link or device"),
            ("actor", NO, "human or machine"),
            ("links", NO, "its links, as declared at its first step"),
            ("new", BEHAVIOUR, "recipients that are new in the step, by cell; a count of one is one person's"),
            ("measured", NO, "sums of them with noise"),
            ("rho", NO, "how much of the mailing's privacy budget the figure spent"),
            ("budget", NO, "how much all figures of the mailing may spend"),
            ("at", NO, "when"),
            _DEADLINE,
        ),
    ),
    Place(
        "analytics",
        "published",
        "figures with noise, from which nothing about any one recipient can be concluded",
        (Use.COUNTING,),
        "schleuse publish, from draws",
        "without end",
        _fields(
            _TENANT,
            ("mailing", NO, "which mailing"),
            ("step", NO, "which step after sending"),
            ("hours", NO, "how many hours after sending"),
            ("last_hours", NO, "how many hours after sending the last step is"),
            ("kind", NO, "open or click"),
            ("dimension", NO, "all, link or device"),
            ("value", NO, "which link or device"),
            ("actor", NO, "human or machine"),
            ("recipients", NO, "how many, with noise"),
            ("margin", NO, "within how many of it the truth is in 95 of 100 cases"),
            ("too_few", NO, "whether the noise drowns it"),
            ("sent", NO, "to how many the mailing was sent, as declared"),
            ("measured", NO, "the number with noise that it was computed from"),
            ("total", NO, "the total with noise up to the step: what is added up over mailings"),
            ("deviation", NO, "the standard deviation of that total"),
            ("sigma", NO, "the standard deviation of that noise"),
            ("rho", NO, "what the figure costs of the mailing's privacy budget, all steps together"),
            ("batch", NO, "which batch of figures"),
            ("at", NO, "when"),
            _DEADLINE,
        ),
    ),
    Place(
        "analytics",
        "readers",
        "who may read figures by the dashboard and the API: a hash of each key, its tenant and role",
        (Use.RUNNING,),
        "schleuse readers",
        "without end",
        _fields(
            ("reader", NO, "the public half of the key"),
            _TENANT,
            ("role", NO, "what the reader sees"),
            (
                "label",
                TEXT,
                "the operator's own word for the reader: of whoever works with figures, not of a recipient",
            ),
            ("key_sha256", NO, "a hash of the key, which is nowhere"),
            ("until", NO, "until when the key opens"),
            ("revoked", NO, "whether it was taken back"),
            ("at", NO, "when"),
        ),
    ),
    Place(
        "analytics",
        "daily",
        "exact counts of a tenant by day for its officer: requests, receipts, recipients by mode, keys' age",
        (Use.RIGHTS,),
        "schleuse rights, from the identity store and the key ring",
        "without end",
        _fields(
            ("day", NO, "which day"),
            _TENANT,
            ("what", NO, "what is counted"),
            ("value", NO, "of which kind or mode"),
            ("count", NO, "how many"),
            ("at", NO, "when"),
        ),
    ),
    Place(
        "analytics",
        "reports",
        "reports of schleuse verify and schleuse attack",
        (Use.RIGHTS,),
        "schleuse verify, schleuse attack",
        "without end",
        _fields(
            ("kind", NO, "verify or attack"),
            ("at", NO, "when"),
            ("held", NO, "whether all held"),
            ("body", NO, "the report: counts and sentences of ours"),
        ),
    ),
    Place(
        "analytics",
        "seen",
        "event ids under a keyed hash, so that a sender's retry counts once",
        (Use.ONCE,),
        _FROM_EVENTS,
        "4 days",
        _fields(
            ("incarnation", NO, "which life of the topics"),
            ("partition", NO, "which partition"),
            ("first", NO, "the first offset of the batch: not the event's own"),
            ("hour", NO, "hour of arrival"),
            ("hash", KEYED_HASH, "64 bits of tenant and event id"),
        ),
    ),
    Place(
        "analytics",
        "outcomes",
        "how many records ended in which way",
        (Use.RUNNING,),
        _FROM_EVENTS,
        "without end",
        _fields(
            ("incarnation", NO, "which life of the topics"),
            ("partition", NO, "which partition"),
            ("outcome", NO, "received, counted, off, duplicates, rejected"),
            ("reason", NO, "why they were refused"),
            ("events", NO, "how many"),
        ),
    ),
    Place(
        "analytics",
        "removals",
        "pseudonyms whose rows a claim removes",
        (Use.CHOICES,),
        _FROM_CHANGES,
        _WITHDRAWN_BY,
        _REMOVALS,
    ),
    Place(
        "analytics",
        "rekeys",
        "pseudonyms that a claim rewrites, when a recipient moves to another root key",
        (Use.RUNNING,),
        _FROM_CHANGES,
        _WITHDRAWN_BY,
        _fields(
            *_CLAIM,
            ("old", PSEUDONYM, "her pseudonym until then"),
            ("new", PSEUDONYM, "her pseudonym from then on"),
            ("key_version", NO, "the version of the tenant's root key that it is made under"),
            ("at", CHOICE, "when"),
            _DEADLINE,
        ),
    ),
    Place(
        "analytics",
        "mailings",
        "mailings as declared",
        (Use.COUNTING,),
        "the workers, from tracking.mailings",
        "without end",
        _fields(
            _TENANT,
            ("mailing", NO, "its id"),
            ("name", NO, "its name"),
            ("sent_at", NO, "when it was sent"),
            ("recipients", NO, "to how many"),
            ("links", NO, "link id and URL"),
            ("position", NO, "where the declaration lay"),
        ),
    ),
    Place(
        "analytics",
        "claims",
        "the chain of claims",
        (Use.ONCE,),
        "the workers",
        "14 days; of each partition one claim stays",
        _fields(
            ("incarnation", NO, "which life of the topics"),
            ("partition", NO, "which partition"),
            ("number", NO, "its number"),
            ("kind", NO, "events or changes"),
            ("first", NO, "offset"),
            ("last", NO, "offset"),
            ("next_event", NO, "position after it"),
            ("next_change", NO, "position after it"),
            ("now", NO, "when it was taken"),
            ("rules", NO, "rules that hold for it"),
            ("mailings", NO, "position in tracking.mailings"),
            ("settings", NO, "fingerprint of the tenants' settings"),
            ("worker", NO, "release and name of the worker"),
            _DEADLINE,
        ),
    ),
    Place(
        "analytics",
        "incarnations",
        "which topics there were",
        (Use.RUNNING,),
        "the workers",
        "without end",
        _fields(
            ("number", NO, "its number"),
            ("events_id", NO, "Kafka's id of a topic"),
            ("changes_id", NO, "Kafka's id of a topic"),
            ("state_id", NO, "Kafka's id of a topic"),
            ("mailings_id", NO, "Kafka's id of a topic"),
            ("at", NO, "when it began"),
        ),
    ),
    Place(
        "analytics",
        "settings",
        "the tenants' settings that were ever in force",
        (Use.RUNNING,),
        "schleuse tenants apply",
        "without end",
        _fields(
            ("hash", NO, "fingerprint"),
            ("body", NO, "ceilings, retentions and the like"),
            ("at", NO, "when put in force"),
        ),
    ),
    Place(
        "analytics",
        "migrations",
        "which SQL was applied",
        (Use.RUNNING,),
        "schleuse migrate",
        "without end",
        _MIGRATIONS,
    ),
)

KEYS: dict[KeyKind, tuple[Personal, str, str]] = {
    # kind -> what its name is, what the key does, until when it is kept
    KeyKind.ROOT: (NO, "named for a tenant; pseudonyms are made with it", "until it is rotated away and destroyed"),
    KeyKind.MAILING: (
        NO,
        "named for a mailing; its visitor hashes are made with it",
        "until the window closes ({window})",
    ),
    KeyKind.DATA: (PSEUDONYM, "named for a pseudonym; seals the mapping", "as long as the mapping"),
    KeyKind.DAY: (NO, "named for a day; seals what was refused on it", "14 days"),
    KeyKind.SEEN: (NO, "one; event ids are hashed with it", "without end"),
    KeyKind.BLIND: (NO, "one; the blind index is made with it", "without end"),
    KeyKind.PROOF: (NO, "named for a tenant; seals proofs of consent", "without end"),
    KeyKind.AUDIT: (NO, "one; authenticates the audit trail", "without end"),
    KeyKind.STUB: (NO, "one; hashes whom it still has to know after an erasure", "without end"),
    KeyKind.EXPORT: (
        KEYED_HASH,
        "named by a blind index and a request; seals one access export",
        "until the export expires, or its recipient is erased",
    ),
}

KEYRING: tuple[Place, ...] = (
    Place(
        "keyring",
        "entries",
        "the keys, each sealed under the key-encryption key",
        (Use.CONSENTED, Use.COUNTING, Use.CHOICES),
        "the workers, the first time each is needed",
        "by kind of key, see below",
        _fields(
            ("kind", NO, "what the key is for"),
            ("name", PSEUDONYM, "whose or which; by kind, see below"),
            ("version", NO, "its version"),
            ("sealed", SECRET, "the key, sealed"),
            ("created_at", NO, "when it was made"),
        ),
        "workers and the rights commands, as users of the file",
    ),
    Place(
        "keyring",
        "retired",
        "the secrets of closed mailings by name: destroyed, and never made again",
        (Use.RUNNING,),
        "schleuse rights and schleuse close",
        "without end",
        _fields(("kind", NO, "what the key was for"), ("name", NO, "tenant and mailing")),
        "workers and the rights commands, as users of the file",
    ),
    Place(
        "keyring",
        "ring",
        "by which a key-encryption key is known to belong to the ring",
        (Use.RUNNING,),
        "whoever makes the ring",
        "without end",
        _fields(
            ("only", NO, "1"),
            ("sealed", NO, "a constant, sealed"),
            ("reference", NO, "by which the key-encryption key is found; wrapped, where Vault or a KMS wraps it"),
        ),
        "workers and the rights commands, as users of the file",
    ),
)

BESIDE: tuple[Place, ...] = (
    Place(
        "beside",
        "key-encryption key",
        "opens the key ring",
        (Use.RUNNING,),
        "whoever makes the ring",
        "as long as the ring; never backed up together with it",
        _fields(("key", SECRET, "32 bytes")),
        "workers and the rights commands",
    ),
    Place(
        "beside",
        "memory of a worker",
        "batches being worked on, the state of its partitions, keys",
        (Use.CONSENTED, Use.COUNTING, Use.CHOICES),
        "the topics and the key ring",
        "as long as the process runs; swap and core dumps are the operator's to switch off",
        _fields(("everything", ADDRESS, "as on the topics")),
        "the worker process",
    ),
    Place(
        "beside",
        "sealed exports",
        "answers to access requests: everything held about one recipient",
        (Use.RIGHTS,),
        "both stores, the state and the key ring",
        "by the setting `exports_days` (30 days unless set); sooner when she is erased",
        _fields(
            ("(name of the file)", KEYED_HASH, "a hash of the name of its key"),
            ("key", KEYED_HASH, "the name of its key: blind index and request"),
            ("tenant", NO, "the sender"),
            ("made_at", NO, "when it was made"),
            ("(content)", SEALED, "as in both stores, with her address"),
        ),
        "the rights service writes them; `schleuse export --open` opens them",
    ),
    Place(
        "beside",
        "logs and metrics",
        "what processes say of themselves",
        (Use.RUNNING,),
        "every process",
        "the operator decides",
        _fields(("everything", NO, "no value that a sender sent, no address, no pseudonym; metrics carry no tenant")),
        "whoever collects them",
    ),
    Place(
        "beside",
        "removed rows on disk",
        "parts of tables that were replaced",
        (Use.RUNNING,),
        "ClickHouse",
        "until `gone_by` in the receipt",
        _fields(("everything", PSEUDONYM, "as in the table it was removed from")),
        "who can read the stores' disks",
    ),
    Place(
        "beside",
        "Kafka's copies",
        "replicas, segments that are let go of, positions of consumer groups",
        (Use.RUNNING,),
        "Kafka",
        "as the topic; a segment goes a minute after it is let go of",
        _fields(("everything", ADDRESS, "as on the topics; positions name nobody")),
        "who can read the brokers' disks",
    ),
    Place(
        "beside",
        "backups",
        "copies of the stores, of Kafka and of the key ring, if you make any",
        (Use.RUNNING,),
        "the operator",
        "the operator decides; what was erased lives on in them until then, sealed content only as long as a copy of "
        "the ring is kept",
        _fields(("everything", ADDRESS, "as in what was copied")),
        "who keeps them",
    ),
)

PLACES = (*TOPICS, *TABLES, *KEYRING, *BESIDE)
