"""The recipients that the events of one partition name: numbered, with what is allowed for each as columns.

A recipient is met once: her canonical form, her key, and whether she belongs on this partition. What is allowed for her
is looked up when an event of that kind comes, and again when her state has changed; from then on a batch takes it out
of columns, whoever she is. Most recipients of a large mailing are met in the batch that brings their only event, so
meeting is as much the hot path as remembering: what nothing is known of is decided about in columns too.

A *slot* is a recipient and a kind: 2 * number + kind. Pseudonyms are computed here, by HMAC, for those who agreed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import compress, repeat
from operator import not_
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from pseudonymizer.consent import ALWAYS, Mode
from pseudonymizer.decisions import NEVER, thresholds
from pseudonymizer.keys import KeyKind
from pseudonymizer.pseudonyms import blind_index
from pseudonymizer.recipients import BadRecipient, canonical
from pseudonymizer.siphash import Messages
from streams.chain import PRIMARY
from streams.errors import BadRow, Reason
from streams.messages import KINDS, consent_of, decode_state
from streams.partitioner import SEPARATOR, message_key, partitions_of

if TYPE_CHECKING:
    from streams.incarnation import WasOff
    from streams.keys import Keys
    from streams.state import StateIndex
    from streams.tenants import TenantSettings

Array = np.ndarray[Any, Any]

REMEMBERED = 100_000  # recipients kept between batches: about 60 MB
FLAWS = (None, Reason.BAD_RECIPIENT, Reason.MISROUTED, Reason.BAD_VALUE)
_BAD, _ELSEWHERE, _UNREADABLE = 1, 2, 3

# What `canonical` gives back as it came: the rule's plain cases, and no other. Where a tenant compares without case,
# only what is in lower case; and no longer than a label of a domain may be, so that none can be too long.
_DOMAIN = r"(?:@(?:[a-z0-9_-]+\.)*[a-z0-9_-]+)?$"
_PLAIN = {False: r"^[^\x1f]+\x1f[!-?A-~]+" + _DOMAIN, True: r"^[^\x1f]+\x1f[!-?\[-~]+" + _DOMAIN}
_SHORT = 63  # bytes of tenant, separator and recipient

# (purpose, earlier or later stretch) -> slot, from when on, pseudonym, key version.
_Rows = dict[tuple[str, int], list[tuple[int, int, bytes, int]]]


class _Column:
    """A growing column over slots (or numbers), with a default."""

    __slots__ = ("default", "values")

    def __init__(self, default: int, dtype: type, *width: int) -> None:
        self.default = default
        self.values: Array = np.full((0, *width), default, dtype)

    def grow(self, rows: int) -> None:
        if rows > len(self.values):
            more = max(rows, 2 * len(self.values), 1_024) - len(self.values)
            fresh = np.full((more, *self.values.shape[1:]), self.default, self.values.dtype)
            self.values = np.concatenate([self.values, fresh])


class _Stretches:
    """What one purpose allows: an earlier and a later stretch a slot, each from when on, under which pseudonym."""

    def __init__(self) -> None:
        self.stretches = [(_Column(NEVER, np.int64), _Column(0, np.uint64, 2), _Column(0, np.uint16)) for _ in range(2)]

    def columns(self) -> Iterator[_Column]:
        for stretch in self.stretches:
            yield from stretch

    def set(self, which: int, found: Sequence[tuple[int, int, bytes, int]]) -> None:
        """`found`: slot, from when on, pseudonym, key version."""
        slots, begins, pseudonyms, versions = zip(*found, strict=True)
        begin, halves, version = (column.values for column in self.stretches[which])
        at = np.array(slots, np.int64)
        begin[at] = begins
        halves[at] = np.frombuffer(b"".join(pseudonyms), np.uint64).reshape(-1, 2)
        version[at] = versions

    def of(self, slots: Array, times: Array) -> tuple[Array, Array]:
        """The pseudonym (two 64-bit halves; zeros: none) and key version of every event; the later stretch wins."""
        halves, versions = np.zeros((len(slots), 2), np.uint64), np.zeros(len(slots), np.uint16)
        for begin, of_stretch, of_key in self.stretches:
            holds = times >= begin.values[slots]
            if holds.any():
                halves[holds], versions[holds] = of_stretch.values[slots[holds]], of_key.values[slots[holds]]
        return halves, versions


class People:
    """The recipients of one partition. Used by one thread at a time, but for what is told to `state` meanwhile.

    `was_off` names who was `off` when a state was lost: she stays `off` until she says otherwise.
    """

    def __init__(
        self, partition: int, partitions: int, keys: Keys, state: StateIndex, was_off: WasOff | None = None
    ) -> None:
        self._partition, self._partitions = partition, partitions
        self._keyring, self._state, self._was_off = keys, state, was_off or {}
        self._changed = state.watch()
        self._forgotten = -1
        self._settings: Mapping[str, TenantSettings] = {}
        self._tenants: Sequence[TenantSettings] = ()
        self._forget()

    def _forget(self) -> None:
        self._numbers: dict[str, int] = {}  # tenant, separator, recipient: as it was sent, and as it is canonical
        self._keys: list[bytes] = []
        self._tenant_of, self._flaw = _Column(0, np.int64), _Column(0, np.uint8)
        self._filled, self._counts_from = _Column(0, np.bool_), _Column(ALWAYS, np.int64)
        self._of_purpose: dict[str, _Stretches] = {PRIMARY: _Stretches()}

    def begin(self, tenants: Mapping[str, TenantSettings]) -> None:
        """Before a batch: take in what has changed since the last one. Raises StoreUnavailable."""
        if tenants is not self._settings:  # how addresses are compared may have changed
            self._settings, self._tenants = tenants, tuple(tenants.values())
            self._forget()
        forgotten = self._keyring.look()
        if forgotten != self._forgotten:  # a root key was destroyed, and what came out of it is remembered here
            self._forgotten = forgotten
            self._forget()
        if len(self._numbers) > REMEMBERED or len(self._changed) == self._changed.maxlen:
            self._changed.clear()
            self._forget()
        filled, flaw = self._filled.values, self._flaw.values
        while self._changed:
            number = self._numbers.get(self._changed.popleft().decode())
            if number is not None:
                filled[2 * number : 2 * number + 2] = False
                flaw[number] = 0 if flaw[number] == _UNREADABLE else flaw[number]

    # --- who ---

    def numbers(self, who: Sequence[str], tenants: Array) -> Array:
        """The number of every event's recipient. `who`: tenant, separator, recipient as it was sent; `tenants`: the
        tenant's index in the settings. Two spellings of one recipient have one number."""
        found = np.fromiter(map(self._numbers.get, who, repeat(-1)), np.int64, len(who))
        missing = found < 0
        if missing.any():
            strangers = list(compress(who, missing.tolist()))
            self._meet(dict(zip(strangers, tenants[missing].tolist(), strict=True)))
            found[missing] = np.fromiter(map(self._numbers.__getitem__, strangers), np.int64, len(strangers))
        return found

    def _meet(self, strangers: Mapping[str, int]) -> None:
        """`strangers`: tenant, separator, recipient -> the tenant's index."""
        names = list(strangers)
        text = pl.Series(names, dtype=pl.String)
        case = any(tenant.lower_local for tenant in self._tenants)
        plain = (text.str.contains(_PLAIN[case]) & (text.str.len_bytes() <= _SHORT)).to_list()
        met = list(compress(names, plain))
        self._numbers.update(zip(met, range(len(self._keys), len(self._keys) + len(met)), strict=True))
        keys, of_tenant = list(map(str.encode, met)), [strangers[name] for name in met]
        bad: list[int] = []
        for name in compress(names, map(not_, plain)):
            tenant = self._tenants[strangers[name]]
            try:
                key = message_key(tenant.name, canonical(name.partition(SEPARATOR.decode())[2], tenant.lower_local))
            except BadRecipient:
                bad.append(len(self._keys) + len(keys))
                key = b""
            number = self._numbers.get(key.decode()) if key else None
            if number is None:
                number = len(self._keys) + len(keys)
                keys.append(key)
                of_tenant.append(strangers[name])
                if key:
                    self._numbers[key.decode()] = number
            self._numbers[name] = number
        self._append(keys, of_tenant, bad)

    def _append(self, keys: list[bytes], of_tenant: list[int], bad: list[int]) -> None:
        first = len(self._keys)
        self._keys += keys
        for column in (self._tenant_of, self._flaw):
            column.grow(len(self._keys))
        for column in self._by_slot():
            column.grow(2 * len(self._keys))
        here = slice(first, len(self._keys))
        self._tenant_of.values[here] = of_tenant
        elsewhere = partitions_of(keys, self._partitions) != self._partition
        self._flaw.values[here] = np.where(elsewhere, _ELSEWHERE, 0)
        self._flaw.values[bad] = _BAD

    def _by_slot(self) -> Iterator[_Column]:
        yield self._filled
        yield self._counts_from
        for stretches in self._of_purpose.values():
            yield from stretches.columns()

    def canonical(self, numbers: Array) -> Messages:
        """The canonical recipients of every event, in UTF-8."""
        keys = Messages.of(list(map(self._keys.__getitem__, numbers.tolist())))
        prefixes = np.array([len(tenant.name.encode()) + len(SEPARATOR) for tenant in self._tenants], np.int64)
        before = prefixes[self._tenant_of.values[numbers]]
        return Messages(keys.data, keys.starts + before, keys.lengths - before)

    # --- what is allowed ---

    def flaws(self, numbers: Array, kinds: Array) -> Array:
        """Why the events of a recipient are refused: an index into `FLAWS`, 0 if they are not. Looks up what is allowed
        for the others, so that it is known from here on.

        A recipient whose state cannot be read is refused: never above what is known, and never guessed.
        """
        slots = 2 * numbers + kinds
        unfilled = np.unique(slots[~self._filled.values[slots]])
        unfilled = unfilled[self._flaw.values[unfilled >> 1] == 0]
        if len(unfilled):
            self._fill(unfilled)
        found: Array = self._flaw.values[numbers]
        return found

    def counts_from(self, slots: Array) -> Array:
        """From when on (epoch ms) an event of each slot counts."""
        found: Array = self._counts_from.values[slots]
        return found

    def pseudonyms(self, purpose: str, slots: Array, times: Array) -> tuple[Array, Array]:
        """The pseudonym (two 64-bit halves; zeros: none) and key version of every event for a purpose."""
        return self._of_purpose[purpose].of(slots, times)

    def purposes(self) -> list[str]:
        """The primary purpose, then all others that allow anybody anything, in order."""
        return [PRIMARY, *sorted(purpose for purpose in self._of_purpose if purpose != PRIMARY)]

    def _fill(self, slots: Array) -> None:
        numbers = slots >> 1
        default = np.array(
            [NEVER if tenant.purposes[PRIMARY].ceiling is Mode.OFF else ALWAYS for tenant in self._tenants], np.int64
        )
        for column in self._by_slot():
            column.values[slots] = column.default
        self._counts_from.values[slots] = default[self._tenant_of.values[numbers]]
        self._filled.values[slots] = True
        keys = list(map(self._keys.__getitem__, numbers.tolist()))
        counts_from: list[tuple[int, int]] = []
        rows: _Rows = {}
        tenants = map(self._tenants.__getitem__, self._tenant_of.values[numbers].tolist())
        for slot, tenant, key, raw in zip(slots.tolist(), tenants, keys, self._state.raws(keys), strict=True):
            if raw is not None or self._was_off:
                try:
                    counts_from.append((slot, self._look_up(slot, tenant, key, raw, rows)))
                except BadRow:
                    self._flaw.values[slot >> 1] = _UNREADABLE
        if counts_from:
            at, times = zip(*counts_from, strict=True)
            self._counts_from.values[list(at)] = times
        for (purpose, which), found in rows.items():
            if purpose not in self._of_purpose:
                self._of_purpose[purpose] = _Stretches()
                for column in self._of_purpose[purpose].columns():
                    column.grow(len(self._filled.values))
            self._of_purpose[purpose].set(which, found)

    def _look_up(self, slot: int, tenant: TenantSettings, key: bytes, raw: bytes | None, rows: _Rows) -> int:
        """From when on events of a slot count; their pseudonyms are added to `rows`."""
        kind, counts_from = KINDS[slot & 1], NEVER
        name = key.partition(SEPARATOR)[2].decode()
        purposes = decode_state(raw).purposes if raw is not None else {}
        for purpose, of_purpose in tenant.purposes.items():
            off_since = self._off_since(tenant.name, name, kind) if purpose == PRIMARY else None
            consent = consent_of(purposes, purpose, kind, off_since)
            if consent is None and purpose != PRIMARY:
                continue
            limits = thresholds(consent, of_purpose.ceiling)
            if purpose == PRIMARY:
                counts_from = limits.counts_from
            for which, (begin, salt) in enumerate(limits.rows, 2 - len(limits.rows)):
                pseudonymizer = self._keyring.pseudonymizer(tenant.name, purpose, salt.key_version)
                if pseudonymizer is not None:  # a destroyed key: counted only
                    pseudonym = pseudonymizer.pseudonym(salt.value, name)
                    rows.setdefault((purpose, which), []).append((slot, begin, pseudonym, salt.key_version))
        return counts_from

    def _off_since(self, tenant: str, name: str, kind: str) -> int | None:
        if not self._was_off:
            return None
        return self._was_off.get((tenant, blind_index(self._keyring.single(KeyKind.BLIND), tenant, name), kind))
