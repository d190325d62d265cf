"""Which partition a recipient's records lie on: Kafka's default partitioner over our message key.

The key is the tenant, `\\x1f`, and the recipient in canonical form, in UTF-8; the hash is murmur2 as Kafka's Java
client has it (`org.apache.kafka.common.utils.Utils.murmur2`, seed 0x9747b28c, then `toPositive`). librdkafka does the
same only when told to (`partitioner=murmur2_random`). One key or a column of them: both forms agree on every input.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

SEPARATOR = b"\x1f"  # an id holds no control character, so a key can be taken apart in one way only
_SEED, _M, _R = 0x9747B28C, 0x5BD1E995, 24
_MASK = 0xFFFFFFFF


def message_key(tenant: str, canonical: str) -> bytes:
    """Key of every record about one recipient. `canonical` is what canonicalisation gave, never the raw string."""
    return tenant.encode() + SEPARATOR + canonical.encode()


def murmur2(key: bytes) -> int:
    """Kafka's murmur2 of a key, as an unsigned 32-bit number (Java prints the same bits signed)."""
    h = _SEED ^ len(key)
    whole = len(key) & ~3
    for at in range(0, whole, 4):
        k = int.from_bytes(key[at : at + 4], "little") * _M & _MASK
        k = (k ^ k >> _R) * _M & _MASK
        h = h * _M & _MASK ^ k
    if whole < len(key):
        h = (h ^ int.from_bytes(key[whole:], "little")) * _M & _MASK
    h = (h ^ h >> 13) * _M & _MASK
    return h ^ h >> 15


def partition_of(key: bytes, partitions: int) -> int:
    """Partition on which a record with this key lies; `partitions` is the topic's count, at least 1."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions


def partitions_of(keys: list[bytes], partitions: int) -> NDArray[np.int32]:
    """`partition_of` for a column of keys of any lengths: 0.1 to 0.2 µs a key. Returns int32[len(keys)]."""
    hashes = murmur2_column(keys)
    return ((hashes & np.uint32(0x7FFFFFFF)) % np.uint32(partitions)).astype(np.int32)


def murmur2_column(keys: list[bytes]) -> NDArray[np.uint32]:
    """`murmur2` for a column of keys. Works word by word through all keys at once, the longest first, so that those
    which still have a word are always at the front. Memory: a few times the size of the keys.
    """
    length = np.fromiter(map(len, keys), np.int64, len(keys))
    start = np.cumsum(length) - length
    joined = b"".join(keys) + b"\0\0\0\0"
    # A 32-bit word at every byte, without copying.
    words: NDArray[Any] = np.ndarray(len(joined) - 3, "<u4", joined, strides=(1,))
    order = np.argsort(-length, kind="stable")
    length, start = length[order], start[order]
    m, r = np.uint32(_M), np.uint32(_R)
    h = np.uint32(_SEED) ^ length.astype(np.uint32)
    whole = length >> 2
    for word in range(int(whole[0]) if len(keys) else 0):
        still = int(np.searchsorted(-whole, -word))  # how many keys have more than `word` whole words
        k = words[start[:still] + 4 * word] * m
        k = (k ^ k >> r) * m
        h[:still] = h[:still] * m ^ k
    rest = length & 3
    tail = words[start + 4 * whole] & ((np.uint32(1) << (8 * rest).astype(np.uint32)) - np.uint32(1))
    h = np.where(rest > 0, (h ^ tail) * m, h)
    h = (h ^ h >> np.uint32(13)) * m
    result = np.empty_like(h)
    result[order] = h ^ h >> np.uint32(15)
    return result
