"""The audit trail: many append at once, and whoever has the store but not the key ring cannot change it unseen."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from streams.errors import SettingsError
from streams.rights.audit import Action, Audit, AuditBroken, check_text
from streams.rights.desk import Desk
from streams.stores import StoreClient
from tests.lock import Lock

pytestmark = pytest.mark.stack
WRITERS, EACH = 4, 6


@pytest.fixture(scope="module")
def desk(lock: Lock) -> Iterator[Desk]:
    with lock.desk() as opened:
        first = opened.audit.record(Action.VERIFIED, "", None, "the first line of a test", {})

        def write(writer: int) -> list[int]:
            with lock.desk(f"writer-{writer}") as mine:
                return [
                    mine.audit.record(Action.EXPIRED, "acme", bytes([writer + 1]) * 16, "a test", {"turn": turn}).number
                    for turn in range(EACH)
                ]

        with ThreadPoolExecutor(WRITERS) as pool:
            numbers = list(pool.map(write, range(WRITERS)))
        # Everybody's own lines, in order, without a gap and none lost.
        assert sorted(itertools.chain(*numbers)) == list(range(first.number + 1, first.number + 1 + WRITERS * EACH))
        yield opened


def test_lines_of_many_writers_are_one_chain(desk: Desk) -> None:
    head = desk.audit.verify()
    assert head is not None
    assert desk.audit.head() == head
    assert desk.audit.verify(head.head) == head
    mine = desk.audit.lines(100, "acme", bytes([2]) * 16, Action.EXPIRED)
    assert [(line.actor, line.detail) for line in mine] == [("rights/writer-1", {"turn": turn}) for turn in range(EACH)]
    assert desk.audit.count(Action.EXPIRED, head.number, 3600) == WRITERS * EACH
    assert desk.audit.count(Action.EXPIRED, mine[0].number - 1, 3600) < WRITERS * EACH


class Lying:
    """A store whose owner has changed what it answers about the trail."""

    def __init__(self, store: StoreClient, change: Callable[[list[Any]], list[Any]]) -> None:
        self._store, self._change = store, change

    def rows(self, doing: str, sql: str, parameters: Any = None) -> Sequence[Any]:
        rows = self._store.rows(doing, sql, parameters)
        return self._change([list(row) for row in rows]) if doing == "reading the audit trail" else rows


def _set(column: int, value: Any) -> Callable[[list[Any]], list[Any]]:
    def change(rows: list[Any]) -> list[Any]:
        for row in rows[3:4]:
            row[column] = value(row[column])
        return rows

    return change


def _renumbered(rows: list[Any]) -> list[Any]:
    """One is taken out and those after it close up."""
    return [[index + rows[0][0], *row[1:]] for index, row in enumerate(rows[:3] + rows[4:])]


def _swapped(rows: list[Any]) -> list[Any]:
    """Two lines change their places, numbers left where they were."""
    rows[3][1:], rows[4][1:] = rows[4][1:], rows[3][1:]
    return rows


CHANGES: dict[str, Callable[[list[Any]], list[Any]]] = {
    "at": _set(1, lambda at: at + 1),
    "actor": _set(2, lambda actor: f"{actor}-else"),
    "action": _set(3, lambda action: f"not_{action}"),
    "tenant": _set(4, lambda tenant: f"{tenant}x"),
    "subject": _set(5, lambda subject: ("00" if subject[:2] != "00" else "01") + subject[2:]),
    "why": _set(6, lambda why: why + "!"),
    "detail": _set(7, lambda _: '{"turn":99}'),
    "no detail": _set(7, lambda _: "gone"),
    "mac": _set(8, lambda mac: mac[:-2] + ("00" if mac[-2:] != "00" else "01")),
    "missing": lambda rows: rows[:3] + rows[4:],
    "missing at the beginning": lambda rows: rows[1:],
    "renumbered": _renumbered,
    "twice": lambda rows: rows[:4] + rows[3:],
    "swapped": _swapped,
}


@pytest.mark.parametrize("change", list(CHANGES))
def test_whatever_is_changed_is_found(desk: Desk, change: str) -> None:
    def once(rows: list[Any]) -> list[Any]:
        return CHANGES[change](rows) if rows and rows[0][0] == 1 else rows

    lying = Audit(Lying(desk.identity, once), desk.keys, "test", 60_000)  # type: ignore[arg-type]
    with pytest.raises(AuditBroken, match=r"the audit trail is broken: line [1-5] "):
        lying.verify()


def test_an_end_that_was_cut_off_is_missed_against_a_head_noted_before(desk: Desk) -> None:
    head = desk.audit.verify()
    assert head is not None

    def cut(rows: list[Any]) -> list[Any]:
        return [row for row in rows if row[0] < head.number]

    lying = Audit(Lying(desk.identity, cut), desk.keys, "test", 60_000)  # type: ignore[arg-type]
    shorter = lying.verify()  # the chain alone cannot know
    assert shorter is not None
    assert shorter.number == head.number - 1
    with pytest.raises(AuditBroken, match=f"ends at line {head.number - 1}, and line {head.number} was noted"):
        lying.verify(head.head)
    with pytest.raises(AuditBroken, match=f"line {head.number} is another one than was noted"):
        desk.audit.verify(f"{head.number}:{'00' * 32}")
    with pytest.raises(SettingsError, match="NUMBER:MAC"):
        desk.audit.verify("7:abc")


@pytest.mark.parametrize(
    "text", ["", "ab", "for erika@example.com", "for erika%40example.com", "two\nlines", "x" * 301]
)
def test_texts_that_are_kept_for_good_name_nobody(text: str) -> None:
    with pytest.raises(SettingsError, match="--why must be") as refused:
        check_text(text, "--why")
    assert "erika" not in str(refused.value)
    assert check_text("  ticket 4711 ", "--why") == "ticket 4711"
