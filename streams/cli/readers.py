"""`schleuse readers`: who may read by the dashboard and the API."""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click
import orjson
from rich import box
from rich.console import Console
from rich.table import Table

from streams.dashboard.readers import ReaderRole, is_reader, let_in, listed, shut_out
from streams.errors import SettingsError

if TYPE_CHECKING:
    from streams.settings import Settings
    from streams.stores import StoreClient

DAY_MS = 86_400_000


@contextmanager
def _operator(settings: Settings) -> Iterator[StoreClient]:
    from streams.stores import Role, Store, connect  # noqa: PLC0415  what takes long to import comes after --help

    store = connect(settings, Store.ANALYTICS, Role.OPERATOR, connections=2)
    try:
        yield store
    finally:
        store.close()


@click.group()
def readers() -> None:
    """Who may read a tenant's figures by the dashboard and the API: let in, list, shut out."""


@readers.command()
@click.option("--tenant", required=True, help="Whose figures.")
@click.option(
    "--role",
    required=True,
    type=click.Choice([role.value for role in ReaderRole]),
    help="What she is to see (docs/dashboard.md).",
)
@click.option("--label", default="", help="Your own word for her, shown in the list. Need not be a name.")
@click.option(
    "--days", default=365, show_default=True, type=click.IntRange(1, 3650), help="For how long the key opens."
)
@click.pass_obj
def add(settings: Settings, tenant: str, role: str, label: str, days: int) -> None:
    """Print a new key. It is kept nowhere: whoever loses it needs another."""
    from streams.tenants import in_force  # noqa: PLC0415

    if len(label) > 100 or (label and not label.isprintable()):
        raise SettingsError("--label: at most 100 printable characters")
    with _operator(settings) as store:
        if tenant not in in_force(store):
            raise SettingsError("--tenant: no tenant of this name is in force: schleuse tenants show lists them")
        until = time.time_ns() // 1_000_000 + days * DAY_MS
        key = let_in(store, tenant, ReaderRole(role), label, until)
    click.echo(key)


@readers.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="As JSON, a line each.")
@click.pass_obj
def list_(settings: Settings, as_json: bool) -> None:
    """Show all readers: no key, which nobody has but they."""
    with _operator(settings) as store:
        found = listed(store)
    now = time.time_ns() // 1_000_000
    if as_json:
        for one in found:
            click.echo(orjson.dumps(one))
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("reader", "tenant", "role", "label", "key"):
        table.add_column(name, no_wrap=name != "label")
    for one in found:
        until = datetime.datetime.fromtimestamp(one.until_ms / 1000, datetime.UTC)
        state = (
            "taken back" if one.revoked else f"opens until {until:%Y-%m-%d}" if one.until_ms > now else "has run out"
        )
        table.add_row(one.reader, one.tenant, str(one.role), one.label, state)
    Console(markup=False, emoji=False).print(table)  # a label may look like markup


@readers.command()
@click.argument("reader")
@click.option("--yes", is_flag=True, help="Do it.")
@click.pass_obj
def revoke(settings: Settings, reader: str, yes: bool) -> None:
    """Take a reader's key back, by the name that `list` shows. It opens nothing a few seconds later."""
    if not is_reader(reader):
        raise SettingsError("READER: the twelve characters that schleuse readers list shows, not the key itself")
    with _operator(settings) as store:
        if not yes:
            raise SettingsError("nothing was taken back: --yes does")
        found = shut_out(store, reader)
    click.echo(f"taken back: {found.reader} ({found.tenant}, {found.role})")
