"""The two ClickHouse stores over HTTP: one login a role, every failure one of three kinds.

ClickHouse's own texts hold SQL and values, so nothing of them gets out of this module: an error says the store, the
role, what was being done and ClickHouse's error code and name, and breaks the exception chain.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import clickhouse_connect
import pyarrow as pa
import urllib3
from clickhouse_connect.driver import httputil
from clickhouse_connect.driver.exceptions import DatabaseError, DataError, ProgrammingError

from deploy.clickhouse.grants import Role, Store
from streams.errors import SchleuseError, SettingsError, StoreLate, StoreRefused, StoreUnavailable

__all__ = ["TIME", "Role", "Store", "StoreClient", "arrow", "connect"]

TIME = pa.timestamp("ms", "UTC")
"""DateTime64(3, 'UTC') in Arrow."""

if TYPE_CHECKING:
    from streams.settings import Settings


# Error codes of ClickHouse after which the same insert with the same token may succeed later.
_FOR_NOW = {
    "3",  # UNEXPECTED_END_OF_FILE: the body was cut on its way
    "159",  # TIMEOUT_EXCEEDED
    "164",  # READONLY
    "202",  # TOO_MANY_SIMULTANEOUS_QUERIES
    "209",  # SOCKET_TIMEOUT
    "210",  # NETWORK_ERROR
    "236",  # ABORTED
    "241",  # MEMORY_LIMIT_EXCEEDED
    "242",  # TABLE_IS_READ_ONLY
    "243",  # NOT_ENOUGH_SPACE
    "252",  # TOO_MANY_PARTS
    "279",  # ALL_CONNECTION_TRIES_FAILED
    "285",  # TOO_FEW_LIVE_REPLICAS
    "319",  # UNKNOWN_STATUS_OF_INSERT
    "394",  # QUERY_WAS_CANCELLED
    "425",  # SYSTEM_ERROR
    "735",  # QUERY_WAS_CANCELLED_BY_CLIENT
    "999",  # KEEPER_EXCEPTION
}
_NOT_MADE = {"60", "81"}  # UNKNOWN_TABLE, UNKNOWN_DATABASE
_LATE = "469"  # VIOLATED_CONSTRAINT: the only constraints are deadlines
_CODE = re.compile(r"(?:Code: |error code )(\d+)")
_NAME = re.compile(r"\(([A-Z_]{4,40})\)")

# Every insert that carries a token: at once, and once for every target of every view.
_GUARDED = {"deduplicate_blocks_in_dependent_materialized_views": 1, "async_insert": 0, "insert_deduplicate": 1}


_asked: dict[object, tuple[str, float]] = {}  # what this process waits for at this moment, and since when


def unanswered(seconds: float) -> dict[str, float]:
    """What this process has asked a store and waited for longer than this: a sentence -> since when (epoch seconds)."""
    limit = time.time() - seconds
    slow: dict[str, float] = {}
    for sentence, since in list(_asked.values()):
        if since < limit:
            slow[sentence] = min(since, slow.get(sentence, since))
    return slow


@contextmanager
def _told(where: str, doing: str) -> Iterator[None]:
    call = object()
    _asked[call] = (f"{where} has not answered yet ({doing})", time.time())
    try:
        yield
    except SchleuseError:  # ours already, a missing password file for one
        raise
    except DatabaseError as error:
        text = str(error)
        code, name = _CODE.search(text), _NAME.search(text)
        if code is None:  # the client's word for a connection that was refused, reset or cut
            raise StoreUnavailable(f"{where} did not answer ({doing})") from None
        said = f"ClickHouse error {code[1]}{' ' + name[1] if name else ''}"
        if code[1] == _LATE:
            raise StoreLate(f"{where} refused an insert that came after its deadline ({doing})") from None
        if code[1] in _FOR_NOW:
            raise StoreUnavailable(f"{where} cannot for now: {said} ({doing})") from None
        if code[1] == "516":
            raise StoreRefused(f"{where} refused the password in its file under `credentials`") from None
        if code[1] in _NOT_MADE:
            raise StoreRefused(f"{where} lacks its tables ({said}): schleuse migrate makes them") from None
        raise StoreRefused(f"{where} refused: {said} ({doing})") from None
    except (DataError, ProgrammingError) as error:
        raise StoreRefused(f"{where}: the client library refused ({doing}): {type(error).__name__}") from None
    except Exception as error:  # urllib3's and the client's: a reset, a cut reply, a stall
        raise StoreUnavailable(f"{where} did not answer ({doing}): {type(error).__name__}") from None
    finally:
        del _asked[call]


class _Framed(urllib3.PoolManager):
    """Takes no answer that does not say how long it is.

    HTTP lets such an answer end wherever the connection does, and an empty result is no bytes at all in ClickHouse's
    format: an answer that was cut within its headers would pass for "there are no rows".
    """

    def request(self, method: str, url: str, **named: Any) -> urllib3.BaseHTTPResponse:  # type: ignore[override]  # passed on
        """As urllib3's. Raises ProtocolError for an answer with neither Content-Length nor chunks."""
        response = super().request(method, url, **named)
        assert isinstance(response, urllib3.HTTPResponse)
        if not response.chunked and response.length_remaining is None:
            response.close()
            raise urllib3.exceptions.ProtocolError("the answer ended within its headers")
        return response


class StoreClient:
    """One login at one store. Blocking; may be used by several threads at once. The repr shows no password."""

    def __init__(self, where: str, client: Any) -> None:
        self._where, self._client = where, client

    def __repr__(self) -> str:
        return f"<StoreClient {self._where}>"

    def rows(self, doing: str, sql: str, parameters: Mapping[str, Any] | None = None) -> Sequence[Sequence[Any]]:
        """Rows of a SELECT. `doing` is what an error says; `parameters` are bound by ClickHouse (`{name:Type}`)."""
        with _told(self._where, doing):
            rows: Sequence[Sequence[Any]] = self._client.query(sql, parameters=dict(parameters or {})).result_rows
            return rows

    def columns(self, doing: str, sql: str, parameters: Mapping[str, Any] | None = None) -> pa.Table:
        """A SELECT as an Arrow table."""
        with _told(self._where, doing):
            return self._client.query_arrow(sql, parameters=dict(parameters or {}))

    def do(
        self,
        doing: str,
        sql: str,
        parameters: Mapping[str, Any] | None = None,
        token: str | None = None,
        **settings: Any,
    ) -> None:
        """A statement without a result. With a `token` it is an insert that is done once however often it is made."""
        guarded = {**_GUARDED, "insert_deduplication_token": token} if token else {}
        with _told(self._where, doing):
            self._client.command(sql, parameters=dict(parameters or {}), settings={**guarded, **settings})

    def insert(self, doing: str, table: str, data: pa.Table, token: str | None) -> None:
        """Insert an Arrow table. With a `token`, twice is once; without one, only where a row twice does no harm."""
        guarded = {**_GUARDED, "insert_deduplication_token": token} if token else {"async_insert": 0}
        with _told(self._where, doing):
            self._client.insert_arrow(table, data, settings=guarded)

    def now_ms(self) -> int:
        """Epoch milliseconds by the store's clock: this machine's may be wrong."""
        ((now_ms,),) = self.rows("reading the clock", "SELECT toUnixTimestamp64Milli(now64(3))")
        return int(now_ms)

    def remove(self, table: str, which: str, parameters: Mapping[str, Any], of: str = "") -> None:
        """Delete the rows of a table that `which` (a condition) names, and look that none is left.

        They are out of every answer when it returns; the bytes go later (streams/resources.py: let_go). Raises
        StoreUnavailable when one is left, so that it is tried again; `of` says in that text of what.
        """
        self.do(f"removing from {table}", f"DELETE FROM {table} WHERE {which}", parameters, lightweight_deletes_sync=2)
        ((left,),) = self.rows(
            f"counting what is left in {table}", f"SELECT count() FROM {table} WHERE {which}", parameters
        )
        if left:
            raise StoreUnavailable(f"{left} rows are still in {table} after their removal{of}")

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def arrow(rows: Iterable[Sequence[Any]], schema: pa.Schema) -> pa.Table:
    """Rows (one at least) as the Arrow table that `StoreClient.insert` takes. Raises ValueError for one of another
    length than the schema's."""
    columns = zip(zip(*rows, strict=True), schema.types, strict=True)
    return pa.Table.from_arrays([pa.array(column, kind) for column, kind in columns], schema=schema)


def lets_in(settings: Settings, store: Store, name: str, password: str) -> bool:
    """Whether a store takes a name and a password. Raises StoreUnavailable when it does not say."""
    url = settings.identity_url if store is Store.IDENTITY else settings.analytics_url
    headers = {"X-ClickHouse-User": name, "X-ClickHouse-Key": password}
    where = f"the {store} store at {urlsplit(url).hostname}"
    with _told(where, "trying a password"), urllib3.PoolManager() as pool:
        answer = pool.request("GET", url, {"query": "SELECT 1"}, headers=headers, timeout=20.0, retries=False)
        if answer.status not in (200, 401, 403):
            raise StoreUnavailable(f"{where} neither took nor refused a password (status {answer.status})")
        return answer.status == 200


def connect(settings: Settings, store: Store, role: Role, connections: int = 16) -> StoreClient:
    """Log in. Raises StoreUnavailable when nobody answers, StoreRefused for a wrong password or database."""
    url = settings.identity_url if store is Store.IDENTITY else settings.analytics_url
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SettingsError(f"{store}_url must be http://host:port or https://host:port")
    where = f"the {store} store at {parts.hostname}:{parts.port or 8123} (login {role})"
    with _told(where, "logging in"):
        client = clickhouse_connect.get_client(
            interface=parts.scheme,
            host=parts.hostname,
            port=parts.port or (8443 if parts.scheme == "https" else 8123),
            username=str(role),
            password=settings.password(str(store), str(role)),
            database="default" if role is Role.MIGRATIONS else str(store),
            autogenerate_session_id=False,
            compress=parts.hostname not in ("127.0.0.1", "localhost", "::1"),
            connect_timeout=10,
            send_receive_timeout=60,
            query_retries=0,
            pool_mgr=_Framed(**httputil.get_pool_manager_options(maxsize=connections, num_pools=2)),
        )
    return StoreClient(where, client)
