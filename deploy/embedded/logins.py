"""The logins of a `users.xml`, checked as ClickHouse would check them (chDB itself has no login to check)."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree as ET

_NOBODY = "0" * 64  # compared against when there is no such login, so that the answer takes as long


@dataclass(frozen=True, slots=True)
class Logins:
    """Logins by name: the role that each takes on, and the SHA-256 of its password (not shown)."""

    roles: Mapping[str, str]
    digests: Mapping[str, str] = field(repr=False)

    def role_for(self, name: str, password: str) -> str | None:
        """The ClickHouse role of this login, or None: wrong password or no such login, which cannot be told apart."""
        given = hashlib.sha256(password.encode()).hexdigest()
        right = hmac.compare_digest(given, self.digests.get(name, _NOBODY))
        return self.roles.get(name) if right else None


def read(users_file: Path) -> Logins:
    """Read our own `users.xml` (deploy/clickhouse/grants.py writes it). Logins without a password hash are left out.

    Raises ValueError if the file is not such a one.
    """
    roles, digests = {}, {}
    try:
        users = ET.fromstring(users_file.read_bytes()).find("users")  # noqa: S314  written by us, owner-only
        for user in users if users is not None else ():
            digest, granted = user.findtext("password_sha256_hex"), user.findtext("grants/query")
            if digest and granted and granted.startswith("GRANT "):
                roles[user.tag], digests[user.tag] = granted.removeprefix("GRANT "), digest
    except ET.ParseError:
        raise ValueError(f"{users_file} is not a users.xml") from None
    if not roles:
        raise ValueError(f"{users_file} has no login with a password")
    return Logins(roles, digests)
