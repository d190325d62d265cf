"""`schleuse migrate`."""

from __future__ import annotations

import hashlib

import click

from deploy.clickhouse import grants as table
from streams.migrate import Migrations
from streams.settings import Settings
from streams.stores import Store


@click.command()
@click.option("--dry-run", is_flag=True, help="Only say what is pending.")
@click.option("--grants", is_flag=True, help="Print the roles and grants of both stores as SQL, and do nothing.")
@click.option("--logins", is_flag=True, help="With --grants: the logins too, by the SHA-256 of the passwords here.")
@click.option("--store", "only", type=click.Choice([str(store) for store in Store]), help="Only this store.")
@click.pass_obj
def migrate(settings: Settings, dry_run: bool, grants: bool, logins: bool, only: str | None) -> None:
    """Apply the numbered SQL files that each store does not have yet; doing it again does nothing.

    A file that was changed after it was applied is refused. A run that was cut off goes on where it was. Grants are not
    applied: an administrator of the ClickHouse servers runs what --grants prints.
    """
    stores = [store for store in Store if only in (None, str(store))]
    if grants:
        for store in stores:
            _print_grants(settings, store, logins)
        return
    for store in stores:
        migrations = Migrations(settings, store)
        try:
            pending = migrations.pending()
            if not pending:
                click.echo(f"{store}: up to date")
                continue
            for one in pending:
                rest = f", from statement {one.done + 1} on" if one.done else ""
                click.echo(f"{store}: {one.migration} is pending{rest}")
            if not dry_run:
                migrations.apply(pending, lambda name, store=store: click.echo(f"{store}: {name} applied"))  # type: ignore[misc]  # mypy cannot infer a lambda with a default
        finally:
            migrations.close()


def _print_grants(settings: Settings, store: Store, logins: bool) -> None:
    of_store = table.Store(str(store))
    digests = None
    if logins:
        digests = {
            role: hashlib.sha256(settings.password(str(store), str(role)).encode()).hexdigest()
            for role in table.roles_of(of_store)
        }
    click.echo(f"-- {store} store")
    for statement in table.sql(of_store, digests):
        click.echo(f"{statement};")
