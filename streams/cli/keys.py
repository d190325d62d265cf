"""`schleuse keys`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click
import orjson
from rich.console import Console
from rich.table import Table

from pseudonymizer.keys import KeyKind
from streams.errors import SettingsError
from streams.keyring import KeyRing
from streams.keys import SEPARATOR
from streams.settings import Settings

if TYPE_CHECKING:
    from streams.rights.desk import Desk
    from streams.rights.root_keys import Holder, Standing

# Their names say something of a recipient or there is one a recipient: counted, not listed.
COUNTED = (KeyKind.DATA, KeyKind.EXPORT)  # one a mapping, a pseudonym; one a sealed export, a blind index
WHY = "rotation of keys"


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="As `keys show --json`.")
@click.pass_context
def keys(ctx: click.Context, as_json: bool) -> None:
    """Show, rotate and destroy keys, and move people from one to another. Never prints a key.

    Without a command: `keys show`.
    """
    if ctx.invoked_subcommand is None:
        ctx.invoke(show, as_json=as_json)


@keys.command()
@click.option("--json", "as_json", is_flag=True, help="An object instead of a table.")
@click.pass_obj
def show(settings: Settings, as_json: bool) -> None:
    """List what is in the key ring: kind, name, version and when it was made. Never a key.

    Data keys, one a mapping, and the keys of sealed exports are only counted.
    """
    ring = KeyRing.open(settings.keyring, settings.keyring_kek, create=False)
    try:
        entries = ring.entries()
    finally:
        ring.close()
    listed = [
        (str(entry.kind), entry.name, entry.version, _time(entry.created_at))
        for entry in entries
        if entry.kind not in COUNTED
    ]
    counted = {str(kind): sum(entry.kind is kind for entry in entries) for kind in COUNTED}
    names = ("kind", "name", "version", "created_at")
    if as_json:
        objects = {"keys": [dict(zip(names, line, strict=True)) for line in listed], "counted": counted}
        click.echo(orjson.dumps(objects, option=orjson.OPT_INDENT_2))
        return
    table = Table(*names)
    for line in listed:
        table.add_row(*(str(word).replace(SEPARATOR, " / ") for word in line))
    Console(markup=False, emoji=False).print(table)
    for kind, count in counted.items():
        click.echo(f"and {count:,} of the kind {kind}")


@keys.command()
@click.option("--tenant", help="Make the next version of this tenant's root key: new grants use it.")
@click.option("--kek", is_flag=True, help="Make a new key-encryption key, and seal the whole ring anew under it.")
@click.option("--to", metavar="PATH|URI", help="With --kek: where the new one is to come from, from now on.")
@click.option("--why", default=WHY, show_default=True, help="What for; it stays in the audit trail.")
@click.option("--yes", is_flag=True, help="Do it.")
@click.pass_obj
def rotate(settings: Settings, tenant: str | None, kek: bool, to: str | None, why: str, yes: bool) -> None:
    """Make a new version of a tenant's root key the primary one, or rotate the key-encryption key.

    Consents under earlier versions stay under them (see `keys rekey`). With --to, stop the workers first, and set
    `keyring_kek` afterwards.
    """
    from streams.rights.audit import Action, check_text  # noqa: PLC0415  what takes long to import is not needed for --help
    from streams.rights.desk import Desk  # noqa: PLC0415

    if kek == (tenant is not None) or (to is not None and not kek):
        raise SettingsError("either --tenant or --kek has to be given, and --to only with --kek")
    why = check_text(why, "--why")
    with Desk.open(settings) as desk:
        if tenant is None:
            count = len(desk.ring.entries())
            click.echo(f"~ {count:,} entries of {settings.keyring} will be sealed anew under a new key-encryption key")
            if not yes:
                click.echo("nothing was done: --yes does it")
                return
            desk.audit.record(Action.KEY_ROTATED, "", None, why, {"key": "kek", "entries": count})
            click.echo(f"{desk.ring.rotate_kek(to):,} entries are sealed under the new key-encryption key")
            if to is not None:
                click.echo("now set keyring_kek (SCHLEUSE_KEYRING_KEK) to where it comes from, and start the workers")
            return
        desk.tenant(tenant)
        newest = max((version for name, version in desk.ring.roots() if name == tenant), default=0)
        click.echo(f"+ root key of {tenant}, version {newest + 1}: new grants will use it")
        if not yes:
            click.echo("nothing was done: --yes does it")
            return
        desk.audit.record(Action.KEY_ROTATED, tenant, None, why, {"key": "root", "version": newest + 1})
        click.echo(f"version {desk.ring.rotate(tenant)} is the primary one")


@keys.command()
@click.option("--tenant", required=True)
@click.option("--why", default=WHY, show_default=True, help="What for; it stays in the audit trail.")
@click.option("--yes", is_flag=True, help="Do it, and wait until it is carried out.")
@click.pass_obj
def rekey(settings: Settings, tenant: str, why: str, yes: bool) -> None:
    """Move everybody in personal mode to the tenant's primary root key.

    Rows and mappings are rewritten while workers run. Rows in pseudonymous mode keep their version until their
    retention ends. Reads tracking.state to its end.
    """
    from streams.rights.audit import Action, check_text  # noqa: PLC0415  see above
    from streams.rights.desk import Desk  # noqa: PLC0415
    from streams.rights.root_keys import move  # noqa: PLC0415

    why = check_text(why, "--why")
    with Desk.open(settings) as desk:
        primary = _primary(desk, tenant)
        found = _look(desk, tenant, primary)
        chosen = [one for one in found if one.version != primary and one.named]
        click.echo(f"~ {len(chosen):,} recipients to version {primary}")
        if not chosen:
            click.echo("nothing to do")
            return
        if not yes:
            click.echo("nothing was done: --yes does it")
            return
        detail = {"recipients": len(chosen), "version": primary}
        desk.audit.record(Action.REKEYED, tenant, None, why, detail)
        move(desk, tenant, chosen, primary, False, _progress(len(chosen)))
        click.echo(f"{len(chosen):,} recipients are at version {primary}")


@keys.command()
@click.option("--tenant", required=True)
@click.option("--version", required=True, type=click.IntRange(min=1), help="Of the tenant's root key.")
@click.option("--with-rows", is_flag=True, help="Remove the rows and mappings that stand on it first.")
@click.option("--why", default=WHY, show_default=True, help="What for; it stays in the audit trail.")
@click.option("--yes", is_flag=True, help="Do it, and wait until it is carried out.")
@click.pass_obj
def destroy(settings: Settings, tenant: str, version: int, with_rows: bool, why: str, yes: bool) -> None:
    """Destroy a version of a tenant's root key, which nothing may stand on any more.

    Whoever agreed under it is moved to the primary version with --with-rows: what she agreed to goes on, and what is
    there under the old one is removed. Reads tracking.state to its end.
    """
    from streams.rights.audit import Action, check_text  # noqa: PLC0415  see above
    from streams.rights.barrier import decided  # noqa: PLC0415
    from streams.rights.desk import Desk  # noqa: PLC0415
    from streams.rights.root_keys import holders, move  # noqa: PLC0415

    why = check_text(why, "--why")
    with Desk.open(settings) as desk:
        primary = _primary(desk, tenant, version)
        decided(settings)  # a grant that intake has given this version may still be on its way
        found = _look(desk, tenant, primary)
        chosen = [one for one in found if one.version == version]
        left = _of(desk, tenant, version, found)
        if left.anything and not with_rows:
            raise SettingsError(
                f"version {version} was not destroyed: {_said(left)} stand on it; schleuse keys rekey moves those in "
                "personal mode, and --with-rows removes what is left"
            )
        click.echo(f"- root key of {tenant}, version {version}: destroyed for good")
        if left.anything:
            click.echo(f"- {_said(left)}: rows and mappings removed, consents moved to version {primary}")
        if not yes:
            click.echo("nothing was done: --yes does it")
            return
        if chosen:
            detail = {"recipients": len(chosen), "version": primary, "rows_removed": left.rows}
            desk.audit.record(Action.REKEYED, tenant, None, why, detail)
            move(desk, tenant, chosen, primary, True, _progress(len(chosen)))
            found = holders(desk, tenant)
            left = _of(desk, tenant, version, found)
        if left.anything:
            raise SettingsError(
                f"version {version} was not destroyed: {_said(left)} still stand on it; once more, or schleuse verify"
            )
        desk.audit.record(Action.KEY_DESTROYED, tenant, None, why, {"key": "root", "version": version})
        desk.ring.destroy(KeyKind.ROOT, tenant, version)
        click.echo(f"version {version} is destroyed")


def _primary(desk: Desk, tenant: str, destroying: int | None = None) -> int:
    """The primary version of a tenant's root key. Raises SettingsError where `destroying` cannot be destroyed."""
    desk.tenant(tenant)
    there = {version for name, version in desk.ring.roots() if name == tenant}
    if not there:
        raise SettingsError("the tenant has no root key yet: the first grant makes it")
    if destroying == max(there):
        raise SettingsError(f"version {destroying} is the primary one: schleuse keys rotate makes another one first")
    if destroying is not None and destroying not in there:
        raise SettingsError(f"the key ring has no version {destroying} of the tenant's root key")
    return max(there)


def _look(desk: Desk, tenant: str, primary: int) -> list[Holder]:
    """Who stands on which version; prints what stands where."""
    from streams.rights.root_keys import holders, standing  # noqa: PLC0415  see above

    found = holders(desk, tenant)
    table = Table("version", "key", "rows", "mappings", "recipients", "personal", "pseudonymous")
    for one in standing(desk, tenant, found):
        what = "primary" if one.version == primary else "there" if one.is_there else "destroyed"
        counts = (one.rows, one.mappings, one.recipients, one.named, one.nameless)
        table.add_row(str(one.version), what, *(f"{count:,}" for count in counts))
    Console(markup=False, emoji=False).print(table)
    return found


def _progress(total: int) -> Callable[[int], None]:
    return lambda moved: click.echo(f"{moved:,} of {total:,}", err=True)


def _of(desk: Desk, tenant: str, version: int, found: list[Holder]) -> Standing:
    from streams.rights.root_keys import standing  # noqa: PLC0415  see above

    return next(one for one in standing(desk, tenant, found) if one.version == version)


def _said(left: Standing) -> str:
    return (
        f"{left.rows:,} rows, {left.mappings:,} mappings and {left.named + left.nameless:,} consents of "
        f"{left.recipients:,} recipients"
    )


def _time(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
