"""Migrations: what is pending is a function of the files and the list, and nothing doubtful is applied."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.migrate import Applied, Migration, MigrationRefused, files, plan, statements
from streams.stores import Store

THREE = [Migration(n, f"m{n}", f"sha{n}", ("CREATE a", "CREATE b", "CREATE c")) for n in (1, 2, 3)]


def noted(number: int, done: int, sha256: str | None = None) -> Applied:
    return Applied(number, f"m{number}", sha256 or f"sha{number}", done)


@given(st.integers(0, 9))
def test_wherever_a_run_was_cut_off_the_next_goes_on_there(position: int) -> None:
    applied = [
        noted(1 + n, min(3, position - 3 * n)) for n in range(3) if position > 3 * n or (position == 0 and n == 0)
    ]
    left = [(one.migration.number, one.done) for one in plan(THREE, applied)]
    rest = [(n + 1, max(0, min(3, position - 3 * n))) for n in range(3)]
    assert left == [(number, done) for number, done in rest if done < 3]
    assert all(one.begun == (one.migration.number in {line.number for line in applied}) for one in plan(THREE, applied))


@pytest.mark.parametrize(
    ("applied", "said"),
    [
        ([noted(1, 3, "other")], "001_m1 is not the file that was applied"),
        ([noted(1, 3), Applied(2, "renamed", "sha2", 3)], "002_m2 is not the file that was applied"),
        ([noted(1, 3), noted(2, 3), noted(3, 3), noted(4, 1)], "004 was applied by a newer release"),
        ([noted(1, 2), noted(2, 3)], "after 001_m1 was applied before it was done"),
        ([noted(2, 3)], "after 001_m1 was applied before it was done"),
    ],
)
def test_what_does_not_fit_together_is_refused(applied: list[Applied], said: str) -> None:
    with pytest.raises(MigrationRefused, match=said):
        plan(THREE, applied)


def test_statements_are_cut_at_semicolons_at_line_ends_only() -> None:
    text = "-- with; one;\n\nCREATE TABLE a (\n  x String -- 'one; two'\n);\nINSERT INTO a\n\nVALUES (';');\n-- end;\n"
    assert list(statements(text)) == ["CREATE TABLE a (\n  x String -- 'one; two'\n)", "INSERT INTO a\n\nVALUES (';')"]
    with pytest.raises(MigrationRefused, match="does not end"):
        list(statements("CREATE TABLE a (x String)\n"))


def test_the_files_of_both_stores_are_read() -> None:
    for store in Store:
        found = files(store)
        assert found
        assert all(
            statement.split()[0] in ("CREATE", "ALTER", "INSERT", "DROP")
            for one in found
            for statement in one.statements
        )
