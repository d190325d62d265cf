"""An attack on both stores' files without the key ring, by somebody who has a list of addresses and all the time.

He is given pairs of addresses: one of a recipient who is in the stores, one of a decoy who is not, in an order that he
does not know, and says of each pair which is the recipient. Nothing here is Schleuse's own code. Every idea gives each
address points; more points is the recipient, equal points is a coin. The ideas:

- *plain*, *hashed*: the address, in every spelling and joined with what he knows (tenants, mailings, event ids), under
  every usual hash without a key, also those of ClickHouse
- *salted*: the same with what lies in the stores as salt or key (HMAC, keyed BLAKE2, in front, behind): pseudonyms,
  blind indexes, ids of preferences, seals, hashes of settings, names, visitor hashes
- *visitor*: the members of the unique sets, made anew from seeds that could be guessed
- *length*: whether something sealed has just the length that this address would give
- *partition*: how many rows lie where Kafka's public partitioner puts the address

A hash is looked for at every offset of every table, 64 bits of it, from both ends and in both byte orders: the members
of the sets of visitor hashes lie there too.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import random
import subprocess
import sys
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

SALTS_A_COLUMN = 40
"""So many different values of every column are tried as salts: who salts by row is caught by any of them."""
SHORTEST = 8
"""Bytes that mean something when they are found: `bo7` stands somewhere in megabytes of ciphertext by chance."""
_MIX = np.uint64(0x9E3779B97F4A7C15)
_SHIFT = np.uint64(64 - 25)
_UNKEYED = ("md5", "sha1", "sha224", "sha256", "sha384", "sha512", "sha3_256", "blake2b", "blake2s")
_NUMBERS = (
    "sipHash64(x)", "sipHash64Keyed((toUInt64(0), toUInt64(0)), x)", "cityHash64(x)", "farmHash64(x)", "metroHash64(x)",
    "xxHash64(x)", "xxh3(x)", "murmurHash2_64(x)", "murmurHash3_64(x)", "halfMD5(x)",
)  # fmt: skip
_TEXTS = ("sipHash128(x)", "sipHash128Keyed((toUInt64(0), toUInt64(0)), x)", "murmurHash3_128(x)")
# A recipient is in the cell `all` of each kind, as a human or as a machine.
_CELLS = "[('open', 'human'), ('open', 'machine'), ('click', 'human'), ('click', 'machine')]"


@dataclass(frozen=True)
class Loot:
    """What was stolen, and what everybody knows: tables in binary, columns value by value, names, event ids."""

    tables: Mapping[str, bytes]
    columns: Mapping[str, Sequence[bytes]]
    tenants: Sequence[str]
    mailings: Sequence[str]
    event_ids: Sequence[str]
    keys: Sequence[bytes] = ()
    """Without the key ring: none."""


class _Windows:
    """Eight bytes at every offset of every table."""

    def __init__(self, blobs: Iterable[bytes]) -> None:
        parts = [
            np.frombuffer(raw, np.uint64, (len(raw) - shift) // 8, shift)
            for raw in blobs
            for shift in range(min(8, max(0, len(raw) - 7)))
        ]
        self._all = np.unique(np.concatenate(parts))
        self._maybe = np.zeros(1 << 25, bool)
        self._maybe[(self._all * _MIX) >> _SHIFT] = True

    def holds(self, words: np.ndarray) -> np.ndarray:
        """Whether each of these is among them. Fewer than four different bytes is no hash."""
        found = np.flatnonzero(self._maybe[(words * _MIX) >> _SHIFT])
        at = np.searchsorted(self._all, words[found]).clip(max=len(self._all) - 1)
        found = found[self._all[at] == words[found]]
        result = np.zeros(len(words), bool)
        result[[n for n in found.tolist() if len(set(words[n].tobytes())) > 3]] = True
        return result


class Attack:
    """One attacker with his loot. `points` of a list of addresses, by idea."""

    def __init__(self, loot: Loot) -> None:
        self.loot = loot
        self._windows = _Windows(loot.tables.values())
        values = (value for column in loot.columns.values() for value in list(dict.fromkeys(column))[:SALTS_A_COLUMN])
        known = [word.encode() for word in (*loot.tenants, *loot.mailings)]
        self.salts = [s for s in dict.fromkeys([*values, *known, bytes(16), bytes(32)]) if s]

    def points(self, names: Sequence[str], ideas: Iterable[str] = ()) -> dict[str, np.ndarray]:
        """idea -> points of each address; all ideas unless some are named."""
        all_: dict[str, Callable[[Sequence[str]], np.ndarray]] = {
            "plain": self._plain,
            "hashed": self._hashed,
            "salted": self._salted,
            "visitor": self._visitor,
            "length": self._length,
            "partition": self._partition,
        }
        return {idea: all_[idea](names) for idea in ideas or all_}

    # --- by what lies there ---

    def _count(self, names: Sequence[str], made: Callable[[str], Iterator[bytes]]) -> np.ndarray:
        """How many of the hashes of each name lie somewhere."""
        points = np.zeros(len(names), np.int64)
        for number, name in enumerate(names):
            digests = [digest for digest in made(name) if len(digest) >= 8]
            words = np.frombuffer(b"".join(_pieces(digest) for digest in digests), np.uint64)
            points[number] = int(self._windows.holds(words).sum())
        return points

    def _plain(self, names: Sequence[str]) -> np.ndarray:
        blobs = [raw.lower() for raw in self.loot.tables.values()]
        points = np.zeros(len(names), np.int64)
        for number, name in enumerate(names):
            local = name.partition("@")[0]
            for raw in (name.encode(), local.encode(), name.encode("utf-16-le"), name.encode("utf-16-be")):
                packed = [raw, raw.hex().encode(), raw[::-1], base64.b64encode(raw)[:-4], base64.b32encode(raw)[:-8]]
                pieces = {piece.lower() for piece in packed if len(piece) >= SHORTEST}
                points[number] += sum(piece in blob for piece in pieces for blob in blobs)
        return points

    def _spellings(self, name: str) -> Iterator[bytes]:
        """The address, its local part and its domain in every case, joined with what is known of the sender."""
        local, _, domain = name.partition("@")
        for text in dict.fromkeys(
            (name, name.lower(), name.upper(), local, local.lower(), f"mailto:{name}", f"<{name}>")
        ):
            yield text.encode()
        yield name.encode("utf-16-le")
        yield f"{local}@{domain.lower()}\n".encode()
        for known in (*self.loot.tenants, *self.loot.mailings):
            for between in ("", "\x1f", ":", "|", "/", "\0", "-", ",", "\n"):
                yield f"{known}{between}{name}".encode()
                yield f"{name}{between}{known}".encode()
            yield _prefixed(known.encode(), name.encode())
            yield _prefixed(name.encode(), known.encode())
        for tenant in self.loot.tenants:
            for mailing in self.loot.mailings:
                yield f"{tenant}\x1f{mailing}\x1f{name}".encode()
                yield _prefixed(tenant.encode(), mailing.encode(), name.encode())
        yield _prefixed(name.encode())

    def _hashed(self, names: Sequence[str]) -> np.ndarray:
        def made(name: str) -> Iterator[bytes]:
            for text in self._spellings(name):
                for kind in _UNKEYED:
                    yield hashlib.new(kind, text).digest()
                for size in (8, 16, 32):
                    yield hashlib.blake2b(text, digest_size=size).digest()
                yield hashlib.sha256(hashlib.sha256(text).digest()).digest()
                yield hashlib.md5(hashlib.md5(text).hexdigest().encode()).digest()
                yield zlib.crc32(text).to_bytes(4, "little") * 2
            for number in self.loot.event_ids[:200]:
                yield hashlib.sha256(f"{name}{number}".encode()).digest()
                yield hashlib.blake2b(_prefixed(name.encode(), number.encode()), digest_size=8).digest()
                yield hashlib.md5(f"{number}{name}".encode()).digest()

        return self._count(names, made) + self._in_hex(names) + self._of_clickhouse(names)

    def _in_hex(self, names: Sequence[str]) -> np.ndarray:
        """Digests written out. Eight digits (32 bits) lie somewhere by chance: the next eight have to be there too."""
        points = np.zeros(len(names), np.int64)
        for number, name in enumerate(names):
            digits = [hashlib.new(kind, text).hexdigest()[:16] for text in self._spellings(name) for kind in _UNKEYED]
            for case in (str.lower, str.upper):
                halves = np.frombuffer("".join(map(case, digits)).encode(), np.uint64).reshape(-1, 2)
                points[number] += int((self._windows.holds(halves[:, 0]) & self._windows.holds(halves[:, 1])).sum())
        return points

    def _of_clickhouse(self, names: Sequence[str]) -> np.ndarray:
        """The store's own hash functions, asked of the store's own engine."""
        rows = [(n, text.hex()) for n, name in enumerate(names) for text in list(self._spellings(name))[:60]]
        listed = "\n".join(f"{n}\t{text}" for n, text in rows)
        functions = [f"hex(reinterpretAsFixedString({f}))" for f in _NUMBERS] + [f"hex({f})" for f in _TEXTS]
        sql = (
            f"SELECT arrayJoin([{', '.join(functions)}]), n FROM "
            "(SELECT n, unhex(t) AS x FROM file('FILE', 'TSV', 'n UInt32, t String'))"
        )
        points = np.zeros(len(names), np.int64)
        lines = [line.split("\t") for line in _engine(sql, listed).decode().splitlines()]
        digests = [(int(n), bytes.fromhex(text)) for text, n in lines]
        digests = [(n, digest) for n, digest in digests if len(digest) >= 8]
        words = np.frombuffer(b"".join(_pieces(digest) for _, digest in digests), np.uint64)
        owner = np.repeat([n for n, _ in digests], [len(_pieces(digest)) // 8 for _, digest in digests])
        np.add.at(points, owner[self._windows.holds(words)], 1)
        return points

    def _salted(self, names: Sequence[str]) -> np.ndarray:
        def made(name: str) -> Iterator[bytes]:
            for text in (
                name.encode(),
                *(_prefixed(tenant.encode(), name.encode()) for tenant in self.loot.tenants[:1]),
            ):
                for key in (*self.salts, *self.loot.keys):
                    yield hmac.digest(key, text, "sha256")
                    yield hashlib.blake2b(text, key=key[:64], digest_size=16).digest()
            for salt in self.salts:
                yield hashlib.sha256(salt + name.encode()).digest()
                yield hashlib.sha256(name.encode() + salt).digest()
                yield hashlib.md5(salt + name.encode()).digest()
                yield hmac.digest(bytes(32), _prefixed(salt, name.encode()), "sha256")  # a pseudonym under no key
            for tenant in self.loot.tenants[1:]:
                for key in self.loot.keys:
                    yield hmac.digest(key, _prefixed(tenant.encode(), name.encode()), "sha256")

        return self._count(names, made)

    def _visitor(self, names: Sequence[str]) -> np.ndarray:
        """Members of the sets: SipHash of the cell under a seed of the recipient. Which seed?"""
        seeds: list[tuple[int, bytes]] = []
        keyed: list[tuple[int, bytes, bytes]] = []  # with SipHash, which the engine makes itself
        for number, name in enumerate(names):
            raw = name.encode()
            guesses = [hashlib.new(kind, raw).digest()[:16] for kind in _UNKEYED]
            guesses += [hashlib.blake2b(raw, digest_size=16).digest(), raw[:16].ljust(16, b"\0")]
            guesses += [hashlib.blake2b(raw, key=key[:64], digest_size=16).digest() for key in self.loot.keys]
            keyed += [(number, key[:16].ljust(16, b"\0"), raw) for key in (*self.loot.keys, *self.salts)]
            salts = [salt for salt in self.salts if len(salt) >= 8 or salt.isalnum()]
            guesses += [hashlib.blake2b(raw, key=salt[:64], digest_size=16).digest() for salt in salts]
            guesses += [hmac.digest(salt, raw, "sha256")[:16] for salt in salts if salt.isalnum()]
            seeds += [(number, guess) for guess in guesses]
        halves = "(reinterpretAsUInt64(substring({0}, 1, 8)), reinterpretAsUInt64(substring({0}, 9)))"
        sql = (
            f"SELECT n, sipHash64Keyed({halves.format('seed')}, c.1, 'all', '', c.2) FROM "
            f"(SELECT n, if(x = '', toFixedString(k, 16), sipHash128ReferenceKeyed({halves.format('k')}, x)) AS seed "
            "FROM "
            "(SELECT n, unhex(t) AS k, unhex(name) AS x FROM file('FILE', 'TSV', 'n UInt32, t String, name String'))) "
            f"ARRAY JOIN {_CELLS} AS c FORMAT RowBinary"
        )
        rows = [f"{n}\t{seed.hex()}\t" for n, seed in seeds] + [f"{n}\t{k.hex()}\t{x.hex()}" for n, k, x in keyed]
        answer = _engine(sql, "\n".join(rows))
        table = np.frombuffer(answer, np.dtype([("n", "<u4"), ("hash", "<u8")]))
        points = np.zeros(len(names), np.int64)
        words = np.ascontiguousarray(table["hash"])
        np.add.at(points, table["n"][self._windows.holds(words) | self._windows.holds(words.byteswap())], 1)
        return points

    # --- by what can be seen of it ---

    def _length(self, names: Sequence[str]) -> np.ndarray:
        """How many sealed values are as long as this address sealed (GCM adds 12 and 16 bytes)."""
        points = np.zeros(len(names), np.int64)
        for name, column in self.loot.columns.items():
            if name.endswith((".sealed", ".proof")):
                lengths = Counter(map(len, column))
                points += np.array([lengths[len(who.encode()) + 28] for who in names])
        return points

    def _partition(self, names: Sequence[str]) -> np.ndarray:
        """How many rows lie on the partition of this address; of four partitions, as the claims say."""
        points = np.zeros(len(names), np.int64)
        partitions = 1 + max(int.from_bytes(n, "little") for n in self.loot.columns["analytics.claims.partition"])
        where = [_murmur2(f"{self.loot.tenants[0]}\x1f{name}".encode()) % partitions for name in names]
        for table in ("identity.consents", "identity.recipients", "analytics.engagement"):
            numbers = self.loot.columns[f"{table}.partition"]
            mine = self.loot.columns[f"{table}.tenant"]
            rows = Counter(
                int.from_bytes(n, "little")
                for n, tenant in zip(numbers, mine, strict=True)
                if tenant == self.loot.tenants[0].encode()
            )
            points += np.array([rows[number] for number in where])
        return points


def right(recipients: np.ndarray, decoys: np.ndarray, seed: int) -> int:
    """How many pairs are told right; equal points: a coin."""
    coin = random.Random(seed)
    return sum(bool(a > b or (a == b and coin.random() < 0.5)) for a, b in zip(recipients, decoys, strict=True))


def _pieces(digest: bytes) -> bytes:
    """Eight bytes of either end and of the first 128 bits, in both byte orders."""
    parts = dict.fromkeys((digest[:8], digest[8:16], digest[-8:]))
    return b"".join(part + part[::-1] for part in parts if len(part) == 8)


def _prefixed(*parts: bytes) -> bytes:
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def _murmur2(data: bytes) -> int:
    """Kafka's: 31 bits."""
    m, mask = 0x5BD1E995, 0xFFFFFFFF
    h = 0x9747B28C ^ len(data)
    for at in range(0, len(data) & ~3, 4):
        k = int.from_bytes(data[at : at + 4], "little") * m & mask
        k = (k ^ k >> 24) * m & mask
        h = (h * m & mask) ^ k
    if rest := data[len(data) & ~3 :]:
        h = (h ^ int.from_bytes(rest, "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return (h ^ h >> 15) & 0x7FFFFFFF


def _engine(sql: str, rows: str) -> bytes:
    """Ask ClickHouse itself, in a process of its own, about these rows."""
    with tempfile.NamedTemporaryFile("w", suffix=".tsv") as file:
        file.write(rows + "\n")
        file.flush()
        code = "import sys, chdb; sys.stdout.buffer.write(chdb.query(sys.argv[1], 'TSVRaw').bytes())"
        command = [sys.executable, "-c", code, sql.replace("FILE", file.name)]
        done = subprocess.run(command, capture_output=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr.decode()[-500:]
        return done.stdout
