"""`schleuse totals`."""

from __future__ import annotations

import sys

import click
import orjson
from rich.console import Console
from rich.table import Table

from streams.errors import SettingsError
from streams.settings import Settings
from streams.stores import Role, Store, connect
from streams.totals import totals as read_totals


@click.command()
@click.option("--json", "as_json", is_flag=True, help="An array of objects instead of a table.")
@click.option("--tenant", help="Only this tenant.")
@click.pass_obj
def totals(settings: Settings, as_json: bool, tenant: str | None) -> None:
    """Print exact events and distinct recipients per tenant, mailing, kind, link and actor.

    For operators: it shows small cells. What analysts may read is published elsewhere.
    """
    lines = [
        line for line in read_totals(connect(settings, Store.ANALYTICS, Role.OPERATOR)) if tenant in (None, line.tenant)
    ]
    if tenant and not lines:
        raise SettingsError("nothing was counted for the tenant that --tenant names: is it written so?")
    if as_json:
        click.echo(orjson.dumps([line._asdict() for line in lines], option=orjson.OPT_INDENT_2))
        return
    table = Table(title=None)
    for name in ("tenant", "mailing", "kind", "link", "actor"):
        table.add_column(name, overflow="fold")
    for name in ("events", "recipients"):
        table.add_column(name, justify="right")
    for line in lines:
        table.add_row(
            *(word if word is not None else "(all)" for word in line[:5]), f"{line.events:,}", f"{line.recipients:,}"
        )
    # Ids stay whole: folded on a terminal, on one line elsewhere.
    width = None if sys.stdout.isatty() else 1_000
    console = Console(markup=False, emoji=False, width=width)  # an id may look like markup
    console.print(table if lines else "Nothing was counted yet.")
