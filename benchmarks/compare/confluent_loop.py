"""A bare confluent-kafka loop: `consume` in batches, then a plain Python loop over the messages.

Tuned: 10,000 messages a call, 4 MB fetches and a long queue in librdkafka (which fetches in threads of its own, also
while an insert is waited for). Offsets are committed by itself (`enable.auto.commit`, its default); with inserts by
hand after each batch.
"""

from __future__ import annotations

from confluent_kafka import Consumer

from benchmarks.compare.work import FETCH_BYTES, Work, task


def main() -> None:
    """Run to the end of the task."""
    told = task()
    work = Work(told)
    consumer = Consumer(
        {
            "bootstrap.servers": told.broker,
            "group.id": told.group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": not told.inserts,
            "max.partition.fetch.bytes": FETCH_BYTES,
            "fetch.message.max.bytes": FETCH_BYTES,
            "queued.min.messages": 200_000,
        }
    )
    consumer.subscribe([told.topic])
    while not work.finished:
        messages = consumer.consume(10_000, timeout=1.0)
        if not messages:
            continue
        work.many([message.value() for message in messages])
        if work.full:
            work.flush()
            if not work.finished:
                consumer.commit(asynchronous=False)
    work.end()


if __name__ == "__main__":
    main()
