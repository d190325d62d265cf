"""What a claim of changes will write: computed from the state after all changes before it, and from nothing else.

A recipient whose state already holds a change's version is passed over: what the change wrote to the stores was written
before that state was (the steps in streams/changes.py). A record that cannot be read costs only itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from pseudonymizer.consent import DEFAULT, Consent, Effect, Mode, Salt, Step, apply, cap, forget, outlives, remnant
from pseudonymizer.keys import KeyKind, encode
from pseudonymizer.pseudonyms import SALT_BYTES, blind_index, keyed, mac
from streams.chain import PRIMARY
from streams.errors import BadRow, Reason
from streams.ledger import proof_text
from streams.messages import (
    EVERYTHING,
    KINDS,
    Ceiling,
    Change,
    Closing,
    Erasure,
    RecipientState,
    Rekey,
    consent_of,
    decode_state,
    encode_state,
    parse_change,
)
from streams.partitioner import message_key

if TYPE_CHECKING:
    from streams.chain import Claim
    from streams.incarnation import WasOff
    from streams.keys import Keys
    from streams.state import StateIndex
    from streams.tenants import TenantSettings
    from streams.transport import Record

ALL_OF_IT = 2**62  # of an erasure that no later grant outlives: the ledger's lines go whatever their time is
_UNKNOWN = RecipientState((0, -1), {})


class Line(NamedTuple):
    """A line of the consent ledger, its proof not sealed yet. `repr` shows neither whom it is about nor the proof."""

    tenant: str
    blind: bytes
    purpose: str
    kind: str
    mode: str
    effect: str
    decided_at: int
    recorded_at: int
    number: str
    """Of the preference, the request or the ceiling."""
    proof: str = ""

    def __repr__(self) -> str:
        return f"Line({self.purpose}, {self.kind}, {self.mode}, {self.effect})"


@dataclass(frozen=True, slots=True)
class Erased:
    """Whom a claim erases: her lines in the ledger that were decided up to `until` (epoch ms) go."""

    tenant: str
    blind: bytes = field(repr=False)
    until: int


@dataclass(slots=True)
class Confirmation:
    """What gets a receipt, and the pseudonyms that it makes go. `repr` names nobody."""

    id: str
    """Of the preference or the request."""
    kind: str
    tenant: str
    remove: list[bytes] = field(default_factory=list, repr=False)
    unmap: list[bytes] = field(default_factory=list, repr=False)
    erased: Erased | None = None


@dataclass(slots=True)
class ChangesPlan:
    """What a claim of changes will write. `repr` names nobody."""

    consents: list[Line] = field(default_factory=list, repr=False)
    mappings: list[tuple[Any, ...]] = field(default_factory=list, repr=False)
    confirm: dict[tuple[str, str], Confirmation] = field(default_factory=dict)
    """(tenant, id) -> one receipt an id, in the order of the log."""
    states: dict[bytes, RecipientState | None] = field(default_factory=dict, repr=False)
    """What tracking.state will say, in this order; None: a tombstone, behind the stub that it belongs to."""
    bad: list[tuple[int, BadRow]] = field(default_factory=list)
    remove: list[bytes] = field(default_factory=list, repr=False)
    unmap: list[bytes] = field(default_factory=list, repr=False)
    erase: list[Erased] = field(default_factory=list)
    rewrite: dict[bytes, tuple[bytes, int]] = field(default_factory=dict, repr=False)
    """Pseudonym under one root key -> the one under another, and that one's version: rows are rewritten."""
    close: list[Closing] = field(default_factory=list)
    """Mailings that are closed from this claim on."""

    @property
    def confirmations(self) -> list[Confirmation]:
        """What gets a receipt, in the order of the log."""
        return list(self.confirm.values())


def plan(
    claim: Claim,
    records: Sequence[Record],
    tenants: Mapping[str, TenantSettings],
    state: StateIndex,
    keys: Keys,
    was_off: WasOff,
) -> ChangesPlan:
    """What the claim's records change. A record that cannot be read costs only itself (`bad`).

    `was_off` names who was `off` when a state was lost (streams/incarnation.py): that decision is known, no other.
    """
    keys.look()
    planner = _Planner(claim, tenants, state, keys, was_off)
    planner.prepare([record.key for record in records if record.key])
    for row, record in enumerate(records):
        try:
            planner.add(record)
        except BadRow as flaw:
            planner.result.bad.append((row, flaw))
    planner.result.consents = [line for lines in planner.ledger.values() for line in lines]
    return planner.result


def states(changes: ChangesPlan) -> list[tuple[bytes, bytes | None]]:
    """Step f: key and value of every record of tracking.state that the claim writes, in order."""
    return [(key, encode_state(state) if state is not None else None) for key, state in changes.states.items()]


class _Planner:
    def __init__(
        self,
        claim: Claim,
        tenants: Mapping[str, TenantSettings],
        state: StateIndex,
        keys: Keys,
        was_off: WasOff,
    ) -> None:
        self._claim, self._tenants, self._index, self._keys, self._was_off = claim, tenants, state, keys, was_off
        self._raws: dict[bytes, bytes | None] = {}
        self._stubs: dict[bytes, bytes] = {}
        self._latest: dict[bytes, RecipientState] = {}  # by her own key, also when that is a stub
        self.ledger: dict[tuple[str, bytes], list[Line]] = {}  # of the ledger, by tenant and blind index
        self.result = ChangesPlan()

    def prepare(self, keys: Iterable[bytes]) -> None:
        """Look up whom the records name, all at once."""
        distinct = list(dict.fromkeys(keys))
        self._raws = dict(zip(distinct, self._index.raws(distinct), strict=True))

    def add(self, record: Record) -> None:
        """Plan one record. Raises BadRow, and then nothing of it is planned."""
        change = parse_change(record.value)
        if isinstance(change, Closing):  # also of a tenant that has gone: its sets have to go too
            self.result.close.append(change)
            return
        tenant = self._tenants.get(change.tenant)
        if tenant is None:
            raise BadRow(Reason.UNKNOWN_TENANT, "tenant", "a tenant of the settings in force")
        version = (self._claim.incarnation, record.offset)
        if isinstance(change, Ceiling):
            self._lower_ceiling(change, tenant, version)
            return
        if record.key is None:
            raise BadRow(Reason.MISSING_FIELD, None, "a key of tenant and recipient")
        known = self._known(record.key)
        if known.version < version:
            if isinstance(change, Erasure):
                self._erase(record.key, change, tenant, known, version)
            elif isinstance(change, Rekey):
                self._rekey(record.key, change, tenant, known, version)
            else:
                self._decide(record.key, change, tenant, known, version)

    def _known(self, key: bytes) -> RecipientState:
        if (found := self._latest.get(key)) is not None:
            return found
        raw = self._raws[key] if key in self._raws else self._index.raw(key)
        return decode_state(raw) if raw is not None else _UNKNOWN

    def _write(self, key: bytes, state: RecipientState) -> None:
        self.result.states.pop(key, None)  # behind a stub of this very claim, if there is one
        self.result.states[key] = self._latest[key] = state

    def _stub(self, key: bytes) -> bytes:
        """The key of the stub that a recipient leaves: of everybody in the claim at once, by column it costs little."""
        if key not in self._stubs:
            keys = list({key, *self._raws})
            self._stubs = dict(zip(keys, self._keys.stub_keys(keys), strict=True))
        return self._stubs[key]

    def _lines(self, tenant: str, blind: bytes) -> list[Line]:
        """What this claim writes of a recipient so far: an erasure looks through her lines and nobody else's."""
        return self.ledger.setdefault((tenant, blind), [])

    def _blind(self, tenant: str, recipient: str) -> bytes:
        return blind_index(self._keys.single(KeyKind.BLIND), tenant, recipient)

    def _before(self, purposes: _Purposes, tenant: str, blind: bytes, purpose: str, kind: str) -> Consent:
        """What held so far, also by a state that was lost."""
        off_since = self._was_off.get((tenant, blind, kind)) if purpose == PRIMARY else None
        return consent_of(purposes, purpose, kind, off_since) or DEFAULT

    # --- preferences ---

    def _decide(
        self, key: bytes, change: Change, tenant: TenantSettings, known: RecipientState, version: tuple[int, int]
    ) -> None:
        result, claim = self.result, self._claim
        blind = self._blind(tenant.name, change.recipient)
        proof = proof_text(change.proof)
        purposes = {purpose: dict(kinds) for purpose, kinds in known.purposes.items()}
        confirmation = Confirmation(change.preference_id, "withdrawal", tenant.name)
        lines: list[Line] = []
        effects: set[Effect] = set()
        for purpose, kind, asked in _asked(change, tenant, purposes):
            before = self._before(purposes, tenant.name, blind, purpose, kind)
            mode = min(asked, before.mode) if change.everything is not None else asked
            salt = change.salts.get(purpose, {}).get(kind)
            step = apply(before, mode, change.decided_at, salt, change.key_version, tenant.ceiling(purpose))
            effects.add(step.effect)
            if step.consent is not before:
                purposes.setdefault(purpose, {})[kind] = step.consent
            what = (purpose, kind, mode.word, str(step.effect), change.decided_at)
            lines.append(Line(tenant.name, blind, *what, claim.now_ms, change.preference_id, proof))
            self._carry(step, tenant.name, change.recipient, purpose, confirmation)
            if step.map is not None:
                for pseudonym in self._pseudonyms(tenant.name, change.recipient, purpose, (step.map,)):
                    which = (tenant.name, purpose, kind, pseudonym, step.map.key_version)
                    result.mappings.append((*which, blind, change.recipient, claim.now_ms))
        if known.purposes.keys() == {EVERYTHING} and effects <= {Effect.OUT_OF_DATE, Effect.UNCHANGED}:
            return  # older than her erasure: nothing of it is kept
        self._lines(tenant.name, blind).extend(lines)
        # What holds already is confirmed too, also where a part of it was decided at this very time before.
        holds = Effect.CONFIRMED in effects and effects <= {Effect.CONFIRMED, Effect.UNCHANGED}
        if Effect.LOWERED in effects or (holds and _lowest(change) <= Mode.ANONYMOUS):
            self._confirm(confirmation)
        self._write(key, RecipientState(version, purposes))

    def _carry(self, step: Step, tenant: str, recipient: str, purpose: str, confirmation: Confirmation) -> None:
        """Note what a step makes go."""
        remove = self._pseudonyms(tenant, recipient, purpose, step.remove)
        unmap = self._pseudonyms(tenant, recipient, purpose, step.unmap)
        confirmation.remove += remove
        confirmation.unmap += unmap
        self.result.remove += remove
        self.result.unmap += unmap

    def _confirm(self, confirmation: Confirmation) -> None:
        """One receipt an id: of what intake forwarded twice, the second time finds nothing more."""
        held = self.result.confirm.setdefault((confirmation.tenant, confirmation.id), confirmation)
        if held is not confirmation:
            held.remove += confirmation.remove
            held.unmap += confirmation.unmap

    def _pseudonyms(self, tenant: str, recipient: str, purpose: str, salts: Sequence[Salt]) -> list[bytes]:
        """None under a root key that is gone."""
        found = []
        for salt in salts:
            pseudonymizer = self._keys.pseudonymizer(tenant, purpose, salt.key_version)
            if pseudonymizer is not None:
                found.append(pseudonymizer.pseudonym(salt.value, recipient))
        return found

    # --- erasure ---

    def _erase(
        self, key: bytes, asked: Erasure, tenant: TenantSettings, known: RecipientState, version: tuple[int, int]
    ) -> None:
        """All that was decided up to the request goes. What is left: a stub, or, of whoever has granted anew since
        then, that grant alone."""
        result, claim = self.result, self._claim
        blind = self._blind(tenant.name, asked.recipient)
        confirmation = Confirmation(asked.request_id, "erasure", tenant.name)
        stands: dict[str, dict[str, Consent]] = {}
        others: dict[str, list[Consent]] = {kind: [] for kind in KINDS}
        for purpose, kinds in known.purposes.items():
            for kind, consent in kinds.items():
                if outlives(consent, asked.requested_at):
                    stands.setdefault(purpose, {})[kind] = consent
                    continue
                others.setdefault(kind, []).append(consent)
                self._carry(forget(consent), tenant.name, asked.recipient, purpose, confirmation)
        left: dict[str, Consent] = {}
        for kind in KINDS:
            primary = stands.get(PRIMARY, {}).get(kind)
            if primary is None:
                primary = self._before(known.purposes, tenant.name, blind, PRIMARY, kind)
                left[kind] = remnant(primary, others[kind], asked.requested_at)
            else:  # what she has granted anew says whether she is off; the rest refuses what is older than the request
                left[kind] = remnant(DEFAULT, others[kind], asked.requested_at)
        # Lines that this very claim would have written of her go unwritten; a mapping goes with the others (step d).
        until = ALL_OF_IT if not stands else asked.requested_at
        confirmation.erased = Erased(tenant.name, blind, until)
        result.erase.append(confirmation.erased)
        lines = self._lines(tenant.name, blind)
        lines[:] = [line for line in lines if line.decided_at > until and line.effect != str(Effect.ERASED)]
        for kind, consent in left.items():
            what = (EVERYTHING, kind, consent.mode.word, str(Effect.ERASED), consent.decided_at)
            lines.append(Line(tenant.name, blind, *what, claim.now_ms, asked.request_id))
        self._confirm(confirmation)
        after = RecipientState(version, {**stands, EVERYTHING: left})
        if stands:
            self._write(key, after)
            return
        self._write(self._stub(key), after)
        self._latest[key] = after
        result.states.pop(key, None)
        result.states[key] = None

    # --- another root key ---

    def _rekey(
        self, key: bytes, asked: Rekey, tenant: TenantSettings, known: RecipientState, version: tuple[int, int]
    ) -> None:
        """Her consents under one version of the root key go on under another, with the salts and times they have."""
        if asked.from_version == asked.to_version:
            return  # what is "old" would be what is to stay
        result, claim = self.result, self._claim
        blind = self._blind(tenant.name, asked.recipient)
        purposes = {purpose: dict(kinds) for purpose, kinds in known.purposes.items()}
        for purpose, kinds in purposes.items():
            maker = self._keys.pseudonymizer(tenant.name, purpose, asked.to_version)
            if maker is None:
                continue  # that key is gone: she stays where she is
            for kind, consent in kinds.items():
                salts = list(consent.salts)
                for number, salt in enumerate(salts):
                    named = salt.level is Mode.PERSONAL
                    if salt.key_version != asked.from_version or not (named or asked.remove):
                        continue
                    salts[number] = salt._replace(key_version=asked.to_version)
                    pseudonym = maker.pseudonym(salt.value, asked.recipient)
                    if named:
                        which = (tenant.name, purpose, kind, pseudonym, asked.to_version)
                        result.mappings.append((*which, blind, asked.recipient, claim.now_ms))
                    for old in self._pseudonyms(tenant.name, asked.recipient, purpose, (salt,)):
                        self._replace(old, None if asked.remove else (pseudonym, asked.to_version), named)
                kinds[kind] = consent._replace(salts=tuple(salts))
        if purposes != known.purposes:
            self._write(key, RecipientState(version, purposes))

    def _replace(self, old: bytes, new: tuple[bytes, int] | None, named: bool) -> None:
        """Rows under an old pseudonym are rewritten, or go; so does its mapping."""
        result = self.result
        if named:
            result.unmap.append(old)
        if new is None:
            result.remove.append(old)
            return
        for before, (after, _) in result.rewrite.items():
            if after == old:  # moved twice by this very claim
                result.rewrite[before] = new
        result.rewrite[old] = new

    # --- ceilings ---

    def _lower_ceiling(self, asked: Ceiling, tenant: TenantSettings, version: tuple[int, int]) -> None:
        """Of everybody of the tenant, as far as this partition knows her."""
        claim = self._claim
        confirmation = Confirmation(f"{asked.id}:{claim.partition}", "ceiling", tenant.name)
        known = dict(self._index.of_tenant(tenant.name))
        prefix = len(message_key(tenant.name, ""))
        drawn = keyed(asked.seed)
        met = (key for key in self._latest if key.startswith(message_key(tenant.name, "")))
        for key in dict.fromkeys([*known, *met]):
            try:
                held = self._latest.get(key) or decode_state(known[key])
            except BadRow:
                continue  # of a newer release: her events are refused here, and whoever can read it goes on
            if held.version >= version or asked.purpose not in held.purposes:
                continue
            recipient = key[prefix:].decode()
            kinds = dict(held.purposes[asked.purpose])
            for kind, consent in kinds.items():
                salt = mac(drawn, encode(key, asked.purpose.encode(), kind.encode()))[:SALT_BYTES]
                step = cap(consent, asked.ceiling, salt)
                if step is None:
                    continue
                kinds[kind] = step.consent
                self._carry(step, tenant.name, recipient, asked.purpose, confirmation)
                blind = self._blind(tenant.name, recipient)
                what = (asked.purpose, kind, asked.ceiling.word, str(step.effect), consent.decided_at)
                self._lines(tenant.name, blind).append(Line(tenant.name, blind, *what, claim.now_ms, asked.id))
            if kinds != held.purposes[asked.purpose]:
                self._write(key, RecipientState(version, {**held.purposes, asked.purpose: kinds}))
        self._confirm(confirmation)


_Purposes = Mapping[str, Mapping[str, Consent]]


def _asked(change: Change, tenant: TenantSettings, held: _Purposes) -> list[tuple[str, str, Mode]]:
    if change.everything is not None:
        purposes = dict.fromkeys([*tenant.purposes, *held, EVERYTHING])
        return [(purpose, kind, change.everything) for purpose in purposes for kind in KINDS]
    return [(purpose, kind, mode) for purpose, kinds in (change.modes or {}).items() for kind, mode in kinds.items()]


def _lowest(change: Change) -> Mode:
    if change.everything is not None:
        return change.everything
    return min((mode for kinds in (change.modes or {}).values() for mode in kinds.values()), default=Mode.PERSONAL)
