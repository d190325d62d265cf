"""A bare aiokafka loop: `getmany`, then a plain Python loop over the records.

Tuned: 4 MB fetches. Offsets are committed by itself (`enable_auto_commit`, its default); with inserts by hand after
each batch, since a commit before the insert could lose it. While an insert waits in its thread, aiokafka goes on
fetching.
"""

from __future__ import annotations

import asyncio

from aiokafka import AIOKafkaConsumer

from benchmarks.compare.work import FETCH_BYTES, Work, task


async def main() -> None:
    """Run to the end of the task."""
    told = task()
    work = Work(told)
    consumer = AIOKafkaConsumer(
        told.topic,
        bootstrap_servers=told.broker,
        group_id=told.group,
        auto_offset_reset="earliest",
        enable_auto_commit=not told.inserts,
        max_partition_fetch_bytes=FETCH_BYTES,
    )
    await consumer.start()
    while not work.finished:
        for records in (await consumer.getmany(timeout_ms=1000)).values():
            work.many([record.value for record in records])
            if work.full:
                await asyncio.to_thread(work.flush)
                if not work.finished:
                    await consumer.commit()
    work.end()


if __name__ == "__main__":
    asyncio.run(main())
