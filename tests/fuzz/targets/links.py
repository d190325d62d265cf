"""Links of mailings: no answer holds an address, however disguised, nor a query or fragment that is not allow-listed.

The input is a link id, a URL and the query keys, with a form feed between them.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from urllib.parse import parse_qsl, unquote, urlsplit

from aggregates.links import LONGEST_PATH_LINK, OTHER, LinkRules, strip

DECLARED = {
    "hero": "https://shop.example/produkt",
    "pdf": "https://shop.example/Preise.pdf?page=2",
    "idn": "https://bücher.example/",
}
WORDS = (
    "https://",
    "http://",
    "shop.example",
    "/produkt",
    "?page=",
    "&lang=",
    "#",
    "%40",
    "%2540",
    "\uff20",
    "xn--",
    ":443",
)


def seeds() -> Iterator[bytes]:
    for link, url, keys in (
        ("hero", "https://shop.example/produkt?rid=1#x", ""),
        ("", "HTTPS://Shop.Example:443/produkt/?page=2&rid=erika%40example.com", "page lang"),
        ("x", "http://bücher.example:8080/a%40b/;p?lang=%C3%BC&lang=a@b", "lang"),
        ("", "https://user@[::1]:99/", "page"),
        ("", "https://shop.example/a%252540b", ""),
        ("", "https://shop.example/a\ufe6bb/%ef%b9%ab", ""),
    ):
        yield "\x0c".join((link, url, keys)).encode()


def check(data: bytes) -> None:
    link, url, keys, *_ = *data.decode("utf-8", "surrogateescape").split("\x0c"), "", ""
    allowed = [key for key in keys.split(" ") if key.isascii() and key.isalnum()]  # as tenants.toml has them
    stripped = strip(url, allowed)
    if stripped is not None:
        assert strip(stripped, allowed) == stripped, "stripping twice is stripping once"
        parts = urlsplit(stripped)
        assert not parts.fragment
        assert not parts.username
        assert {key for key, _ in parse_qsl(parts.query, keep_blank_values=True)} <= set(allowed)
    for paths in (False, True):
        found = LinkRules(DECLARED, allowed, paths).of(link or None, url or None)
        if found in (*DECLARED, OTHER):
            continue
        assert paths
        assert found == stripped
        assert len(found) <= LONGEST_PATH_LINK
        assert found.isprintable()
        assert "@" not in plain(found), "an address"


def plain(text: str) -> str:
    """What a person makes of it who undoes every encoding."""
    for _ in range(len(text)):
        undone = unicodedata.normalize("NFKC", unquote(text))
        if undone == text:
            break
        text = undone
    return text
