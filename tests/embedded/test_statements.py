from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.embedded.statements import Insert, Refused, judge, split

identifiers = st.sampled_from(["t", "a.t", "`odd name`", "`values`", '"q"'])
columns = st.sampled_from(["", " (a, b)", " (`format`, `values`)", " (format, select)"])
between = st.sampled_from([" ", "\n", " /* FORMAT x */ ", " -- VALUES\n", " SETTINGS max_threads = 1, x = 'FORMAT Y' "])


@given(table=identifiers, names=columns, gap=between, format=st.sampled_from(["Native", "TSV"]), data=st.binary())
def test_the_data_of_an_insert_begin_after_the_line_of_its_format(
    table: str, names: str, gap: str, format: str, data: bytes
) -> None:
    head = f"INSERT INTO {table}{names}{gap}FORMAT {format}\n".encode()
    assert split(head + data) == (head, data)


@given(data=st.text(alphabet="(),'; \nSETROLEFORMATselect", max_size=40))
def test_the_data_of_values_begin_after_the_word(data: str) -> None:
    assert split(b"insert into t (a) values" + (" " + data).encode()) == (
        b"insert into t (a) values",
        (" " + data).encode(),
    )


@given(body=st.binary())
def test_splitting_loses_nothing(body: bytes) -> None:
    assert b"".join(split(body)) == body


@pytest.mark.parametrize(
    ("canonical", "reading"),
    [
        ("INSERT INTO a.t (x, `y z`) FORMAT Native", "INSERT INTO a.t (x, `y z`) FROM INFILE '/p' FORMAT Native"),
        ("INSERT INTO t SETTINGS a = 'b' FORMAT TSV", "INSERT INTO t FROM INFILE '/p' SETTINGS a = 'b' FORMAT TSV"),
        ("INSERT INTO t FORMAT Values", "INSERT INTO t FROM INFILE '/p' FORMAT Values"),
    ],
)
def test_an_insert_with_data_reads_them_from_our_path(canonical: str, reading: str) -> None:
    insert = judge(canonical)
    assert isinstance(insert, Insert)
    assert insert.reading("/p") == reading


@pytest.mark.parametrize(
    "canonical",
    [
        "SELECT 'SET ROLE x INTO OUTFILE'",
        "INSERT INTO t SELECT 1",
        "DELETE FROM t WHERE a IN (SELECT 1)",
        "ALTER TABLE t",
    ],
)
def test_what_stands_for_itself_is_let_through(canonical: str) -> None:
    assert judge(canonical) is None


@pytest.mark.parametrize(
    "canonical",
    [
        "SET ROLE x",
        "SET DEFAULT ROLE x TO y",
        "EXECUTE AS y SELECT 1",
        "SELECT 1 INTO OUTFILE 'x'",
        "INSERT INTO t FROM INFILE 'x' FORMAT TSV",
        "INSERT INTO FUNCTION file('x') FORMAT TSV",
        "SET a = 1",
        "USE x",
        "CREATE TEMPORARY TABLE t (`a` Int8)",
        "DROP TABLE a PARALLEL WITH DROP TABLE b",
    ],
)
def test_what_no_login_may_ask_is_refused_without_its_words(canonical: str) -> None:
    with pytest.raises(Refused) as refused:
        judge(canonical)
    assert canonical not in str(refused.value)
