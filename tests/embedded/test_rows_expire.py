"""Rows of `engagement` leave their table and the disk on their day, by ClickHouse's own doing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import deploy.clickhouse
from streams.migrate import statements

# A process of its own: chDB takes one directory a process.
_RUN = """
import json, sys, time, chdb
given = json.load(sys.stdin)
connection = chdb.connect(given["directory"])

def ask(sql):
    return connection.query(sql, "JSONCompactEachRow").bytes().decode().split()

for statement in given["statements"]:
    connection.query(statement)
told = [ask(given["ask"]), ask(given["parts"])]
connection.query("SYSTEM START MERGES engagement")
until = time.monotonic() + 15
while [ask(given["ask"]), ask(given["parts"])] != [["[1]"]] * 2 and time.monotonic() < until:
    time.sleep(0.1)
print(json.dumps([*told, ask(given["ask"]), ask(given["parts"])]))
"""
_INSERT = """
INSERT INTO engagement (tenant, purpose, occurred, pseudonym, expires)
SELECT 'acme', 'engagement', now() - toIntervalDay(390), {pseudonym}, {expires} SETTINGS optimize_on_insert = 0
"""


def test_rows_go_on_their_day_and_their_bytes_with_the_old_parts(tmp_path: Path) -> None:
    folder = Path(deploy.clickhouse.__path__[0]) / "analytics"
    soon = "old_parts_lifetime = 1, cleanup_delay_period = 1, max_cleanup_delay_period = 1"
    made = [
        s.replace("old_parts_lifetime = 60", soon)
        for file in sorted(folder.glob("*.sql"))
        for s in statements(file.read_text())
        if "TABLE engagement" in s and " VIEW " not in s
    ]
    inserts = [
        _INSERT.format(pseudonym=1, expires="toDate(now('UTC'))"),  # its day has begun
        _INSERT.format(pseudonym=2, expires="toDate(now('UTC')) + 1"),
    ]
    given = {
        "directory": str(tmp_path / "store"),
        "statements": [
            *made,
            "SYSTEM STOP MERGES engagement",
            *inserts,
        ],
        "ask": "SELECT count() FROM engagement",
        "parts": "SELECT toUInt8(sum(rows)) FROM system.parts WHERE table = 'engagement'",  # old parts too
    }
    done = subprocess.run(
        [sys.executable, "-c", _RUN], input=json.dumps(given), capture_output=True, text=True, check=True, timeout=120
    )
    assert json.loads(done.stdout.splitlines()[-1]) == [["[2]"], ["[2]"], ["[1]"], ["[1]"]]
