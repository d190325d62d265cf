"""`schleuse feed`."""

from __future__ import annotations

import logging
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal

import click
import orjson
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from streams.errors import BrokerError, SettingsError
from streams.feed.formats import FORMATS
from streams.feed.items import EVENTS, MAILINGS, PREFERENCES, FeedOptions
from streams.feed.run import DryRun, Run, Tally

if TYPE_CHECKING:
    from streams.settings import Settings

TOPICS = {"events": EVENTS, "preferences": PREFERENCES, "mailings": MAILINGS}


@click.command()
@click.argument("files", nargs=-1, type=click.Path(exists=True, dir_okay=False, readable=True, allow_dash=True))
@click.option("--format", "form", type=click.Choice(list(FORMATS)), default="native", show_default=True)
@click.option("--topic", type=click.Choice(list(TOPICS)), default="events", show_default=True, help="native only.")
@click.option("--tenant", help="Whose events these are. Needed for a vendor's format, which does not say.")
@click.option("--mailing", help="The sender's own field that names the mailing; else as the tenants file says.")
@click.option("--withdraw", is_flag=True, help="An unsubscribe withdraws consent too: it lowers every purpose.")
@click.option(
    "--withdraw-to", type=click.Choice(["anonymous", "off"]), help="With --withdraw: how far.  [default: anonymous]"
)
@click.option("--dry-run", is_flag=True, help="Check and count; send nothing.")
@click.option("--allow-refused", is_flag=True, help="Exit code 0 although bodies were refused.")
@click.option("--json", "as_json", is_flag=True, help="The account as one JSON object.")
@click.pass_obj
def feed(  # noqa: PLR0913, PLR0917  # click hands over every option by name
    settings: Settings,
    files: tuple[str, ...],
    form: str,
    topic: str,
    tenant: str | None,
    mailing: str | None,
    withdraw: bool,
    withdraw_to: Literal["anonymous", "off"] | None,
    dry_run: bool,
    allow_refused: bool,
    as_json: bool,
) -> None:
    """Feed events from FILES (or standard input), one body a line, and account for every one.

    Bodies are messages in our own format, or webhook bodies of SendGrid, Mailgun, Postmark or Amazon SES through SNS
    as they came. Each is sent, ignored (a delivery, say) or refused, with file, line and reason on standard error. An
    array with n events is n bodies. Feeding the same file twice is safe: an event counts once.

    Exit code 0 if everything was sent or ignored, 1 if anything was refused. See docs/feeding.md.
    """
    from streams import logs, tenants  # noqa: PLC0415  # --help should not wait for them

    logs.configure(settings.log_level)
    logging.getLogger("kafka").setLevel(logging.CRITICAL)  # it tells every try; what comes of them is in the account
    known = tenants.load(settings.tenants)
    if form != "native":
        if tenant is None:
            raise click.UsageError(f"--tenant is needed: a body of {form} does not say whose it is")
        if topic != "events":
            raise click.UsageError("--topic is for the native format only")
    elif withdraw or mailing:
        raise click.UsageError("--withdraw and --mailing are for a vendor's format: ours says both itself")
    if withdraw_to and not withdraw:
        raise click.UsageError("--withdraw-to says how far --withdraw goes, and needs it")
    if tenant is not None and tenant not in known:
        raise SettingsError(f"the tenants file does not know the tenant that --tenant names: {settings.tenants}")
    named_by = mailing or (known[tenant].feed_mailing if tenant is not None else "mailing")
    options = FeedOptions(tenant, named_by, (withdraw_to or "anonymous") if withdraw else None, TOPICS[topic])
    topics = {TOPICS[topic]} | ({PREFERENCES} if withdraw else set())

    names = files or ("-",)
    sizes = None if "-" in names else sum(Path(name).stat().st_size for name in names)
    console = Console(stderr=True)
    with _progress(console, sizes) as progress:
        task = progress.add_task("feeding", total=sizes)
        run = Run(
            FORMATS[form],
            options,
            known,
            lambda: time.time_ns() // 1_000_000,
            lambda refusal: progress.console.print(str(refusal), markup=False, highlight=False, soft_wrap=True),
            lambda size: progress.advance(task, size),
        )
        if dry_run:
            run.feed(_opened(names), DryRun(run.settled))
            broken = False
        else:
            from streams.feed.send import Sender  # noqa: PLC0415  # kafka-python takes a moment to import

            sender = Sender(settings.broker, topics, run.settled)
            run.feed(_opened(names), sender)
            broken = sender.broken
    _report(run.tallies, as_json, dry_run)
    if broken:
        raise BrokerError("the broker stopped taking records; feed the same files again: what it took counts once")
    if any(tally.refused for tally in run.tallies) and not allow_refused:
        sys.exit(1)


def _opened(names: tuple[str, ...]) -> Iterator[tuple[str, BinaryIO]]:
    for name in names:
        if name == "-":
            yield "standard input", sys.stdin.buffer
        else:
            with Path(name).open("rb") as stream:
                yield name, stream


def _progress(console: Console, size: int | None) -> Progress:
    """A bar on a terminal, nothing elsewhere."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal or size == 0)


def _report(tallies: list[Tally], as_json: bool, dry_run: bool) -> None:
    assert all(tally.adds_up for tally in tallies), "bodies are not accounted for"
    total = Tally(
        "together",
        sum(tally.bodies for tally in tallies),
        sum(tally.sent for tally in tallies),
        sum((tally.ignored for tally in tallies), Counter()),
        sum((tally.refused for tally in tallies), Counter()),
    )
    if as_json:
        account = _account(total) | {"dry_run": dry_run, "files": [_account(tally) for tally in tallies]}
        del account["file"]
        click.echo(orjson.dumps(account, option=orjson.OPT_INDENT_2))
        return
    for tally in [*tallies, total] if len(tallies) > 1 else tallies:
        click.echo(_sentence(tally, "would be sent" if dry_run else "sent"))


def _account(tally: Tally) -> dict[str, object]:
    return {
        "file": tally.file,
        "bodies": tally.bodies,
        "sent": tally.sent,
        "ignored": tally.ignored.total(),
        "refused": tally.refused.total(),
        "ignored_by_kind": dict(tally.ignored),
        "refused_by_reason": dict(tally.refused),
    }


def _sentence(tally: Tally, sent: str) -> str:
    def parts(counts: Counter[str]) -> str:
        listed = ", ".join(f"{count:,} {word}" for word, count in counts.most_common())
        return f" ({listed})" if listed else ""

    ignored = f"{tally.ignored.total():,} ignored{parts(tally.ignored)}"
    refused = f"{tally.refused.total():,} refused{parts(tally.refused)}"
    return f"{tally.file}: {tally.bodies:,} bodies = {tally.sent:,} {sent} + {ignored} + {refused}"
