"""`[TENANT.controller]` in tenants.toml: what only the sender knows and the record and the notice have to say.

It is read from the file when it is needed and is not put in force: it names people (a data protection officer), who
have no business in the analytics store, and no claim depends on it. What is not said is `missing`, never made up.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from streams.errors import SettingsError

LONGEST = 1000
LANGUAGES = ("de", "en")


@dataclass(frozen=True, slots=True)
class Controller:
    """A tenant's own words; empty where it has said nothing."""

    name: str = ""
    """The controller, with address (Art. 30(1)(a), 13(1)(a))."""
    contact: str = ""
    """How to reach it."""
    dpo: str = ""
    """The data protection officer and how to reach her (Art. 13(1)(b)); "none" where there need not be one."""
    withdraw: str = ""
    """Where a recipient changes what she agreed to: a URL or a few words (Art. 7(3))."""
    counting_basis: str = ""
    """The legal basis for counting those who have decided nothing (Art. 13(1)(c))."""
    transfers: str = ""
    """Transfers to third countries and what secures them, or "none" (Art. 30(1)(e))."""
    authority: str = ""
    """The supervisory authority (Art. 13(2)(d))."""
    processors: tuple[str, ...] = ()
    """Who works for it: name, place, what for (Art. 28, 30(1)(d))."""
    purposes: Mapping[str, Mapping[str, str]] | None = None
    """purpose -> language -> what it is for, in words for recipients."""

    def says(self, purpose: str, language: str) -> str:
        """What a purpose is for, in the tenant's words; empty where it has said nothing."""
        return (self.purposes or {}).get(purpose, {}).get(language, "")


TEXTS = tuple(field.name for field in fields(Controller) if field.name not in ("processors", "purposes"))


def load(path: Path, tenant: str) -> Controller | None:
    """What the tenants file says of a tenant; None where there is no such file, tenant or table. Raises SettingsError.

    A caller may NOT assume that the tenant is in force.
    """
    try:
        table = tomllib.loads(path.read_text("utf-8")).get(tenant, {})
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"the tenants file {path} cannot be read ({type(error).__name__})") from None
    except tomllib.TOMLDecodeError:
        raise SettingsError(f"the tenants file {path} is not TOML") from None
    if not isinstance(table, dict) or "controller" not in table:
        return None
    return parse(tenant, table["controller"])


def parse(tenant: str, table: Any) -> Controller:
    """Read the table. Raises SettingsError: an unknown key, or a value that is no text."""
    where = f"[{tenant}.controller]"
    names = [field.name for field in fields(Controller)]
    if not isinstance(table, dict):
        raise SettingsError(f"{where} must be a table")
    for key in table:
        if key not in names:
            near = difflib.get_close_matches(key, names, 1, 0.5)
            raise SettingsError(
                f"{where}: there is no setting {key!r}" + (f"; did you mean {near[0]}?" if near else "")
            )
    processors = table.get("processors", [])
    if not isinstance(processors, list):
        raise SettingsError(f"{where} processors must be a list of texts")
    return Controller(
        **{name: _text(table.get(name, ""), f"{where} {name}") for name in TEXTS},
        processors=tuple(_text(one, f"{where} processors") for one in processors),
        purposes=_purposes(table.get("purposes", {}), f"[{tenant}.controller.purposes]"),
    )


def _purposes(table: Any, where: str) -> dict[str, dict[str, str]]:
    if not isinstance(table, dict) or not all(
        isinstance(of, dict) and set(of) <= set(LANGUAGES) for of in table.values()
    ):
        raise SettingsError(f'{where} must be like engagement = {{ de = "…", en = "…" }}')
    return {
        purpose: {language: _text(text, f"{where} {purpose}") for language, text in of.items()}
        for purpose, of in table.items()
    }


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or len(value) > LONGEST:
        raise SettingsError(f"{where} must be a text of at most {LONGEST} characters")
    return value.strip()
