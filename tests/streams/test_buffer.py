"""What waits for a claim: whatever the fetches bring, the records are those of the log from the position on, once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streams.buffer import Buffer
from streams.topics import EVENTS
from streams.transport import Chunk, Record
from tests.claims import Fetched


class Where:
    topic, partition = EVENTS, 0


def chunk(*offsets: int, begins: int | None = None) -> Chunk:
    return Chunk(Where, [Fetched(offset, b"") for offset in offsets], begins)


def offsets(records: list[Record]) -> list[int]:
    return [record.offset for record in records]


def test_a_chunk_that_lies_before_the_position_is_passed_over() -> None:
    buffer = Buffer(10)
    buffer.add(chunk(7, 8, 9))
    assert (offsets(buffer.records), buffer.position, buffer.age()) == ([], 10, 0.0)
    buffer.add(chunk(8, 9, 10, 11))  # fetched again from further back: what is new of it stays
    buffer.add(chunk(10, 11))
    assert (offsets(buffer.records), buffer.position) == ([10, 11], 12)


def test_a_chunk_of_an_older_fetch_leaves_no_hole() -> None:
    """After a partition was read again, chunks that were fetched before it still come: they begin later."""
    buffer = Buffer(10)
    buffer.add(chunk(50, 51))
    buffer.add(chunk(11, 12))
    assert (offsets(buffer.records), buffer.position) == ([], 10)
    buffer.add(chunk(10, 11))
    assert (offsets(buffer.records), buffer.position) == ([10, 11], 12)


def test_a_hole_that_the_log_really_has_is_believed() -> None:
    """Transaction markers and compaction leave holes: the transport says from where on a chunk speaks."""
    buffer = Buffer(10)
    buffer.add(chunk(13, 15, begins=10))
    assert (offsets(buffer.records), buffer.position) == ([13, 15], 16)
    buffer.add(chunk(18, begins=16))
    assert offsets(buffer.run(15)) == [13, 15]
    assert offsets(buffer.run(17)) == [13, 15], "a claim may end in a hole"
    assert offsets(buffer.run(12)) == []


def test_a_run_stays_until_it_is_dropped() -> None:
    buffer = Buffer(0)
    buffer.add(chunk(0, 1, 2, 3))
    assert offsets(buffer.run(1)) == offsets(buffer.run(1)) == [0, 1]
    buffer.drop(2)
    assert (offsets(buffer.records), buffer.position) == ([2, 3], 4)
    assert buffer.oldest_ms() is not None
    buffer.drop(4)
    assert (buffer.records, buffer.position, buffer.oldest_ms(), buffer.age()) == ([], 4, None, 0.0)


@given(
    st.sets(st.integers(0, 40)),
    st.integers(0, 40),
    st.lists(st.tuples(st.integers(0, 40), st.integers(1, 15), st.integers(0, 40)), max_size=12),
)
def test_whatever_comes_the_records_are_those_of_the_log(
    there: set[int], start: int, fetches: list[tuple[int, int, int]]
) -> None:
    """Chunks of any fetches in any order, and claims taken in between: nothing twice, nothing left out."""
    log = sorted(there)
    buffer, taken = Buffer(start), []
    for begins, length, claim in fetches:
        found = [offset for offset in log if begins <= offset][:length]
        if found:
            buffer.add(chunk(*found, begins=begins))
        if claim % 3 == 0:
            taken += offsets(buffer.run(claim))
            buffer.drop(claim + 1)
        expected = [offset for offset in log if start <= offset < buffer.position]
        assert taken + offsets(buffer.records) == expected
    assert buffer.position >= start
