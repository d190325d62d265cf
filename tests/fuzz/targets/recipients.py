"""Recipients: one mailbox has one canonical form, however it is spelt; what has none is refused, unrepeated."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

from pseudonymizer.recipients import MAX_CHARS, BadRecipient, canonical
from streams.partitioner import SEPARATOR, message_key

WORDS = (
    "@",
    "erika",
    "example.com",
    "xn--",
    "ß",
    "ü",
    "u\u0308",
    "İ",
    "\u212a",
    "\uff20",
    "\u3002",
    "\xad",
    "\u200d",
    " ",
)


def seeds() -> Iterator[bytes]:
    for text in ("erika@example.com", " Jürgen@Bücher.Example ", "id-4711", "a@b@c.example", "x@faß.example", "x@_y"):
        yield text.encode()


def check(data: bytes) -> None:
    text = data.decode("utf-8", "surrogatepass" if data.isascii() else "surrogateescape")
    for lower in (False, True):
        try:
            found = canonical(text, lower)
        except BadRecipient as why:
            assert not text or len(text) < 3 or text not in str(why)
            assert why.__cause__ is None
            continue
        assert canonical(found, lower) == found
        assert 1 <= len(found) <= MAX_CHARS
        assert found == found.strip()
        assert not any(unicodedata.category(char) in ("Cc", "Cs") for char in found)
        assert message_key("acme", found).split(SEPARATOR, 1) == [b"acme", found.encode()]
        same = [f" {text}\r\n", unicodedata.normalize("NFD", text), unicodedata.normalize("NFC", text)]
        local, at, domain = found.rpartition("@")
        if at:
            assert domain.isascii()
            same += [f"{local}@{domain.upper()}", f"{local}@{domain.title()}"]
            if lower and local.isascii():
                same.append(f"{local.upper()}@{domain}")
        for other in same:
            assert canonical(other, lower) == found, "another spelling of one mailbox"
