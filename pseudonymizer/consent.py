"""What a recipient has agreed to for one purpose and one kind of event, and how one more decision changes it.

The scale is ordered: off < anonymous < pseudonymous < personal. A level *holds* while the mode is at it or above; a
consent remembers since when each level has held without a break, since a grant covers only what occurred after it.

A *salt* goes into the pseudonym. Every raise to pseudonymous or above draws a new one, so that two stretches of
behaviour cannot be joined; a step down to below pseudonymous drops all of them, and a step down from personal drops
those whose pseudonyms were seen beside a name. What was dropped is named by the step, for its rows to be removed; who
holds the consent afterwards can compute none of those pseudonyms.

Pure: times are arguments, in epoch milliseconds; salts are drawn elsewhere. Salt and Consent are named tuples because
one of each is made for every recipient that a batch meets (0.2 µs against 1 for a frozen dataclass).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import NamedTuple

ALWAYS = -(2**63)
"""A time before every event: the default mode always held."""
_LAST = 2**63 - 1  # times are columns of 64 bits further on
_VERSIONS = 2**16  # so many versions of a root key fit the stores' columns
SALT_BYTES = 16

Since = tuple[int | None, int | None, int | None]


class Mode(IntEnum):
    """How much may be known. Comparing modes compares how much."""

    OFF = 0
    ANONYMOUS = 1
    PSEUDONYMOUS = 2
    PERSONAL = 3

    @classmethod
    def parse(cls, word: str) -> Mode:
        """The mode of a word, as it stands in messages and settings. Raises ValueError, without the word."""
        mode = _MODES.get(word)
        if mode is None:
            raise ValueError("a mode is one of off, anonymous, pseudonymous, personal")
        return mode

    @property
    def word(self) -> str:
        """The word for it in messages, settings and tables."""
        return self.name.lower()


_MODES = {mode.word: mode for mode in Mode}
LEVELS = (Mode.ANONYMOUS, Mode.PSEUDONYMOUS, Mode.PERSONAL)


class Effect(StrEnum):
    """What a decision did. The value stands in the consent ledger."""

    RAISED = "raised"
    LOWERED = "lowered"
    CONFIRMED = "confirmed"
    """A newer decision for the same mode: only its time moves on."""
    UNCHANGED = "unchanged"
    """The very decision that is known already."""
    OUT_OF_DATE = "out_of_date"
    """Older than what is known, or of the same time and higher."""
    CAPPED = "capped"
    """The tenant's ceiling came down: what she has decided stands, and less of it is used."""
    ERASED = "erased"
    """All that is left of her in the ledger: that she was erased, when, and whether she was `off`."""


class Salt(NamedTuple):
    """A consent salt. `repr` does not show its value."""

    level: Mode
    """pseudonymous or personal; personal: a mapping puts its pseudonym beside a name."""
    since: int
    value: bytes
    """16 random bytes."""
    key_version: int
    """The version of the tenant's root key under which its pseudonym is computed."""

    def __repr__(self) -> str:
        return f"Salt({self.level.word}, since={self.since}, key_version={self.key_version})"

    def is_sound(self) -> bool:
        """Whether it is what `apply` makes: 16 bytes, at a level that has rows."""
        level, since, value, key_version = self
        return (
            len(value) == SALT_BYTES
            and level >= Mode.PSEUDONYMOUS
            and ALWAYS <= since <= _LAST
            and 0 < key_version < _VERSIONS
        )


class Consent(NamedTuple):
    """What holds for one recipient, purpose and kind after the newest decision."""

    mode: Mode
    since: Since
    """For anonymous, pseudonymous, personal: from when on it has held without a break, or None: it does not hold."""
    decided_at: int
    salts: tuple[Salt, ...] = ()
    """The salts whose rows may still be there, newest last."""

    def held_since(self, level: Mode) -> int | None:
        """From when on a level above `off` has held without a break, or None: it does not hold."""
        return self.since[level - 1]

    def is_sound(self) -> bool:
        """Whether it is what `apply` makes: it must not say one thing by its mode and more by its levels and salts.

        Every level up to the mode holds and none above it, a lower one for no shorter than a higher one, none from
        after the decision; and no salt is above the mode.
        """
        mode, since, decided_at, salts = self  # written flat: it is asked of every state that a batch meets
        held, earliest = 0, ALWAYS
        for at in since:
            if at is None:
                break
            if not earliest <= at <= decided_at:
                return False
            held, earliest = held + 1, at
        if held != mode or since.count(None) != len(since) - held or not ALWAYS <= decided_at <= _LAST:
            return False
        for salt in salts:  # noqa: SIM110  a generator of its own would cost more than the rest
            if salt.level > mode or not salt.is_sound():
                return False
        return True


DEFAULT = Consent(Mode.ANONYMOUS, (ALWAYS, None, None), ALWAYS)
"""Of everybody who has decided nothing: counted, always."""


@dataclass(frozen=True, slots=True)
class Step:
    """What a decision leads to: the consent afterwards, and what it asks of the stores."""

    consent: Consent
    effect: Effect
    remove: tuple[Salt, ...] = ()
    """Salts just dropped: the rows under their pseudonyms must go."""
    unmap: tuple[Salt, ...] = ()
    """Those of `remove` that had a mapping in the identity store, which must go too."""
    map: Salt | None = None
    """The salt whose pseudonym is to be mapped to the recipient."""


def apply(known: Consent, mode: Mode, decided_at: int, salt: bytes | None, key_version: int, ceiling: Mode) -> Step:
    """What `known` becomes by a decision for `mode`, taken at `decided_at`.

    The newest decision wins, whatever order decisions arrive in; of two of the same time the lower one. `ceiling` (the
    tenant's, for the purpose) decides at which level a new salt is drawn, never which mode is remembered. A caller may
    NOT assume that a salt passed in is used. Raises ValueError when one is needed and not there: a programming error.
    """
    if decided_at < known.decided_at or (decided_at == known.decided_at and mode > known.mode):
        return Step(known, Effect.OUT_OF_DATE)
    if mode == known.mode:
        if decided_at == known.decided_at:
            return Step(known, Effect.UNCHANGED)
        return Step(known._replace(decided_at=decided_at), Effect.CONFIRMED)
    if mode > known.mode:
        return _raised(known, mode, decided_at, salt, key_version, ceiling)
    return _lowered(known, mode, decided_at, salt, key_version, ceiling)


def _raised(known: Consent, mode: Mode, decided_at: int, salt: bytes | None, key_version: int, ceiling: Mode) -> Step:
    held = [decided_at if level <= mode and at is None else at for level, at in zip(LEVELS, known.since, strict=True)]
    new = _salt(min(mode, ceiling), decided_at, salt, key_version)
    consent = Consent(mode, (held[0], held[1], held[2]), decided_at, known.salts + new)
    to_map = new[0] if new and new[0].level is Mode.PERSONAL else None
    return Step(consent, Effect.RAISED, map=to_map)


def _lowered(known: Consent, mode: Mode, decided_at: int, salt: bytes | None, key_version: int, ceiling: Mode) -> Step:
    held = [at if level <= mode else None for level, at in zip(LEVELS, known.since, strict=True)]
    named = _named(known.salts)
    remove: tuple[Salt, ...] = known.salts
    kept: tuple[Salt, ...] = ()
    if mode is Mode.PSEUDONYMOUS:  # from personal: what was seen beside a name goes, and a new pseudonym begins
        since = held[1] if held[1] is not None else decided_at
        remove = named
        kept = tuple(old for old in known.salts if old.level is not Mode.PERSONAL)
        kept += _salt(min(mode, ceiling), since, salt, key_version)
    consent = Consent(mode, (held[0], held[1], held[2]), decided_at, kept)
    return Step(consent, Effect.LOWERED, remove, named)


def _named(salts: tuple[Salt, ...]) -> tuple[Salt, ...]:
    """Those whose pseudonym stands beside a name."""
    return tuple(salt for salt in salts if salt.level is Mode.PERSONAL)


def _salt(level: Mode, since: int, value: bytes | None, key_version: int) -> tuple[Salt, ...]:
    if level < Mode.PSEUDONYMOUS:
        return ()
    if value is None or len(value) != SALT_BYTES:
        raise ValueError(f"a consent of this level needs a new salt of {SALT_BYTES} bytes")
    return (Salt(level, since, value, key_version),)


def cap(known: Consent, ceiling: Mode, salt: bytes) -> Step | None:
    """What a ceiling that has come down makes of a consent; None: nothing of it is above the ceiling.

    The mode stays, since she has decided it and the ceiling may rise again; the salts above go, and with them rows and
    mappings. From `personal` down to `pseudonymous` a new pseudonym begins under `salt`, as when she steps down
    herself. A caller may NOT assume that rows come back when the ceiling rises: that takes a new grant.
    """
    above = tuple(old for old in known.salts if old.level > ceiling)
    if not above:
        return None
    kept = tuple(old for old in known.salts if old.level <= ceiling)
    since = known.held_since(Mode.PSEUDONYMOUS)
    if ceiling is Mode.PSEUDONYMOUS and since is not None:
        kept += _salt(Mode.PSEUDONYMOUS, since, salt, above[-1].key_version)
    return Step(known._replace(salts=kept), Effect.CAPPED, above, _named(above))


def forget(known: Consent) -> Step:
    """What an erasure asks of the stores; what it leaves of the consent, `remnant` says."""
    return Step(known, Effect.ERASED, known.salts, _named(known.salts))


def outlives(known: Consent, erased_at: int) -> bool:
    """Whether a consent stands after an erasure that was asked for at `erased_at`: only one that was given after it.

    So an erasure that comes twice, or late, takes nothing that was granted since (Art. 17 GDPR erases what was held).
    """
    given = (*(at for at in known.since[1:] if at is not None), *(salt.since for salt in known.salts))
    return known.mode >= Mode.PSEUDONYMOUS and known.decided_at > erased_at and min(given) > erased_at


def remnant(primary: Consent, others: Iterable[Consent], erased_at: int) -> Consent:
    """What is kept of one kind after an erasure: whether she is `off`, and a time that refuses older decisions.

    `primary` is her consent of the purpose that decides about `off`; `others` are those of all other purposes.
    """
    decided_at = max([erased_at, primary.decided_at, *(other.decided_at for other in others)])
    if primary.mode is Mode.OFF:
        return Consent(Mode.OFF, (None, None, None), decided_at)
    return Consent(Mode.ANONYMOUS, (primary.since[0], None, None), decided_at)
