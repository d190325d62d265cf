"""`schleuse rejected`."""

from __future__ import annotations

import sys
from collections import Counter
from typing import Any

import click
import orjson

from pseudonymizer.keys import KeyKind
from pseudonymizer.sealing import SealBroken
from streams import replay as again
from streams import tenants
from streams.broker import log_ends
from streams.cli import asked
from streams.errors import Reason, SchleuseError
from streams.rejections import Listed, Rejection, Stage, open_content
from streams.rights.audit import Action
from streams.rights.desk import Desk
from streams.settings import Settings
from streams.topics import EVENTS

_reason = click.option("--reason", type=click.Choice([str(reason) for reason in Reason]), help="Only this reason.")
_stage = click.option("--stage", type=click.Choice([str(stage) for stage in Stage]), help="Only this stage.")

_why = asked.text("--why", "What for. It stays in the audit trail.", False, "operating the pipeline")


@click.group()
def rejected() -> None:
    """List what was refused, open it, and send it again."""


@rejected.command("list")
@_reason
@_stage
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1), help="The newest so many.")
@click.option("--json", "as_json", is_flag=True, help="An array of objects, without content, instead of text.")
@click.pass_obj
def list_(settings: Settings, reason: str | None, stage: str | None, limit: int, as_json: bool) -> None:
    """List what was refused: where it lay, why, and what was expected. Its content stays sealed."""
    found, strange = again.listed(settings.broker)
    chosen = _chosen(found, reason, stage)
    if as_json:
        click.echo(orjson.dumps([_object(one) for one in chosen[-limit:]], option=orjson.OPT_INDENT_2))
        return
    for one in chosen[-limit:]:
        said = _object(one)
        expected = ": ".join(word for word in (said["field"], said["expected"]) if word)
        state = "; sent again" if one.replayed else "" if said["kept"] else "; content not kept"
        click.echo(f"{said['rejection_id']}  {said['at']}  {click.style(said['reason'], bold=True)}")
        click.echo(f"    {expected or said['stage']} ({said['size']:,} bytes{state})")
    by_reason = Counter(str(one.rejection.reason) for one in chosen)
    click.echo(", ".join(f"{name} {count:,}" for name, count in by_reason.most_common()) or "nothing was refused")
    if strange:
        click.echo(f"{strange:,} records of the topic are no rejections", err=True)


@rejected.command()
@click.argument("number", metavar="ID")
@click.option("--raw", is_flag=True, help="The record's value as it was, byte for byte, and nothing else.")
@_why
@click.pass_obj
def show(settings: Settings, number: str, raw: bool, why: str) -> None:
    """Open one rejected record. What is printed is personal data, so it takes the login rights and is in the audit
    trail.
    """
    found, _ = again.listed(settings.broker)
    if number not in found:
        raise SchleuseError("there is no rejection with this id: schleuse rejected list")
    rejection = found[number].rejection
    key, value = _open(settings, rejection, why)
    if raw:
        sys.stdout.buffer.write(value or b"")
        return
    click.echo(orjson.dumps(_object(found[number]), option=orjson.OPT_INDENT_2))
    click.echo(f"key:   {_printable(key)}")
    click.echo(f"value: {_printable(value)}")


@rejected.command()
@click.argument("numbers", metavar="[ID]...", nargs=-1)
@_reason
@_stage
@click.option("--yes", is_flag=True, help="Send them.")
@_why
@click.pass_obj
def replay(
    settings: Settings, numbers: tuple[str, ...], reason: str | None, stage: str | None, yes: bool, why: str
) -> None:
    """Send rejected records again, each under the key that is made from its body. Prints the plan; --yes does it.

    For records that lay on another partition than their recipient's (misrouted), or that came before their tenant or
    mailing was known. What was sent again once is left out. The plan opens them too: both are in the audit trail.
    """
    found, _ = again.listed(settings.broker)
    unknown = [number for number in numbers if number not in found]
    if unknown:
        raise SchleuseError(f"{len(unknown)} of these ids are no rejections: schleuse rejected list")
    chosen = [one for one in _chosen(found, reason, stage) if not numbers or one.rejection.id in numbers]
    ready, left = _plan(settings, [one.rejection for one in chosen if not one.replayed], why, yes)
    for because, count in (left + Counter({"it was sent again before": sum(one.replayed for one in chosen)})).items():
        click.echo(f"- {count:,} cannot be sent again: {because}")
    where = Counter(one.rejection.topic for one in ready)
    for topic, count in sorted(where.items()):
        moved = sum(one.rejection.topic == topic and one.partition != one.rejection.partition for one in ready)
        click.echo(f"+ {count:,} to {topic}, {moved:,} of them to another partition")
    if not ready:
        click.echo("nothing to send")
        return
    if not yes:
        click.echo("nothing was sent: --yes does it")
        return
    sent: list[again.Again] = []
    try:
        again.send(settings.broker, ready, sent.append)
    finally:
        click.echo(f"sent {len(sent):,} of {len(ready):,}")


def _plan(
    settings: Settings, rejections: list[Rejection], why: str, yes: bool
) -> tuple[list[again.Again], Counter[str]]:
    if not rejections:
        return [], Counter()
    partitions = len(log_ends(settings.broker, EVENTS))
    with Desk.open(settings) as desk:
        known = tenants.in_force(desk.analytics)
        sealed = sum(one.sealed is not None for one in rejections)
        if sealed:
            action = Action.REJECTED_REPLAYED if yes else Action.REJECTED_OPENED
            desk.audit.record(action, "", None, why, {"records": sealed})
        keys = {day: desk.ring.get(KeyKind.DAY, day) for day in {one.key_id for one in rejections} if day}
    ready, left = [], Counter[str]()
    for rejection in rejections:
        try:
            ready.append(again.prepare(rejection, keys.get(rejection.key_id or ""), known, partitions))
        except again.CannotReplay as because:
            left[str(because)] += 1
    return ready, left


def _open(settings: Settings, rejection: Rejection, why: str) -> tuple[bytes | None, bytes | None]:
    if rejection.sealed is None or rejection.key_id is None:
        raise SchleuseError(f"the content of this record ({rejection.size:,} bytes) was too large to keep")
    with Desk.open(settings) as desk:
        key = desk.ring.get(KeyKind.DAY, rejection.key_id)
        if key is None:
            raise SchleuseError(f"the key of {rejection.key_id} is destroyed: this record cannot be opened any more")
        desk.audit.record(Action.REJECTED_OPENED, "", None, why, {"rejection": rejection.id, "records": 1})
    try:
        return open_content(key, rejection.sealed, rejection.id)
    except SealBroken:
        raise SchleuseError("this record does not open with the key of its day: it was changed") from None


def _chosen(found: dict[str, Listed], reason: str | None, stage: str | None) -> list[Listed]:
    return [
        one
        for one in found.values()
        if reason in (None, str(one.rejection.reason)) and stage in (None, str(one.rejection.stage))
    ]


def _object(one: Listed) -> dict[str, Any]:
    said: dict[str, Any] = orjson.loads(one.rejection.encode())
    said.pop("sealed", None)
    return {**said, "kept": one.rejection.sealed is not None, "replayed": one.replayed}


def _printable(raw: bytes | None) -> str:
    """Bytes for a terminal: nothing in them can move its cursor."""
    if raw is None:
        return "(none)"
    return asked.printable(raw.decode("utf-8", "backslashreplace"))
