"""`schleuse dashboard`."""

from __future__ import annotations

import sys

import click

from streams.settings import Settings


@click.command()
@click.pass_obj
def dashboard(settings: Settings) -> None:
    """Serve the dashboard and the API until it is told to stop (SIGTERM or Ctrl-C).

    Readers log in with keys that `schleuse readers add` makes. It logs in at the analytics store as `dashboard` and
    reads published figures, mailings, readers, and the officer's counts: no cell, no row about a person. Exit code 0
    after a stop, 1 after a failure: let whatever runs it start it again.
    """
    from streams import logs  # noqa: PLC0415  # what takes long to import is not needed for --help
    from streams.dashboard import server  # noqa: PLC0415

    logs.configure(settings.log_level)
    sys.exit(server.run(settings))
