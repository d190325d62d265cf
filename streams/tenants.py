"""tenants.toml: who sends, for which purposes, up to which ceiling, and how addresses and links are compared.

The file is what an operator writes. What is in force is its canonical JSON in the analytics store, named by a
fingerprint that every claim carries: so a claim carried out again uses the settings that held for it. Defaults are
written out in the JSON, since a later release may have others.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from aggregates.figures import RHO
from pseudonymizer.consent import Mode
from streams import controller
from streams.errors import SettingsError

if TYPE_CHECKING:
    from streams.stores import StoreClient

PRIMARY = "engagement"  # every tenant has it: it decides whether an event is `off`
VENDORS = ("mailgun", "postmark", "sendgrid", "ses")  # feeds that `schleuse feed` names itself
RETENTION = "13 months"
WINDOW = "30 days"
LONGEST_DAYS = 3650
DAY_MS = 86_400_000
_DAYS = {"day": 1, "week": 7, "month": 30, "year": 365}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_URL_KEY = re.compile(r"[A-Za-z0-9._~-]{1,64}")
_KEYS = ("local_part", "links", "url_keys", "window", "purposes", "feed", "publishing")
RHOS = (0.001, 1.0)

Links = Literal["declared", "path"]


@dataclass(frozen=True, slots=True)
class PurposeSettings:
    """What a tenant may do for one purpose at most: the highest mode, and how long rows stay (days)."""

    ceiling: Mode
    retention_days: int


@dataclass(frozen=True, slots=True)
class TenantSettings:
    """One tenant. `purposes` always has `engagement`; it must not be changed.

    `lower_local`: local parts of addresses are compared without case. `links`: whether a click's link has to be
    declared, or may be its URL's path. `url_keys`: query keys that stay. `feed_mailing`: the field in which a vendor's
    body names the mailing. `window_days`: how long after its sending a mailing is counted; then it closes.
    `feed_names`: what a row keeps of an event's `feed`, beside VENDORS; any other is kept as `other`: it could name
    somebody. `rho`: what the figures of a mailing may spend that begins from now on (docs/publishing.md); for one that
    has begun it changes nothing.
    """

    name: str
    lower_local: bool
    links: Links
    url_keys: tuple[str, ...]
    purposes: Mapping[str, PurposeSettings]
    feed_mailing: str
    window_days: int = 30
    feed_names: tuple[str, ...] = ()
    rho: float = RHO

    def ceiling(self, purpose: str) -> Mode:
        """The highest mode for a purpose; one that the tenant does not have, or no longer, allows nothing new."""
        found = self.purposes.get(purpose)
        return found.ceiling if found is not None else Mode.ANONYMOUS


def load(path: Path) -> dict[str, TenantSettings]:
    """The tenants of a file, by name. Raises SettingsError, also when the file cannot be read."""
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        raise SettingsError(
            f"the tenants file {path} does not exist; docs/tenants.md says what it holds, the setting `tenants` where"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"the tenants file {path} cannot be read ({type(error).__name__})") from None
    return parse(text)


def parse(text: str) -> dict[str, TenantSettings]:
    """The tenants of a TOML text, by name; an empty text has none. Raises SettingsError."""
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"at line (\d+)", str(error))
        raise SettingsError(f"the tenants file is not TOML{f' (line {line[1]})' if line else ''}") from None
    return {name: _tenant(name, table) for name, table in tables.items()}


def to_json(tenants: Mapping[str, TenantSettings]) -> str:
    """Canonical JSON: names sorted, no blanks, every default written out. Equal settings give equal bytes.

    Only `publishing` is left out where it is the default: earlier releases knew nothing of it, and their settings have
    to keep their fingerprints. So its default stays what it is.
    """
    return json.dumps(
        {
            name: {
                "feed": {"mailing": tenant.feed_mailing, "names": sorted(tenant.feed_names)},
                "links": tenant.links,
                **({} if tenant.rho == RHO else {"publishing": {"rho": tenant.rho}}),  # see `to_json`
                "local_part": "lower" if tenant.lower_local else "keep",
                "purposes": {
                    purpose: {"ceiling": limits.ceiling.word, "retention": f"{limits.retention_days} days"}
                    for purpose, limits in tenant.purposes.items()
                },
                "url_keys": sorted(tenant.url_keys),
                "window": f"{tenant.window_days} days",
            }
            for name, tenant in tenants.items()
        },
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=True,
    )


def from_json(body: str) -> dict[str, TenantSettings]:
    """Tenants as `to_json` wrote them. Raises SettingsError: a newer release may have written what this cannot read."""
    try:
        tables = json.loads(body)
    except ValueError:
        tables = None
    if not isinstance(tables, dict):
        raise SettingsError("the tenants' settings in force are not JSON")
    return {name: _tenant(name, table) for name, table in tables.items()}


def fingerprint(canonical: str) -> str:
    """The name of some canonical settings: the first 16 hex digits of their SHA-256."""
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def days(duration: str, where: str = "a duration") -> int:
    """A duration such as "13 months" in days. A month counts 30 days and a year 365: never longer than it says.

    Raises SettingsError when it is not a whole number of days, weeks, months or years, or not within ten years.
    """
    match = re.fullmatch(r"([0-9]{1,5}) (day|week|month|year)s?", duration)
    count = int(match[1]) * _DAYS[match[2]] if match else 0
    if not 1 <= count <= LONGEST_DAYS:
        raise SettingsError(f'{where} must be like "13 months" or "400 days", from a day to ten years')
    return count


def window_of(tenant: TenantSettings | None) -> int:
    """For how many days a tenant's mailings are counted; of one without settings in force as long as by default."""
    return tenant.window_days if tenant else days(WINDOW)


def in_force(analytics: StoreClient) -> dict[str, TenantSettings]:
    """The newest settings that were applied; none when there never were any.

    Raises StoreUnavailable, StoreRefused, SettingsError.
    """
    ((body,),) = analytics.rows("reading the tenants' settings", "SELECT argMax(body, at) FROM settings")
    return from_json(body) if body else {}


def ever_in_force(analytics: StoreClient) -> dict[str, TenantSettings]:
    """Every tenant that ever was in force, as it was last. Raises StoreUnavailable, StoreRefused, SettingsError."""
    found: dict[str, TenantSettings] = {}
    for (body,) in analytics.rows("reading the tenants' settings", "SELECT body FROM settings ORDER BY at"):
        found |= from_json(body)
    return found


class Windows:
    """Which window held for a tenant, and when: every settings that were ever in force, in their order."""

    def __init__(self, history: Sequence[tuple[int, Mapping[str, TenantSettings]]]) -> None:
        """`history`: since when (epoch milliseconds, rising), and what."""
        self._history = history

    @classmethod
    def read(cls, analytics: StoreClient) -> Windows:
        """Raises StoreUnavailable, StoreRefused, SettingsError."""
        rows = analytics.rows(
            "reading the tenants' settings",
            "SELECT toUnixTimestamp64Milli(at) AS since, body FROM settings ORDER BY since",
        )
        return cls([(since, from_json(body)) for since, body in rows])

    def shortest(self, tenant: str, sent_ms: int) -> int:
        """The shortest window (days) that is in force, or was over for a mailing while it was: how long it has figures.

        A window that grows again must not bring back steps: which mailings are still open by then depends on what
        their recipients did.
        """
        found = window_of(self._history[-1][1].get(tenant)) if self._history else window_of(None)
        for (_, known), (until, _) in pairwise(self._history):
            window = window_of(known.get(tenant))
            if sent_ms + window * DAY_MS <= until:
                found = min(found, window)
        return found


def changes(before: Mapping[str, TenantSettings], after: Mapping[str, TenantSettings]) -> list[str]:
    """What is different, one line each, for whoever has to agree to it."""
    lines = []
    for name in sorted({*before, *after}):
        if name not in after:
            lines.append(f"- {name}: goes; whatever comes for it is rejected (unknown_tenant)")
        elif name not in before:
            lines.append(f"+ {name}: {'; '.join(f'{key} {value}' for key, value in _flat(after[name]).items())}")
        else:
            old, new = _flat(before[name]), _flat(after[name])
            lines += [
                f"~ {name}: {key} {old.get(key, 'none')} -> {new.get(key, 'none')}"
                for key in dict.fromkeys([*old, *new])
                if old.get(key) != new.get(key)
            ]
    return lines


def lowered(before: Mapping[str, TenantSettings], after: Mapping[str, TenantSettings]) -> list[tuple[str, str, Mode]]:
    """Tenant, purpose and ceiling now, wherever it was higher before; a purpose that goes allows nothing new."""
    found = []
    for name in before.keys() & after.keys():
        for purpose, limits in before[name].purposes.items():
            ceiling = after[name].ceiling(purpose)
            if ceiling < min(limits.ceiling, Mode.PERSONAL):
                found.append((name, purpose, ceiling))
    return sorted(found)


def _flat(tenant: TenantSettings) -> dict[str, str]:
    purposes = {
        f"purposes.{purpose}": f"up to {limits.ceiling.word} for {limits.retention_days} days"
        for purpose, limits in sorted(tenant.purposes.items())
    }
    return {
        "local_part": "lower" if tenant.lower_local else "keep",
        "links": tenant.links,
        "url_keys": ", ".join(sorted(tenant.url_keys)) or "none",
        **purposes,
        "window": f"{tenant.window_days} days",
        "publishing.rho": f"{tenant.rho:g}",
        "feed.mailing": tenant.feed_mailing,
        "feed.names": ", ".join(sorted(tenant.feed_names)) or "none",
    }


# --- reading one tenant ---


def _tenant(name: str, table: Any) -> TenantSettings:
    _check_name(name, "a tenant's name")
    known = _table(table, f"[{name}]", (*_KEYS, "controller"))
    controller.parse(name, known.get("controller", {}))  # checked here, read again where it is needed
    purposes = _table(known.get("purposes", {}), f"[{name}.purposes]", None)
    feed = _table(known.get("feed", {}), f"[{name}.feed]", ("mailing", "names"))
    url_keys = known.get("url_keys", [])
    if not isinstance(url_keys, list) or not all(isinstance(key, str) and _URL_KEY.fullmatch(key) for key in url_keys):
        raise SettingsError(f"[{name}] url_keys must be a list of query keys (letters, digits, . _ ~ -)")
    mailing = feed.get("mailing", "mailing")
    if not isinstance(mailing, str) or not 1 <= len(mailing) <= 64:
        raise SettingsError(f"[{name}.feed] mailing must be the name of a field, 1 to 64 characters")
    names = feed.get("names", [])
    if not isinstance(names, list) or not all(isinstance(one, str) and _NAME.fullmatch(one) for one in names):
        raise SettingsError(f"[{name}.feed] names must be a list of names (letters, digits, . _ -, 1 to 64 characters)")
    publishing = _table(known.get("publishing", {}), f"[{name}.publishing]", ("rho",))
    rho = publishing.get("rho", RHO)
    if not isinstance(rho, int | float) or isinstance(rho, bool) or not RHOS[0] <= rho <= RHOS[1]:
        raise SettingsError(f"[{name}.publishing] rho must be a number from {RHOS[0]:g} to {RHOS[1]:g}")
    return TenantSettings(
        name=name,
        lower_local=_choice(known, "local_part", ("keep", "lower"), f"[{name}]") == "lower",
        links=cast(Links, _choice(known, "links", ("declared", "path"), f"[{name}]")),
        url_keys=tuple(sorted(set(url_keys))),
        purposes={purpose: _purpose(name, purpose, of) for purpose, of in sorted({PRIMARY: {}, **purposes}.items())},
        feed_mailing=mailing,
        feed_names=tuple(sorted(set(names))),
        window_days=_duration(known, "window", WINDOW, f"[{name}]"),
        rho=float(rho),
    )


def _purpose(tenant: str, purpose: str, table: Any) -> PurposeSettings:
    _check_name(purpose, f"[{tenant}.purposes]: a purpose's name")
    where = f"[{tenant}.purposes.{purpose}]"
    known = _table(table, where, ("ceiling", "retention"))
    modes = (Mode.PERSONAL, Mode.PSEUDONYMOUS, Mode.ANONYMOUS, Mode.OFF)
    ceiling = _choice(known, "ceiling", tuple(mode.word for mode in modes), where)
    return PurposeSettings(Mode.parse(ceiling), _duration(known, "retention", RETENTION, where))


def _duration(table: Mapping[str, Any], key: str, default: str, where: str) -> int:
    """The value of `key` in days."""
    value = table.get(key, default)
    if not isinstance(value, str):
        raise SettingsError(f'{where} {key} must be like "13 months" or "400 days"')
    return days(value, f"{where} {key}")


def _check_name(name: str, what: str) -> None:
    if not _NAME.fullmatch(name):
        raise SettingsError(f"{what} must be 1 to 64 letters, digits, dots, dashes or underscores")


def _table(table: Any, where: str, known: Iterable[str] | None) -> dict[str, Any]:
    if not isinstance(table, dict):
        raise SettingsError(f"{where} must be a table")
    for key in table if known is not None else ():
        if key not in (names := list(known or ())):
            near = difflib.get_close_matches(key, names, 1, 0.5)
            raise SettingsError(
                f"{where}: there is no setting {key!r}" + (f"; did you mean {near[0]}?" if near else "")
            )
    return table


def _choice(table: Mapping[str, Any], key: str, choices: tuple[str, ...], where: str) -> str:
    """The value of `key`, the first choice by default."""
    value = table.get(key, choices[0])
    if value not in choices:
        raise SettingsError(f"{where} {key} must be one of {', '.join(choices)}")
    return str(value)
