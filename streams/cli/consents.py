"""`schleuse consents`."""

from __future__ import annotations

from typing import Any

import click
import orjson

from streams.cli import asked
from streams.rights.consents import NOT_OPENED, Decision, history
from streams.rights.desk import Desk
from streams.settings import Settings

_PROOF = {
    "source": "where she agreed",
    "text_version": "to which text",
    "evidence": "evidence",
    "age_check": "age check",
    "conditional": "something else depended on it",
    "recorded_by": "recorded by",
}


@click.command()
@asked.tenant
@asked.recipient
@asked.text("--why", "What for: a ticket's number, for one. It stays in the audit trail.", False, "article 7(1) GDPR")
@click.option("--json", "as_json", is_flag=True, help="An array of objects instead of text.")
@click.pass_obj
def consents(settings: Settings, tenant: str, recipient: str, why: str, as_json: bool) -> None:
    """Show what a recipient has agreed to, decision by decision, with every proof. It is in the audit trail."""
    with Desk.open(settings) as desk:
        found = history(desk, tenant, recipient, why)
    if as_json:
        click.echo(orjson.dumps([_object(one) for one in found], option=orjson.OPT_INDENT_2))
        return
    for purpose, kind in sorted({(one.purpose, one.kind) for one in found}):
        what = f"every purpose: {kind}" if purpose == "*" else f"{purpose}: {kind}"
        click.echo(click.style(what, bold=True))
        for one in found:
            if (one.purpose, one.kind) == (purpose, kind):
                _show(one)
    if not found:
        click.echo("nothing was ever decided: unknown, which means anonymous")


def _show(one: Decision) -> None:
    click.echo(f"  {asked.moment(one.decided_at)}  {one.mode} ({one.effect.replace('_', ' ')})")
    click.echo(f"      recorded {asked.moment(one.recorded_at)} from {one.preference_id or 'no preference'}")
    if one.unreadable:
        click.echo(f"      {NOT_OPENED}")
    for name, says in _PROOF.items():
        value = (one.proof or {}).get(name)
        if value is not None:
            click.echo(f"      {says}: {asked.printable(_word(value))}")


def _word(value: object) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _object(one: Decision) -> dict[str, Any]:
    return {
        "purpose": one.purpose,
        "kind": one.kind,
        "mode": one.mode,
        "effect": one.effect,
        "decided_at": asked.moment(one.decided_at),
        "recorded_at": asked.moment(one.recorded_at),
        "preference_id": one.preference_id,
        "proof": one.proof,
        "proof_unreadable": one.unreadable,
    }
