"""`schleuse export`."""

from __future__ import annotations

from pathlib import Path

import click

from streams.cli import asked
from streams.rights.desk import Desk
from streams.rights.export import bundle, gather, held, sealed
from streams.settings import Settings

WHY = "access by its recipient (articles 15 and 20 GDPR)"


@click.command()
@click.option("--tenant", help="The sender whose recipient she is.")
@click.option("--recipient", help="The recipient. With - she is read from standard input: in no shell's history then.")
@click.option("--open", "file", type=click.Path(dir_okay=False, path_type=Path), help="A sealed export, to be opened.")
@click.option(
    "--to",
    "folder",
    required=True,
    type=click.Path(path_type=Path),
    help="The folder for the files, which must not exist or be empty. Only its owner can read it.",
)
@asked.text("--why", "What for: a ticket's number, for one. It stays in the audit trail.", False, WHY)
@click.pass_obj
def export(
    settings: Settings, tenant: str | None, recipient: str | None, file: Path | None, folder: Path, why: str
) -> None:
    """Write everything held about one recipient into a folder: JSON, CSV, and a page to read.

    Either of a recipient (--tenant, --recipient), or what a sealed export holds (--open). What is written is personal
    data. That it was opened is in the audit trail before it is.
    """
    given = tenant is not None and recipient is not None
    if given == (file is not None) or (file is not None and (tenant or recipient)):
        raise click.UsageError("either --tenant with --recipient, or --open")
    bundle.check_folder(folder)  # before anything is opened
    with Desk.open(settings) as desk:
        if file is not None:
            content, said = bundle.unpack(sealed.open_file(desk, file, why)), None
        else:
            said = gather.of(desk, str(tenant), asked.read(str(recipient)), why)
            content = bundle.files(said)
        bundle.write(folder, content)
    if said is not None:
        click.echo(_summary(said))
    click.echo(f"{folder}: {len(content)} files, to be read by their owner only")


def _summary(said: held.Export) -> str:
    if said.nothing_held:
        return "nothing is held about this recipient"
    rows, lines = (sum(len(getattr(one, what)) for one in said.purposes) for what in ("rows", "decisions"))
    return f"{rows:,} rows, {lines:,} lines of consent; purposes: {', '.join(one.purpose for one in said.purposes)}"
