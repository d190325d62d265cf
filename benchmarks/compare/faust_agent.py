"""A plain Faust agent, one event at a time, as Faust's documentation shows it.

Tuned: bytes in place of Faust's own records (models and codecs only cost more), 4 MB fetches, tables in memory, no web
server, no leader topic. With inserts: `stream.take`, the documentation's way to gather (acknowledged after the insert).
One worker and `concurrency` 1: more agents in a process commit past events in flight (faust #606), and share one core.
"""

from __future__ import annotations

import asyncio
import tempfile
from typing import Any

import faust

from benchmarks.compare.work import FETCH_BYTES, Work, task

TAKE = 10_000  # a tenth of the events comes here, and a batch holds its events back from being committed


def main() -> None:
    """Run to the end of the task."""
    told = task()
    work = Work(told)
    app = faust.App(
        told.group,
        broker=f"kafka://{told.broker}",
        store="memory://",
        datadir=tempfile.mkdtemp(),
        consumer_auto_offset_reset="earliest",
        consumer_max_fetch_size=FETCH_BYTES,
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
    )
    topic = app.topic(told.topic, key_serializer="raw", value_serializer="raw", value_type=bytes)

    async def tally(stream: Any) -> None:
        async for raw in stream:
            work.one(raw)
            if work.finished:
                work.end()

    async def tally_and_insert(stream: Any) -> None:
        async for raws in stream.take(TAKE, within=1.0):
            work.many(raws)
            await asyncio.to_thread(work.flush)
            if work.finished:
                work.end()

    app.agent(topic)(tally_and_insert if told.inserts else tally)

    async def run() -> None:
        app.finalize()
        await app.start()
        await asyncio.Event().wait()

    asyncio.run(run())


if __name__ == "__main__":
    main()
