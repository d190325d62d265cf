"""What the ledger and the mappings say of a person opens with its key only, also what earlier releases wrote."""

from __future__ import annotations

import orjson
import pytest

from pseudonymizer.sealing import SealBroken, seal
from streams.ledger import open_proof, open_recipient, proof_text, seal_proof, seal_recipient

KEY, PSEUDONYM, NUMBER = bytes(range(32)), bytes(range(16)), "tracking.preferences:3:17"
PROOF = {"source": "form", "text_version": "7", "evidence": "confirmed by erika@example.com", "conditional": False}


def test_a_proof_opens_in_its_place_only() -> None:
    stored = seal_proof(KEY, proof_text(PROOF), NUMBER)
    assert open_proof(KEY, stored, NUMBER) == PROOF
    assert b"erika" not in stored
    assert len(stored) == len(seal_proof(KEY, proof_text({"source": "x"}), NUMBER)), "nothing is seen of its length"
    for key, piece, number in ((bytes(32), stored, NUMBER), (KEY, stored, "other"), (KEY, stored[:-1], NUMBER)):
        with pytest.raises(SealBroken):
            open_proof(key, piece, number)


def test_what_earlier_releases_wrote_is_read_as_it_is() -> None:
    assert open_proof(KEY, b"", NUMBER) is None
    assert open_proof(KEY, orjson.dumps(PROOF), NUMBER) == PROOF
    assert open_recipient(KEY, seal(KEY, "jürgen@example.com".encode(), PSEUDONYM, bytes(12)), PSEUDONYM) == (
        "jürgen@example.com"
    )


def test_a_mapping_shows_no_length() -> None:
    sealed = [seal_recipient(KEY, who, PSEUDONYM) for who in ("a@b.de", f"{'x' * 64}@{'y' * 180}.example")]
    assert len({len(piece) for piece in sealed}) == 1
    assert open_recipient(KEY, sealed[0], PSEUDONYM) == "a@b.de"
