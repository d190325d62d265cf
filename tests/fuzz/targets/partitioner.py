"""The partitioner: a column of keys of any lengths against one key at a time, and against the Python client's."""

from __future__ import annotations

from collections.abc import Iterator

from kafka.partitioner.default import murmur2 as of_the_client

from streams.partitioner import murmur2, murmur2_column, partition_of, partitions_of


def seeds() -> Iterator[bytes]:
    yield b"\x07acme\x1ferika@example.com\x0c\x0ca\x0cab\x0cabc\x0cabcd\x0c\xff\xff\xff\xff\xff"
    yield b"\x00"


def check(data: bytes) -> None:
    partitions, keys = 1 + (data[0] if data else 0), data[1:].split(b"\x0c")
    assert murmur2_column(keys).tolist() == [murmur2(key) for key in keys]
    assert partitions_of(keys, partitions).tolist() == [partition_of(key, partitions) for key in keys]
    for key in keys:
        assert murmur2(key) == of_the_client(key) & 0xFFFFFFFF
