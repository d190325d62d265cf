"""Words that occur nowhere else, how they could lie somewhere without a secret, and the search for them."""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import quote

import numpy as np

MODES = ("unknown", "off", "anonymous", "pseudonymous", "personal")
FEEDS = ("native", "sendgrid", "mailgun", "postmark", "ses")
HEAD = 8  # bytes by which a needle is found
_SPREAD = np.uint64(0x9E3779B97F4A7C15)
_SHIFT = np.uint64(64 - 22)


def word(of: str) -> str:
    """A word that is nowhere else, with both cases in it."""
    return f"Kanarie{of.capitalize()}{secrets.token_hex(5)}"


@dataclass(frozen=True, slots=True)
class Canary:
    """A recipient who must not be found: an address, and the sender's own number for the same person."""

    feed: str
    mode: str
    address: str
    number: str

    @classmethod
    def of(cls, feed: str, mode: str) -> Canary:
        """A new one."""
        return cls(feed, mode, f"{word(feed[:2] + mode)}@example.com", word(f"{feed[:2]}{mode}no"))

    def words(self) -> dict[str, str]:
        """What she is called, with and without the domain."""
        name = f"{self.feed} {self.mode}"
        local = self.address.partition("@")[0]
        return {f"{name}: address": self.address, f"{name}: local part": local, f"{name}: number": self.number}


def message_key(tenant: str, name: str) -> str:
    """As Kafka's records are keyed."""
    return f"{tenant}\x1f{name}"


def encodings(text: str, tenants: tuple[str, ...] = ()) -> dict[str, bytes]:
    """A text as it might lie somewhere without a secret: spelled otherwise, encoded, or hashed plainly.

    All needles have at least `HEAD` bytes. Of a digest the first 64 bits are searched, in both byte orders, so that one
    that was cut is found too.
    """
    found: dict[str, bytes] = {}
    keyed = {f"key of {tenant}": message_key(tenant, text).encode() for tenant in tenants}
    for how, raw in {
        "plain": text.encode(),
        "lower": text.lower().encode(),
        "upper": text.upper().encode(),
        **keyed,
    }.items():
        found[how] = raw
        found[f"{how}, hex"] = raw.hex().encode()
        found[f"{how}, HEX"] = raw.hex().upper().encode()
        found[f"{how}, percent"] = "".join(f"%{byte:02x}" for byte in raw).encode()
        found[f"{how}, PERCENT"] = "".join(f"%{byte:02X}" for byte in raw).encode()
        found[f"{how}, percent twice"] = "".join(f"%25{byte:02x}" for byte in raw).encode()
        found[f"{how}, quoted"] = quote(raw, safe="").encode()
        found[f"{how}, JSON"] = "".join(f"\\u{byte:04x}" for byte in raw).encode()
        found[f"{how}, HTML"] = "".join(f"&#{byte};" for byte in raw).encode()
        found[f"{how}, reversed"] = raw[::-1]
        found[f"{how}, base32"] = base64.b32encode(raw)[:-8]
        for shift in range(3):  # base64 of a text in the middle of another: what does not depend on its neighbours
            inner = base64.b64encode(b"\0" * shift + raw)[4 if shift else 0 : -4]
            found[f"{how}, base64 at {shift}"] = inner
            found[f"{how}, URL-safe base64 at {shift}"] = inner.translate(bytes.maketrans(b"+/", b"-_"))
        for name in ("md5", "sha1", "sha256"):
            digest = hashlib.new(name, raw).digest()
            found[f"{how}, {name}"] = digest[:8]
            found[f"{how}, {name} as a number"] = digest[:8][::-1]
            found[f"{how}, {name} of 128 bits as a number"] = digest[8:16][::-1]
            found[f"{how}, {name}, hex"] = digest.hex()[:16].encode()
            found[f"{how}, {name}, HEX"] = digest.hex()[:16].upper().encode()
            found[f"{how}, {name}, base64"] = base64.b64encode(digest)[:10]
    for codec in ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"):
        found[codec] = text.encode(codec)
        found[f"{codec}, lower"] = text.lower().encode(codec)
    return found


class Search:
    """Looks for every encoding of every word at once: bytes are read by windows of `HEAD`, at every offset."""

    def __init__(self, words: Mapping[str, str], tenants: tuple[str, ...] = ()) -> None:
        self._needles: dict[bytes, list[tuple[bytes, str, str]]] = {}
        for canary, text in words.items():
            for how, needle in encodings(text, tenants).items():
                if len(needle) < HEAD:
                    raise ValueError(f"{canary} is too short to be looked for ({how})")
                self._needles.setdefault(needle[:HEAD], []).append((needle, canary, how))
        self._maybe = np.zeros(1 << 22, bool)
        self._maybe[_slots(np.frombuffer(b"".join(self._needles), np.uint64))] = True

    def __len__(self) -> int:
        return sum(map(len, self._needles.values()))

    def _hits(self, raw: bytes) -> Iterator[tuple[str, str]]:
        for shift in range(min(HEAD, max(0, len(raw) - HEAD + 1))):
            windows = np.frombuffer(raw, np.uint64, (len(raw) - shift) // HEAD, shift)
            for index in np.flatnonzero(self._maybe[_slots(windows)]).tolist():
                at = shift + HEAD * index
                for needle, canary, how in self._needles.get(raw[at : at + HEAD], ()):
                    if raw.startswith(needle, at):
                        yield canary, how

    def found(self, blobs: Mapping[str, bytes]) -> list[tuple[str, str, str]]:
        """(blob, canary, encoding) of everything that is there, each once."""
        return sorted({(name, canary, how) for name, raw in blobs.items() for canary, how in self._hits(raw)})


def _slots(windows: np.ndarray) -> np.ndarray:
    return (windows * _SPREAD) >> _SHIFT
