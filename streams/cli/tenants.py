"""`schleuse tenants`."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence

import click

from pseudonymizer.consent import Mode
from streams import tenants as file
from streams.errors import BrokerError, SettingsError
from streams.messages import Ceiling, encode_change
from streams.outbox import deliver
from streams.settings import Settings
from streams.stores import Role, Store, StoreClient, connect
from streams.topics import CHANGES


@click.group()
def tenants() -> None:
    """Check the tenants' settings (the file `tenants`), show those in force, and put others in force."""


@tenants.command()
@click.pass_obj
def check(settings: Settings) -> None:
    """Read the tenants file and say what it means. Asks no store."""
    found = file.load(settings.tenants)
    for line in file.changes({}, found):
        click.echo(line.removeprefix("+ "))
    click.echo(f"{settings.tenants}: {len(found)} tenants, fingerprint {file.fingerprint(file.to_json(found))}")


@tenants.command()
@click.option("--json", "as_json", is_flag=True, help="The canonical JSON.")
@click.pass_obj
def show(settings: Settings, as_json: bool) -> None:
    """Show the settings in force."""
    analytics = connect(settings, Store.ANALYTICS, Role.OPERATOR)
    try:
        found = file.in_force(analytics)
    finally:
        analytics.close()
    if as_json:
        click.echo(file.to_json(found))
        return
    for line in file.changes({}, found):
        click.echo(line.removeprefix("+ "))
    click.echo(f"in force: {file.fingerprint(file.to_json(found))}" if found else "no tenants' settings are in force")


@tenants.command()
@click.option("--yes", is_flag=True, help="Put them in force.")
@click.pass_obj
def apply(settings: Settings, yes: bool) -> None:
    """Show what the tenants file would change, and with --yes put it in force: from each worker's next claim on.

    A lower ceiling reaches back: rows and mappings above it are removed, of everybody. It does not give them back when
    it rises again: that takes a new grant of each recipient. Exit code 1 when there are changes and no --yes.
    """
    wanted = file.load(settings.tenants)
    if not wanted:
        raise SettingsError(f"{settings.tenants} names no tenant: everything would be rejected")
    body = file.to_json(wanted)
    analytics = connect(settings, Store.ANALYTICS, Role.OPERATOR)
    try:
        before = file.in_force(analytics)
        lines = file.changes(before, wanted)
        for line in lines:
            click.echo(line)
        if file.to_json(before) == body:
            click.echo(f"in force already: {file.fingerprint(body)}")
            return
        ever = file.ever_in_force(analytics)
        for name in ever.keys() & wanted.keys():
            if ever[name].lower_local != wanted[name].lower_local:
                raise SettingsError(
                    f"{name}: local_part cannot change once it was in force, not by taking the tenant out and putting "
                    "it back either: what people have agreed to lies under keys made by it, and a withdrawal would not "
                    "find it; and people who were counted would be counted again"
                )
        if not yes:
            raise SettingsError(f"{len(lines)} changes were not put in force: --yes does")
        _put(analytics, body)
        if file.to_json(file.in_force(analytics)) != body:
            raise SettingsError("somebody else put other settings in force at the same moment: look with tenants show")
    finally:
        analytics.close()
    click.echo(f"in force: {file.fingerprint(body)}")
    _cap(settings, file.lowered(before, wanted))


@tenants.command()
@click.option("--yes", is_flag=True, help="Do it.")
@click.pass_obj
def cap(settings: Settings, yes: bool) -> None:
    """Remove whatever is above the ceilings in force, of everybody: what `apply` does where it lowers one.

    Only needed when that command was cut off between the two; twice is once.
    """
    analytics = connect(settings, Store.ANALYTICS, Role.OPERATOR)
    try:
        found = file.in_force(analytics)
    finally:
        analytics.close()
    ceilings = [
        (tenant.name, purpose, limits.ceiling)
        for tenant in found.values()
        for purpose, limits in tenant.purposes.items()
        if limits.ceiling < Mode.PERSONAL
    ]
    if not ceilings:
        click.echo("no ceiling is below personal: there is nothing above one")
        return
    if not yes:
        raise SettingsError(f"nothing was removed above {len(ceilings)} ceilings: --yes does")
    _cap(settings, ceilings)


def _cap(settings: Settings, ceilings: Sequence[tuple[str, str, Mode]]) -> None:
    """Tell every partition. The changes come after the settings: no claim behind them names the ones before."""
    at = time.time_ns() // 1_000_000
    changes = [
        Ceiling(f"ceiling:{purpose}:{at}", tenant, purpose, ceiling, secrets.token_bytes(32))
        for tenant, purpose, ceiling in ceilings
    ]
    if not changes:
        return
    try:
        deliver(
            settings.broker,
            "lowering ceilings",
            ((CHANGES, p, None, encode_change(change)) for change in changes for p in range(settings.partitions)),
        )
    except BrokerError as error:
        raise BrokerError(
            f"{error}; the settings are in force, but what is above their ceilings is still there: "
            "schleuse tenants cap --yes"
        ) from None
    for tenant, purpose, ceiling in ceilings:
        click.echo(f"{tenant}: whatever is above {ceiling.word} for {purpose} goes; its receipts say when it has gone")


def _put(analytics: StoreClient, body: str) -> None:
    # Without a token: settings that were in force before may come back, and the same row twice says the same.
    analytics.do(
        "putting the tenants' settings in force",
        "INSERT INTO settings (hash, body) SELECT {hash:String}, {body:String}",
        {"hash": file.fingerprint(body), "body": body},
        async_insert=0,
    )
