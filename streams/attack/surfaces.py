"""Where figures are shown, read by somebody who keeps it all: the SQL endpoint as `analyst`, the API, CSV files, pages.

Nothing here computes anything of what was read, but for finding its place.
"""

from __future__ import annotations

import csv
import http.client
import io
import re
import time
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import quote, unquote, urlencode, urlsplit

import numpy as np
import orjson

from aggregates.continual import Floats
from aggregates.figures import FIGURES, Figure
from streams.attack.likelihood import Cell, cells
from streams.attack.tries import Try
from streams.errors import SchleuseError
from streams.stores import Role, Store, StoreClient, connect

if TYPE_CHECKING:
    from streams.settings import Settings

API: Final = "/api/v1"
_NUMBER: Final = r"([\d,]+(?:\.\d+)?)"
_SHARE: Final = re.compile(_NUMBER + r"\s*%\s*±\s*" + _NUMBER)
_AT_MOST: Final = re.compile(r"at most\s+" + _NUMBER + r"\s*%")
TOTALS: Final = tuple(figure for figure in FIGURES if figure.dimension == "all")
Totals = dict[tuple[str, str], Cell]
"""Kind, actor -> newest figures, try by one column."""


class AttackFailed(SchleuseError):
    """Something could not be read, or a part of the stack stands still: the attack says nothing."""


class Answer(NamedTuple):
    """An answer, how long it took, and nothing that every answer has."""

    status: int
    kind: str
    body: bytes
    seconds: float
    location: str = ""


class Web:
    """One connection that stays open, with the headers of whoever asks. One thread at a time."""

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
        self._headers = dict(headers)

    def ask(self, path: str, method: str = "GET", body: bytes | None = None, **headers: str) -> Answer:
        """Any answer whatever. Raises AttackFailed when there is none."""
        began = time.perf_counter()
        try:
            self._connection.request(method, path, body, {**self._headers, **headers})
            said = self._connection.getresponse()
            text = said.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise AttackFailed(f"an answer did not come ({type(error).__name__})") from None
        seconds = time.perf_counter() - began
        return Answer(
            said.status, said.headers.get("Content-Type", ""), text, seconds, said.headers.get("Location", "")
        )

    def read(self, path: str) -> bytes:
        """What should be there. Raises AttackFailed for every other answer than 200."""
        answer = self.ask(path)
        if answer.status != 200:
            raise AttackFailed(f"an answer has status {answer.status}, not 200")
        return answer.body

    def login(self, key: str) -> None:
        """Log in at the pages: from here on there is a session. Raises AttackFailed."""
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        self._connection.request("POST", "/login", urlencode({"key": key}), {**self._headers, **form})
        said = self._connection.getresponse()
        said.read()
        cookie = said.headers.get("Set-Cookie", "").partition(";")[0]
        if said.status != 303 or not cookie:
            raise AttackFailed(f"logging in was answered with status {said.status}")
        self._headers["Cookie"] = cookie

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def place(tries: Sequence[Try]) -> dict[str, int]:
    """Mailing -> its row."""
    return {one.mailing: row for row, one in enumerate(tries)}


def mailing_path(one: Try) -> str:
    """A mailing's part of a path."""
    return quote(one.mailing, safe="")


# --- the API ---


class Rows:
    """`/api/v1/figures` of one tenant, kept up with: everything that was ever published, as it is read."""

    def __init__(self, tries: Sequence[Try]) -> None:
        self._place = place(tries)
        self._columns = {(figure, step): n for figure in FIGURES for n, step in enumerate(figure.steps)}
        self._figures = {(one.kind, one.dimension, str(one.actor)): one for one in FIGURES}
        self._next: str | None = None
        self.cells = {
            (figure, value): Cell(*(np.full((len(tries), len(figure.steps)), np.nan) for _ in Cell._fields))
            for figure in FIGURES
            for value in cells(figure)
        }
        self.said: dict[tuple[str, int], int] = {}
        """Mailing and step -> a hash of its rows."""

    def read(self, web: Web) -> None:
        """What has been published since. Raises AttackFailed."""
        more = True
        while more:
            asked = {"limit": "10000", **({"cursor": self._next} if self._next else {})}
            answer = orjson.loads(web.read(f"{API}/figures?{urlencode(asked)}"))
            for row in answer["rows"]:
                self._take(row)
            self._next, more = answer["next"], answer["more"]

    def _take(self, row: Mapping[str, object]) -> None:
        mailing, step = str(row["mailing"]), int(str(row["step"]))
        number = self._place.get(mailing)
        if number is None:  # of another game
            return
        self.said[mailing, step] = hash((self.said.get((mailing, step)), orjson.dumps(row)))
        figure = self._figures[str(row["kind"]), str(row["dimension"]), str(row["actor"])]
        cell, said = self.cells[figure, str(row["value"])], row["figure"]
        assert isinstance(said, dict)
        _put(cell, number, self._columns[figure, step], said)


def _put(cell: Cell, row: int, column: int, said: Mapping[str, float | None] | None) -> None:
    if said is not None:
        for array, name in zip(cell, Cell._fields, strict=True):
            number = said[name]
            array[row, column] = np.nan if number is None else number


def totals_of(tries: Sequence[Try]) -> Totals:
    """Room for the newest totals of every try."""
    return {
        (one.kind, str(one.actor)): Cell(*(np.full((len(tries), 1), np.nan) for _ in Cell._fields)) for one in TOTALS
    }


_SAID: Final = {
    "opened": ("open", "human"),
    "clicked": ("click", "human"),
    "opened_by_machines": ("open", "machine"),
    "clicked_by_machines": ("click", "machine"),
}


def api_mailings(web: Web, tries: Sequence[Try], named: str) -> tuple[Totals, dict[str, bytes]]:
    """`/api/v1/mailings`, those that `named` finds: their newest totals, and what was said of each, as it was said."""
    found, said, where = totals_of(tries), dict[str, bytes](), place(tries)
    cursor: str | None = ""
    while cursor is not None:
        asked = {"limit": "200", "named": named, **({"cursor": cursor} if cursor else {})}
        answer = orjson.loads(web.read(f"{API}/mailings?{urlencode(asked)}"))
        for one in answer["mailings"]:
            if (row := where.get(one["mailing"])) is not None:
                said[one["mailing"]] = orjson.dumps(one)
                for name, cell in _SAID.items():
                    _put(found[cell], row, 0, one[name])
        cursor = answer["next"]
    return found, said


# --- CSV ---


def csv_mailings(web: Web, tries: Sequence[Try]) -> tuple[Totals, dict[str, bytes]]:
    """`/mailings.csv`: the same."""
    found, said, where = totals_of(tries), dict[str, bytes](), place(tries)
    for line in csv.DictReader(io.StringIO(web.read("/mailings.csv").decode())):
        if (row := where.get(line["mailing"])) is not None:
            said[line["mailing"]] = repr(line).encode()
            for (kind, actor), cell in found.items():
                texts = {name: line[f"{kind}_{actor}_{name}"] for name in Cell._fields}
                _put(cell, row, 0, {name: float(text) if text else None for name, text in texts.items()})
    return found, said


# --- pages ---


class _List(HTMLParser):
    """The rows of the list of mailings: the texts of their cells; and where the next page is."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[str, list[str]]] = []
        self.older: str | None = None
        self._cells: list[str] | None = None
        self._mailing = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        if tag == "tr":
            self._cells, self._mailing = [], ""
        elif tag in ("td", "th") and self._cells is not None:
            self._cells.append("")
        elif tag == "a":
            path = named.get("href") or ""
            if self._cells is not None and path.startswith("/mailings/"):
                self._mailing = unquote(path.removeprefix("/mailings/"))
            elif named.get("rel") == "next":
                self.older = path

    def handle_endtag(self, tag: str) -> None:
        if tag == "tr" and self._cells is not None:
            if self._mailing:
                self.rows.append((self._mailing, self._cells))
            self._cells = None

    def handle_data(self, data: str) -> None:
        if self._cells:
            self._cells[-1] += data


_ON_PAGES: Final = (("open", "human"), ("click", "human"))


def page_mailings(web: Web, tries: Sequence[Try], named: str) -> tuple[Totals, dict[str, bytes]]:
    """The pages of the list, which say shares: rounded, of people only. Raises AttackFailed when one of them is shown
    in another way than the attack knows."""
    found, said, where = totals_of(tries), dict[str, bytes](), place(tries)
    path: str | None = f"/mailings?{urlencode({'named': named})}"
    while path is not None:
        page = _List()
        page.feed(web.read(path).decode())
        for mailing, texts in page.rows:
            if (row := where.get(mailing)) is not None:
                said[mailing] = "\n".join(texts).encode()
                shares = [one for one in map(_share, texts) if one is not None]
                if len(shares) != len(_ON_PAGES):
                    raise AttackFailed("the list of mailings shows shares in another way than the attack knows")
                for cell, one in zip(_ON_PAGES, shares, strict=True):
                    for array, number in zip(found[cell], one, strict=True):
                        array[row, 0] = number * tries[row].sent / 100
        path = page.older
    if not said:
        raise AttackFailed("the list of mailings shows none of them")
    return found, said


def _share(text: str) -> tuple[float, float, float] | None:
    """Percent, margin and at most; of what is too few to say as if nobody had."""
    if (told := _SHARE.search(text)) is not None:
        share, margin = (float(number.replace(",", "")) for number in told.groups())
        return share, margin, share + margin
    if (told := _AT_MOST.search(text)) is not None:
        most = float(told[1].replace(",", ""))
        return 0.0, most, most
    return None


# --- SQL ---


class Sql:
    """The SQL endpoint under the login `analyst`."""

    def __init__(self, settings: Settings) -> None:
        """Raises StoreUnavailable, StoreRefused, SettingsError."""
        self.store: StoreClient = connect(settings, Store.ANALYTICS, Role.ANALYST, connections=2)
        password = settings.password(str(Store.ANALYTICS), str(Role.ANALYST))
        self._web = Web(settings.analytics_url, {"X-ClickHouse-User": str(Role.ANALYST), "X-ClickHouse-Key": password})

    def ask(self, sql: str) -> Answer:
        """Any statement, and what ClickHouse itself says to it."""
        return self._web.ask(f"/?{urlencode({'database': str(Store.ANALYTICS)})}", "POST", sql.encode())

    def measured(self, tries: Sequence[Try]) -> dict[tuple[Figure, str], Floats]:
        """Every number as it was measured, try by step."""
        rows = self.store.rows(
            "reading figures",
            "SELECT toString(kind), toString(dimension), toString(value), toString(actor), "
            "arrayMap(one -> one.3, arraySort(groupArray((mailing, step, measured)))) FROM published "
            "WHERE tenant = {tenant:String} AND mailing IN {mailings:Array(String)} GROUP BY ALL",
            {"tenant": tries[0].tenant, "mailings": [one.mailing for one in tries]},
        )
        by_cell = {tuple(cell): numbers for *cell, numbers in rows}
        return {
            (figure, value): np.array(by_cell[figure.kind, figure.dimension, value, str(figure.actor)]).reshape(
                len(tries), len(figure.steps)
            )
            for figure in FIGURES
            for value in cells(figure)
        }

    def said(self, tries: Sequence[Try], upto: int) -> dict[str, bytes]:
        """Everything that is in the rows of each mailing, of the steps up to one: hashed, mailing by mailing."""
        rows = self.store.rows(
            "reading figures",
            "SELECT toString(mailing), count(), groupBitXor(sipHash64(*)), max(at) FROM published "
            "WHERE tenant = {tenant:String} AND mailing IN {mailings:Array(String)} AND step <= {upto:UInt8} "
            "GROUP BY mailing",
            {"tenant": tries[0].tenant, "mailings": [one.mailing for one in tries], "upto": upto},
        )
        return {mailing: repr(rest).encode() for mailing, *rest in rows}

    def published(self, tries: Sequence[Try], step: int) -> int:
        """Of how many mailings a step is published."""
        ((count,),) = self.store.rows(
            "looking for a step",
            "SELECT uniqExact(mailing) FROM published WHERE mailing IN {mailings:Array(String)} "
            "AND step = {step:UInt8}",
            {"mailings": [one.mailing for one in tries], "step": step},
        )
        return int(count)

    def declared(self, tries: Sequence[Try], sent_ms: int) -> int:
        """How many mailings are declared as sent at a moment."""
        ((count,),) = self.store.rows(
            "looking for declarations",
            "SELECT uniqExact(mailing) FROM mailings WHERE mailing IN {mailings:Array(String)} "
            "AND toUnixTimestamp64Milli(sent_at) = {sent:Int64}",
            {"mailings": [one.mailing for one in tries], "sent": sent_ms},
        )
        return int(count)

    def close(self) -> None:
        """Close the connections."""
        self.store.close()
        self._web.close()


def answers(one: Answer, name: str) -> bytes:
    """An answer as it can be compared: what was asked is left out of it."""
    return b"%d %s " % (one.status, one.kind.encode()) + one.body.replace(name.encode(), b"*")
