"""A login cannot become another, run two statements, or touch files and the network: tried against the real engine."""

from __future__ import annotations

import urllib.error
import urllib.request
from pathlib import Path

import pytest

from deploy.clickhouse.grants import Store
from deploy.embedded.stack import Stack
from tests.contracts.conftest import login

pytestmark = pytest.mark.stack
SECRET = "Mustermann-0815"
STEAL = "SELECT body FROM analytics.settings"

ATTEMPTS = [
    STEAL,
    "SET ROLE schleuse_operator",
    "set /* a */ role\nschleuse_operator",
    "SET ROLE ALL",
    "SET ROLE DEFAULT",
    "SET DEFAULT ROLE schleuse_operator TO default",
    "EXECUTE AS operator " + STEAL,
    "GRANT schleuse_operator TO analyst",
    "CREATE USER x",
    f"SET ROLE schleuse_operator; {STEAL}",
    f"SELECT 1; SET ROLE schleuse_operator; {STEAL}",
    f"SELECT 1 -- \n; SET ROLE schleuse_operator; {STEAL}",
    f"SELECT \u2018'\u2019; SET ROLE schleuse_operator; {STEAL}; SELECT \u2018'\u2019",
    f"SELECT $a$'$a$; SET ROLE schleuse_operator; {STEAL}; SELECT $a$'$a$",
    f"SELECT 1 AS a$$; SET ROLE schleuse_operator; {STEAL}; SELECT 1 AS b$$",
    f"INSERT INTO published VALUES (1); SET ROLE schleuse_operator; {STEAL}",
    f"INSERT INTO published FORMAT TSV\n1\n; SET ROLE schleuse_operator; {STEAL}",
    "SET ROLE schleuse_operator PARALLEL WITH SET ROLE schleuse_operator",
    "INSERT INTO mailings FROM INFILE '/etc/hostname' FORMAT LineAsString",
    "INSERT INTO FUNCTION file('x') VALUES (1)",
    "SELECT * FROM file('/etc/hostname', 'LineAsString')",
    "SELECT file('/etc/hostname')",
    "SELECT `file`('/etc/hostname')",
    "SELECT \"file\" /* a */ ('/etc/hostname')",
    "SELECT arrayMap(x -> file(x), ['/etc/hostname'])",
    "SELECT * APPLY file FROM (SELECT '/etc/hostname')",
    "SELECT * APPLY(`file`) FROM (SELECT '/etc/hostname')",
    "SELECT 1 AS `'`, file('/etc/hostname'), 2 AS `'`",
    "SELECT 1 SETTINGS additional_result_filter = 'file(\\'/etc/hostname\\') != \\'\\''",
    "SELECT name FROM mailings SETTINGS additional_table_filters = {'mailings': 'file(\\'/etc/hostname\\') != \\'\\''}",
    "SELECT 1 SETTINGS format_template_row = '/etc/hostname' FORMAT Template",
    "SELECT * FROM url('http://127.0.0.1:1/', 'LineAsString')",
    "SELECT * FROM remote('127.0.0.1', 'analytics', 'settings')",
    "SELECT * FROM executable('x', 'LineAsString', 'SELECT 1')",
    "SELECT * FROM merge('analytics', 'settings')",
    "SELECT * FROM loop('analytics', 'settings')",
    "SELECT * FROM dictionary('settings')",
    "SELECT * FROM Python(settings)",
    "CREATE TABLE t (a Int8) ENGINE = Memory",
    "CREATE TEMPORARY TABLE t (a Int8)",
    "CREATE FUNCTION f AS () -> 1",
    "SYSTEM SHUTDOWN",
    "SYSTEM RELOAD CONFIG",
    "BACKUP DATABASE analytics TO File('/tmp/x')",
    "KILL QUERY WHERE 1",
    "SHOW PROCESSLIST",
    "SELECT query FROM system.processes",
    "SELECT query FROM `system`.`processes`",
    "SELECT last_error_message FROM system.errors",
    "SELECT last_error_message FROM merge('system', '^errors$')",
    "SELECT query FROM merge(system, 'processes')",
    "SELECT * FROM loop(system, processes)",
    "SELECT * FROM view(SELECT * FROM system.processes)",
    "WITH x AS (SELECT * FROM system.processes) SELECT * FROM x",
    "exit",
    "\\d",
    "",
]


@pytest.fixture(scope="module")
def guarded(stores: Stack) -> Stack:
    login(stores, Store.ANALYTICS, "operator").insert("settings", [["h", SECRET]], column_names=["hash", "body"])
    assert login(stores, Store.ANALYTICS, "operator").query(STEAL).result_rows == [(SECRET,)]
    return stores


def ask(stack: Stack, statement: str, arguments: str = "", method: str = "POST") -> tuple[int, str]:
    request = urllib.request.Request(
        f"{stack.url(Store.ANALYTICS)}/?database=analytics{arguments}", statement.encode(), method=method
    )
    request.add_header("X-ClickHouse-User", "analyst")
    request.add_header("X-ClickHouse-Key", stack.password(Store.ANALYTICS, "analyst"))
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.mark.parametrize("statement", ATTEMPTS)
def test_an_analyst_gets_no_further(guarded: Stack, statement: str) -> None:
    status, text = ask(guarded, statement)
    assert status >= 400, text
    assert SECRET not in text
    assert ask(guarded, "SELECT currentRoles()") == (200, "['schleuse_analyst']\n")


@pytest.mark.parametrize(
    "arguments", ["&dialect=kusto", "&dialect=prql", "&role=schleuse_operator", "&readonly=0", "&database=system"]
)
def test_no_argument_opens_the_door(guarded: Stack, arguments: str) -> None:
    status, text = ask(guarded, STEAL, arguments)
    assert status >= 400
    assert SECRET not in text


@pytest.mark.parametrize("setting", ["additional_result_filter", "filter", "format_template_row", "format_schema"])
def test_no_setting_brings_an_expression_or_a_file_along(guarded: Stack, setting: str) -> None:
    status, text = ask(guarded, "SELECT 1", f"&{setting}=file('/etc/hostname')")
    assert (status, "UNKNOWN_SETTING" in text) == (404, True), text


def test_values_are_data_and_no_expressions(guarded: Stack, tmp_path: Path) -> None:
    """What stands behind VALUES is not judged: so it is not carried out either."""
    (tmp_path / "secret").write_text(SECRET)
    operator = guarded.password(Store.ANALYTICS, "operator")
    for settings in ("", "SETTINGS input_format_values_interpret_expressions = 1 "):
        for value in (f"file('{tmp_path}/secret')", f"concat(file('{tmp_path}/secret'), 'x')", "upper('x')"):
            statement = f"INSERT INTO settings (hash, body) {settings}VALUES ('stolen', {value})"
            request = urllib.request.Request(f"{guarded.url(Store.ANALYTICS)}/?database=analytics", statement.encode())
            request.add_header("X-ClickHouse-User", "operator")
            request.add_header("X-ClickHouse-Key", operator)
            with pytest.raises(urllib.error.HTTPError):
                urllib.request.urlopen(request, timeout=10)
    assert login(guarded, Store.ANALYTICS, "operator").query(STEAL).result_rows == [(SECRET,)]


def test_an_answer_is_never_written_to_a_file(guarded: Stack, tmp_path: Path) -> None:
    target = tmp_path / "out"
    status, _ = ask(guarded, f"SELECT 1 INTO OUTFILE '{target}'")
    assert status >= 400
    assert not target.exists()


def test_a_get_changes_nothing(guarded: Stack) -> None:
    asked = "query=INSERT+INTO+settings(hash,body)+VALUES('x','y')"
    request = urllib.request.Request(f"{guarded.url(Store.ANALYTICS)}/?database=analytics&{asked}")
    request.add_header("X-ClickHouse-User", "operator")
    request.add_header("X-ClickHouse-Key", guarded.password(Store.ANALYTICS, "operator"))
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(request, timeout=10)
    assert login(guarded, Store.ANALYTICS, "operator").query(STEAL).result_rows == [(SECRET,)]
