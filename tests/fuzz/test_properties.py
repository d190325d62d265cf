"""Each target on inputs made by hypothesis: its kept inputs changed as JSON, and, for the agent, its steps."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz import corpus, targets
from tests.fuzz.mutate import mutate
from tests.fuzz.targets import agent

JSON = [name for name in targets.NAMES if name not in ("agent", "links", "recipients", "user_agents", "partitioner")]
STEPS = st.tuples(st.sampled_from((0, 0, 0, 1, 2, 3, 4)), st.integers(0, 255), st.integers(0, 31), st.integers(0, 255))


@pytest.mark.parametrize("name", JSON)
def test_changed_messages_break_no_promise(name: str) -> None:
    target = targets.load(name)
    kept = [path.read_bytes() for path in corpus.kept(name)]

    @settings(max_examples=50, deadline=None)
    @given(st.sampled_from(kept), st.integers(0, 2**32), st.integers(1, 3))
    def changed(data: bytes, seed: int, times: int) -> None:
        dice = random.Random(seed)
        for _ in range(times):
            data = mutate(data, target.words, dice) or data
        target.check(data)

    changed()


@settings(max_examples=60, deadline=None)
@given(st.lists(STEPS, max_size=25))
def test_the_agent_does_what_a_plain_model_does(steps: list[tuple[int, int, int, int]]) -> None:
    agent.check(bytes(byte for step in steps for byte in step))
