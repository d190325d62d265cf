"""Passwords of the stores' logins: one owner-only file each, made once, read by the commands at the moment of use."""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path

from deploy.clickhouse.grants import Role, Store, roles_of


def ensure(folder: Path, store: Store) -> dict[Role, str]:
    """Make what is missing of `folder/<store>-<role>` and return the SHA-256 (hex) of each password by role.

    A password has 256 random bits, so a plain hash of it cannot be guessed back. A file that exists is kept as it is.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    digests = {}
    for role in roles_of(store):
        path = folder / f"{store}-{role}"
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            pass
        else:
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_urlsafe(32) + "\n")
        digests[role] = hashlib.sha256(path.read_text().strip().encode()).hexdigest()
    return digests
