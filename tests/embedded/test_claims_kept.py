"""The table of claims does not grow for ever, and never loses a partition's newest claim: on ClickHouse itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import deploy.clickhouse
from streams.migrate import statements

# A process of its own: chDB takes one directory a process.
_RUN = """
import json, sys, chdb
given = json.load(sys.stdin)
connection = chdb.connect(given["directory"])
for statement in given["statements"]:
    connection.query(statement)
print(connection.query(given["ask"], "JSONCompactEachRow").bytes().decode())
"""
_INSERT = """
INSERT INTO claims SELECT {life}, {partition}, number, if(number % 7 = 0, 'changes', 'events'), number * 10,
    number * 10 + 9, number * 10 + 10, number, now64(3) - toIntervalDay({days}) + toIntervalSecond(number), 1, number,
    concat('settings', toString(number)), concat('0.1.0/', toString(number)), now64(3) + toIntervalHour(1)
FROM numbers({begin}, {count})
"""
_ASK = "SELECT partition, number, toString(kind), first, last, next_event, next_change, mailings, settings, worker "


def test_old_claims_become_the_newest_of_them(tmp_path: Path) -> None:
    folder = Path(deploy.clickhouse.__path__[0]) / "analytics"
    made = [s for file in sorted(folder.glob("*.sql")) for s in statements(file.read_text()) if "TABLE claims" in s]
    assert len(made) >= 2  # CREATE, and what came after
    inserts = [
        *(_INSERT.format(life=1, partition=0, begin=begin, count=300, days=40) for begin in (0, 300, 600)),
        _INSERT.format(life=1, partition=0, begin=900, count=5, days=1),  # goes on
        _INSERT.format(life=1, partition=1, begin=0, count=500, days=90),  # has stood still since
        _INSERT.format(life=2, partition=1, begin=0, count=3, days=80),  # another incarnation, idle too
    ]
    given = {
        "directory": str(tmp_path / "store"),
        "statements": [*made, *inserts, "OPTIMIZE TABLE claims FINAL", "OPTIMIZE TABLE claims FINAL"],
        "ask": f"{_ASK}, incarnation FROM claims ORDER BY incarnation, partition, number",
    }
    done = subprocess.run(
        [sys.executable, "-c", _RUN], input=json.dumps(given), capture_output=True, text=True, check=True, timeout=120
    )
    found = [json.loads(line) for line in done.stdout.splitlines() if line]

    def whole(life: int, partition: int, number: int) -> list[object]:
        kind = "changes" if number % 7 == 0 else "events"
        ends = [str(number * 10), str(number * 10 + 9), str(number * 10 + 10), str(number), str(number)]
        return [partition, str(number), kind, *ends, f"settings{number}", f"0.1.0/{number}", life]

    assert [[str(v) for v in row] for row in found] == [
        [str(v) for v in whole(*which)]
        for which in [(1, 0, 899), *((1, 0, number) for number in range(900, 905)), (1, 1, 499), (2, 1, 2)]
    ]
