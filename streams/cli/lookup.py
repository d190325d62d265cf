"""`schleuse lookup`."""

from __future__ import annotations

import re
import sys

import click

from streams.cli import asked
from streams.rights.desk import Desk
from streams.rights.lookup import look_up
from streams.settings import Settings


def _hex(_context: click.Context, _option: click.Parameter, given: str) -> bytes:
    if re.fullmatch("[0-9a-fA-F]{32}", given) is None:
        raise click.BadParameter("32 hex digits, as schleuse engaged and schleuse export print them")
    return bytes.fromhex(given)


@click.command()
@asked.tenant
@click.option("--pseudonym", required=True, callback=_hex, metavar="HEX", help="32 hex digits.")
@asked.text("--why", "What for: a ticket's number, for one. It stays in the audit trail.")
@click.pass_obj
def lookup(settings: Settings, tenant: str, pseudonym: bytes, why: str) -> None:
    """Say to whom a pseudonym belongs, if she is in personal mode. Limited in number; every attempt is on record.

    Exit code 1 when nobody is named.
    """
    with Desk.open(settings) as desk:
        found = look_up(desk, tenant, pseudonym, why)
    if found is None:
        click.echo("no mapping has this pseudonym")
        sys.exit(1)
    click.echo(f"{asked.printable(found.recipient)}  ({found.purpose}, {found.kind})")
