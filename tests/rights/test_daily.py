"""What the officer sees: counts of each day equal what people did, and name nobody; reports; the budget spent."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pyarrow as pa
import pytest

from aggregates.figures import FIGURES, RHO
from deploy.embedded.stack import Stack
from pseudonymizer.consent import DEFAULT, Consent, Effect, Mode, apply, remnant
from streams.changes import CONSENTS
from streams.dashboard.officer import officer
from streams.messages import KINDS
from streams.rights import daily, verify
from streams.rights.audit import Action
from streams.rights.desk import Desk
from streams.rights.verify import Result, Verdict
from streams.stores import TIME, Role, Store, StoreClient, arrow, connect
from streams.topics import DAY_MS
from tests.lock import Lock, Message, key, now_ms, preference

pytestmark = pytest.mark.stack
BEFORE = now_ms() - 3_600_000
CANARY = "canary.daily"


def who(number: int) -> str:
    return f"{CANARY}{number}@example.com"


def choice(number: int, minutes: int = 0, **modes: str) -> Message:
    return preference("acme", who(number), {"engagement": modes}, BEFORE + minutes * 60_000)


def asked(number: int, kind: str, request_id: str, minutes: int = 30) -> Message:
    value = {"tenant": "acme", "recipient": who(number), "request_id": request_id, "kind": kind}
    value["requested_at"] = BEFORE + minutes * 60_000  # type: ignore[assignment]
    return "tracking.requests", key("acme", who(number)), json.dumps(value).encode()


def everything(number: int, mode: str, minutes: int) -> Message:
    return preference("acme", who(number), "*", BEFORE + minutes * 60_000, mode=mode)


@pytest.fixture(scope="module")
def lock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lock]:
    """A lock in which people have done one of everything that is counted."""
    with (
        Stack(tmp_path_factory.mktemp("daily"), "tansu", die_with_parent=True) as stack,
        Lock(stack, partitions=1) as running,
    ):
        running.worker(SCHLEUSE_BATCH_SECONDS="0.05")
        both = {"open": "personal", "click": "pseudonymous"}
        first = [
            *(choice(n, **both) for n in (1, 2, 3, 4)),
            *(choice(n, click="pseudonymous") for n in (5, 6)),
            choice(7, open="off", click="off"),
            choice(8, open="off"),  # of clicks she has said nothing: anonymous
            everything(9, "off", 0),
            choice(10, open="personal"),
            preference("acme", who(11), {"advice": {"open": "pseudonymous"}}, BEFORE),  # another purpose only
        ]
        second = [
            choice(1, 10, open="personal"),  # once more
            choice(1, -10, open="off"),  # out of date
            choice(2, 10, open="anonymous", click="anonymous"),
            choice(3, 10, open="pseudonymous"),
            everything(5, "anonymous", 10),
            preference("acme", who(10), {"advice": {"open": "off"}}, BEFORE + 600_000),
            asked(4, "erasure", "e-4"),
            asked(6, "erasure", "e-6"),
            asked(7, "erasure", "e-7"),  # who was off stays off
            asked(7, "erasure", "e-7"),  # the sender's retry
            choice(12, 10, open="personal"),
        ]
        third = [
            choice(6, 40, click="personal"),  # anew, after her erasure
            asked(12, "access", "a-12"),
            asked(12, "access", "a-12"),
            asked(99, "access", "a-99"),
        ]
        changes = 0
        for messages in (first, second, third):
            running.send(messages)
            changes += sum(json.loads(value).get("kind") != "access" for *_, value in messages)
            running.settle(changes=changes)
        yield running


@pytest.fixture(scope="module")
def desk(lock: Lock) -> Iterator[Desk]:
    with lock.desk() as opened:
        yield opened


@pytest.fixture(scope="module")
def dashboard(lock: Lock) -> Iterator[StoreClient]:
    store = connect(lock.settings, Store.ANALYTICS, Role.DASHBOARD)
    yield store
    store.close()


def test_counts_are_what_was_done(lock: Lock, desk: Desk, dashboard: StoreClient) -> None:
    said = lock.run("rights", "--once").stdout.splitlines()
    assert "access requests: 3" in said
    assert said[-1].startswith("counts of the day: ")
    seen = officer(dashboard, "acme")
    assert {(one.what, one.value): one.newest for one in seen.series} == {
        ("requests", "access"): 2,
        ("requests", "erasure"): 3,
        ("receipts", "access"): 2,
        ("receipts", "ceiling"): 0,
        ("receipts", "erasure"): 3,
        ("receipts", "withdrawal"): 7,  # of 2, 3, 5, 7, 8, 9, 10
        ("grants", ""): 8,  # of 1, 2, 3, 5, 6, 10, 11, 12: what the ledger still has
        ("withdrawals", ""): 6,  # the ledger has none of 7 any more
        ("recipients", "off"): 2,  # 7, 9
        ("recipients", "anonymous"): 3,  # 2, 5, 8
        ("recipients", "pseudonymous"): 1,  # 3
        ("recipients", "personal"): 4,  # 1, 6, 10, 12
        ("keys", "kek_age_days"): 0,
        ("keys", "root_age_days"): 0,
        ("keys", "root_versions"): 1,
    }
    assert {one.newest for one in officer(dashboard, "beta").series if one.what != "keys"} == {0}
    assert daily.run_once(desk) == 0, "nothing has changed"

    with desk.ring._lock:
        desk.ring._database.execute("UPDATE entries SET created_at = created_at - ?", (10 * DAY_MS,))
    desk.ring.rotate("acme")
    (today,) = {day for one in seen.series for day, _ in one.days}
    yesterday = today - timedelta(days=1)
    earlier = arrow([(yesterday, "acme", "keys", "root_versions", 1)], daily._SCHEMA)
    desk.analytics.insert("a test writing", "daily", earlier, None)
    assert daily.run_once(desk) == 5, "ages of two tenants' root keys and of the KEK, and that one has two versions"
    keys = officer(dashboard, "acme").of("keys")
    assert keys["root_versions"].days == [(yesterday, 1), (today, 2)]
    assert (keys["root_age_days"].newest, keys["kek_age_days"].newest) == (10, 10)
    desk.audit.record(Action.KEY_ROTATED, "", None, "a test", {"key": "kek", "entries": 1})
    assert daily.run_once(desk) == 2
    assert officer(dashboard, "beta").of("keys")["kek_age_days"].newest == 0
    assert daily.counted(desk, ["new"], now_ms())["new"] == dict.fromkeys(daily.ZEROS, 0)
    assert len(lock.rows(Store.ANALYTICS, "SELECT * FROM daily FINAL")) == 2 * len(daily.ZEROS) + 1


def test_modes_are_what_the_core_makes_of_the_decisions(lock: Lock, desk: Desk) -> None:
    """Random decisions and erasures, before and after a state was lost; the ledger's lines say what then holds."""
    chance, lines, expected = random.Random(6), list[tuple[Any, ...]](), Counter[str]()
    for number in range(500):
        hers: dict[str, tuple[Consent, bool]] = {}  # kind -> what holds, and whether she has said it
        mine: list[tuple[Any, ...]] = []
        for incarnation in (1, 2):
            if incarnation == 2:  # who was off is all that is known
                hers = {kind: one for kind, one in hers.items() if one[0].mode is Mode.OFF}
            for _ in range(chance.randrange(5)):
                kind, mode, at = chance.choice(KINDS), chance.choice(list(Mode)), BEFORE + chance.randrange(6)
                known, said = hers.get(kind, (DEFAULT, False))
                step = apply(known, mode, at, bytes(16), 1, Mode.PERSONAL)
                hers[kind] = step.consent, said or step.effect in (Effect.RAISED, Effect.LOWERED, Effect.CONFIRMED)
                mine.append(("engagement", kind, mode.word, str(step.effect), at, incarnation))
            if chance.random() < 0.2:
                erased_at, mine = BEFORE + chance.randrange(6), []
                for kind in KINDS:
                    left = remnant(hers.get(kind, (DEFAULT, False))[0], (), erased_at)
                    hers[kind] = left, left.mode is Mode.OFF
                    mine.append(("*", kind, left.mode.word, "erased", left.decided_at, incarnation))
        if any(said for _, said in hers.values()):
            expected[max(hers.get(kind, (DEFAULT, False))[0].mode for kind in KINDS).word] += 1
        lines += [("gamma", number.to_bytes(16, "big"), *line) for line in mine]
    chance.shuffle(lines)
    names = ("tenant", "blind", "purpose", "kind", "mode", "effect", "decided_at", "incarnation", "deadline")
    types = [CONSENTS.field(name).type for name in names[:7]] + [pa.uint32(), TIME]
    rows = arrow([(*line, now_ms() + 60_000) for line in lines], pa.schema(zip(names, types, strict=True)))
    worker = connect(lock.settings, Store.IDENTITY, Role.WORKER)
    worker.insert("a test writing", "consents", rows, None)
    worker.close()
    found = {mode: count for tenant, _, mode, count in daily._modes(desk, 2) if tenant == "gamma"}
    assert found == expected
    assert len(found) == 4


def test_a_report_is_filed_or_it_is_said_why_not(lock: Lock, desk: Desk, dashboard: StoreClient) -> None:
    result = Result("P1", "rows", "a sentence", Verdict.NOT_SAID, {}, {}, ["no worker"], "")
    refused = Desk(desk.settings, desk.identity, dashboard, desk.ring, desk.keys, desk.audit)
    said = verify.file(refused, verify.Report("2026-11-23T09:14:05.120Z", [result], ""))
    assert "login dashboard) refused" in said
    assert officer(dashboard, "acme").reports == {}
    for verdict in (Verdict.NOT_SAID, Verdict.HOLDS):
        report = verify.Report("2026-11-23T09:14:05.120Z", [replace(result, verdict=verdict)], "1:00")
        assert verify.file(desk, report) == ""
        seen = officer(dashboard, "acme").reports["verify"]
        assert (seen.held, seen.body) == (verdict is Verdict.HOLDS, report.as_json())


def test_the_budget_is_the_sum_of_the_figures(lock: Lock, dashboard: StoreClient) -> None:
    publisher = connect(lock.settings, Store.ANALYTICS, Role.PUBLISHER)
    for mailing, figures in (("m1", FIGURES), ("m2", FIGURES[:1])):
        for figure in figures:
            publisher.do(
                "a test writing",
                "INSERT INTO published (tenant, mailing, step, kind, dimension, value, actor, rho, deadline) SELECT "
                "arrayJoin(['acme', 'beta']), {mailing:String}, arrayJoin([0, 1]), {kind:String}, {dimension:String}, "
                "arrayJoin(['a', 'b']), {actor:String}, {rho:Float64}, now64(3) + 60",
                {
                    "mailing": mailing,
                    "kind": figure.kind,
                    "dimension": figure.dimension,
                    "actor": str(figure.actor),
                    "rho": figure.share * RHO,
                },
            )
    publisher.close()
    spent = officer(dashboard, "acme").spent
    assert spent == {"m1": pytest.approx(RHO), "m2": pytest.approx(FIGURES[0].share * RHO)}
    assert officer(dashboard, "nobody").spent == {}


def test_nothing_of_it_names_anybody(desk: Desk, dashboard: StoreClient) -> None:
    shown = str([dashboard.rows("a test reading", f"SELECT * FROM {table}") for table in ("daily", "reports")])
    assert "acme" in shown
    names = [CANARY, *(desk.blind("acme", who(number)).hex() for number in range(13)), "a-12", "e-4"]
    assert [name for name in names if name.lower() in shown.lower()] == []
