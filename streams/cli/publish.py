"""`schleuse publish`."""

from __future__ import annotations

import sys

import click

from streams.settings import Settings


@click.command()
@click.option("--once", is_flag=True, help="Publish what is due now, and end.")
@click.pass_obj
def publish(settings: Settings, once: bool) -> None:
    """Publish what is due of all declared mailings, until it is told to stop (SIGTERM or Ctrl-C).

    Figures come with noise under each mailing's budget; they are the only ones that an analyst's login reads. Any
    number of publishers may run: each figure is drawn once. Exit code 0 after a stop, 1 after a failure: let whatever
    runs it start it again.
    """
    from streams import logs  # noqa: PLC0415  # what takes long to import is not needed for --help
    from streams.publish import service  # noqa: PLC0415

    if once:
        click.echo(f"mailings with new figures: {service.once(settings)}")
        return
    logs.configure(settings.log_level)
    sys.exit(service.run(settings))
