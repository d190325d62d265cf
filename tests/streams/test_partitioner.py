"""murmur2 against Kafka's published vectors and the Python clients, and the column against the single key."""

from __future__ import annotations

import numpy as np
import pytest
from aiokafka.partitioner import murmur2 as aiokafka_murmur2
from hypothesis import given
from hypothesis import strategies as st
from kafka.partitioner.default import murmur2 as kafka_python_murmur2

from streams.partitioner import message_key, murmur2, murmur2_column, partition_of, partitions_of

# org.apache.kafka.common.utils.UtilsTest.testMurmur2 (Java prints signed numbers).
PUBLISHED = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}
keys = st.binary(max_size=70) | st.binary(min_size=1_000, max_size=1_100)


@pytest.mark.parametrize(("key", "signed"), PUBLISHED.items())
def test_gives_what_kafka_publishes(key: bytes, signed: int) -> None:
    assert murmur2(key) == signed % (1 << 32)
    assert partition_of(key, 12) == (signed & 0x7FFFFFFF) % 12


@given(keys)
def test_agrees_with_the_python_clients(key: bytes) -> None:
    assert murmur2(key) == kafka_python_murmur2(key) & 0xFFFFFFFF
    assert murmur2(key) == aiokafka_murmur2(key) & 0xFFFFFFFF


@given(st.lists(keys, max_size=40), st.integers(1, 1_000))
def test_a_column_agrees_with_its_keys(column: list[bytes], partitions: int) -> None:
    assert murmur2_column(column).tolist() == [murmur2(key) for key in column]
    assert partitions_of(column, partitions).tolist() == [partition_of(key, partitions) for key in column]
    assert partitions_of(column, partitions).dtype == np.int32


def test_a_key_names_tenant_and_recipient_in_utf8() -> None:
    assert message_key("acme", "jürgen@example.com") == b"acme\x1fj\xc3\xbcrgen@example.com"
    assert message_key("a", "bc") != message_key("ab", "c")
