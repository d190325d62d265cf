"""`schleuse keys`."""

from __future__ import annotations

from datetime import UTC, datetime

import click
import orjson
from rich.console import Console
from rich.table import Table

from pseudonymizer.keys import KeyKind
from streams.keyring import KeyRing
from streams.keys import SEPARATOR
from streams.settings import Settings

# Their names say something of a recipient or there is one a recipient: counted, not listed.
COUNTED = (KeyKind.DATA, KeyKind.EXPORT)  # one a mapping: their names are pseudonyms; one a sealed export


@click.command()
@click.option("--json", "as_json", is_flag=True, help="An array of objects instead of a table.")
@click.pass_obj
def keys(settings: Settings, as_json: bool) -> None:
    """List what is in the key ring: kind, name, version and when it was made. Never a key.

    Data keys, one a mapping, and keys of sealed exports are only counted.
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
    Console().print(table)
    for kind, count in counted.items():
        click.echo(f"and {count:,} of the kind {kind}")


def _time(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
