"""One frozen settings object, read once at the edge: environment over TOML file over defaults.

`SCHLEUSE_BROKER` wins over `broker` in the file named by `--config` or `SCHLEUSE_CONFIG`, and that over the default. A
name that is not in the table below is an error, with the nearest one that is: a misspelt retention must not silently be
the default. Passwords are no settings: they lie in files, one a login, and are read at the moment of use.

The fields of `Settings` are the table: each carries its unit, its meaning and its limits; `schleuse settings` and
docs/settings.md are printed from it.
"""
# ruff: noqa: RUF009  _setting is dataclasses.field under another name, and every default is immutable

from __future__ import annotations

import dataclasses
import difflib
import math
import os
import re
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from streams.errors import SettingsError
from streams.kek import check_uri

PREFIX = "SCHLEUSE_"
CONFIG = "SCHLEUSE_CONFIG"


@dataclass(frozen=True, slots=True)
class About:
    """What the table says of one setting: its unit, its meaning, and what its value may be."""

    unit: str
    meaning: str
    least: float | None = None
    most: float | None = None
    choices: tuple[str, ...] = ()


def _setting(default: Any, unit: str, meaning: str, **limits: Any) -> Any:
    return dataclasses.field(default=default, metadata={"about": About(unit, meaning, **limits)})


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings. No field holds a secret: addresses with a password in them are refused."""

    broker: str = _setting("127.0.0.1:9092", "host:port, …", "Kafka brokers to begin with, separated by commas.")
    group: str = _setting("schleuse", "name", "Consumer group of the workers. A new name reads everything anew.")
    identity_url: str = _setting("http://127.0.0.1:8124", "URL", "HTTP address of the identity store (ClickHouse).")
    analytics_url: str = _setting("http://127.0.0.1:8123", "URL", "HTTP address of the analytics store (ClickHouse).")
    credentials: Path = _setting(
        Path("credentials"), "folder", "One owner-only file a login, `<store>-<role>`, that holds its password."
    )
    keyring: Path = _setting(
        Path("keys/ring.sqlite"), "file", "The key ring. All workers share one; the first one makes it."
    )
    keyring_kek: Path | str = _setting(
        Path("kek/kek"),
        "file or URI",
        "Where the key comes from that seals the key ring: a file, backed up apart from the ring, or a URI "
        "(`vault-transit://`, `vault-kv://`, `aws-kms://`; docs/keys.md).",
    )
    exports: Path = _setting(
        Path("keys/exports"),
        "folder",
        "Sealed answers to access requests, beside the key ring. All rights services share it; the first one makes it.",
    )
    exports_days: int = _setting(
        30,
        "days",
        "How long a sealed export can be opened; then its key is destroyed.",
        least=1,
        most=365,
    )
    tenants: Path = _setting(
        Path("tenants.toml"), "file", "The tenants' settings, which `schleuse tenants apply` puts in force."
    )
    partitions: int = _setting(
        8, "partitions", "Partitions of every keyed topic, fixed when the topics are made.", least=1, most=1000
    )
    replication: int = _setting(
        1, "copies", "Copies of every partition. Take 3 where there are three brokers.", least=1, most=10
    )
    batch_rows: int = _setting(
        40_000, "records", "Most events of one claim, which is one insert.", least=1, most=200_000
    )
    batch_seconds: float = _setting(1.0, "seconds", "How long events wait for a claim to fill up.", least=0.01, most=60)
    insert_deadline_seconds: float = _setting(
        60.0, "seconds", "How late an insert may reach its store before the store refuses it.", least=5, most=600
    )
    http_host: str = _setting(
        "127.0.0.1",
        "address",
        "Where health, metrics and status of a worker are told to whoever asks: 0.0.0.0 only in a network of its own.",
    )
    http_port: int = _setting(
        6066,
        "port",
        "... and at which port. 0 takes a free one, which its log names.",
        least=0,
        most=65535,
    )
    dashboard_host: str = _setting("127.0.0.1", "address", "Where the dashboard and the API listen.")
    dashboard_port: int = _setting(
        8080, "port", "... and at which port. 0 takes a free one, which its log names.", least=0, most=65535
    )
    dashboard_url: str = _setting(
        "http://127.0.0.1:8080",
        "URL",
        "How readers reach the dashboard; where it listens, unless set. With https:// (a proxy that ends TLS in front) "
        "cookies travel over it only.",
    )
    dashboard_requests_per_minute: int = _setting(
        600, "requests", "How many requests one key may make, a quarter of them at once.", least=1, most=100_000
    )
    log_level: str = _setting(
        "info", "level", "How much our own logs say.", choices=("debug", "info", "warning", "error")
    )
    events_retention_hours: int = _setting(
        72,
        "hours",
        "How long tracking.events is kept. Not above 72: the memory of event ids lasts four days.",
        least=1,
        most=72,
    )
    backups_days: int = _setting(
        0,
        "days",
        "How long backups of the stores, the key ring and Kafka's disks are kept: receipts name it in `gone_by`.",
        least=0,
        most=3650,
    )
    session_timeout_seconds: float = _setting(
        10.0,
        "seconds",
        "After this long without a sign of life a worker's partitions go to another. On the embedded broker a worker "
        "waits half of it at its start.",
        least=6,
        most=300,
    )
    lookups_per_hour: int = _setting(
        10,
        "look-ups",
        "How many pseudonyms `schleuse lookup` opens within an hour, whoever asks.",
        least=0,
        most=10_000,
    )

    def password(self, store: str, role: str) -> str:
        """The password of a login, read from its file now. Never keep it; never print it.

        Raises SettingsError when the file is missing, empty, or can be read or written by others than its owner.
        """
        path = self.credentials / f"{store}-{role}"
        try:
            mode = path.stat().st_mode
            if not stat.S_ISREG(mode):
                raise SettingsError(f"the password file {path} is not a file")
            if os.name == "posix" and mode & 0o077:
                raise SettingsError(f"others can read or write the password file {path}: chmod 600 {path}")
            password = path.read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            hint = (
                "; --config names the settings of the system that is meant, and schleuse stack start makes one"
                if isinstance(error, FileNotFoundError)
                else ""
            )
            raise SettingsError(f"the password file {path} cannot be read ({type(error).__name__}){hint}") from None
        if not password:
            raise SettingsError(f"the password file {path} is empty")
        return password


@dataclass(frozen=True, slots=True)
class Row:
    """One setting as it is in force: where its value came from is `default`, `file` or `environment`."""

    name: str
    value: str | int | float
    origin: str
    about: About


FIELDS = {field.name: field for field in dataclasses.fields(Settings)}
_DEFAULTS = Settings()


def about(name: str) -> About:
    """The table's line of a setting. Raises KeyError when there is none."""
    found = FIELDS[name].metadata["about"]
    assert isinstance(found, About)
    return found


def load(config: Path | None = None, environment: Mapping[str, str] | None = None) -> Settings:
    """The settings in force. `environment` is the process's own unless given.

    A relative path in the file is relative to the file's folder; in the environment, to the working directory. Raises
    SettingsError: an unknown name, a value of the wrong type or out of its limits, a file that cannot be read.
    """
    values, _ = _read(config, os.environ if environment is None else environment)
    return dataclasses.replace(_DEFAULTS, **values)


def rows(config: Path | None = None, environment: Mapping[str, str] | None = None) -> list[Row]:
    """Every setting with its value and where that came from, in the table's order. Raises what `load` raises."""
    values, origins = _read(config, os.environ if environment is None else environment)
    settings = dataclasses.replace(_DEFAULTS, **values)
    return [Row(name, shown(getattr(settings, name)), origins.get(name, "default"), about(name)) for name in FIELDS]


def shown(value: Any) -> str | int | float:
    """A value as it is printed: paths as text."""
    return value if isinstance(value, str | int | float) else str(value)


def _read(config: Path | None, environment: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
    if config is None and environment.get(CONFIG):
        config = Path(environment[CONFIG])
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    if config is not None:
        for name, given in _file(config).items():
            _known(name, f"{config}: there is no setting {name!r}")
            value = _checked(name, given, f"{name} in {config}")
            values[name] = config.parent / value if isinstance(value, Path) else value
            origins[name] = "file"
    for variable, text in environment.items():
        if variable.startswith(PREFIX) and variable != CONFIG:
            name = variable.removeprefix(PREFIX).lower()
            _known(name, f"there is no setting {variable}", PREFIX)
            values[name] = _checked(name, _typed(name, text), variable)
            origins[name] = "environment"
    return values, origins


def _file(config: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(config.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"the settings file {config} cannot be read ({type(error).__name__})") from None
    except tomllib.TOMLDecodeError:
        raise SettingsError(f"the settings file {config} is not TOML") from None


def _known(name: str, complaint: str, prefix: str = "") -> None:
    if name not in FIELDS:
        near = difflib.get_close_matches(name, FIELDS, 1, 0.5)
        hint = f"; did you mean {prefix + near[0].upper() if prefix else near[0]}?" if near else ""
        raise SettingsError(f"{complaint}{hint}")


def _typed(name: str, text: str) -> Any:
    """A variable's text as the setting's type, or the text itself when it is not one: `_checked` refuses that."""
    kind = type(getattr(_DEFAULTS, name))
    try:
        return kind(text) if kind in (int, float) else text
    except ValueError:
        return text


def _checked(name: str, value: Any, where: str) -> Any:
    default, limits = getattr(_DEFAULTS, name), about(name)
    if isinstance(default, float) and type(value) is int:
        value = float(value)
    if name == "keyring_kek" and type(value) is str and "://" in value:
        check_uri(value, where)
        return value
    if isinstance(default, Path):
        if type(value) is not str or not value.strip() or "\0" in value:
            raise SettingsError(f"{where} must be a path")
        return Path(value).expanduser()
    if type(value) is not type(default):
        kinds = {str: "text", int: "a whole number", float: "a number"}
        raise SettingsError(f"{where} must be {kinds[type(default)]}")
    if isinstance(value, float) and not math.isfinite(value):
        raise SettingsError(f"{where} must be a number")
    if (limits.least is not None and value < limits.least) or (limits.most is not None and value > limits.most):
        unit = "" if limits.unit == "port" else f" {limits.unit}"  # a port is a number of nothing
        raise SettingsError(f"{where} must be from {limits.least:g} to {limits.most:g}{unit}")
    if limits.choices and value not in limits.choices:
        raise SettingsError(f"{where} must be one of {', '.join(limits.choices)}")
    if isinstance(value, str):
        _check_text(name, value, where)
    return value


def _check_text(name: str, value: str, where: str) -> None:
    if not value.strip() or value != value.strip():
        raise SettingsError(f"{where} must not be empty or have blanks around it")
    if name == "broker" and any(not _is_address(one) for one in value.split(",")):
        raise SettingsError(f"{where} must be host:port, several separated by commas")
    if name.endswith("_url"):
        try:
            parts = urlsplit(value)
            port, host = parts.port, parts.hostname
        except ValueError:
            port, host, parts = None, None, urlsplit("")
        if "@" in value:
            raise SettingsError(f"{where} must not hold a password: those lie in the folder `credentials`")
        if parts.scheme not in ("http", "https") or not host or port == 0:
            raise SettingsError(f"{where} must be http://host:port or https://host:port")


def _is_address(text: str) -> bool:
    host, _, port = text.rpartition(":")
    return (
        bool(re.fullmatch(r"[A-Za-z0-9._\-\[\]:]+", host))
        and bool(re.fullmatch("[0-9]{1,5}", port))
        and 0 < int(port) < 65536
    )
