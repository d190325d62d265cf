"""Every kept input through its target again; without Atheris."""

from __future__ import annotations

import pytest

from tests.fuzz import corpus, targets


@pytest.mark.parametrize("name", targets.NAMES)
def test_no_kept_input_breaks_a_promise(name: str) -> None:
    target = targets.load(name)
    kept = corpus.kept(name)
    assert kept, "a target without a corpus tests nothing"
    for path in kept:
        try:
            target.check(path.read_bytes())
        except Exception as broken:
            raise AssertionError(f"{path.relative_to(corpus.ROOT)} breaks a promise of {name}") from broken


def test_the_corpus_stays_small_and_belongs_to_targets() -> None:
    assert {path.name for path in corpus.KEPT.iterdir()} <= set(targets.NAMES)
    assert sum(path.stat().st_size for path in corpus.KEPT.rglob("*")) < 1_000_000
