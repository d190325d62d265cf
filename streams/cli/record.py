"""`schleuse record`."""

from __future__ import annotations

from typing import cast

import click
import orjson

from streams import controller
from streams.rights import notice as passage
from streams.rights import record as of_processing
from streams.settings import Settings


@click.command()
@click.option("--tenant", required=True, help="The sender whose record it is.")
@click.option("--format", "form", type=click.Choice(["markdown", "json"]), default="markdown", show_default=True)
@click.option("--notice", is_flag=True, help="The passage for the sender's privacy notice instead (Art. 13).")
@click.option(
    "--language", type=click.Choice(controller.LANGUAGES), default="en", show_default=True, help="Of the notice."
)
@click.pass_obj
def record(settings: Settings, tenant: str, form: str, notice: bool, language: str) -> None:
    """Print the record of processing of a tenant (Art. 30 GDPR): which data, from where, to whom, for how long.

    It comes from the settings in force. What only the sender can say stands in [TENANT.controller] of the tenants file;
    what is not said there is listed as missing.
    """
    found = of_processing.read(settings, tenant)
    if notice:
        text, missing = passage.notice(settings, found.tenant, found.controller, cast(passage.Language, language))
        click.echo(text, nl=False)
        if missing:
            click.echo(f"to be filled in, here or in [{tenant}.controller]: {', '.join(missing)}", err=True)
    elif form == "json":
        click.echo(orjson.dumps(of_processing.as_json(found), option=orjson.OPT_INDENT_2))
    else:
        click.echo(of_processing.markdown(found), nl=False)
