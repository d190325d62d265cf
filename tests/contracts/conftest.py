"""Both stores with their real schema, for the store contract: of their own, since these tests kill them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import clickhouse_connect
import pytest

import deploy.clickhouse
from deploy.clickhouse.grants import Store
from deploy.embedded.stack import Stack


def login(stack: Stack, store: Store, role: str, database: str | None = None, **options: Any) -> Any:
    """A clickhouse-connect client; each call is a connection pool of its own."""
    return clickhouse_connect.get_client(
        dsn=stack.url(store),
        username=role,
        password=stack.password(store, role),
        database=database or store.value,
        autogenerate_session_id=False,
        query_retries=0,
        **options,
    )


def apply_schema(stack: Stack, store: Store) -> None:
    """The numbered SQL files, as the login `migrations` runs them."""
    migrations = login(stack, store, "migrations", database="default")
    migrations.command(f"CREATE DATABASE {store}")
    migrations = login(stack, store, "migrations")
    for file in sorted((Path(deploy.clickhouse.__path__[0]) / store).glob("*.sql")):
        for statement in file.read_text().split(";\n"):
            if statement.strip():
                migrations.command(statement)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("stores"), die_with_parent=True)
    stack.start(only=["identity", "analytics"])
    for store in Store:
        apply_schema(stack, store)
    yield stack
    stack.stop()
