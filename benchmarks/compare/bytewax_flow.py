"""Bytewax: its Kafka source, one step over whole batches (`flat_map_batch`), an output; one worker.

Tuned: batches of 10,000 records from the source (1,000 by default), 4 MB fetches and a long queue in librdkafka.
Bytewax commits nothing to Kafka: its offsets lie in a recovery store, which is off unless asked for, and is off here.
"""

from __future__ import annotations

from typing import Any

import bytewax.operators as op
from bytewax.connectors.kafka import KafkaSource
from bytewax.dataflow import Dataflow
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.run import cli_main

from benchmarks.compare.work import FETCH_BYTES, Work, task


class Writer(StatelessSinkPartition[Any]):  # type: ignore[misc]  # not installed where types are checked
    """Inserts the batches that the step hands on."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def write_batch(self, items: list[Any]) -> None:
        """What the step gathered."""
        for columns, cells in items:
            self._work.insert(columns, cells)
        if items and self._work.finished:
            self._work.end()


class Sink(DynamicSink[Any]):  # type: ignore[misc]  # as above
    """One writer a worker."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def build(self, step_id: str, worker_index: int, worker_count: int) -> Writer:
        """For this worker."""
        return Writer(self._work)


def main() -> None:
    """Run to the end of the task."""
    told = task()
    work = Work(told)
    config = {
        "max.partition.fetch.bytes": str(FETCH_BYTES),
        "fetch.message.max.bytes": str(FETCH_BYTES),
        "queued.min.messages": "200000",
    }

    def tally(messages: list[Any]) -> list[Any]:
        work.many([message.value for message in messages])
        if work.full:
            return [work.take()]
        if work.finished and not told.inserts:
            work.end()
        return []

    flow = Dataflow("compare")
    source = KafkaSource([told.broker], [told.topic], tail=True, batch_size=10_000, add_config=config)
    op.output("out", op.flat_map_batch("tally", op.input("in", flow, source), tally), Sink(work))
    cli_main(flow)


if __name__ == "__main__":
    main()
