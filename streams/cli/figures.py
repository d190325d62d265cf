"""`schleuse figures`: published figures in a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
import orjson
from rich import box
from rich.console import Console
from rich.table import Table

from streams.errors import SettingsError

if TYPE_CHECKING:
    from aggregates.reading import Reading
    from streams.settings import Settings


WIDTH = 110


@click.command()
@click.option("--tenant", required=True, help="Whose figures.")
@click.option("--mailing", help="Only this one, with its links and devices.")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 1000), help="At most so many mailings.")
@click.option("--json", "as_json", is_flag=True, help="As the API answers; it takes `next`.")
@click.pass_obj
def figures(settings: Settings, tenant: str, mailing: str | None, limit: int, as_json: bool) -> None:
    """Print published figures: all that an analyst may know, with the margin of each.

    Logs in at the analytics store as `analyst`.
    """
    import msgspec  # noqa: PLC0415  what takes long to import comes after --help

    from streams.dashboard import api, shapes  # noqa: PLC0415
    from streams.dashboard import figures as questions  # noqa: PLC0415
    from streams.stores import Role, Store, connect  # noqa: PLC0415

    store = connect(settings, Store.ANALYTICS, Role.ANALYST, connections=1)
    try:
        if mailing is None:
            page = questions.mailings(store, tenant, limit)
            if not page.mailings:
                raise SettingsError("no mailing is declared for the tenant that --tenant names: is it written so?")
            answer: Any = api.listed(page)
            table = _mailings(page.mailings)
        else:
            of = questions.history(store, tenant, mailing)
            if of is None:
                raise SettingsError("--mailing: the tenant has declared none of this id; without it all are listed")
            answer, table = shapes.one_mailing(of), _mailing(of)
    finally:
        store.close()
    if as_json:
        click.echo(orjson.dumps(msgspec.to_builtins(answer), option=orjson.OPT_INDENT_2))
        return
    console = Console(markup=False, emoji=False)  # an id may look like markup
    console.width = max(console.width, WIDTH)  # a figure without its margin is none
    console.print(table)
    if mailing is not None:
        said = answer.mailing
        console.print(
            f"As published {said.hours or 0} h after sending; links, devices and machines {said.slow_hours or 0} h.",
            style="dim",
        )
    elif answer.next:
        console.print("There are older mailings: --limit.", style="dim")
    console.print(
        "Shares of the recipients sent, with noise: the truth is within ± in 95 of 100 cases (docs/publishing.md).",
        style="dim",
    )


def _mailings(found: Any) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    table.add_column("mailing", no_wrap=True, overflow="fold")
    table.add_column("sent", justify="right", no_wrap=True)
    for name in ("hours", "opened", "clicked", "clicked by machines"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in found:
        cells = (_said(one.totals.get(cell)) for cell in (("open", "human"), ("click", "human"), ("click", "machine")))
        table.add_row(one.mailing, f"{one.recipients:,}" if one.recipients else "?", str(one.hours or "-"), *cells)
    return table


def _mailing(of: Any) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    table.add_column(of.mailing.mailing, overflow="fold")
    for name in ("people", "machines"):
        table.add_column(name, justify="right", no_wrap=True)
    for kind, word in (("open", "opened"), ("click", "clicked")):
        table.add_row(word, *(_said(of.newest(kind, "all", "", actor)) for actor in ("human", "machine")))
    for link in of.values("click", "link", "human"):
        cells = (_said(of.newest("click", "link", link, actor)) for actor in ("human", "machine"))
        table.add_row(f"  clicked {link}", *cells)
    for device in of.values("open", "device", "human"):
        table.add_row(f"  opened on {device}", _said(of.newest("open", "device", device, "human")), "")
    return table


def _said(reading: Reading | None) -> str:
    from streams.dashboard.words import Words  # noqa: PLC0415

    if reading is None:
        return "not yet"
    words = Words("en")
    said = f"{words.share(reading)}, {words.at_most(reading)}" if reading.too_few else words.share(reading)
    return said.replace("\N{NO-BREAK SPACE}", " ")
