"""Declarations of mailings: whatever of them analysts read names nobody."""

from __future__ import annotations

import json
from collections.abc import Iterator

from aggregates.links import OTHER, LinkRules
from streams.errors import BadRow
from streams.messages import parse_mailing
from tests.fuzz.samples import MAILING, TENANTS

WORDS = (*MAILING, "hero", "https://", "http://", "%40", "@", "shop.example", ":8443", "?a=b@c", "other")


def seeds() -> Iterator[bytes]:
    yield json.dumps(MAILING).encode()
    yield json.dumps(MAILING | {"sent_at": 1_795_000_000_000, "links": None, "recipients": 0}).encode()
    yield json.dumps(MAILING | {"links": {"a": "https://shop.example/@shop", "b": "https://a@b.example"}}).encode()


def check(data: bytes) -> None:
    try:
        declared = parse_mailing(data, TENANTS)
    except BadRow as why:
        assert why.__cause__ is None
        return
    assert declared == parse_mailing(data, None), "the tenants decide only whose it may be"
    assert "@" not in declared.tenant + declared.mailing + "".join(declared.links)
    rules = LinkRules(declared.links)
    for link, url in declared.links.items():
        assert rules.of(link, None) == link
        assert rules.of(None, url) in {*declared.links, OTHER}
        assert OTHER not in declared.links
