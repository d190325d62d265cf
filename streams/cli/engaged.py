"""`schleuse engaged`."""

from __future__ import annotations

import secrets
from pathlib import Path

import click

from streams.cli import asked
from streams.errors import SettingsError
from streams.messages import KINDS
from streams.rights.desk import Desk
from streams.rights.engaged import Question, count, disclose
from streams.settings import Settings


@click.command()
@asked.tenant
@click.option("--purpose", required=True, help="What the list is for: only rows that were agreed to for it.")
@click.option("--mailing", required=True, help="The mailing's id.")
@click.option("--kind", type=click.Choice(KINDS), help="Only those who did this.")
@click.option("--link", help="Only those who clicked the link with this id.")
@asked.text("--to-whom", "Who gets the list: a name, not an address. Her access export and her erasure name it.")
@asked.text("--why", "What for: a ticket's number, for one. It stays in the audit trail.")
@click.option("--out", type=click.Path(path_type=Path), help="The file to make; by default engaged-….csv, here.")
@click.option("--wait", default=60.0, show_default=True, type=click.FloatRange(0), help="Seconds, see below.")
@click.option("--yes", is_flag=True, help="Open the mappings and hand the list out.")
@click.pass_obj
def engaged(  # noqa: PLR0913, PLR0917  options are its arguments
    settings: Settings,
    tenant: str,
    purpose: str,
    mailing: str,
    kind: str | None,
    link: str | None,
    to_whom: str,
    why: str,
    out: Path | None,
    wait: float,
    yes: bool,
) -> None:
    """List who opened a mailing or clicked its links, for the purpose that they agreed to. Prints counts; --yes acts.

    Recipients in personal mode are named, those in pseudonymous mode stand under pseudonyms, the others are not in it.
    Decisions that Kafka has taken are waited for (--wait), so that nobody is listed who has withdrawn. Everybody who is
    listed is on record with to whom, when and why, before the file is completed. Only you can read it.
    """
    question = Question(tenant, purpose, mailing, kind, link)
    out = out or Path(f"engaged-{secrets.token_hex(4)}.csv")
    if out.exists() or out.is_symlink():
        raise SettingsError(f"{out} is there already: name a file that is not")
    with Desk.open(settings) as desk:
        planned = count(desk, question)
        click.echo(f"{planned.mapped:,} pseudonyms with rows lead to a name, {planned.unmapped:,} to nobody")
        if not yes:
            click.echo("nothing was opened: --yes does it, and looks at everybody's consent again")
            return
        done = disclose(desk, question, to_whom, why, out, wait)
    click.echo(f"{out}: {done.recipients:,} recipients by name, {done.pseudonymous:,} under a pseudonym")
    if done.left_out:
        click.echo(f"{done.left_out:,} are left out: the consent that their rows stood on no longer holds")
    click.echo(f"on record as disclosure {done.disclosure}")
