"""The tree of errors.

    SchleuseError              a sentence an operator can act on; the command line prints it and exits with 1
    ├── BadRow                 one row is refused; it costs only itself (a typed rejection)
    ├── SettingsError          a setting is missing or wrong: nothing was started
    ├── StoreUnavailable       a store did not answer or refused: wait and try again, nothing was lost
    ├── StoreRefused           a store answered, and will not do it however often it is asked
    ├── StoreLate              an insert came after its deadline: look at the chain again before the next try
    ├── BrokerError            Kafka did not answer, or lacks a topic
    └── ChainStopped           counting exactly is not possible any more: the partition stops, loudly
        ├── LostLog            records that a claim names are not in the log any more
        └── UnknownRules       a claim was made by a release whose rules this one does not have

No message ever holds a value that a sender sent: it names the field, the coordinates and what was expected.
"""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Why a row was refused: the closed list (DESIGN 12). The value is what stands in messages and tables."""

    NOT_JSON = "not_json"
    TOO_LARGE = "too_large"
    TOO_DEEP = "too_deep"
    DUPLICATE_FIELD = "duplicate_field"
    WRONG_TYPE = "wrong_type"
    MISSING_FIELD = "missing_field"
    BAD_VALUE = "bad_value"
    BAD_TIME = "bad_time"
    BAD_RECIPIENT = "bad_recipient"
    UNKNOWN_TENANT = "unknown_tenant"
    UNKNOWN_PURPOSE = "unknown_purpose"
    UNKNOWN_KIND = "unknown_kind"
    MISROUTED = "misrouted"
    TOMBSTONE = "tombstone"
    LATE = "late"
    NOT_ATTRIBUTABLE = "not_attributable"
    CONDITIONAL_CONSENT = "conditional_consent"
    NO_PROOF = "no_proof"


class SchleuseError(Exception):
    """Root of every error that Schleuse raises on purpose. Its text is one sentence and holds no personal data."""


class BadRow(SchleuseError):
    """One row cannot be used.

    `field` is the name of the field in *our* message format (never a name that the sender made up) or None for the row
    as a whole; `expected` says in a few fixed words what would have been right. Neither ever holds the value.
    """

    __slots__ = ("expected", "field", "reason")

    def __init__(self, reason: Reason, field: str | None = None, expected: str | None = None) -> None:
        self.reason, self.field, self.expected = reason, field, expected
        super().__init__(": ".join(part for part in (reason.value, field, expected) if part))


class SettingsError(SchleuseError):
    """A setting is missing or wrong. Nothing was started or changed."""


class StoreUnavailable(SchleuseError):
    """A store did not answer, or said that it cannot for now. The same call with the same token may be made again."""


class StoreRefused(SchleuseError):
    """A store answered that it will never do this: a wrong password, a missing table, a grant that is not there."""


class StoreLate(SchleuseError):
    """A store refused an insert that came after its deadline. Nothing was written; what is true now has to be read."""


class BrokerError(SchleuseError):
    """Kafka did not answer, or the topics are not as they must be."""


class ChainStopped(SchleuseError):
    """The chain of a partition is not what the protocol allows. The partition stops; nothing is guessed."""


class LostLog(ChainStopped):
    """The log begins after, or ends before, a position that the chain names."""


class UnknownRules(ChainStopped):
    """A claim names rules that this release does not have; the text names the release that has them."""
