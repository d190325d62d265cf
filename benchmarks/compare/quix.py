"""Quix Streams: a StreamingDataFrame with one step; with inserts a sink of its own kind (`BaseSink`).

Tuned: keys and values as bytes, 4 MB fetches and a long queue in librdkafka, no topics or changelogs of its own. With
inserts the checkpoint comes every BATCH events (`commit_every`), which is when Quix has a sink write.
"""

from __future__ import annotations

import tempfile
from typing import Any

from quixstreams import Application
from quixstreams.sinks.base import BaseSink

from benchmarks.compare.work import BATCH, FETCH_BYTES, Work, task


class Tally(BaseSink):  # type: ignore[misc]  # not installed where types are checked
    """Takes each event, and inserts at each checkpoint."""

    def __init__(self, work: Work, app: Application) -> None:
        super().__init__(on_client_connect_success=lambda: None)
        self._work, self._app = work, app

    def add(self, value: bytes, **_: Any) -> None:
        """One event."""
        self._work.one(value)
        if self._work.finished:
            self._app.stop()  # closes the last checkpoint

    def flush(self) -> None:
        """A checkpoint."""
        self._work.flush()
        if self._work.finished:
            self._work.end()


def main() -> None:
    """Run to the end of the task."""
    told = task()
    work = Work(told)
    app = Application(
        broker_address=told.broker,
        consumer_group=told.group,
        auto_offset_reset="earliest",
        commit_every=BATCH if told.inserts else 0,
        auto_create_topics=False,
        use_changelog_topics=False,
        state_dir=tempfile.mkdtemp(),
        loglevel="WARNING",
        consumer_extra_config={
            "max.partition.fetch.bytes": FETCH_BYTES,
            "fetch.message.max.bytes": FETCH_BYTES,
            "queued.min.messages": 200_000,
        },
    )
    topic = app.topic(told.topic, key_deserializer="bytes", value_deserializer="bytes")
    frame = app.dataframe(topic)

    def tally(raw: bytes) -> None:
        work.one(raw)
        if work.finished:
            work.end()

    if told.inserts:
        frame.sink(Tally(work, app))
    else:
        frame.update(tally)
    app.run()


if __name__ == "__main__":
    main()
