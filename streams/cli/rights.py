"""`schleuse rights`."""

from __future__ import annotations

import sys

import click

from streams.settings import Settings


@click.command()
@click.pass_obj
def rights(settings: Settings) -> None:
    """Run the rights service until it is told to stop (SIGTERM or Ctrl-C).

    It answers access requests with sealed exports, and does by itself what has to be done at its time. Any number of
    them may run. Exit code 0 after a stop, 1 after a failure: let whatever runs it start it again.
    """
    from streams import logs  # noqa: PLC0415  # what takes long to import is not needed for --help
    from streams.rights import service  # noqa: PLC0415

    logs.configure(settings.log_level)
    sys.exit(service.run(settings))
