"""`schleuse topics`."""

from __future__ import annotations

import click

from streams import topics as table
from streams.errors import BrokerError
from streams.settings import Settings
from streams.topics import Alter, Create, Unknown, Wrong


@click.command()
@click.option("--yes", is_flag=True, help="Also change topics that exist, as the plan says.")
@click.option("--dry-run", is_flag=True, help="Only print the plan.")
@click.option("--list", "as_list", is_flag=True, help="Print what each topic is for, and ask no broker.")
@click.pass_obj
def topics(settings: Settings, yes: bool, dry_run: bool, as_list: bool) -> None:
    """Compare the topics with what they must be, and make those that are missing.

    A topic that exists is changed only with --yes, and its partitions never. Exit code 1 when the topics are not as
    they must be afterwards.
    """
    if as_list:
        _list(settings)
        return
    actions = table.look(settings)
    for action in actions:
        _say(action)
    wrong = [action for action in actions if isinstance(action, Wrong)]
    if wrong:
        counts = " or ".join(str(count) for count in sorted({action.there for action in wrong}))
        raise BrokerError(
            f"{len(wrong)} topics have another partition count: set partitions = {counts}, or stop everything, delete "
            "all tracking topics and make them anew (partitions never grow: events and preferences would part)"
        )
    missing = [action.topic for action in actions if isinstance(action, Create)]
    other = [action for action in actions if isinstance(action, Alter)]
    if not missing and not other:
        click.echo(f"all {len(table.NAMES)} topics are there")
        return
    if dry_run:
        click.echo("nothing was done (--dry-run)")
        return
    if missing:
        table.create(settings, missing)
        click.echo(f"made {len(missing)} topics")
    if other and yes:
        table.alter(settings, other)
        click.echo(f"changed {len(other)} topics")
    elif other:
        raise BrokerError(
            f"{len(other)} topics differ from the plan above and were left as they are: --yes changes them"
        )


def _say(action: table.Action) -> None:
    match action:
        case Create(topic=topic):
            configs = ", ".join(f"{key}={value}" for key, value in sorted(topic.configs.items()))
            click.echo(f"+ {topic.name}: {topic.partitions} partitions, {topic.replication} copies, {configs}")
        case Alter(name=name, changes=changes):
            for key, before, after in changes:
                click.echo(f"~ {name}: {key} {before} -> {after}")
        case Unknown(name=name):
            click.echo(f"? {name}: there; its configs are not known on this broker")
        case Wrong(name=name, there=there, wanted=wanted):
            click.echo(f"! {name}: has {there} partitions and must have {wanted}")


def _list(settings: Settings) -> None:
    for topic in table.topics(settings):
        days = int(topic.configs["retention.ms"]) / table.DAY_MS
        kept = f"kept {days:g} days" if days > 0 else "no end by time"
        personal = "addresses or what was made of them" if topic.personal else "nothing personal"
        click.echo(f"{click.style(topic.name, bold=True)}: {topic.partitions} partitions, {kept}; {personal}")
        click.echo(f"    written by {topic.written_by}, read by {topic.read_by}; {topic.why}")
