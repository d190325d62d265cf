"""`schleuse erase`."""

from __future__ import annotations

import secrets

import click

from streams.cli import asked
from streams.errors import SchleuseError
from streams.rights import erase as desk_of
from streams.rights.desk import Desk
from streams.settings import Settings


@click.command()
@asked.tenant
@asked.recipient
@click.option("--request-id", help="The request's id, by which its receipt is found; by default one is made.")
@asked.text("--why", "What for: a ticket's number, for one. It stays in the audit trail.", False, "article 17 GDPR")
@click.option("--wait", default=60.0, show_default=True, type=click.FloatRange(0), help="Seconds, for the receipt.")
@click.option("--yes", is_flag=True, help="Ask for the erasure.")
@click.pass_obj
def erase(
    settings: Settings, tenant: str, recipient: str, request_id: str | None, why: str, wait: float, yes: bool
) -> None:
    """Erase everything that is held of a recipient. Prints what that is; --yes asks for it and waits for the receipt.

    The workers carry it out. What is left is that, and when, she was erased, under a keyed hash; who was off stays off.
    """
    with Desk.open(settings) as desk:
        held = desk_of.held(desk, tenant, recipient, why)
        _show(held)
        if not yes:
            click.echo("nothing was erased: --yes does it")
            return
        request_id = request_id or f"erase-{secrets.token_hex(8)}"
        desk_of.ask(desk, held.person, request_id, why)
        click.echo(f"asked for: request {request_id}")
        done = desk_of.wait(desk, tenant, request_id, wait)
    if done is None:
        raise SchleuseError(
            f"there is no receipt after {wait:g} s; the request stands and will be carried out: is a worker running? "
            "(schleuse status; schleuse rejected list says if it was refused)"
        )
    removed = ", ".join(f"{count:,} {what}" for what, count in done.removed.items())
    click.echo(f"erased {asked.moment(done.completed_at)}: {removed}")
    for who in done.disclosed_to:
        click.echo(f"to be passed on to: {asked.printable(who)}")
    click.echo(f"the last bytes are gone by {asked.moment(done.gone_by)}")


def _show(held: desk_of.Held) -> None:
    if held.is_nothing:
        click.echo("nothing is held of this recipient" + (", who was erased before" if held.person.is_stub else ""))
        return
    for (purpose, kind), count in held.rows.items():
        click.echo(f"- {count:,} rows of {kind}s for {purpose}")
    for count, what in (
        (held.mappings, "mappings from a pseudonym to her"),
        (held.consents, "lines of the consent ledger; the fact of the erasure stays"),
        (held.disclosures, "lines that say to whom she was disclosed"),
        (held.exports, "sealed exports, by their keys"),
    ):
        if count:
            click.echo(f"- {count:,} {what}")
    if held.person.state is not None and not held.person.is_stub:
        click.echo("- what she has decided, with every salt")
    for who in held.disclosed_to:
        click.echo(f"to be passed on to: {asked.printable(who)}")
    click.echo(f"the last bytes would be gone by {asked.moment(held.gone_by)}")
