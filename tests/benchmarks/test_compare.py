"""The comparison compares the same work: what the contestants share, and Schleuse's columns, give the plain truth."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.compare.data import Truth, events, write_preferences
from benchmarks.compare.schleuse_work import Columns
from benchmarks.compare.work import Task, Work, outcome

COUNT, PEOPLE = 3_000, 500


@pytest.fixture
def task(tmp_path: Path) -> Task:
    path = tmp_path / "preferences.tsv"
    write_preferences(path, PEOPLE)
    return Task("", "", "", COUNT, str(path), inserts=False, rows_url="", counts_url="", password="")


def test_all_ways_to_do_the_work_give_the_truth(task: Task) -> None:
    truth = Truth()
    raws = [raw for _, _, raw in events("compare", COUNT, PEOPLE, truth)]

    one, many, columns = Work(task), Work(task), Columns(task)
    for raw in raws:
        one.one(raw)
    for start in range(0, COUNT, 700):
        many.many(raws[start : start + 700])
        columns.batch(list(raws[start : start + 700]))

    assert truth.rows > COUNT // 3
    assert len(truth.cells) > 40
    for work in (one, many):
        work.take()
        assert outcome(work.count, work.rows, work.sum, work.totals, work.people) == truth.outcome()
    people = {str(m): set(of["recipient"].to_list()) for (m,), of in columns.visits.all().group_by("mailing")}
    assert outcome(columns.count, columns.rows, columns.sum, columns.totals, people) == truth.outcome()
