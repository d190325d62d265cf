"""`schleuse rights`."""

from __future__ import annotations

import sys

import click

from streams.settings import Settings


@click.command()
@click.option("--once", is_flag=True, help="Do what there is to do now, and end.")
@click.pass_obj
def rights(settings: Settings, once: bool) -> None:
    """Run the rights service until it is told to stop (SIGTERM or Ctrl-C).

    It answers access requests with sealed exports, counts once a day what the officer sees, and does by itself what
    has to be done at its time. Any number of them may run. Exit code 0 after a stop, 1 after a failure: let whatever
    runs it start it again.

    With --once it says how many things each duty has done.
    """
    from streams import logs  # noqa: PLC0415  # what takes long to import is not needed for --help
    from streams.rights import service  # noqa: PLC0415

    if once:
        for duty, count in service.once(settings).items():
            click.echo(f"{duty}: {count}")
        return
    logs.configure(settings.log_level)
    sys.exit(service.run(settings))
