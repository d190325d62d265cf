"""`python -m deploy.compose.logins`: the logins of both stores, once, into the volumes of `docker-compose.yml`.

    /logins/identity/users.xml     read by the identity store: hashes and grants, no password
    /logins/analytics/users.xml    read by the analytics store
    /credentials/worker            the worker's two passwords
    /credentials/rights            the two of the rights service and commands
    /credentials/publisher         the publisher's one
    /credentials/dashboard         the dashboard's one
    /credentials/analyst           Grafana's: the analyst's one, and the password of Grafana's own `admin`
    /credentials/admin             all of them, for migrations and the operator

What exists is kept, so this may run before every start. `users.xml` is written anew: the table of grants may have
changed.
"""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path
from typing import Final

from deploy.clickhouse.grants import Role, Store, roles_of, users_xml
from deploy.embedded import credentials

CLICKHOUSE_UID: Final = 101  # of the official image
SCHLEUSE_UID: Final = 10001  # of the Dockerfile beside this file
GRAFANA_UID: Final = 472  # of the official image


def write(root: Path) -> None:
    """Write everything under `root`, each file for its one reader."""
    admin = root / "credentials" / "admin"
    roles = (Role.WORKER, Role.RIGHTS, Role.PUBLISHER, Role.DASHBOARD, Role.ANALYST)
    own = {role: root / "credentials" / role for role in roles}
    for store in Store:
        digests = credentials.ensure(admin, store)
        users = root / "logins" / store / "users.xml"
        users.parent.mkdir(parents=True, exist_ok=True)
        users.write_text(users_xml(store, digests))
        _give(users, CLICKHOUSE_UID)
        _give(users.parent, CLICKHOUSE_UID, 0o700)
        for role, folder in own.items():
            if role not in roles_of(store):
                continue
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(admin / f"{store}-{role}", folder / f"{store}-{role}")
    grafana = own[Role.ANALYST] / "grafana-admin"
    if not grafana.exists():
        grafana.write_text(secrets.token_urlsafe(32))
    for folder in (admin, *own.values()):
        uid = GRAFANA_UID if folder == own[Role.ANALYST] else SCHLEUSE_UID
        for file in folder.iterdir():
            _give(file, uid)
        _give(folder, uid, 0o700)


def _give(path: Path, uid: int, mode: int = 0o600) -> None:
    path.chmod(mode)
    os.chown(path, uid, uid)


if __name__ == "__main__":
    write(Path("/"))
