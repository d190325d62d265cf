"""The dashboard and the API, over real figures: what they show, to whom, and what they do not show."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import socket
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from openapi_spec_validator import validate

from aggregates.steps import HOURS
from streams.dashboard.pages import _harmless
from streams.dashboard.site import EDITION_SECONDS
from streams.stores import Role, Store
from tests.dashboard.served import CANARY, CLICKED, HERO, MAILINGS, OPENED, Answer, Dashboard, served
from tests.promises.p2.canaries import encodings

pytestmark = pytest.mark.stack
API = "/api/v1"
PATHS = ("/mailings", "/mailings/spring", "/trends", "/officer", "/publishing", "/mailings.csv", "/trends.csv")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    with served(tmp_path_factory.mktemp("dashboard")) as running:
        yield running


def raw(site: Dashboard, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """The answer to bytes that no client would send."""
    where = urllib.parse.urlsplit(site.address)
    with socket.create_connection((where.hostname, where.port), 20) as connection:
        connection.sendall(request)
        connection.settimeout(20)
        said = b"".join(iter(lambda: connection.recv(65_536), b""))
    head, _, body = said.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    return int(first.split()[1]), dict(line.split(": ", 1) for line in lines), body


def printed(site: Dashboard) -> str:
    """What the dashboard has logged."""
    return (site.lock.stack.directory / "logs" / "dashboard.log").read_text()


@contextmanager
def hanging(site: Dashboard) -> Iterator[None]:
    """The analytics store is there and says nothing."""
    pid = next(part.pid for part in site.lock.stack.status() if part.name == "analytics")
    assert pid
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def login(site: Dashboard, key: str) -> dict[str, str]:
    answer = site.get("/login", None, urllib.parse.urlencode({"key": key, "to": "/mailings"}).encode())
    assert (answer.status, answer.headers["Location"]) == (303, "/mailings")
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    return {"Cookie": cookie.partition(";")[0]}


def test_the_api_says_what_was_published_with_its_margin(site: Dashboard) -> None:
    key = site.key()
    listed = site.get(f"{API}/mailings", key).json["mailings"]
    assert [one["mailing"] for one in listed] == list(MAILINGS)
    for one in listed:
        for name, truth in (("opened", OPENED), ("clicked", CLICKED)):
            assert abs(one[name]["recipients"] - truth) <= 3 * one[name]["margin"]
            assert one[name]["share"] == one[name]["recipients"] / 1000
    spring = site.get(f"{API}/mailings/spring", key).json
    links = {link["link"]: link for link in spring["links"]}
    assert set(links) == {"hero", "inxmail.de", "other"}
    assert abs(links["hero"]["clicked"]["recipients"] - HERO) <= 3 * links["hero"]["clicked"]["margin"]
    assert links["other"]["clicked"]["too_few"]
    assert links["other"]["clicked"]["recipients"] is None
    assert [point["hours"] for point in spring["history"]] == [hours for hours in HOURS if hours <= 26]
    assert spring["spent"]["rho"] == pytest.approx(0.1)
    months = site.get(f"{API}/trends", key).json["months"]
    assert sum(month["mailings"] for month in months) == len(MAILINGS)
    assert len(months) >= 3


def test_every_id_that_is_taken_in_can_be_opened(site: Dashboard) -> None:
    cookie = login(site, site.key())
    for mailing in MAILINGS[4:]:
        odd = urllib.parse.quote(mailing, safe="")
        assert f'href="/mailings/{odd}"'.encode() in site.get("/mailings", None, None, **cookie).body
        assert site.get(f"{API}/mailings/{odd}", site.key()).json["mailing"]["mailing"] == mailing
        assert site.get(f"/mailings/{odd}", None, None, **cookie).status == 200
        assert mailing in site.get(f"/mailings/{odd}/figures.csv", None, None, **cookie).body.decode()
    ids = (
        "{campaign}",
        "a/b",
        "a%2Fb",
        "x?y#z",
        "figures.csv",
        "👩\u200d💻",
        "...",
        "a\u00a0b",
        "%",
        "a/figures.csv",
        "\\",
    )
    for unknown in ids:  # routed to where it is looked for, and not found there
        odd = urllib.parse.quote(unknown, safe="")
        assert site.get(f"{API}/mailings/{odd}", site.key()).json["type"] == "/api#no-such-mailing", unknown
        for path in (f"/mailings/{odd}", f"/mailings/{odd}/figures.csv"):
            page = site.get(path, None, None, **cookie)
            assert (page.status, b"no mailing of this name" in page.body) == (404, True), path


def test_cursors_go_through_everything_once(site: Dashboard) -> None:
    key, found, cursor = site.key(), [], ""
    while True:
        page = site.get(f"{API}/mailings?limit=2{cursor}", key).json
        found += [one["mailing"] for one in page["mailings"]]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    assert found == list(MAILINGS)
    rows, cursor = [], ""
    while True:
        page = site.get(f"{API}/figures?limit=100{cursor}", key).json
        rows += [tuple(str(row[name]) for name in ("mailing", "step", "kind", "dimension", "value", "actor"))
                 for row in page["rows"]]  # fmt: skip
        cursor = f"&cursor={page['next']}"
        if not page["more"]:
            break
    sql = "SELECT count() FROM published WHERE tenant = 'acme'"
    assert len(rows) == len(set(rows)) == site.lock.rows(Store.ANALYTICS, sql, Role.ANALYST)[0][0]
    assert site.get(f"{API}/figures?limit=100{cursor}", key).json == {"rows": [], "next": cursor[8:], "more": False}


def test_the_command_prints_what_the_api_answers_and_where_it_goes_on(site: Dashboard) -> None:
    key = site.key()
    for path, given in (
        ("/mailings?limit=2", ("--limit", "2")),
        ("/mailings?limit=6", ("--limit", "6")),
        ("/mailings/spring", ("--mailing", "spring")),
    ):
        printed = json.loads(site.lock.run("figures", "--tenant", "acme", "--json", *given).stdout)
        assert printed == site.get(f"{API}{path}", key).json
        assert (printed.get("next") is None) == (path != "/mailings?limit=2")
    for limit in (2, 6):
        said = site.lock.run("figures", "--tenant", "acme", "--limit", str(limit)).stdout
        assert ("older mailings" in said) == (limit == 2)
    assert "too few to say, at most" in site.lock.run("figures", "--tenant", "acme", "--mailing", "spring").stdout
    nobody = site.lock.run("figures", "--tenant", "nobody", check=False)
    assert (nobody.returncode, nobody.stdout) == (1, "")
    assert "is it written so?" in nobody.stderr


def test_a_key_opens_its_tenant_and_nothing_tells_of_another(site: Dashboard) -> None:
    acme, beta = site.key(), site.key("beta")
    theirs = [one["mailing"] for one in site.get(f"{API}/mailings", beta).json["mailings"]]
    assert sorted(theirs) == ["secret", "spring"]
    assert site.get(f"{API}/mailings/spring", beta).json != site.get(f"{API}/mailings/spring", acme).json
    nobody = site.get(f"{API}/mailings/no-such-one", acme)
    other = site.get(f"{API}/mailings/secret", acme)
    assert (other.status, other.body) == (nobody.status, nobody.body) == (404, nobody.body)
    place = site.get(f"{API}/mailings?limit=1", beta).json["next"]
    assert {one["mailing"] for one in site.get(f"{API}/mailings?cursor={place}", acme).json["mailings"]} <= set(
        MAILINGS
    )
    for attempt in ("?tenant=beta", "?limit=50&tenant=beta", "?named=secret' OR tenant='beta"):
        answer = site.get(f"{API}/mailings{urllib.parse.quote(attempt, safe='?=&')}", acme)
        assert b"secret" not in answer.body or answer.status == 400
    for path in ("/mailings", "/trends", "/mailings.csv", "/mailings/secret"):
        assert b"secret" not in site.get(path, None, None, **login(site, acme)).body.replace(b"/secret", b"")


@pytest.mark.parametrize(
    ("path", "status", "kind"),
    [
        ("/mailings?limit=0", 400, "bad-parameter"),
        ("/mailings?limit=1e2", 400, "bad-parameter"),
        ("/mailings?limit=5&limit=6", 400, "bad-parameter"),
        ("/mailings?limit=%D9%A3", 400, "bad-parameter"),
        ("/mailings?cursor=erika", 400, "bad-parameter"),
        ("/mailings?cursor=WyJhIiwxXQ", 400, "bad-parameter"),
        ("/figures?cursor=W10", 400, "bad-parameter"),
        ("/trends?actor=human", 400, "unknown-parameter"),
        ("/mailings/erika%00", 400, "bad-parameter"),
        ("/mailings/erika", 404, "no-such-mailing"),
        ("/erika", 404, "no-such-page"),
        ("/officer", 403, "wrong-role"),
    ],
)
def test_an_error_is_a_problem_that_says_what_to_do_and_quotes_nothing(
    site: Dashboard, path: str, status: int, kind: str
) -> None:
    answer = site.get(API + path, site.key())
    assert (answer.status, answer.headers["Content-Type"]) == (status, "application/problem+json")
    assert answer.json["type"] == f"/api#{kind}"
    assert answer.json["status"] == status
    assert answer.json["detail"]
    assert b"erika" not in answer.body


@pytest.mark.parametrize(
    "request_",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + b"erika" * 2_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: erika\0\r\n\r\n",
        b"GET /mailings?named=" + b"erika" * 1_800 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"ERIKA /\r\n\r\n",
        b"erika\x16\x03\x01\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nExpect: erika\r\nConnection: close\r\n\r\n",
        b"GET /api/v1/no HTTP/1.1\r\nHost: x\r\nExpect: erika\r\nConnection: close\r\n\r\n",
    ],
    ids=["long header", "NUL", "long query", "method", "bytes", "expect", "expect at no page"],
)
def test_what_is_no_request_is_answered_in_our_words(site: Dashboard, request_: bytes) -> None:
    status, headers, body = raw(site, request_)
    assert (status, headers["Content-Type"]) == (417 if b"Expect" in request_ else 400, "application/problem+json")
    assert json.loads(body)["status"] == status
    assert headers["Server"] == "schleuse"
    assert headers["Cache-Control"] == "no-store"
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert b"erika" not in body.lower()
    assert "erika" not in printed(site).lower()
    assert "Traceback" not in printed(site)


def test_another_method_is_told_which_there_are(site: Dashboard) -> None:
    get = site.get("/logout")
    assert (get.status, get.headers["Allow"]) == (405, "POST")
    post = site.get(f"{API}/mailings", site.key(), b"")
    assert (post.status, post.headers["Allow"]) == (405, "GET, HEAD")
    assert "GET, HEAD" in post.json["detail"]


def test_whoever_is_logged_in_stays_it_where_something_went_wrong(site: Dashboard) -> None:
    cookie = login(site, site.key())
    for path, status in (("/mailings/no-such-one", 404), ("/no-such-page", 404), ("/officer", 403), ("/logout", 405)):
        page = site.get(path, None, None, **cookie)
        assert (page.status, b'action="/logout"' in page.body, b'href="/trends"' in page.body) == (status, True, True)
        assert b'action="/logout"' not in site.get(path).body


def test_roles_see_what_is_theirs(site: Dashboard) -> None:
    sees = {
        "analyst": {"/mailings", "/mailings/spring", "/trends", "/mailings.csv", "/trends.csv"},
        "privacy": set(PATHS) - {"/publishing"},
        "operator": {"/publishing"},
    }
    for role, allowed in sees.items():
        cookie = login(site, site.key("acme", role))
        got = {path: site.get(path, None, None, **cookie).status for path in PATHS}
        assert got == {path: 200 if path in allowed else 403 for path in PATHS}, role
    assert site.get(f"{API}/mailings", site.key("acme", "operator")).status == 403
    assert site.get(f"{API}/officer", site.key("acme", "privacy")).status == 200
    publishing = site.get("/publishing", None, None, **login(site, site.key("acme", "operator"))).body
    assert "\xa0±".encode() not in publishing  # not a figure with a margin


def test_nobody_gets_in_without_a_key_and_a_key_taken_back_opens_nothing(site: Dashboard) -> None:
    assert site.get(f"{API}/mailings").status == 401
    assert site.get(f"{API}/mailings", "schleuse_000000000000_" + "A" * 43).status == 401
    right = site.key()
    assert site.get(f"{API}/mailings", right[:-1] + ("E" if right.endswith("A") else "A")).status == 401
    for path in PATHS:
        assert site.get(path).headers["Location"].startswith("/login?to=")
    wrong = site.get("/login", None, b"key=erika")
    assert (wrong.status, b"erika" in wrong.body) == (401, False)
    for foreign in ("https://evil.example", "https://[evil"):
        assert site.get("/login", None, b"key=x", Origin=foreign).status == 403
    assert site.get("/login", None, b"key=x", **{"Sec-Fetch-Site": "cross-site"}).status == 403
    away = urllib.parse.urlencode({"key": site.key(), "to": "//evil.example/"}).encode()
    assert site.get("/login", None, away).headers["Location"] == "/"
    key = site.key("beta", "sender")
    cookie = login(site, key)
    assert site.get("/mailings", None, None, **cookie).status == 200
    assert site.lock.run("readers", "revoke", key.split("_")[1], check=False).returncode == 1  # --yes does
    site.lock.run("readers", "revoke", key.split("_")[1], "--yes")
    time.sleep(3.2)
    assert site.get(f"{API}/mailings", key).status == 401
    assert site.get("/mailings", None, None, **cookie).status == 303
    sql = "SELECT * FROM readers"
    assert key.split("_", 2)[2] not in str(site.lock.rows(Store.ANALYTICS, sql, Role.OPERATOR))


def test_a_form_that_cannot_be_read_is_no_fault_of_ours(site: Dashboard) -> None:
    form = "application/x-www-form-urlencoded"
    for kind in (
        "multipart/form-data",
        f"{form}; charset=nonsense",
        f"{form}; charset=base64",
        f"{form}; charset=utf-8",
    ):
        answer = site.get("/login", None, b"key=erika%FF\xff", **{"Content-Type": kind})
        assert answer.status == 400, kind
        assert b"erika" not in answer.body
    assert "Traceback" not in printed(site)


def test_pages_are_fresh_guarded_and_in_two_languages(site: Dashboard) -> None:
    cookie = login(site, site.key())
    page = site.get("/mailings/spring", None, None, **cookie)
    assert re.search(r"<strong>6\d(\.\d)?\xa0%\xa0±\xa0\d", page.body.decode())
    policy = page.headers["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy
    for source in re.findall(rb'(?:src|href)="([^"]*)"', page.body):
        assert source.startswith((b"/", b"?", b"#")), source
    assert b"style=" not in page.body
    again = site.get("/mailings/spring", None, None, **cookie, **{"If-None-Match": page.headers["ETag"]})
    assert (again.status, again.body) == (304, b"")
    german = site.get("/mailings/spring", None, None, **cookie, **{"Accept-Language": "de-CH,en;q=0.5"})
    assert 'lang="de"' in german.body.decode()
    assert "Geöffnet" in german.body.decode()
    chosen = site.get("/mailings?language=de", None, None, **cookie)
    assert chosen.status == 303
    assert "schleuse_language=de" in chosen.headers["Set-Cookie"]
    for source in re.findall(rb'="(/static/[^"]*)"', page.body):
        file = site.get(source.decode(), None, None, **{"Accept-Encoding": "gzip"})
        assert (file.status, "immutable" in file.headers["Cache-Control"]) == (200, True)


def test_a_csv_is_what_the_page_shows_and_no_cell_is_carried_out(site: Dashboard) -> None:
    cookie = login(site, site.key())
    rows = list(csv.DictReader(io.StringIO(site.get("/mailings.csv", None, None, **cookie).body.decode())))
    assert {_harmless(f"{cell}SUM(1)") for cell in ("=", "\uff1d", "\uff0b", "\uff0d", "\uff20")} == {
        f"'{cell}SUM(1)" for cell in ("=", "\uff1d", "\uff0b", "\uff0d", "\uff20")
    }
    assert {row["mailing"] for row in rows} == {*MAILINGS[:5], f"'{MAILINGS[5]}"}
    listed = {one["mailing"]: one for one in site.get(f"{API}/mailings", site.key()).json["mailings"]}
    spring = next(row for row in rows if row["mailing"] == "spring")
    assert int(spring["open_human_recipients"]) == listed["spring"]["opened"]["recipients"]
    path = "/mailings/spring/figures.csv"
    history = list(csv.DictReader(io.StringIO(site.get(path, None, None, **cookie).body.decode())))
    sql = "SELECT count() FROM published WHERE tenant = 'acme' AND mailing = 'spring'"
    assert len(history) == site.lock.rows(Store.ANALYTICS, sql, Role.ANALYST)[0][0]


def test_the_description_is_openapi_and_true(site: Dashboard) -> None:
    description = site.get(f"{API}/openapi.json").json
    validate(description)
    page = site.get("/api").body.decode()
    assert "<code>next</code>" in page
    assert "&lt;code" not in page
    assert f"{site.address}{API}/mailings" in page  # nobody has set dashboard_url
    assert (site.get("/ready").status, site.get("/about").status) == (200, 200)
    for path, of in description["paths"].items():
        assert site.get(API + path.replace("{mailing}", "spring"), site.key("acme", "privacy")).status == 200, path
        assert {"200", "400", "401", "403", "429", "503"} <= set(of["get"]["responses"])


def test_many_wrong_keys_have_to_wait(site: Dashboard) -> None:
    answers = [site.get(f"{API}/me", f"schleuse_{n:012x}_" + "A" * 43) for n in range(30)]
    assert {answer.status for answer in answers} == {401, 429}
    assert int(answers[-1].headers["Retry-After"]) >= 1
    unread = site.get("/login", None, b"key", **{"Content-Type": "multipart/form-data"})
    assert unread.status == 429  # what cannot be read counts as a wrong key
    assert site.get(f"{API}/me", site.key()).status == 200  # whoever has a key does not wait for them


def test_no_address_is_anywhere_in_what_is_served_or_logged(site: Dashboard) -> None:
    keys = {role: site.key("acme", role) for role in ("analyst", "privacy", "operator")}
    answers: list[Answer] = [site.get(path, None, None, **login(site, key)) for key in keys.values() for path in PATHS]
    answers += [site.get(f"{API}{path}", keys["privacy"]) for path in ("/mailings", "/figures", "/officer", "/trends")]
    site.get(f"{API}/mailings?named={CANARY}", keys["analyst"])
    site.get(f"/mailings/{CANARY}", None, None, **login(site, keys["analyst"]))
    served_bytes = b"\n".join(answer.body for answer in answers)
    printed = (site.lock.stack.directory / "logs" / "dashboard.log").read_bytes()
    for spelling, text in encodings(CANARY, ("acme", "beta")).items():
        assert text not in served_bytes, spelling
        assert text not in printed, spelling
    for key in keys.values():
        assert key.encode() not in printed


def test_a_port_that_is_taken_and_an_address_of_another_machine_are_told_apart(site: Dashboard) -> None:
    port = str(urllib.parse.urlsplit(site.address).port)
    for name, value, says in (
        ("DASHBOARD_PORT", port, f"dashboard_port: {port} at 127.0.0.1 is in use"),
        ("DASHBOARD_HOST", "192.0.2.1", "dashboard_host: 192.0.2.1 cannot be listened at"),
    ):
        site.lock.environment[f"SCHLEUSE_{name}"] = value
        try:
            refused = site.lock.run("dashboard", check=False)
        finally:
            del site.lock.environment[f"SCHLEUSE_{name}"]
        assert refused.returncode == 1
        assert says in refused.stderr


def test_a_store_that_hangs_is_told_while_a_probe_still_listens(site: Dashboard) -> None:
    assert site.get("/ready").body == b"ok\n"
    with hanging(site):
        time.sleep(EDITION_SECONDS)  # for so long an answer is remembered
        for _ in range(2):
            began = time.monotonic()
            answer = site.get("/ready")
            assert time.monotonic() - began < 5
            assert (answer.status, answer.body) == (503, b"the store does not answer\n")
            assert answer.headers["Content-Type"].startswith("text/plain")
            assert answer.headers["Retry-After"]
        assert site.get("/health").status == 200
    site.lock.until(lambda: site.get("/ready").status == 200, what="the store")
