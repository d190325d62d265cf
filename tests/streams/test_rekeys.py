"""Root keys come and go: what a move plans, and that a key that was destroyed is not used any more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pseudonymizer.consent import Mode
from pseudonymizer.keys import KeyKind
from streams.chain import Kind
from streams.declarations import Declarations
from streams.errors import StoreUnavailable
from streams.events import EventsWork
from streams.keyring import KeyRing
from streams.keys import Keys
from streams.messages import Erasure, Rekey, encode_change
from streams.partitioner import message_key
from streams.plan import ChangesPlan, plan, states
from streams.seen import Seen
from streams.state import StateIndex
from tests.claims import NOW, Fetched, change, claim, event, tenants

OFF, ANONYMOUS, PSEUDONYMOUS, PERSONAL = Mode
ERIKA = "erika@example.com"
KEY = message_key("acme", ERIKA)
BEGAN = NOW - 3_600_000


class World:
    """A ring with two versions of the root key, and the state of one partition."""

    def __init__(self, folder: Path) -> None:
        self.ring = KeyRing.open(folder / "ring", folder / "kek")
        self.keys = Keys(self.ring)
        self.index, self.offset = StateIndex(self.keys.stub_keys), 0
        self.keys.primary("acme")
        self.ring.rotate("acme")
        self.work = EventsWork(0, 1, self.keys, self.index, Seen(), Declarations())

    def carry_out(self, *values: bytes) -> ChangesPlan:
        """One claim of changes, planned and its states written."""
        records = []
        for value in values:
            records.append(Fetched(self.offset, value, KEY))
            self.offset += 1
        which = claim(Kind.CHANGES, records, number=self.offset)
        result = plan(which, list(records), tenants(), self.index, self.keys, {})
        assert not result.bad
        self.index.put_all(states(result))
        return result

    def salts(self) -> list[tuple[int, Mode, bytes]]:
        known = self.index.state(KEY)
        assert known
        return [
            (salt.key_version, salt.level, salt.value)
            for kinds in known.purposes.values()
            for consent in kinds.values()
            for salt in consent.salts
        ]

    def row(self) -> tuple[bytes, int] | None:
        """Pseudonym and key version of an event that occurs now; None: it is only counted."""
        self.offset += 1
        acts = [event(self.offset, ERIKA)]
        table = self.work.build(claim(Kind.EVENTS, acts), list(acts), tenants()).table.to_pylist()
        found = [(row["pseudonym"], row["key_version"]) for row in table if any(row["pseudonym"])]
        assert sum(row["counted"] for row in table) == 1
        return found[0] if found else None


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def grant(mode: Mode, at: int = 0, kind: str = "open", **more: Any) -> bytes:
    value = change(0, ERIKA, {"engagement": {kind: mode}}, BEGAN + at, **more).value
    assert value
    return value


def rekey(from_version: int = 1, to_version: int = 2, remove: bool = False) -> bytes:
    return encode_change(Rekey("acme", ERIKA, from_version, to_version, remove))


def test_personal_moves_with_mapping_and_rows_and_pseudonymous_stays(world: World) -> None:
    granted = world.carry_out(grant(PERSONAL), grant(PSEUDONYMOUS, kind="click"))
    before, old = world.salts(), granted.mappings[0][3]
    assert world.row() == (old, 1)
    moved = world.carry_out(rekey())
    ((_, _, _, new, version, *_),) = moved.mappings
    assert (moved.rewrite, moved.unmap, moved.remove, version) == ({old: (new, 2)}, [old], [], 2)
    assert moved.consents == []
    assert moved.confirmations == []
    assert world.salts() == [(2, PERSONAL, before[0][2]), before[1]]
    assert world.row() == (new, 2)
    assert world.carry_out(rekey(), rekey(2, 2), rekey(2, 2, remove=True)) == ChangesPlan()


@pytest.mark.parametrize("level", [PSEUDONYMOUS, PERSONAL])
def test_with_remove_what_is_there_goes_and_the_consent_goes_on_under_another_pseudonym(
    world: World, level: Mode
) -> None:
    world.carry_out(grant(level))
    was = world.row()
    assert was
    moved = world.carry_out(rekey(remove=True))
    assert (moved.rewrite, moved.remove, moved.unmap) == ({}, [was[0]], [was[0]] if level is PERSONAL else [])
    now = world.row()
    assert now
    assert now[1] == 2
    assert [row[3] for row in moved.mappings] == ([now[0]] if level is PERSONAL else [])
    assert now[0] != was[0]
    withdrawn = world.carry_out(grant(ANONYMOUS, at=5))
    assert withdrawn.remove == [now[0]]


WITHDRAWN = change(0, ERIKA, {"engagement": {"open": ANONYMOUS}}, BEGAN + 50).value or b""
ERASED = encode_change(Erasure("r1", "acme", ERIKA, BEGAN + 60, "tracking.requests:0:1"))


@pytest.mark.parametrize("last", [WITHDRAWN, ERASED], ids=["withdrawn", "erased"])
def test_moved_and_gone_in_one_claim_both_pseudonyms_go(world: World, last: bytes) -> None:
    """Rows are rewritten first: what is then removed is under the newest pseudonym."""
    granted = world.carry_out(grant(PERSONAL))
    result = world.carry_out(rekey(), last)
    ((before, (after, _)),) = result.rewrite.items()
    assert before == granted.mappings[0][3]
    assert after in result.remove
    assert {before, after} <= set(result.unmap)
    assert world.carry_out(rekey()) == ChangesPlan(), "who has nothing is not moved"


def test_moved_twice_in_one_claim_rows_go_to_where_they_end(world: World) -> None:
    world.ring.rotate("acme")
    granted = world.carry_out(grant(PERSONAL), rekey(), rekey(2, 3))
    ((_, _, _, old, *_), (_, _, _, middle, *_), (_, _, _, new, *_)) = granted.mappings
    assert granted.rewrite == {old: (new, 3), middle: (new, 3)}
    assert granted.unmap == [old, middle]


def test_a_key_that_was_destroyed_is_not_used_within_seconds(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.keys.ROOTS_SECONDS", 0.0)
    world.carry_out(grant(PERSONAL))
    assert world.row()

    def locked(_: KeyRing) -> None:
        raise StoreUnavailable("locked")

    with monkeypatch.context() as patch:
        patch.setattr(KeyRing, "roots", locked)
        with pytest.raises(StoreUnavailable):
            world.row()  # who cannot know builds nothing
    assert world.ring.destroy(KeyKind.ROOT, "acme", 1) == 1
    assert world.row() is None
    assert world.carry_out(grant(ANONYMOUS, at=1)).remove == []
    # A grant under it that comes late maps nobody and is only counted; moved to a key that is there it holds again.
    assert world.carry_out(grant(PERSONAL, at=2)).mappings == []
    assert world.row() is None
    world.carry_out(rekey(1, 9))
    assert world.row() is None, "to a key that is not there nobody is moved"
    moved = world.carry_out(rekey())
    assert moved.rewrite == {}
    found = world.row()
    assert found
    assert (found[1], [row[3] for row in moved.mappings]) == (2, [found[0]])
