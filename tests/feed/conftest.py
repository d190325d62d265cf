"""A broker to feed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from kafka import KafkaAdminClient
from kafka.admin import NewTopic

from deploy.embedded.stack import Stack
from streams.feed.items import EVENTS, MAILINGS, PREFERENCES

PARTITIONS = 4


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    """A broker alone, with the topics that senders write to."""
    stack = Stack(tmp_path, "tansu", die_with_parent=True)
    stack.start(only=("broker",))
    admin = KafkaAdminClient(bootstrap_servers=stack.broker_address)
    admin.create_topics(
        [NewTopic(EVENTS, PARTITIONS, 1), NewTopic(PREFERENCES, PARTITIONS, 1), NewTopic(MAILINGS, 1, 1)]
    )
    admin.close()
    yield stack
    stack.stop()
