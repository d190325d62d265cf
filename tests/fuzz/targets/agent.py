"""The preference agent as a whole: messages as senders write them, through intake, a change, a plan and the state.

The input is a list of steps, four bytes each (`_step`). A plain model beside it knows, for each recipient, purpose and
kind, the decisions that took effect; after every claim the two are compared, and the promises looked at by themselves:
what may have a row (P1), and that nothing of a withdrawn stretch can be computed from the state or is left (P4).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from pseudonymizer.consent import ALWAYS, Mode
from pseudonymizer.decisions import Off, Row, decide, thresholds
from streams.chain import Kind
from streams.errors import BadRow
from streams.intake import Intake
from streams.messages import Ceiling, Change, Erasure, RecipientState, encode_change
from streams.partitioner import message_key
from streams.plan import plan, states
from streams.state import StateIndex
from streams.tenants import TenantSettings
from tests.claims import Fetched, claim, tenants
from tests.fuzz.ring import keys
from tests.fuzz.samples import NOW, PROOF

OFF, ANONYMOUS, PSEUDONYMOUS, PERSONAL = Mode
PURPOSES, KINDS = ("engagement", "advice"), ("open", "click")
PEOPLE = ("Erika@example.com", "id-4711")
SPELLINGS = (lambda text: text, lambda text: f" {text.replace('example', 'EXAMPLE')}\n")
TIMES = 8  # so few that decisions of the same time are common
PROOFS: tuple[tuple[Any, bool], ...] = (
    (PROOF, True),
    (PROOF | {"conditional": None, "more": "x"}, True),
    (None, False),
    ([PROOF], False),
    (PROOF | {"source": " "}, False),
    (PROOF | {"conditional": True}, False),
    (PROOF | {"conditional": "yes"}, False),
    (PROOF | {"evidence": "x" * 501}, False),
)
CEILINGS = tuple(
    tenants("[acme]\n" + "".join(f'[acme.purposes.{name}]\nceiling = "{mode.word}"\n' for name, mode in ceilings))
    for ceilings in (
        (("engagement", PERSONAL), ("advice", PERSONAL)),
        (("engagement", PSEUDONYMOUS), ("advice", PERSONAL)),
        (("engagement", ANONYMOUS), ("advice", PSEUDONYMOUS)),
        (("engagement", PERSONAL),),
    )
)


class Asked(NamedTuple):
    """A message that ought to be accepted, as its sender meant it; neither modes nor everything: erase her."""

    who: int
    at: int
    modes: dict[tuple[str, str], Mode] | None
    everything: Mode | None

    @property
    def erases(self) -> bool:
        return self.modes is None and self.everything is None


@dataclass
class Cell:
    """What is known of a recipient for one purpose and kind, plainly."""

    effective: list[tuple[Mode, int]] = field(default_factory=lambda: [(ANONYMOUS, ALWAYS)])
    """The decisions that took effect, in the order of the log; the first is nobody's."""
    rows: set[bytes] = field(default_factory=set)
    """Pseudonyms under which rows may be there."""
    mapped: set[bytes] = field(default_factory=set)

    @property
    def mode(self) -> Mode:
        return self.effective[-1][0]

    def decide(self, mode: Mode, at: int) -> bool:
        """The newest decision wins, of two of the same time the lower one; else it changes nothing, and says so."""
        known, decided = self.effective[-1]
        if at > decided or (at == decided and mode < known):
            self.effective.append((mode, at))
            return True
        return False

    def since(self, level: Mode) -> int | None:
        """From when on a level has held without a break."""
        begin = None
        for mode, at in self.effective:
            if mode < level:
                begin = None
            elif begin is None:
                begin = at
        return begin


class World:
    """Intake, the owner of one partition, and the model."""

    def __init__(self) -> None:
        self.tenants = CEILINGS[0]
        self.index = StateIndex(keys().stub_keys)
        self.cells: dict[tuple[int, str, str], Cell] = {}
        self.waiting: list[tuple[Fetched, Asked]] = []
        self.sent: list[tuple[Fetched, Asked, Change | Erasure]] = []
        self.offset = 0
        self.number = 0
        self.gone: set[bytes] = set()
        """Every pseudonym that was ever withdrawn."""
        self.erased: set[bytes] = set()
        """Pseudonyms of whom this claim erases."""

    def cell(self, who: int, purpose: str, kind: str) -> Cell:
        """What is known; for a purpose that she has not decided on, what she last decided for everything."""
        of_all = self.cells.get((who, "*", kind), Cell())
        return self.cells.get((who, purpose, kind)) or Cell(list(of_all.effective))

    def decide(self, who: int, purpose: str, kind: str, mode: Mode, at: int) -> None:
        cell = self.cell(who, purpose, kind)
        if cell.decide(mode, at):
            self.cells[who, purpose, kind] = cell

    # --- intake ---

    def send(self, message: dict[str, Any], asked: Asked | None) -> None:
        """A message that a sender writes; `asked` None: it has to be refused."""
        record = Fetched(len(self.sent), json.dumps(message).encode(), timestamp=NOW + TIMES // 2)
        intake = Intake(None)  # type: ignore[arg-type]  # it is not asked for anything
        try:
            change = intake._change(
                _Chunk(),
                record,  # type: ignore[arg-type]
                self.tenants,
                {"acme": 1},
            )
        except BadRow as why:
            assert asked is None, f"a good preference was refused ({why})"
            return
        assert asked is not None, "a preference was accepted that says nothing it may say"
        self.forward(asked, change)

    def forward(self, asked: Asked, change: Change | Erasure) -> None:
        value, key = encode_change(change), message_key(change.tenant, change.recipient)
        record = Fetched(self.offset, value, key, NOW)
        self.offset += 1
        self.waiting.append((record, asked))
        self.sent.append((record, asked, change))

    def forward_again(self, which: int) -> None:
        """After a crash: the same preference, with other salts."""
        if self.sent:
            _, asked, change = self.sent[which % len(self.sent)]
            if isinstance(change, Erasure):
                self.forward(asked, change)
                return
            salts = {
                purpose: {kind: bytes(15) + bytes([self.offset % 256]) for kind in kinds}
                for purpose, kinds in change.salts.items()
            }
            self.forward(asked, replace(change, salts=salts))

    # --- the owner ---

    def claim(self) -> None:
        """Carry out what waits as one claim, twice over, and look."""
        if not self.waiting:
            return
        records, asked = [record for record, _ in self.waiting], [one for _, one in self.waiting]
        self.waiting = []
        self.number += 1
        made = claim(Kind.CHANGES, records, number=self.number)
        result = plan(made, records, self.tenants, self.index, keys(), {})
        again = plan(made, records, self.tenants, self.index, keys(), {})
        assert result == again, "a plan is a function of the claim and the state before it"
        assert not result.bad
        for one in asked:
            if one.erases:
                self.erase(one)
            else:
                self.apply(one)
        for key, value in states(result):
            self.index.put(key, value)
        for row in result.mappings:
            _, purpose, kind, pseudonym, *_, recipient, _ = row
            who = PEOPLE.index(recipient)
            self.cell(who, purpose, kind).mapped.add(pseudonym)
            self.cell(who, purpose, kind).rows.add(pseudonym)
        told = {pseudonym for one in result.confirmations for pseudonym in one.remove}
        assert told == set(result.remove), "what goes stands in a receipt"
        assert set(result.unmap) <= set(result.remove)
        for cell in self.cells.values():
            cell.rows -= set(result.remove)
            cell.mapped -= set(result.unmap)
        assert not self.erased - set(result.remove), "rows of whoever was erased are left"
        self.erased = set()
        self.gone |= set(result.remove)
        assert not plan(made, records, self.tenants, self.index, keys(), {}).states, "done is done"
        self.look()

    def apply(self, asked: Asked) -> None:
        """The model's turn."""
        if asked.modes is not None:
            for (purpose, kind), mode in asked.modes.items():
                self.decide(asked.who, purpose, kind, mode, asked.at)
            return
        assert asked.everything is not None
        # A purpose that the tenant gave up is lowered too where she has ever decided on it.
        held = {name for (who, name, _), cell in self.cells.items() if who == asked.who and len(cell.effective) > 1}
        for purpose in {*self.tenants["acme"].purposes, *held, "*"}:
            for kind in KINDS:
                lowered = min(asked.everything, self.cell(asked.who, purpose, kind).mode)
                self.decide(asked.who, purpose, kind, lowered, asked.at)

    def erase(self, asked: Asked) -> None:
        """What was granted anew after the request stands; of the rest, only whether she is off, and a time."""
        for kind in KINDS:
            primary = self.cell(asked.who, "engagement", kind)
            dropped = []
            for (who, purpose, of_kind), cell in list(self.cells.items()):
                if (who, of_kind) != (asked.who, kind):
                    continue
                begun = cell.since(PSEUDONYMOUS)
                if begun is not None and begun > asked.at:
                    primary = Cell() if purpose == "engagement" else primary
                    continue
                dropped.append(cell)
                self.erased |= cell.rows
                del self.cells[who, purpose, of_kind]
            since = primary.since(ANONYMOUS)
            decided = max([asked.at, primary.effective[-1][1], *(cell.effective[-1][1] for cell in dropped)])
            history = [(ANONYMOUS, ALWAYS)]
            if since is None:
                history.append((OFF, decided))
            elif since != ALWAYS:
                history += [(OFF, since - 1), (ANONYMOUS, since), (ANONYMOUS, decided)]
            else:
                history.append((ANONYMOUS, decided))
            self.cells[asked.who, "*", kind] = Cell(history)

    def lower(self, ceilings: Mapping[str, TenantSettings]) -> None:
        """Other settings come into force; where a ceiling is lower, what is above it goes."""
        before, self.tenants = self.tenants["acme"].purposes, ceilings
        now = ceilings["acme"].purposes
        lowered = {
            name: now[name].ceiling for name in before if name in now and now[name].ceiling < before[name].ceiling
        }
        records = []
        for purpose, ceiling in lowered.items():
            change = Ceiling("c", "acme", purpose, ceiling, bytes(31) + bytes([self.offset % 256]))
            records.append(Fetched(self.offset, encode_change(change), None, NOW))
            self.offset += 1
        if not records:
            return
        self.number += 1
        made = claim(Kind.CHANGES, records, number=self.number)
        result = plan(made, records, self.tenants, self.index, keys(), {})
        assert not result.bad
        self.index.put_all(states(result))
        for cell in self.cells.values():
            cell.rows -= set(result.remove)
            cell.mapped -= set(result.unmap)
        self.gone |= set(result.remove)
        for person in PEOPLE:
            known = self.index.state(message_key("acme", person)) or RecipientState((0, -1), {})
            for purpose, ceiling in lowered.items():
                for consent in known.purposes.get(purpose, {}).values():
                    assert all(salt.level <= ceiling for salt in consent.salts), "above the ceiling"

    # --- what has to hold ---

    def look(self) -> None:
        for who, person in enumerate(PEOPLE):
            recipient = person
            key = message_key("acme", recipient)
            known = self.index.state(key) or RecipientState((0, -1), {})
            if known.purposes.keys() == {"*"}:
                assert self.index.written(key) is None, "the address of somebody who was erased stays"
            computable = set()
            for purpose in PURPOSES:
                pseudonymizer = keys().pseudonymizer("acme", purpose, 1)
                assert pseudonymizer
                for kind in KINDS:
                    cell = self.cell(who, purpose, kind)
                    consent = known.purposes.get(purpose, {}).get(kind) or known.purposes.get("*", {}).get(kind)
                    if consent is not None:
                        assert consent.mode is cell.mode
                    salts = consent.salts if consent else ()
                    own = {pseudonymizer.pseudonym(salt.value, recipient) for salt in salts}
                    assert len(own) == len(salts)
                    assert not own & computable, "two cells share a pseudonym"
                    computable |= own
                    self.look_at(cell, consent, self.tenants["acme"], purpose, recipient)
                    if cell.mode < PSEUDONYMOUS:
                        assert not salts
                        assert not cell.rows, "rows of a withdrawn stretch are left"
                    if cell.mode < PERSONAL:
                        assert not cell.mapped, "a mapping is left"
                    assert cell.mapped <= cell.rows
                    assert cell.rows <= own, "rows are left that nothing would ever name"
            assert not computable & self.gone, "a withdrawn pseudonym can be computed from the state"

    def look_at(self, cell: Cell, consent: Any, tenant: TenantSettings, purpose: str, recipient: str) -> None:
        """P1, event by event: what becomes of one that occurred at each time."""
        settings = tenant.purposes.get(purpose)
        if settings is None:
            return  # an event has no row for a purpose that its tenant does not have
        allowed = thresholds(consent, settings.ceiling)
        pseudonymizer = keys().pseudonymizer("acme", purpose, 1)
        assert pseudonymizer
        for at in range(NOW - 1, NOW + TIMES + 1):
            held = [level for level in Mode if level and (since := cell.since(level)) is not None and since <= at]
            level = min(max(held, default=OFF), settings.ceiling)
            match decide(allowed, at):
                case Row(salt):
                    assert level >= PSEUDONYMOUS, "a row without a grant that was in force then and is now"
                    assert salt.level <= level
                    cell.rows.add(pseudonymizer.pseudonym(salt.value, recipient))
                case Off():
                    assert level is OFF
                case _:
                    assert level > OFF


class _Chunk(NamedTuple):
    """Where messages come from."""

    topic: str = "tracking.preferences"
    partition: int = 0


def seeds() -> Iterator[bytes]:
    grant, lower, star, run = bytes((0, 0, 3, 0x0F)), bytes((0, 0, 5, 0x00)), bytes((1, 0, 6, 0)), bytes((2, 0, 0, 0))
    yield grant + run + lower + run
    yield grant + lower + star + run + bytes((3, 0, 0, 0)) + run
    yield bytes((0, 0, 1, 0xFA)) + run + bytes((4, 2, 0, 0)) + bytes((0, 9, 4, 0xA5)) + run + grant + star + run
    erase = bytes((5, 0, 4, 0))
    yield grant + run + erase + run + grant + run + bytes((3, 2, 0, 0)) + run
    yield grant + erase + grant + bytes((0, 0, 7, 0x0F)) + run + erase + run + bytes((4, 1, 0, 0)) + run
    for proof in range(len(PROOFS)):
        yield bytes((0, proof << 2, 3, 0xE4)) + run


def check(data: bytes) -> None:
    world = World()
    for begin in range(0, min(len(data), 160) - 3, 4):
        _step(world, *data[begin : begin + 4])
    world.claim()


def _step(world: World, what: int, how: int, when: int, modes: int) -> None:
    """`how`: who, spelling, proof; `when`: the time; `modes`: two bits for each of four purposes and kinds."""
    who, spelling, (proof, usable) = how & 1, how >> 1 & 1, PROOFS[how >> 2 & 7]
    at = NOW + when % TIMES
    message = {
        "tenant": "acme",
        "recipient": SPELLINGS[spelling](PEOPLE[who]),
        "decided_at": at,
        "proof": proof,
    }
    arrived = min(at, NOW + TIMES // 2)  # a decision of the future was taken when it arrived
    match what % 6:
        case 0:
            cells = [(purpose, kind) for purpose in PURPOSES for kind in KINDS]
            left_out = when >> 3 & 3  # also messages about one purpose or kind only
            chosen = {
                cell: Mode(modes >> 2 * n & 3) for n, cell in enumerate(cells) if not left_out or n % 4 != left_out
            }
            if left_out == 3:
                chosen = {cell: mode for cell, mode in chosen.items() if cell[0] == "engagement"}
            purposes: dict[str, dict[str, str]] = {}
            for (purpose, kind), mode in chosen.items():
                purposes.setdefault(purpose, {})[kind] = mode.word
            good = usable or max(chosen.values()) <= ANONYMOUS
            good = good and purposes.keys() <= world.tenants["acme"].purposes.keys()
            world.send(message | {"purposes": purposes}, Asked(who, arrived, chosen, None) if good else None)
        case 1:
            mode = Mode(modes & 3)
            asked = Asked(who, arrived, None, mode) if mode <= ANONYMOUS else None
            world.send(message | {"purposes": "*", "mode": mode.word}, asked)
        case 2:
            world.claim()
        case 3:
            world.forward_again(how)
        case 4:
            world.claim()
            world.lower(CEILINGS[how % len(CEILINGS)])
            world.look()
        case _:
            request = Erasure(f"e{who}{modes % 3}", "acme", PEOPLE[who], arrived, "tracking.requests:0:0")
            world.forward(Asked(who, arrived, None, None), request)
