"""Everything that a stopped store holds, as the engine's own master login reads it: no grants, no role."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_DUMP = """
import json, sys, chdb
connection = chdb.connect(sys.argv[1])
ask = lambda sql, form: connection.query(sql, form).bytes() or b""
def put(name, body):
    sys.stdout.buffer.write(json.dumps([name, len(body)]).encode() + b"\\n" + body)
tables = ask("SELECT concat(database, '.', name) FROM system.tables WHERE NOT is_temporary AND engine NOT LIKE '%View' "
    "AND (database NOT IN ('system', 'INFORMATION_SCHEMA', 'information_schema') "
    "OR database = 'system' AND (name LIKE '%log' OR name IN ('mutations', 'parts_columns')))", "TSVRaw")
for table in tables.decode().split():
    for form in ("RowBinary", "JSONEachRow"):
        put(f"{form} {table}", ask(f"SELECT * FROM {table}", form))
columns = ask("SELECT concat(database, '.', table), name, type FROM system.columns WHERE table NOT LIKE '%_view' "
    "AND database IN ('identity', 'analytics') AND table != 'ingest'", "TSVRaw")
for table, name, kind in (line.split("\\t") for line in columns.decode().splitlines()):
    if kind.startswith("Array"):
        sql = f"SELECT hex(arrayJoin({name})) FROM {table}"
    elif "String" in kind and "Map" not in kind:
        sql = f"SELECT hex({name}) FROM {table}"
    elif kind.startswith("UInt"):
        sql = f"SELECT hex(reinterpretAsFixedString({name})) FROM {table}"
    else:
        continue
    put(f"column {table}.{name}", ask(sql, "TSVRaw"))
"""


@dataclass(frozen=True, slots=True)
class Dump:
    """A store's tables, in binary and as text, and its columns value by value, in the order in which they lie there."""

    binary: Mapping[str, bytes]
    text: Mapping[str, bytes]
    columns: Mapping[str, list[bytes]]

    def tables(self) -> dict[str, bytes]:
        """Both forms of every table."""
        return {name: raw + b"\n" + self.text[name] for name, raw in self.binary.items()}


def dump(directory: Path) -> Dump:
    """Read the data directory of a stopped store."""
    done = subprocess.run(
        [sys.executable, "-c", _DUMP, str(directory / "data")], capture_output=True, timeout=120, check=True
    )
    parts: dict[str, dict[str, bytes]] = {"RowBinary": {}, "JSONEachRow": {}, "column": {}}
    rest = memoryview(done.stdout)
    while rest:
        head, _, _ = bytes(rest[:500]).partition(b"\n")
        name, size = json.loads(head)
        begin = len(head) + 1
        form, _, what = name.partition(" ")
        parts[form][what] = bytes(rest[begin : begin + size])
        rest = rest[begin + size :]
    columns = {
        name: [bytes.fromhex(line) for line in raw.decode().splitlines()] for name, raw in parts["column"].items()
    }
    return Dump(parts["RowBinary"], parts["JSONEachRow"], columns)
