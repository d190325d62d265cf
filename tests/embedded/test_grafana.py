"""deploy/grafana without Grafana: every question of its dashboards, asked as Grafana would, and every name in its
files."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from aggregates.continual import factor
from aggregates.reading import Reading
from aggregates.shown import together
from benchmarks.figures import LINKS, Made, declare, fill, made_up, publish
from benchmarks.lock import Lock, made
from deploy.clickhouse.grants import Role, Store, users_xml
from deploy.embedded import stack as embedded
from streams.metrics import Metrics
from streams.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
GRAFANA = ROOT / "deploy" / "grafana"
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
SOURCES = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "schleuse.yaml").read_text())["datasources"]
BOARDS = {path.stem: json.loads(path.read_text()) for path in (GRAFANA / "dashboards").glob("*.json")}
ODD = "it's \\ odd"
ALIKE = ("even", "level", "flat")
"""Mailings of three days in a row: of one month at least two of them."""
QUIET = ("silent", "still", "hushed")
"""The same three months earlier, upon which nobody acted."""
MONTHS = "All mailings of the tenant, by month of sending"
POLICY = "<databases><analytics>{}</analytics></databases>".format(
    "".join(f"<{table}><filter>tenant = 'tenant01'</filter></{table}>" for table in ("published", "mailings"))
)


def questions(board: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for variable in board["templating"]["list"]:
        yield f"variable {variable['name']}", variable["query"]
    for panel in board["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target.get("rawSql") or target["expr"]


def asked(sql: str, tenant: str, mailing: str) -> str:
    """What Grafana (formats `sqlstring` and `raw`) and the data source (its macro) make of a question."""
    now = int(time.time())
    sql = re.sub(r"\$__timeFilter\((\w+)\)", rf"\1 >= toDateTime({now - 366 * 86400}) AND \1 <= toDateTime({now})", sql)
    sql = sql.replace("${tenant:sqlstring}", "'{}'".format(tenant.replace("'", "''")))
    sql = sql.replace("${mailing:raw}", mailing)
    assert "$" not in sql
    return sql


def rows(lock: Lock, sql: str) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in lock.rows(Store.ANALYTICS, sql, Role.ANALYST)]


@pytest.fixture(scope="module")
def lock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lock]:
    with made("tansu", 1, tmp_path_factory.mktemp("grafana"), "[tenant00]\n[tenant01]\n") as running:
        mailings = [*made_up(4, 6000, 2), Made("tenant00", ODD, 3000, 4000, 0)]
        mailings += [Made("tenant00", name, 3000, 4000, 0) for name in ALIKE]
        mailings += [Made("tenant00", name, 3000, 0, 3) for name in QUIET]
        fill(running, mailings)
        declare(running, mailings, None, 1)
        publish(running)
        yield running


@pytest.mark.stack
@pytest.mark.parametrize("tenant", ["tenant00", "tenant01"])
def test_every_question_is_answered_to_an_analyst(lock: Lock, tenant: str) -> None:
    (of_tenants, of_mailings), figures = BOARDS["figures"]["templating"]["list"], BOARDS["figures"]
    assert rows(lock, asked(of_tenants["query"], "", "")) == [("tenant00", "tenant00"), ("tenant01", "tenant01")]
    found = rows(lock, asked(of_mailings["query"], tenant, ""))
    assert {text for _, text in found} == {"Mailing mailing-000", "Mailing mailing-001"} | (
        {f"Mailing {name}" for name in (ODD, *ALIKE, *QUIET)} if tenant == "tenant00" else set()
    )
    for mailing, _ in found:
        for title, sql in questions(figures):
            assert rows(lock, asked(sql, tenant, mailing)), title


@pytest.mark.stack
def test_what_is_shown_is_what_is_published(lock: Lock) -> None:
    said = {
        title: rows(lock, asked(sql, "tenant00", ODD.encode().hex())) for title, sql in questions(BOARDS["figures"])
    }
    published = (
        "FROM published WHERE tenant = 'tenant00' AND mailing = 'it\\'s \\\\ odd' AND actor = 'human' AND step = 39"
    )
    of = dict(rows(lock, f"SELECT value, if(too_few, NULL, recipients) {published} AND dimension = 'link'"))
    assert {row[0]: row[1] for row in said["Links, clicked by people"]} == of
    assert set(of) == {*LINKS, "other"}
    ((recipients, margin, sent),) = rows(
        lock, f"SELECT recipients, margin, sent {published} AND dimension = 'all' AND kind = 'open'"
    )
    ((shown,),) = said["Opened"]
    numbers = [float(number) for number in re.findall(r"[\d.]+", shown)]
    assert numbers == [pytest.approx(100 * of_all / sent, abs=0.051) for of_all in (recipients, margin)]
    assert said["Sent to"] == [("3000",)]
    assert said["Hours since sending"] == [("720",)]
    over = said["People, over hours since sending"]
    assert len(over) == 40
    assert all(opened is low is high is None or low < opened < high for _, opened, low, high, *_ in over)
    assert over[-1][1] == pytest.approx(recipients / sent)


def of_mailing(lock: Lock, mailing: str, actor: str, dimension: str) -> dict[tuple[str, str, int], Reading]:
    """What stands of a mailing of `tenant00`: kind, value, hours -> the figure."""
    found = rows(
        lock,
        "SELECT kind, value, hours, recipients, margin, too_few, sent FROM published WHERE tenant = 'tenant00' "
        f"AND mailing = unhex('{mailing.encode().hex()}') AND actor = '{actor}' AND dimension = '{dimension}'",
    )
    return {tuple(row[:3]): Reading(*row[3:]) for row in found}


TABLES = {
    "Links, clicked by people": ("click", "human", "link"),
    "Links, clicked by machines": ("click", "machine", "link"),
    "Devices on which people opened": ("open", "human", "device"),
}


@pytest.mark.stack
@pytest.mark.parametrize("mailing", [ODD, QUIET[0]])
def test_no_number_stands_where_noise_drowns_it(lock: Lock, mailing: str) -> None:
    """In no panel: a curve has a gap, a table a note, and a tile says so. What is not drowned stands there."""
    said = {
        title: rows(lock, asked(sql, "tenant00", mailing.encode().hex())) for title, sql in questions(BOARDS["figures"])
    }
    drowned = 0
    for title, (kind, actor, dimension) in TABLES.items():
        figures = of_mailing(lock, mailing, actor, dimension)
        for value, *numbers, note in said[title]:
            one = figures[kind, value, 720]
            drowned += one.too_few
            if one.too_few:
                assert (numbers, note) == ([None] * 4, f"too few to say: at most {one.at_most}")
            else:
                assert (numbers[:2], note) == ([one.recipients, one.margin], "")
    assert drowned
    for title, actor, by in (("People", "human", ""), ("Machines", "machine", " by machines")):
        figures = of_mailing(lock, mailing, actor, "all")
        for hours, *numbers in said[f"{title}, over hours since sending"]:
            for kind, shown in (("open", numbers[:3]), ("click", numbers[3:])):
                one = figures[kind, "", int(hours)]
                assert (shown == [None] * 3) == one.too_few
                assert one.too_few or shown[0] == pytest.approx(one.recipients / one.sent)
        for kind, word in (("open", "Opened"), ("click", "Clicked")):
            assert (said[word + by] == [("too few to say",)]) == figures[kind, "", 720].too_few


@pytest.mark.stack
def test_a_month_is_added_up_from_noisy_totals(lock: Lock) -> None:
    """What is shown of a mailing never falls, so it is off upwards more often than not, and nothing averages out."""
    errors = factor(40)
    of_months: dict[tuple[str, str], list[tuple[float, float, int]]] = {}
    for month, kind, sent, sigma, measured in rows(
        lock,
        "SELECT formatDateTime(sent_at, '%Y-%m'), kind, sent, sigma, measured FROM (SELECT mailing, kind, "
        "any(published.sent) AS sent, any(published.sigma) AS sigma, "
        "arrayMap(one -> one.2, arraySort(groupArray((step, published.measured)))) AS measured FROM published "
        "WHERE tenant = 'tenant00' AND dimension = 'all' AND actor = 'human' GROUP BY mailing, kind) AS figures "
        "INNER JOIN (SELECT mailing, max(sent_at) AS sent_at FROM mailings WHERE tenant = 'tenant00' GROUP BY mailing) "
        "AS declared USING (mailing)",
    ):
        total = float(errors.restore[-1] @ np.array(measured))
        of_months.setdefault((month, kind), []).append((total, sigma * float(errors.errors[-1]), sent))
    said = {
        row[0].strftime("%Y-%m"): row[1:]
        for row in rows(lock, asked(dict(questions(BOARDS["figures"]))[MONTHS], "tenant00", ""))
    }
    assert set(said) == {month for month, _ in of_months}
    gaps = []
    for (month, kind), found in of_months.items():
        sent = sum(one[2] for one in found)
        recipients, margin = together(sum(one[0] for one in found), math.hypot(*(one[1] for one in found)), sent)
        share, within = said[month][kind == "click" :: 2]
        if share is None:
            gaps.append((month, kind))
            assert within is None
            assert recipients <= margin + 2
        else:
            assert share * sent == pytest.approx(recipients, abs=1)
            assert within * sent == pytest.approx(margin, abs=2)  # of whole recipients, rounded up
            assert recipients > margin - 2
    assert gaps
    assert any(len(found) > 1 for which, found in of_months.items() if which not in gaps)


def test_every_metric_is_one_that_workers_export() -> None:
    exported = {"up"}
    for family in Metrics().registry.collect():
        ends = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(family.type, ("",))
        exported |= {family.name + end for end in ends}
    labels = {"outcome", "reason", "stage", "topic", "partition", "le", "instance", "job"}
    for title, expression in questions(BOARDS["operators"]):
        assert set(re.findall(r"\b(?:schleuse_\w+|up)\b", expression)) & exported, title
        assert set(re.findall(r"\bschleuse_\w+", expression)) <= exported, title
        named = [re.split(r",\s*", inner) for inner in re.findall(r"by \(([^)]*)\)", expression)]
        assert {label for of in named for label in of} <= labels, title


def test_names_in_the_files_are_each_others() -> None:
    uids = {source["uid"]: source["type"] for source in SOURCES}
    assert set(BOARDS) == {"figures", "operators"}
    for name, wanted in (("figures", "schleuse-figures"), ("operators", "schleuse-workers")):
        text = json.dumps(BOARDS[name])
        assert set(re.findall(r'"uid": "([^"]+)"', text)) == {wanted, BOARDS[name]["uid"]}
        assert f'"type": "{uids[wanted]}"' in text
        panels = BOARDS[name]["panels"]
        assert len({panel["id"] for panel in panels}) == len(panels)
    figures, workers = (source for source in SOURCES)
    mounts = dict(line.split(":")[:2] for line in COMPOSE["grafana"]["volumes"])
    assert figures["jsonData"]["host"] in COMPOSE
    assert figures["jsonData"]["username"] == Role.ANALYST
    assert figures["jsonData"]["defaultDatabase"] == Store.ANALYTICS
    password = figures["secureJsonData"]["password"]
    assert password == f"$__file{{{mounts['credentials-analyst']}/{Store.ANALYTICS}-{Role.ANALYST}}}"
    providers = yaml.safe_load((GRAFANA / "provisioning" / "dashboards" / "schleuse.yaml").read_text())["providers"]
    assert [one["options"]["path"] for one in providers] == [mounts["./deploy/grafana/dashboards"]]
    assert figures["type"] == COMPOSE["grafana"]["environment"]["GF_PLUGINS_PREINSTALL_SYNC"].partition("@")[0]
    assert workers["url"] == "http://prometheus:9090"
    (job,) = yaml.safe_load((GRAFANA / "prometheus.yaml").read_text())["scrape_configs"]
    assert job["dns_sd_configs"] == [{"names": ["worker"], "type": "A", "port": Settings().http_port}]
    assert "worker" in COMPOSE


@pytest.mark.stack
def test_a_row_policy_leaves_an_analyst_her_own_tenant(lock: Lock, monkeypatch: pytest.MonkeyPatch) -> None:
    """As docs/grafana.md gives her one. The embedded engine has one user inside, to whom it is given here; ClickHouse
    keeps it, whatever is asked."""

    def with_policy(*of: Any, **named: Any) -> str:
        before, found, after = users_xml(*of, **named).rpartition("</default>")
        assert found
        return before + POLICY + found + after

    monkeypatch.setattr(embedded, "users_xml", with_policy)
    lock.stack.restart("analytics")
    try:
        tenants, mailings = BOARDS["figures"]["templating"]["list"]
        assert rows(lock, asked(tenants["query"], "", "")) == [("tenant01", "tenant01")]
        assert rows(lock, asked(mailings["query"], "tenant00", "")) == []
        for title, sql in questions(BOARDS["figures"]):
            mine, hers = (asked(sql, tenant, b"mailing-000".hex()) for tenant in ("tenant01", "tenant00"))
            if "variable" not in title:
                assert rows(lock, mine), title
                assert all(set(row) <= {None, "0", ""} for row in rows(lock, hers)), title
        for table in ("published", "mailings"):
            assert rows(lock, f"SELECT count() = countIf(tenant = 'tenant01'), count() > 0 FROM {table}") == [
                (True, True)
            ]
            assert rows(
                lock, f"SELECT count() FROM {table} WHERE tenant != 'tenant01' OR throwIf(tenant != 'tenant01')"
            ) == [(0,)]
    finally:
        monkeypatch.undo()
        lock.stack.restart("analytics")


@pytest.mark.stack
def test_the_statements_of_the_docs_are_clickhouses(lock: Lock) -> None:
    page = (ROOT / "docs" / "grafana.md").read_text()
    (block,) = re.findall(r"```sql\n(.*?)```", page, re.DOTALL)
    statements = [one.strip() for one in re.sub(r"--[^\n]*", "", block).split(";") if one.strip()]
    assert len(statements) == 4
    for one in statements:
        ((said,),) = rows(lock, "SELECT formatQuerySingleLine('{}')".format(one.replace("'", "''")))
        assert "acme_analyst" in said or "TO ALL" in said
