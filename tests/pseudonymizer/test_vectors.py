"""Every vector on the published page, checked."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pseudonymizer.keys import encode, purpose_key
from pseudonymizer.pseudonyms import Pseudonymizer, blind_index, event_hash, event_hashes, visitor_seed, visitor_seeds
from pseudonymizer.recipients import BadRecipient, canonical
from pseudonymizer.sealing import open_sealed, open_text, seal, seal_text
from pseudonymizer.siphash import Messages

PAGE = Path(__file__).parents[2] / "docs" / "test-vectors.md"
Vector = dict[str, Any]
unhex = bytes.fromhex


def _canonical(v: Vector) -> None:
    if v["canonical"] is None:
        with pytest.raises(BadRecipient):
            canonical(v["recipient"], v["lower_local"])
    else:
        assert canonical(v["recipient"], v["lower_local"]) == v["canonical"]


def _encode(v: Vector) -> None:
    assert encode(*map(unhex, v["parts"])).hex() == v["encoded"]


def _purpose_key(v: Vector) -> None:
    assert purpose_key(unhex(v["root"]), v["tenant"], v["purpose"], v["version"]).hex() == v["key"]


def _pseudonym(v: Vector) -> None:
    assert Pseudonymizer(unhex(v["key"])).pseudonym(unhex(v["salt"]), v["recipient"]).hex() == v["pseudonym"]


def _blind_index(v: Vector) -> None:
    assert blind_index(unhex(v["key"]), v["tenant"], v["recipient"]).hex() == v["blind_index"]


def _visitor_seed(v: Vector) -> None:
    assert visitor_seed(unhex(v["secret"]), v["recipient"]).hex() == v["seed"]
    column = visitor_seeds([unhex(v["secret"])], np.zeros(2, np.int64), Messages.of([v["recipient"].encode()] * 2))
    assert column.tobytes().hex() == v["seed"] * 2


def _event_hash(v: Vector) -> None:
    assert event_hash(unhex(v["key"]), v["tenant"], v["event_id"]) == v["hash"]
    ids = Messages.of([v["event_id"].encode()])
    assert event_hashes(unhex(v["key"]), [v["tenant"]], np.zeros(1, np.int64), ids).tolist() == [v["hash"]]


def _seal(v: Vector) -> None:
    key, aad, plaintext = unhex(v["key"]), unhex(v["aad"]), unhex(v["plaintext"])
    assert seal(key, plaintext, aad, unhex(v["nonce"])).hex() == v["sealed"]
    assert open_sealed(key, unhex(v["sealed"]), aad) == plaintext


def _seal_text(v: Vector) -> None:
    key, aad = unhex(v["key"]), unhex(v["aad"])
    assert seal_text(key, v["text"], aad, unhex(v["nonce"])).hex() == v["sealed"]
    assert open_text(key, unhex(v["sealed"]), aad) == v["text"]


CHECKS: dict[str, Callable[[Vector], None]] = {
    "canonical": _canonical,
    "encode": _encode,
    "purpose_key": _purpose_key,
    "pseudonym": _pseudonym,
    "blind_index": _blind_index,
    "visitor_seed": _visitor_seed,
    "event_hash": _event_hash,
    "seal": _seal,
    "seal_text": _seal_text,
}


def published() -> dict[str, list[Vector]]:
    blocks = re.findall(r"^```json (\w+)\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    return {name: json.loads(text) for name, text in blocks}


def test_the_page_has_vectors_of_every_function_and_of_no_other() -> None:
    found = published()
    assert set(found) == set(CHECKS)
    assert all(len(vectors) >= 2 for vectors in found.values())


@pytest.mark.parametrize("name", CHECKS)
def test_every_published_vector_holds(name: str) -> None:
    for vector in published()[name]:
        CHECKS[name](vector)
