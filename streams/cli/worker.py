"""`schleuse worker`."""

from __future__ import annotations

import os
import sys

import click

from streams.settings import Settings


@click.command()
@click.pass_obj
def worker(settings: Settings) -> None:
    """Run a worker until it is told to stop (SIGTERM or Ctrl-C).

    It takes part in the consumer group and owns the partitions that the group gives it. Exit code 0 after a stop, 1
    after a failure: let whatever runs it start it again. No event is lost or counted twice by either.
    """
    # A batch is built by one thread: more of them in polars cost processor and gain no time. Read when it is imported.
    os.environ.setdefault("POLARS_MAX_THREADS", "1")
    from streams import logs  # noqa: PLC0415  # Faust takes a second to import; --help should not
    from streams import worker as process  # noqa: PLC0415

    logs.configure(settings.log_level)
    sys.exit(process.run(settings))
