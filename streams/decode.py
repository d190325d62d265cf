"""A run of event records -> columns, strict record by record.

`read_event` is the definition: one record, read plainly, by the rules of the message. `decode` gives the same answer on
every input for a tenth of the time. It only ever *accepts* on its own what it can prove; whatever it cannot prove it
hands to `read_event`, one record at a time, so that a bad record costs only itself and every reason for a refusal comes
from one place. Three proofs, cheapest first, that a record has no name twice and nothing in it that we do not know:

1. msgspec (strict JSON, types, lengths) read it, and it is not one byte longer than its values need.
2. It is longer, but has no more quotation marks than its names and strings need: a further member would bring two.
3. It has unknown fields: orjson, strict about all of it, read it too, and its quotation marks are those that what came
   out needs. (msgspec skips an unknown value without checking its UTF-8.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from operator import attrgetter
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import orjson
import polars as pl
from numpy.typing import NDArray

from streams.errors import BadRow, Reason
from streams.messages import AHEAD_MS, BACK_MS, check_id, parse_time
from streams.strict_json import MAX_BYTES, MAX_DEPTH, read_object

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

BLOCK = 2_000  # records at a time while they are objects: they stay in the processor's cache (1.5 against 1.9 µs)
MAX_EVENT_ID, MAX_TENANT, MAX_MAILING, MAX_RECIPIENT = 64, 64, 128, 320
MAX_LINK, MAX_URL, MAX_USER_AGENT, MAX_IP, MAX_FEED = 64, 8_192, 2_048, 64, 64


@dataclass(frozen=True, slots=True, repr=False)
class Event:
    """One event as its sender sent it. `repr` shows nothing of it: it is personal data."""

    event_id: str
    kind: str
    tenant: str
    mailing: str
    recipient: str
    """Raw: neither trimmed nor canonical."""
    occurred_ms: int
    """Milliseconds since 1970, UTC."""
    link: str | None
    url: str | None
    user_agent: str | None
    ip: str | None
    actor: str | None
    feed: str | None

    def __repr__(self) -> str:
        return "Event(...)"


SCHEMA = {"row": pl.UInt32()} | {
    field.name: pl.Int64() if field.name == "occurred_ms" else pl.String() for field in fields(Event)
}


@dataclass(frozen=True, slots=True, repr=False)
class Decoded:
    """What a run of records came to. Every index of the run is either in `frame["row"]` or in `bad`, and in it once."""

    frame: pl.DataFrame
    """Columns of `SCHEMA`, by rising `row` (index in the run). An optional field that was not sent is null."""
    bad: list[tuple[int, BadRow]]
    """By rising index."""

    def __repr__(self) -> str:
        return f"Decoded({len(self.frame)} events, {len(self.bad)} bad)"


def has_control(text: str) -> bool:
    """Whether a C0 or C1 control character or DEL (Unicode's category Cc) is in `text`."""
    return any(char < " " or "\x7f" <= char <= "\x9f" for char in text)


def _text(record: dict[str, Any], name: str, longest: int, shortest: int = 0) -> str | None:
    """An optional string; null is absent. Length in characters."""
    value = record.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise BadRow(Reason.WRONG_TYPE, name, "a string")
    if not shortest <= len(value) <= longest:
        raise BadRow(Reason.BAD_VALUE, name, f"{shortest} to {longest} characters")
    return value


def _needed(record: dict[str, Any], name: str, kind: type = str) -> Any:
    value = record.get(name)
    if value is None:
        raise BadRow(Reason.MISSING_FIELD, name, "a value")
    if not isinstance(value, kind):
        raise BadRow(Reason.WRONG_TYPE, name, "a string")
    return value


def read_event(raw: bytes | None, now_ms: int) -> Event:
    """Read one record of `tracking.events`: the definition of what an event is.

    Raises BadRow and nothing else. Null counts as absent in every field; so does an empty `url`, `user_agent` or `ip`.
    Unknown fields are ignored, but no name may come twice. `recipient` is only checked for being possible: whether it
    is a good address, and its canonical form, are decided later.
    """
    record = read_object(raw)
    event_id = _needed(record, "event_id")
    if not 1 <= len(event_id) <= MAX_EVENT_ID or has_control(event_id):
        raise BadRow(Reason.BAD_VALUE, "event_id", f"1 to {MAX_EVENT_ID} characters, no control characters")
    kind = _needed(record, "kind")
    if kind not in ("open", "click"):
        raise BadRow(Reason.UNKNOWN_KIND, "kind", "open or click")
    tenant = check_id(_needed(record, "tenant"), "tenant", MAX_TENANT)
    mailing = check_id(_needed(record, "mailing"), "mailing", MAX_MAILING)
    recipient = _needed(record, "recipient")
    trimmed = recipient.strip()
    if not 1 <= len(trimmed) <= MAX_RECIPIENT or has_control(trimmed):
        raise BadRow(Reason.BAD_RECIPIENT, "recipient", f"1 to {MAX_RECIPIENT} characters, no control characters")
    occurred_ms = parse_time(_needed(record, "occurred_at", object), "occurred_at", now_ms)
    link = _text(record, "link", MAX_LINK, 1)
    url = _text(record, "url", MAX_URL) or None
    if kind == "click" and link is None and url is None:
        raise BadRow(Reason.MISSING_FIELD, "link", "link or url in a click")
    user_agent = _text(record, "user_agent", MAX_USER_AGENT) or None
    ip = _text(record, "ip", MAX_IP) or None
    actor = _text(record, "actor", MAX_BYTES)
    if actor not in (None, "human", "machine"):
        raise BadRow(Reason.BAD_VALUE, "actor", "human or machine")
    feed = record.get("feed")
    if feed is not None:
        feed = check_id(_needed(record, "feed"), "feed", MAX_FEED)
    return Event(event_id, kind, tenant, mailing, recipient, occurred_ms, link, url, user_agent, ip, actor, feed)


_ABSENT: Any = ""  # told apart from null, which the proofs have to count; where a length of 0 is refused it is unique


class _Wire(msgspec.Struct, gc=False):
    """The record as msgspec checks it: types and lengths. `gc=False`: strings and integers make no cycles."""

    event_id: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_EVENT_ID)]
    kind: Literal["open", "click"]
    tenant: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_TENANT)]
    mailing: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_MAILING)]
    recipient: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_RECIPIENT)]
    occurred_at: int | str
    link: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_LINK)] | None = _ABSENT
    url: Annotated[str, msgspec.Meta(max_length=MAX_URL)] | None = _ABSENT
    user_agent: Annotated[str, msgspec.Meta(max_length=MAX_USER_AGENT)] | None = _ABSENT
    ip: Annotated[str, msgspec.Meta(max_length=MAX_IP)] | None = _ABSENT
    actor: Literal["human", "machine"] | None = _ABSENT
    feed: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_FEED)] | None = _ABSENT


_OPTIONAL = ("link", "url", "user_agent", "ip", "actor", "feed")
_TEXTS = {name: attrgetter(name) for name in _Wire.__struct_fields__ if name != "occurred_at"}
_TIME = attrgetter("occurred_at")
_read_wire = msgspec.json.Decoder(_Wire).decode
_NOT_READ = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, TypeError)  # TypeError: a tombstone
_CONTROL = "[\x00-\x1f\x7f-\x9f]"


def decode(values: Sequence[bytes | None], now_ms: int) -> Decoded:
    """Decode a run of records into columns; `now_ms` is the time against which `occurred_at` is judged.

    Raises nothing for bad content. For every index it gives what `read_event` gives for that record.
    """
    texts, times, unread = _read_all(values)
    read = np.delete(np.arange(len(values)), unread)
    frame, sure = _check(texts, times, read, values, now_ms)
    rows: list[tuple[Any, ...]] = []
    bad: list[tuple[int, BadRow]] = []
    for row in sorted(unread + read[~sure].tolist()):
        try:
            rows.append((row, *astuple(read_event(values[row], now_ms))))
        except BadRow as refusal:
            bad.append((row, refusal))
    if not sure.all():
        frame = frame.filter(pl.Series(sure))
    if rows:
        frame = pl.concat([frame, pl.DataFrame(rows, schema=SCHEMA, orient="row")]).sort("row")
    return Decoded(frame, bad)


def _read_all(values: Sequence[bytes | None]) -> tuple[pl.DataFrame, list[str | int], list[int]]:
    """What msgspec could read: its texts, and `occurred_at` as it came; and the rows that it could not read."""
    blocks: list[pl.DataFrame] = []
    times: list[str | int] = []
    unread: list[int] = []
    for start in range(0, max(len(values), 1), BLOCK):
        part = values[start : start + BLOCK]
        wires: list[_Wire] = []
        before = len(unread)
        reader = map(_read_wire, part)  # type: ignore[arg-type]  # a tombstone raises TypeError, as it should
        while len(wires) + len(unread) - before < len(part):
            try:
                wires.extend(reader)  # what came before an exception stays in the list
            except _NOT_READ:
                unread.append(start + len(wires) + len(unread) - before)
        blocks.append(pl.DataFrame([pl.Series(name, list(map(get, wires)), pl.String) for name, get in _TEXTS.items()]))
        times.extend(map(_TIME, wires))
    return pl.concat(blocks, rechunk=True), times, unread


def _check(
    texts: pl.DataFrame, times: list[str | int], rows: Ints, values: Sequence[bytes | None], now_ms: int
) -> tuple[pl.DataFrame, Bools]:
    """All that msgspec read as a frame, and which of it is proven: the rules that msgspec cannot check are here."""
    occurred_ms, sure, least, marks = _times(times, now_ms)
    least += 1  # two braces, less the comma that the first member does without
    for name in _TEXTS:
        length = texts[name].str.len_bytes()
        if length.null_count():
            marks -= length.is_null().to_numpy() * 2
            length = length.fill_null(2)  # null is as long as two quotation marks and two bytes more
        size = length.to_numpy()
        present = size > 0 if name in _OPTIONAL else np.True_
        least += present * (len(name) + 6) + size
        marks += present * 4
    records: Sequence[Any] = values if len(rows) == len(values) else [values[row] for row in rows.tolist()]
    sizes = np.fromiter(map(len, records), np.int64, len(rows))
    sure &= sizes <= MAX_BYTES
    longer = np.flatnonzero(sure & (sizes != least))
    suspects = zip(longer.tolist(), marks[longer].tolist(), strict=True)
    sure[longer] = [_nothing_hidden(records[i], count) for i, count in suspects]
    for name, longest in (("tenant", MAX_TENANT), ("mailing", MAX_MAILING), ("feed", MAX_FEED)):
        wrong = [text for text in texts[name].unique() if text and not _is_id(text, name, longest)]
        if wrong:
            sure &= ~texts[name].is_in(wrong).fill_null(False).to_numpy()
    if not _is_printable_ascii(texts["event_id"]):
        sure &= ~texts["event_id"].str.contains(_CONTROL).to_numpy()
    if not _is_printable_ascii(texts["recipient"]):
        sure &= ~texts["recipient"].str.contains(_CONTROL).to_numpy()
    sure &= ~texts["recipient"].str.contains(r"^\s").to_numpy()  # what is left after trimming has to be looked at
    optional = {name: pl.when(pl.col(name) != "").then(pl.col(name)).alias(name) for name in _OPTIONAL}
    frame = texts.with_columns(
        pl.Series("row", rows, pl.UInt32), pl.Series("occurred_ms", occurred_ms), **optional
    ).select(SCHEMA.keys())
    sure &= ((frame["kind"] == "open") | frame["link"].is_not_null() | frame["url"].is_not_null()).to_numpy()
    return frame, sure


def _is_printable_ascii(texts: pl.Series) -> bool:
    codes = np.frombuffer(_joined(texts), np.uint8)
    return bool((codes - np.uint8(32) < 95).all())  # below the blank wraps round


def _nothing_hidden(raw: bytes, marks: int) -> bool:
    """Proof 2, else proof 3 (see the head of this module). Escaped quotation marks only ever make it fail."""
    found = raw.count(b'"')
    if found == marks:
        return True
    try:
        record = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return False
    types = list(map(type, record.values()))
    if list in types or dict in types:
        return found == _marks(record, MAX_DEPTH)
    return found == 2 * (len(types) + types.count(str))


def _marks(value: Any, levels: int) -> int:
    """Quotation marks in the shortest text of a JSON value; far below 0 if it is nested deeper than `levels`."""
    if isinstance(value, str):
        return 2
    if not isinstance(value, dict | list):
        return 0
    if levels == 0:
        return -MAX_BYTES
    if isinstance(value, dict):
        return 2 * len(value) + sum(_marks(inner, levels - 1) for inner in value.values())
    return sum(_marks(inner, levels - 1) for inner in value)


def _is_id(text: str, field: str, longest: int) -> bool:
    try:
        return check_id(text, field, longest) == text
    except BadRow:
        return False


def _joined(texts: pl.Series) -> bytes:
    return str(texts.str.join("").item()).encode()


_NEVER_MS = -(1 << 62)

# Times in the shapes that nearly every sender writes, by length: `d` is a digit, `s` a sign. parse_time has the rest.
_SHAPES = {
    len(shape): shape
    for shape in (
        f"dddd-dd-ddTdd:dd:dd{fraction}{zone}" for fraction in ("", ".ddd", ".dddddd") for zone in ("Z", "sdd:dd")
    )
}


def _times(times: list[str | int], now_ms: int) -> tuple[Ints, Bools, Ints, Ints]:
    """Epoch milliseconds, whether they are sure, and bytes and quotation marks of the member in its shortest form."""
    n = len(times)
    whole = np.zeros(n, np.bool_)
    milliseconds = np.full(n, _NEVER_MS)
    try:
        texts = pl.Series(times, dtype=pl.String, strict=True)
        length = texts.str.len_bytes().to_numpy().astype(np.int64)
    except (TypeError, OverflowError):  # numbers among them, or one of hundreds of digits behind a text
        whole = np.fromiter((type(time) is int for time in times), np.bool_, n)
        numbers = [time if type(time) is int and abs(time) < 1 << 53 else _NEVER_MS for time in times]
        milliseconds = np.asarray(numbers, np.int64)
        texts = pl.Series([time if type(time) is str else "" for time in times], dtype=pl.String)
        written = np.fromiter((len(str(number)) - 2 for number in numbers), np.int64, n)  # it has no quotation marks
        length = np.where(whole, written, texts.str.len_bytes().to_numpy().astype(np.int64))
    for size, shape in _SHAPES.items():
        those = np.flatnonzero((length == size) & ~whole)
        if len(those):
            chosen = texts if len(those) == n else texts.gather(those)
            milliseconds[those] = _parse(_joined(chosen), shape)
    sure = (milliseconds >= now_ms - BACK_MS) & (milliseconds <= now_ms + AHEAD_MS)
    for odd in np.flatnonzero(~sure).tolist():
        try:
            milliseconds[odd] = parse_time(times[odd], "occurred_at", now_ms)
            sure[odd] = True
        except BadRow:  # the plain reader will say so
            pass
    return milliseconds, sure, length + len("occurred_at") + 6, 4 - 2 * whole.astype(np.int64)


def _parse(text: bytes, shape: str) -> Ints:
    """Times of one shape, one behind the other, as epoch milliseconds; _NEVER_MS for what is not one."""
    table = np.ascontiguousarray(np.frombuffer(text, np.uint8).reshape(-1, len(shape)).T)
    ok = np.ones(table.shape[1], np.bool_)
    for i, char in enumerate(shape):
        if char == "d":
            ok &= table[i] - np.uint8(48) <= 9  # below "0" wraps round
        else:
            ok &= (table[i] == ord("+")) | (table[i] == ord("-")) if char == "s" else table[i] == ord(char)

    def number(first: int, last: int) -> Ints:
        value = np.zeros(len(ok), np.int64)
        for digit in table[first : last + 1]:
            value = value * 10 + (digit - np.uint8(48))
        return value

    year, month, day = number(0, 3), number(5, 6), number(8, 9)
    hour, minute, second = number(11, 12), number(14, 15), number(17, 18)
    ok &= (year >= 1) & (month >= 1) & (month <= 12) & (day >= 1) & (hour <= 23) & (minute <= 59) & (second <= 59)
    months = (year * 12 + month - 1 - 1970 * 12).astype("datetime64[M]")
    first_day = months.astype("datetime64[D]").astype(np.int64)
    ok &= day <= (months + 1).astype("datetime64[D]").astype(np.int64) - first_day
    minutes = ((first_day + day - 1) * 24 + hour) * 60 + minute
    if not shape.endswith("Z"):
        zone_hours, zone_minutes = number(len(shape) - 5, len(shape) - 4), number(len(shape) - 2, len(shape) - 1)
        ok &= (zone_hours <= 23) & (zone_minutes <= 59)
        minutes -= np.where(table[-6] == ord("-"), -1, 1) * (zone_hours * 60 + zone_minutes)
    milliseconds = (minutes * 60 + second) * 1_000
    if "." in shape:
        milliseconds += number(20, 22)  # what is finer is cut off
    return np.where(ok, milliseconds, _NEVER_MS)
