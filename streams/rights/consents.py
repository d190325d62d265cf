"""What a recipient has agreed to, decision by decision, with its proof (article 7(1) GDPR)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pseudonymizer.keys import KeyKind
from pseudonymizer.sealing import SealBroken
from streams.ledger import open_proof
from streams.rights.audit import Action

if TYPE_CHECKING:
    from streams.rights.desk import Desk

NOT_OPENED = "this proof cannot be opened any more"


@dataclass(frozen=True, slots=True)
class Decision:
    """One line of the consent ledger."""

    purpose: str
    """`*`: for every purpose, those that come later included."""
    kind: str
    mode: str
    effect: str
    decided_at: int
    """Epoch milliseconds, as the sender said."""
    recorded_at: int
    """Epoch milliseconds, when its claim was made."""
    preference_id: str
    proof: Mapping[str, Any] | None = field(repr=False)
    """`source`, `text_version`, `evidence`, `age_check`, `conditional`, `recorded_by`: those that the sender gave.
    None: there was none; a withdrawal needs none."""
    unreadable: bool
    """There was a proof, and its key is gone or another."""


def history(desk: Desk, tenant: str, recipient: str, why: str) -> list[Decision]:
    """Every line of a recipient's ledger, oldest first, proofs opened; on record in the audit trail before.

    Raises SettingsError (no such tenant, no recipient), StoreUnavailable, StoreRefused. A caller may NOT assume that
    what was decided a moment ago is in it: a line is written when its claim is carried out.
    """
    name = desk.canonical(desk.tenant(tenant), recipient)
    blind = desk.blind(tenant, name)
    rows = _rows(desk, tenant, blind)
    desk.audit.record(Action.CONSENTS_SHOWN, tenant, blind, why, {"lines": len(rows)})
    return _opened(desk, tenant, rows)


def ledger(desk: Desk, tenant: str, blind: bytes) -> list[Decision]:
    """`history` for whoever has put it on record. Raises StoreUnavailable, StoreRefused."""
    return _opened(desk, tenant, _rows(desk, tenant, blind))


def _rows(desk: Desk, tenant: str, blind: bytes) -> Sequence[Sequence[Any]]:
    return desk.identity.rows(
        "reading the consent ledger",
        "SELECT toString(purpose), toString(kind), toString(mode), toString(effect), "
        "toUnixTimestamp64Milli(decided_at), toUnixTimestamp64Milli(recorded_at), preference_id, hex(proof) "
        "FROM consents WHERE tenant = {tenant:String} AND blind = unhex({blind:String}) "
        "ORDER BY recorded_at, decided_at, purpose, kind",
        {"tenant": tenant, "blind": blind.hex()},
    )


def _opened(desk: Desk, tenant: str, rows: Sequence[Sequence[Any]]) -> list[Decision]:
    key = desk.ring.get(KeyKind.PROOF, tenant)
    found = []
    for purpose, kind, mode, effect, decided_at, recorded_at, preference_id, stored in rows:
        proof, unreadable = None, bool(stored)
        if stored and key is not None:
            try:
                proof, unreadable = open_proof(key, bytes.fromhex(stored), preference_id), False
            except (SealBroken, ValueError):  # or what it opens to is no JSON
                unreadable = True
        found.append(Decision(purpose, kind, mode, effect, decided_at, recorded_at, preference_id, proof, unreadable))
    return found
