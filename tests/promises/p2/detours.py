"""Every way out of a store that ClickHouse's SQL has: what a login could try to reach the other store with."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlencode

from deploy.clickhouse.grants import Role, Store
from tests.lock import Lock


def detours(lock: Lock, here: Store, role: Role) -> Iterator[tuple[str, str]]:
    """Ways out of one store by SQL: what it is, and the statement. `here` is where the login is."""
    stack = lock.stack
    there = Store.IDENTITY if here is Store.ANALYTICS else Store.ANALYTICS
    people = "recipients" if there is Store.IDENTITY else "engagement"
    port, home = stack.url(there).rsplit(":", 1)[1], stack.directory
    login = {"user": str(role), "password": stack.password(here, role)}
    address = f"{stack.url(there)}/?{urlencode({**login, 'database': str(there), 'query': f'SELECT * FROM {people}'})}"
    own = f"{stack.url(here)}/?{urlencode({**login, 'query': 'SELECT 1'})}"
    secret, ring = home / "credentials" / f"{there}-worker", home / "keys" / "ring.sqlite"
    host = f"127.0.0.1:{port}"
    for function in (
        f"remote('{host}', {there}.{people}, '{role}', '{login['password']}')",
        f"remote('{host}', '{there}', '{people}')",
        f"remoteSecure('{host}', {there}.{people})",
        f"remote('127.0.0.1', file('{secret}', 'LineAsString', 'x String'))",
        f"cluster('default', {there}.{people})",
        f"clusterAllReplicas('default', {there}.{people})",
        f"url('{address}', 'LineAsString', 'x String')",
        f"url('{own}', 'LineAsString', 'x String')",
        f"url('{stack.url(there)}/ping', 'LineAsString', 'x String')",
        f"urlCluster('default', '{address}', 'LineAsString', 'x String')",
        f"file('{secret}', 'LineAsString', 'x String')",
        f"file('../../credentials/{there}-worker', 'LineAsString', 'x String')",
        f"file('{home}/{there}/data/**', 'RawBLOB', 'x String')",
        f"fileCluster('default', '{secret}', 'LineAsString', 'x String')",
        f"sqlite('{ring}', 'entries')",
        f"executable('cat {secret}', 'LineAsString', 'x String')",
        f"s3('http://{host}/x', 'LineAsString', 'x String')",
        f"azureBlobStorage('http://{host}/', 'x', 'y', 'z', 'k', 'LineAsString', 'auto', 'x String')",
        f"hdfs('hdfs://{host}/x', 'LineAsString', 'x String')",
        f"mysql('{host}', '{there}', '{people}', 'worker', '{login['password']}')",
        f"postgresql('{host}', '{there}', '{people}', 'worker', '{login['password']}')",
        f"mongodb('{host}', '{there}', '{people}', 'worker', 'x', 'x String')",
        f"redis('{host}', 'x', 'x String')",
        f"jdbc('jdbc:clickhouse://{host}', '{there}', '{people}')",
        f"odbc('DSN=x', '{there}', '{people}')",
        f"iceberg('http://{host}/x')",
        f"deltaLake('http://{host}/x')",
        f"merge('{there}', '.*')",
        "merge(REGEXP('.*'), 'recipients|engagement|consents')",
        f"loop({there}.{people})",
        f"dictionary('{there}.{people}')",
        f"mergeTreeIndex('{there}', '{people}')",
        f"mergeTreeProjection('{there}', '{people}', 'x')",
        f"viewIfPermitted(SELECT * FROM {there}.{people} ELSE null('x String'))",
    ):
        yield f"{function.partition('(')[0]}", f"SELECT * FROM {function}"
        yield f"CREATE AS {function.partition('(')[0]}", f"CREATE TABLE detour AS {function}"
    for engine in (
        f"File(LineAsString, '{secret}')",
        f"URL('{address}', LineAsString)",
        f"Distributed('default', '{there}', '{people}')",
        f"Merge('{there}', '.*')",
        f"SQLite('{ring}', 'entries')",
        f"MySQL('{host}', '{there}', '{people}', 'worker', 'x')",
        f"PostgreSQL('{host}', '{there}', '{people}', 'worker', 'x')",
        f"Executable('cat {secret}', LineAsString)",
        f"Kafka('{stack.broker_address}', 'tracking.events', 'detour', 'LineAsString')",
        f"S3('http://{host}/x', LineAsString)",
    ):
        yield f"ENGINE = {engine.partition('(')[0]}", f"CREATE TABLE detour (x String) ENGINE = {engine}"
    yield from (
        ("the other database", f"SELECT * FROM {there}.{people}"),
        ("file as a function", f"SELECT file('{secret}')"),
        ("file by APPLY", f"SELECT * APPLY file FROM (SELECT '{secret}')"),
        ("file in a setting", f"SELECT 1 SETTINGS additional_result_filter = 'file(\\'{secret}\\') != \\'\\''"),
        ("file as a template", f"SELECT 1 SETTINGS format_template_row = '{secret}' FORMAT Template"),
        ("file as a default", f"CREATE TABLE detour (x String DEFAULT file('{ring}')) ENGINE = Memory"),
        ("file among values", f"INSERT INTO settings (hash, body) VALUES ('x', file('{secret}'))"),
        ("file among values of migrations", f"INSERT INTO migrations VALUES (99, file('{secret}'), 'x', 1)"),
        ("out to a file", f"SELECT 1 INTO OUTFILE '{home}/detour'"),
        ("into a file", f"INSERT INTO FUNCTION file('{home}/detour', 'CSV', 'x String') SELECT 'x'"),
        ("into a URL", f"INSERT INTO FUNCTION url('{address}', 'CSV', 'x String') SELECT 'x'"),
        ("into another server", f"INSERT INTO FUNCTION remote('{host}', {there}.{people}) SELECT 1"),
        ("from a file", f"INSERT INTO mailings FROM INFILE '{secret}' FORMAT LineAsString"),
        (
            "dictionary",
            f"CREATE DICTIONARY detour (x String) PRIMARY KEY x SOURCE(HTTP(URL '{address}' FORMAT 'TSV')) "
            "LAYOUT(FLAT())",
        ),
        (
            "dictionary of a store",
            f"CREATE DICTIONARY detour (x String) PRIMARY KEY x SOURCE(CLICKHOUSE(HOST '127.0.0.1' PORT {port} "
            f"TABLE '{people}' DB '{there}')) LAYOUT(FLAT())",
        ),
        ("dictGet", f"SELECT dictGet('{there}.{people}', 'sealed', 1)"),
        ("joinGet", f"SELECT joinGet('{there}.{people}', 'sealed', 1)"),
        ("database on a file", f"CREATE DATABASE detour ENGINE = SQLite('{ring}')"),
        ("database on a folder", f"CREATE DATABASE detour ENGINE = Filesystem('{home}')"),
        ("database on a server", f"CREATE DATABASE detour ENGINE = MySQL('{host}', '{there}', 'worker', 'x')"),
        ("named collection", "CREATE NAMED COLLECTION detour AS x = 'y'"),
        ("function", "CREATE FUNCTION detour AS x -> x"),
        ("backup", f"BACKUP DATABASE {here} TO File('{home}/detour')"),
        ("restore", f"RESTORE DATABASE {there} FROM File('{home}/detour')"),
        ("attach", f"ATTACH TABLE detour FROM '{home}/{there}/data' (x String) ENGINE = MergeTree ORDER BY x"),
        ("grant to oneself", f"GRANT ALL ON *.* TO {role}"),
        ("another role", "SET ROLE schleuse_rights"),
        ("another role's name", "SET ROLE ALL"),
        ("execute as", "EXECUTE AS rights SELECT 1"),
        ("create a login", "CREATE USER detour"),
        ("change a password", "ALTER USER default IDENTIFIED BY 'x'"),
        ("reload", "SYSTEM RELOAD CONFIG"),
        ("flush logs", "SYSTEM FLUSH LOGS"),
        ("two statements", f"SELECT 1; SELECT * FROM {there}.{people}"),
        ("a comment", f"SELECT 1 --\n; SELECT * FROM {there}.{people}"),
        ("parallel", f"SELECT 1 PARALLEL WITH SELECT * FROM {there}.{people}"),
        ("explain", f"EXPLAIN ESTIMATE SELECT * FROM {there}.{people}"),
        ("describe", f"DESCRIBE TABLE {there}.{people}"),
        ("describe a URL", f"DESCRIBE TABLE url('{address}', 'TSV')"),
        ("show create", f"SHOW CREATE TABLE {there}.{people}"),
        ("exchange", f"EXCHANGE TABLES {here}.mailings AND {there}.{people}"),
    )
    for table in (
        "query_log", "query_thread_log", "query_views_log", "text_log", "trace_log", "part_log",
        "user_query_log", "asynchronous_insert_log", "session_log", "errors", "error_log", "processes", "users",
        "processors_profile_log", "roles", "grants", "role_grants", "dictionaries", "detached_parts",
        "query_cache", "replicas", "distribution_queue", "asynchronous_inserts", "crash_log", "zookeeper",
        "moves", "backups", "stack_trace", "named_collections", "filesystem_cache", "query_metric_log",
        "blob_storage_log", "user_processes",
    ):  # fmt: skip
        yield f"system.{table}", f"SELECT * FROM system.{table}"
        yield f"system.{table} by merge", f"SELECT * FROM merge('system', '^{table}$')"


# What these say is the login's own or everybody's; it must not name the other store or what is in it.
HARMLESS = (
    "SHOW DATABASES", "SHOW TABLES", "SHOW GRANTS", "SHOW ROLES", "SHOW USERS", "SHOW PROCESSLIST",
    "SHOW SETTINGS LIKE '%a%'",
    "SELECT * FROM system.databases", "SELECT * FROM system.tables", "SELECT * FROM system.columns",
    "SELECT * FROM system.parts", "SELECT * FROM system.mutations", "SELECT * FROM system.merges",
    "SELECT * FROM system.disks", "SELECT * FROM system.settings", "SELECT * FROM information_schema.tables",
    "SELECT currentUser(), currentDatabase(), hostName()",
)  # fmt: skip
