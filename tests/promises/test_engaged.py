"""Who did it, for whom she agreed to be known: nobody who did not agree, or no longer does, and all of it on record."""

from __future__ import annotations

import csv
import io
import json
import stat
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from streams.errors import StoreUnavailable
from streams.rights import barrier
from streams.rights.audit import Action
from streams.rights.desk import Desk
from streams.rights.engaged import Holder, Question, disclose, holders, rows
from streams.rights.person import find
from streams.stores import Store
from tests.lock import TENANTS, Lock, Message, event, now_ms, preference

pytestmark = pytest.mark.stack
T, M = "engage", "engaged-1"
KNOWN, FORMULA, LATER, GONE = (
    "kim.known@example.com",
    "=cmd@example.com",
    "lea.later@example.com",
    "gina.gone@example.com",
)
VEILED, COUNTED, OFF, NOBODY = (
    "vera.veiled@example.com",
    "carla.counted@example.com",
    "olga.off@example.com",
    "n.n@x.de",
)
OTHER_PURPOSE, MACHINE = "petra.purpose@example.com", "mia.machine@example.com"
ASK = ("engaged", "--tenant", T, "--purpose", "engagement", "--mailing", M)
TO = ("--to-whom", "Agentur Nord", "--why", "ticket 4711")


@dataclass(frozen=True, slots=True)
class Scene:
    desk: Desk
    directory: Path


def _choose(recipient: str, mode: str, at: int, purpose: str = "engagement") -> Message:
    return preference(T, recipient, {purpose: {"open": mode, "click": mode}}, at)


@pytest.fixture(scope="module")
def scene(lock: Lock, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """Everybody opens, and clicks `hero`; the choices of all were carried out before."""
    toml = f'\n[{T}.purposes.engagement]\nceiling = "personal"\n[{T}.purposes.advice]\nceiling = "personal"\n'
    _apply(lock, TENANTS + toml)
    desk, at = lock.desk(), now_ms() - 60_000
    modes = {KNOWN: "personal", FORMULA: "personal", GONE: "personal", VEILED: "pseudonymous", LATER: "pseudonymous"}
    modes |= {COUNTED: "anonymous", OFF: "off", MACHINE: "personal"}
    lock.send([_choose(who, mode, at) for who, mode in modes.items()])
    lock.send([_choose(OTHER_PURPOSE, "personal", at, "advice")])
    barrier.decided(desk.settings)
    lock.send([event(T, LATER, mailing=M)])
    lock.until(lambda: len(rows(desk, Question(T, "engagement", M))) == 1, what="her row under a pseudonym")
    lock.send([_choose(LATER, "personal", at + 2000)])  # not retroactive: what she did before stays under a pseudonym
    barrier.decided(desk.settings)
    acts = [
        event(T, who, mailing=M) for who in (KNOWN, KNOWN, FORMULA, GONE, VEILED, COUNTED, OFF, NOBODY, OTHER_PURPOSE)
    ]
    acts += [event(T, who, mailing=M, kind="click", link="other") for who in (KNOWN, VEILED, LATER)]
    acts += [event(T, MACHINE, mailing=M, actor="machine"), event(T, KNOWN, mailing="engaged-2")]
    lock.send(acts)
    lock.until(lambda: sum(one.events for one in rows(desk, Question(T, "engagement", M))) == 9, what="their rows")
    return Scene(desk, tmp_path_factory.mktemp("lists"))


def _apply(lock: Lock, toml: str) -> None:
    (lock.stack.directory / "tenants.toml").write_text(toml)
    lock.run("tenants", "apply", "--yes")
    barrier.decided(lock.settings)  # a ceiling that came down sends changes, which other tests must not take for theirs


def _read(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline="")))


def test_who_agreed_is_named_and_on_record_and_nobody_else_is(lock: Lock, scene: Scene) -> None:
    out = scene.directory / "all.csv"
    planned = lock.run(*ASK, *TO, "--out", str(out)).stdout
    assert "5 pseudonyms with rows lead to a name, 3 to nobody" in planned  # Kim's opens and her clicks are two
    assert "nothing was opened" in planned
    assert not out.exists()
    trail = len(scene.desk.audit.lines(1000, T, None, Action.ENGAGED_DISCLOSED))

    # Gina withdraws a moment before.
    lock.send([preference(T, GONE, "*", mode="anonymous")])
    said = lock.run(*ASK, *TO, "--out", str(out), "--yes").stdout
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    found = _read(out)
    opens = {(line["recipient"], line["events"]) for line in found if line["kind"] == "open"}
    veiled, later = find(scene.desk, T, VEILED), find(scene.desk, T, LATER)
    assert opens == {(KNOWN, "2"), (f"'{FORMULA}", "1"), ("", "1")}
    of_later = {one.value.hex() for one in later.pseudonyms if one.kind == "open" and one.level.word == "pseudonymous"}
    under = {line["pseudonym"] for line in found if not line["recipient"]}
    assert under == {one.value.hex() for one in veiled.pseudonyms} | of_later
    assert {line["recipient"] for line in found if line["kind"] == "click"} == {KNOWN, LATER, ""}
    assert all(bool(line["recipient"]) != bool(line["pseudonym"]) for line in found)
    assert "3 recipients by name, 3 under a pseudonym" in said

    (line,) = scene.desk.audit.lines(1000, T, None, Action.ENGAGED_DISCLOSED)[trail:]
    disclosure = line.detail["disclosure"]
    assert (line.why, line.detail["to"]) == ("ticket 4711", "Agentur Nord")
    told = lock.rows(
        Store.IDENTITY,
        "SELECT lower(hex(blind)), toString(purpose), mailing, toString(kind), link, disclosed_to, why "
        f"FROM disclosures WHERE disclosure_id = '{disclosure}'",
    )
    of_all = ("Agentur Nord", "ticket 4711")
    blind = {who: scene.desk.blind(T, who).hex() for who in (KNOWN, FORMULA, LATER, VEILED)}
    assert sorted(map(tuple, told)) == sorted(
        [
            (blind[KNOWN], "engagement", M, "open", "", *of_all),
            (blind[KNOWN], "engagement", M, "click", "other", *of_all),
            (blind[FORMULA], "engagement", M, "open", "", *of_all),
            (blind[LATER], "engagement", M, "click", "other", *of_all),
            (blind[LATER], "engagement", "", "", "", *of_all),  # under a pseudonym: only that it was handed out
            (blind[VEILED], "engagement", "", "", "", *of_all),
        ]
    )
    # Once more into the same file: refused, and the file stays.
    again = lock.run(*ASK, *TO, "--out", str(out), "--yes", check=False)
    assert (again.returncode, "is there already" in again.stderr, _read(out) == found) == (1, True, True)


def test_kind_link_and_purpose_narrow_it(lock: Lock, scene: Scene) -> None:
    def listed(*options: str, purpose: str = "engagement") -> set[str]:
        out = scene.directory / f"{'-'.join(options)}-{purpose}.csv"
        command = ("engaged", "--tenant", T, "--purpose", purpose, "--mailing", M, *options, *TO)
        lock.run(*command, "--out", str(out), "--yes")
        return {line["recipient"] for line in _read(out)}

    assert listed("--kind", "click", "--link", "other") == {KNOWN, LATER, ""}
    assert listed(purpose="advice") == {OTHER_PURPOSE}
    wrong = lock.run("engaged", "--tenant", T, "--purpose", "resale", "--mailing", M, *TO, check=False)
    assert wrong.returncode == 1
    named = lock.run(*ASK, "--to-whom", "nord@agentur.example", "--why", "ticket 4711", check=False)
    assert (named.returncode, "--to-whom must be" in named.stderr, "nord" in named.stderr) == (1, True, False)


def test_what_cannot_be_put_on_record_is_not_handed_out(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    out = scene.directory / "never.csv"
    lines = scene.desk.audit.lines(1000, T, None, Action.ENGAGED_DISCLOSED)

    def away(doing: str, *_: object) -> None:
        if doing == "writing disclosures":
            assert out.read_bytes() == b""  # nothing of it was written before
            raise StoreUnavailable("the store is away")
        raise AssertionError(doing)

    insert = scene.desk.identity.insert
    monkeypatch.setattr(
        scene.desk.identity, "insert", lambda doing, *of: away(doing) if "disclosures" in doing else insert(doing, *of)
    )
    with pytest.raises(StoreUnavailable, match="away"):
        disclose(scene.desk, Question(T, "engagement", M), "Agentur Nord", "ticket 4711", out, 30)
    assert not out.exists()
    assert len(scene.desk.audit.lines(1000, T, None, Action.ENGAGED_DISCLOSED)) == len(lines) + 1


def test_nothing_is_handed_out_while_decisions_wait(scene: Scene) -> None:
    """Nobody has carried out anything for this group: as if no worker ran."""
    idle = replace(scene.desk.settings, group="a-group-without-workers")
    with pytest.raises(StoreUnavailable, match="is a worker running"):
        barrier.decided(idle, 0.5)


def test_the_state_decides_also_where_rows_are_still_there(lock: Lock, scene: Scene) -> None:
    """Rows and names as they were read before she withdrew, before a step down, and before the ceiling came down."""
    question = Question(T, "engagement", M, "open")
    did = rows(scene.desk, question)
    mapped = {one.value for one in find(scene.desk, T, KNOWN).pseudonyms}
    names = dict.fromkeys(mapped, KNOWN)
    before = holders(scene.desk, question, did, names, mapped)
    assert {who.recipient for who in before.values()} == {KNOWN, VEILED, LATER, FORMULA}
    # Who has no name in hand stands under a pseudonym, whatever her mode is.
    assert {who.recipient for who in before.values() if who.level.word == "personal"} == {KNOWN}

    lock.send([_choose(VEILED, "anonymous", now_ms()), _choose(KNOWN, "pseudonymous", now_ms())])
    barrier.decided(scene.desk.settings)
    after = holders(scene.desk, question, did, names, mapped)
    assert {who.recipient for who in after.values()} == {LATER, FORMULA}

    lock.send([_choose(LATER, "anonymous", now_ms())])
    names = {one.value: FORMULA for one in find(scene.desk, T, FORMULA).pseudonyms}
    barrier.decided(scene.desk.settings)
    assert set(holders(scene.desk, question, did, names, set(names)).values()) == {
        Holder(FORMULA, next(iter(before.values())).level.PERSONAL)
    }
    _apply(lock, f'{TENANTS}\n[{T}.purposes.engagement]\nceiling = "pseudonymous"\n')
    assert holders(scene.desk, question, did, names, set(names)) == {}
    assert (
        json.loads(lock.run("tenants", "show", "--json").stdout)[T]["purposes"]["engagement"]["ceiling"] != "personal"
    )
