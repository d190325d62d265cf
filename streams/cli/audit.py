"""`schleuse audit`."""

from __future__ import annotations

from typing import Any

import click
import orjson

from streams.cli import asked
from streams.rights.audit import Action, Line
from streams.rights.desk import Desk
from streams.settings import Settings


@click.group()
def audit() -> None:
    """Show what was opened, disclosed, asked for and destroyed, by whom and why; and prove that the trail is whole."""


@audit.command("list")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 100_000), help="The newest so many.")
@click.option("--tenant", help="Only this tenant.")
@click.option("--action", type=click.Choice([str(action) for action in Action]), help="Only this.")
@click.option("--recipient", help="Only lines about her (needs --tenant); - reads her from standard input.")
@click.option("--json", "as_json", is_flag=True, help="An array of objects instead of text.")
@click.pass_obj
def list_(
    settings: Settings, limit: int, tenant: str | None, action: str | None, recipient: str | None, as_json: bool
) -> None:
    """List the newest lines, oldest first. No recipient is named: her keyed hash is the same in all lines about her."""
    if recipient is not None and tenant is None:
        raise click.UsageError("--recipient needs --tenant")
    with Desk.open(settings) as desk:
        subject = None
        if recipient is not None and tenant is not None:
            name = desk.canonical(desk.tenant(tenant), asked.read(recipient))
            subject = desk.blind(tenant, name)
        lines = desk.audit.lines(limit, tenant, subject, action or "")
    if as_json:
        click.echo(orjson.dumps([_object(line) for line in lines], option=orjson.OPT_INDENT_2))
        return
    for line in lines:
        about = line.subject.hex() if line.subject is not None else "nobody in particular"
        detail = ", ".join(f"{name} {value}" for name, value in line.detail.items() if value != "")
        click.echo(f"{line.number:>6}  {asked.moment(line.at_ms)}  {click.style(line.action, bold=True)}  {line.actor}")
        click.echo(f"        {line.tenant or 'no tenant'}, {about}{': ' if detail else ''}{detail}")
        click.echo(f"        why: {line.why}")
    if not lines:
        click.echo("no lines")


@audit.command()
@click.option(
    "--since", metavar="NUMBER:MAC", help="A head that was noted before: the trail must still run through it."
)
@click.pass_obj
def verify(settings: Settings, since: str | None) -> None:
    """Walk the whole trail and name the first line that is missing, doubled or changed. Prints the head to note.

    Exit code 1 when it is broken. Lines cut off at the end are found only with --since: note the head where whoever
    runs the stores cannot change it.
    """
    with Desk.open(settings) as desk:
        head = desk.audit.verify(since)
    if head is None:
        click.echo("the audit trail has no line yet")
        return
    click.echo(f"the audit trail is whole: {head.number:,} lines, the newest of {asked.moment(head.at_ms)}")
    click.echo(f"head: {head.head}")


def _object(line: Line) -> dict[str, Any]:
    return {
        "number": line.number,
        "at": asked.moment(line.at_ms),
        "actor": line.actor,
        "action": line.action,
        "tenant": line.tenant,
        "subject": line.subject.hex() if line.subject is not None else None,
        "why": line.why,
        "detail": line.detail,
        "mac": line.mac.hex(),
    }
