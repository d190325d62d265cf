"""`schleuse settings`, and the page docs/settings.md, from one table."""

from __future__ import annotations

from pathlib import Path

import click
import orjson

from streams.errors import SettingsError
from streams.settings import FIELDS, PREFIX, Settings, about, load, rows, shown

MASKED = "********"
LOGINS = (  # (store, role), as far as a command of ours logs in with it
    ("identity", "worker"),
    ("identity", "migrations"),
    ("analytics", "worker"),
    ("analytics", "operator"),
    ("analytics", "migrations"),
)
_PAGE = """\
# Settings

Every setting has a name, and is taken from the first of these that has it: the environment variable `SCHLEUSE_NAME`,
the TOML file named by `--config` or `SCHLEUSE_CONFIG`, the default. A name that does not exist is an error. Relative
paths in the file are relative to its folder. `schleuse settings` prints what is in force and where it comes from.

Passwords are no settings. Each login has a file of its own in the folder `credentials`, named `<store>-<role>`, that
only its owner can read; it is read at the moment of use.

| name | default | unit | meaning |
| --- | --- | --- | --- |
"""


@click.command()
@click.option("--json", "as_json", is_flag=True, help="An array of objects instead of text.")
@click.option("--page", "as_page", is_flag=True, hidden=True, help="docs/settings.md.")
@click.pass_context
def settings(ctx: click.Context, as_json: bool, as_page: bool) -> None:
    """Print every setting: its value, where that comes from (default, file, environment), and what it means.

    Passwords are masked; of each it is said whether its file is there and owner-only.
    """
    if as_page:
        click.echo(page(), nl=False)
        return
    config: Path | None = ctx.parent.params["config"] if ctx.parent else None
    lines = [(row.name, row.value, row.origin, row.about.unit, row.about.meaning) for row in rows(config)]
    lines += [
        (
            f"password {store}-{role}",
            *_password(load(config), store, role),
            "text",
            f"Login `{role}` at the {store} store.",
        )
        for store, role in LOGINS
    ]
    names = ("name", "value", "from", "unit", "meaning")
    if as_json:
        objects = [dict(zip(names, line, strict=True)) for line in lines]
        click.echo(orjson.dumps(objects, option=orjson.OPT_INDENT_2))
        return
    for name, value, origin, unit, meaning in lines:
        click.echo(f"{click.style(name, bold=True)} = {value}  ({origin}; {unit})\n    {meaning}")


def page() -> str:
    """docs/settings.md, from the table."""
    default = Settings()
    lines = []
    for name in FIELDS:
        line = about(name)
        limits = f"From {line.least:g} to {line.most:g}." if line.least is not None and line.most is not None else ""
        if line.choices:
            limits = f"One of {', '.join(line.choices)}."
        meaning = " ".join(part for part in (line.meaning, limits) if part)
        lines.append(f"| `{name}` | `{shown(getattr(default, name))}` | {line.unit} | {meaning} |")
    example = f"\nFor example `{PREFIX}BROKER=kafka-1:9092,kafka-2:9092 schleuse status`.\n"
    return _PAGE + "\n".join(lines) + "\n" + example


def _password(found: Settings, store: str, role: str) -> tuple[str, str]:
    path = found.credentials / f"{store}-{role}"
    if not path.exists():
        return "missing", str(path)
    try:
        found.password(store, role)
    except SettingsError:
        return "refused (others can read it, or it is empty)", str(path)
    return MASKED, str(path)
