"""The fast decoder against the plain reading on whatever can be sent, and the plain reading against the rules."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.decode import SCHEMA, decode, read_event
from streams.errors import BadRow, Reason
from tests.fuzz.samples import OPEN

NOW = int(datetime(2026, 11, 23, 12, tzinfo=UTC).timestamp() * 1000)
DAY = 86_400_000
CLICK = OPEN | {
    "kind": "click",
    "link": "hero",
    "url": "https://inxmail.de/produkt?utm_source=nl",
    "user_agent": "Mozilla/5.0 …",
    "ip": "203.0.113.7",
    "actor": "human",
    "feed": "native",
}
COMPACT, SPACED = (",", ":"), (", ", ": ")


def wire(message: object, separators: tuple[str, str] = COMPACT, ascii_only: bool = False) -> bytes:
    return json.dumps(message, separators=separators, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")


def plainly(raw: bytes | None) -> object:
    """What the definition says: the event as a dict, or the refusal."""
    try:
        return asdict(read_event(raw, NOW))
    except BadRow as refusal:
        return refusal.reason, refusal.field, refusal.expected


def assert_agrees(values: list[bytes | None]) -> None:
    decoded = decode(values, NOW)
    assert dict(decoded.frame.schema) == SCHEMA
    assert decoded.frame["row"].is_sorted()
    fast: dict[int, object] = {row.pop("row"): row for row in decoded.frame.to_dicts()}
    assert len(fast) == len(decoded.frame)
    assert not fast.keys() & {row for row, _ in decoded.bad}
    fast |= {row: (refusal.reason, refusal.field, refusal.expected) for row, refusal in decoded.bad}
    assert [fast[row] for row in range(len(values))] == [plainly(raw) for raw in values]


# --- every input: JSON put together from pieces, most of them good, so that what is bad is bad in one or two places ---

SPACE = st.sampled_from(["", "", "", " ", "\n", "\t "])
LETTERS = st.text(st.characters(codec="utf-8"), max_size=4)
LITERALS = r"""
null true false NaN -Infinity 0 -0 1.0 1e3 1e999 01 1. - nul "" [] {} [[]] ["x","y"] [1,] {"kind":"open"}
{"a":1,"a":2} "\ud800" "\ud83d\ude00" "\u0000" "\"" "a\"b" "\\" "\x" "\n" "\u00fc" "\u007f" "a\/b" "a@b" "a%40b" "ü"
"a%2540b" "a\uff20b" "a%EF%BC%A0b"
"""
LONG = [letter * length for letter in "xü" for length in (64, 65, 128, 129, 320, 321, 2_048, 2_049, 8_192, 8_193)]
TEXTS = ["", " ", " a ", "\x01", "\x7f", "\x85", "\xa0", f"\xa0{'x' * 320} ", *LONG]
DEEP = ["[" * levels + "]" * levels for levels in (62, 63, 64, 65, 2_000)]
NUMBERS = ["9" * digits for digits in (16, 19, 20, 30, 308, 309, 4_300, 4_301)]
VALUES = [*LITERALS.split(), "", *DEEP, *NUMBERS, *(f'"{text}"' for text in TEXTS)]
INSTANTS = """
2026-11-23T09:14:05Z 2026-11-23T09:14:05.1Z 2026-11-23T09:14:05.123456Z 2026-11-23t09:14:05z 2026-11-23_09:14:05Z
2026-11-23T09:14:05+00:00 2026-11-23T09:14:05.120+00:00 2026-11-23T09:14:05.999999+00:00 2026-11-23T09:14:05.12/Z
2026-11-23T09:14:05+01:00 2026-11-23T09:14:05.120+01:00 2026-11-23T09:14:05-00:00
2026-11-23T09:14:05-01:30 2026-11-23T09:14:05-23:59 2026-11-23T09:14:05+24:00 2026-11-24T09:14:05+23:59
2026-11-23T09:14:05+01:60 2026-11-23T09:14:05.123456+02:00 2026-11-23T09:14:05*02:00 2026-11-23T09:14:05.123456789Z
2026-11-23T09:14:05 20261123T091405Z
2026-02-28T00:00:00Z 2026-02-29T00:00:00Z 2026-11-31T00:00:00Z 2025-13-01T00:00:00Z 2026-00-10T00:00:00Z
2026-11-00T00:00:00Z 2026-11-22T24:00:00Z 2026-11-23T09:60:00Z 2026-11-22T23:59:60Z 2026-11-23T09:14:0:Z
0000-01-01T00:00:00Z 0001-01-01T00:00:00Z 9999-12-31T23:59:59.999Z 2025-10-20T00:00:00Z 2026-11-23T09:14:05\\u005a
2026-11-23T12:10:00.000Z 2026-11-23T12:10:00.001Z 2026-11-23T12:00:00Z 1764000000000 now
\N{FULLWIDTH DIGIT TWO}026-11-23T09:14:05Z 2026-11-23T09:14:05.\N{ARABIC-INDIC DIGIT ONE}Z
"""
SHIFTS = (0, 1, -1, 600_000, 600_001, -399 * DAY, -400 * DAY, -400 * DAY - 1, -NOW, -2 * NOW)
QUOTED = [f'"{instant.replace("_", " ")}"' for instant in INSTANTS.split()]
TIMES = ["1.7e12", "2.5", *(str(NOW + shift) for shift in SHIFTS), *QUOTED]
NAMES = st.sampled_from(
    [*CLICK, *CLICK, "x", "", "Kind", "kind ", "\\u006bind", "event\\u005fid", "ü", "\\u00fc", "\\ud800"]
)


@st.composite
def member(draw: st.DrawFn) -> tuple[str, str]:
    name = draw(NAMES)
    value = draw(st.sampled_from(TIMES if name == "occurred_at" else VALUES) | LETTERS.map(json.dumps))
    return name, value


@st.composite
def record(draw: st.DrawFn) -> bytes | None:
    members = {
        name: json.dumps(value, ensure_ascii=False) for name, value in draw(st.sampled_from([OPEN, CLICK])).items()
    }
    for name in draw(st.lists(st.sampled_from(list(CLICK)), max_size=1)):
        members.pop(name, None)
    changed = draw(st.lists(member(), max_size=2))
    if draw(st.booleans()):  # in place of what is there: no name twice
        pairs = list((members | dict(changed)).items())
    else:
        pairs = draw(st.permutations([*members.items(), *changed]))
    if draw(st.booleans()):
        before, after = draw(st.sampled_from([("", ""), ("", ""), ("", " "), (" ", "")])), draw(SPACE)
        text = "{" + ("," + after).join(f'"{name}"{before[0]}:{before[1]}{value}' for name, value in pairs) + "}"
    else:
        text = "{" + ",".join(f'{draw(SPACE)}"{name}"{draw(SPACE)}:{draw(SPACE)}{value}' for name, value in pairs) + "}"
    return draw(damaged(text.encode("utf-8", "surrogatepass")))


def damaged(raw: bytes) -> st.SearchStrategy[bytes | None]:
    """Most often `raw` as it is."""
    behind = st.sampled_from([b" ", b"\n", b"x", b"\0", b"{}", raw, b"\xef\xbb\xbf"])
    within = st.sampled_from([b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b'"', b"\\", b" ", b"\n", b"\x0b", b"\0"])
    places = st.integers(0, len(raw) - 1)
    harm = st.one_of(
        st.sampled_from([None, b"", b"null", b"[]", b"[" + raw + b"]", b"{}", b'"x"', b"1", b"\xef\xbb\xbf" + raw]),
        st.binary(max_size=20),
        places.map(lambda at: raw[:at]),
        behind.map(lambda more: raw + more),
        st.tuples(places, within).map(lambda change: raw[: change[0]] + change[1] + raw[change[0] + 1 :]),
    )
    return st.integers(0, 5).flatmap(lambda dice: harm if dice == 0 else st.just(raw))


@given(st.lists(record(), max_size=12))
@settings(max_examples=250, deadline=None)
def test_the_fast_path_agrees_with_the_plain_reading(values: list[bytes | None]) -> None:
    assert_agrees(values)


@pytest.mark.parametrize("base", [OPEN, CLICK])
@pytest.mark.parametrize(("comma", "colon"), [(",", ":"), (", ", ": "), (" ,\n", "\t: ")])
def test_agrees_on_every_value_in_every_field(base: dict[str, Any], comma: str, colon: str) -> None:
    good = {name: json.dumps(value, ensure_ascii=False) for name, value in base.items()}
    values: list[bytes | None] = []
    for name in [*CLICK, "x", "\\u006bind", "ü"]:
        for value in TIMES if name == "occurred_at" else VALUES:
            for pairs in (
                (good | {name: value}).items(),
                [*good.items(), (name, value)],
                [(name, value), *good.items()],
            ):
                values.append(("{" + comma.join(f'"{n}"{colon}{v}' for n, v in pairs) + "}").encode())
    assert_agrees(values)


def test_a_number_too_large_to_be_a_time_is_none_at_any_time() -> None:
    assert len(decode([wire(OPEN | {"occurred_at": 10**30}), wire(OPEN | {"occurred_at": 5})], 1_000).bad) == 1


def test_agrees_on_what_is_large() -> None:
    padded = wire(CLICK)[:-1] + b" " * 1_000_000 + b"}"
    nested = wire(OPEN)[:-1] + b',"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    huge = wire(OPEN | {"x": "y" * 10_000_000})
    values = [wire(OPEN), padded, nested, huge, b"[" * 100_000, wire(CLICK), wire(OPEN | {"x": "y" * 900_000})]
    assert_agrees(values)
    reasons = {row: refusal.reason for row, refusal in decode(values, NOW).bad}
    assert reasons == {1: Reason.TOO_LARGE, 2: Reason.TOO_DEEP, 3: Reason.TOO_LARGE, 4: Reason.TOO_DEEP}


def test_agrees_across_blocks_with_bad_rows_at_their_edges() -> None:
    values: list[bytes | None] = [wire(OPEN | {"event_id": f"{i}"}, COMPACT if i % 2 else SPACED) for i in range(9_000)]
    for row in (0, 1, 3_998, 3_999, 4_000, 7_999, 8_000, 8_999):
        values[row] = b"{" if row % 3 else None
    assert_agrees(values)


def test_a_run_of_nothing_and_a_run_of_nothing_but_bad_rows() -> None:
    assert_agrees([])
    assert_agrees([None])
    assert_agrees([b"", b"{", None, b"null"] * 3)


# --- the rules themselves ---


@pytest.mark.parametrize(
    ("raw", "reason", "field"),
    [
        (None, Reason.TOMBSTONE, None),
        (b"", Reason.NOT_JSON, None),
        (wire(OPEN)[:-1], Reason.NOT_JSON, None),
        (wire(OPEN) + b"{}", Reason.NOT_JSON, None),
        (b"\xef\xbb\xbf" + wire(OPEN), Reason.NOT_JSON, None),
        (wire([OPEN]), Reason.NOT_JSON, None),
        (wire(OPEN | {"x": float("nan")}), Reason.NOT_JSON, None),
        (wire(OPEN | {"recipient": "\ud800"}, ascii_only=True), Reason.NOT_JSON, None),
        (wire(OPEN)[:-1] + b',"x":"\xff"}', Reason.NOT_JSON, None),
        (wire(OPEN)[:-1] + b',"kind":"click"}', Reason.DUPLICATE_FIELD, None),
        (wire(OPEN)[:-1] + b',"\\u006bind" :"open"}', Reason.DUPLICATE_FIELD, None),
        (wire(OPEN)[:-1] + b',"x":1,"x":1}', Reason.DUPLICATE_FIELD, None),
        (wire({k: v for k, v in OPEN.items() if k != "tenant"}), Reason.MISSING_FIELD, "tenant"),
        (wire(OPEN | {"mailing": None}), Reason.MISSING_FIELD, "mailing"),
        (wire(OPEN | {"event_id": 7}), Reason.WRONG_TYPE, "event_id"),
        (wire(OPEN | {"event_id": ""}), Reason.BAD_VALUE, "event_id"),
        (wire(OPEN | {"event_id": "x" * 65}), Reason.BAD_VALUE, "event_id"),
        (wire(OPEN | {"event_id": "a\x00b"}), Reason.BAD_VALUE, "event_id"),
        (wire(OPEN | {"event_id": "a\x85b"}), Reason.BAD_VALUE, "event_id"),
        (wire(OPEN | {"kind": "Open"}), Reason.UNKNOWN_KIND, "kind"),
        (wire(OPEN | {"kind": True}), Reason.WRONG_TYPE, "kind"),
        (wire(OPEN | {"tenant": "erika@example.com"}), Reason.BAD_VALUE, "tenant"),
        (wire(OPEN | {"mailing": "x" * 129}), Reason.BAD_VALUE, "mailing"),
        (wire(OPEN | {"recipient": " \u00a0 "}), Reason.BAD_RECIPIENT, "recipient"),
        (wire(OPEN | {"recipient": "x" * 321}), Reason.BAD_RECIPIENT, "recipient"),
        (wire(OPEN | {"recipient": "erika\x00@example.com"}), Reason.BAD_RECIPIENT, "recipient"),
        (wire(OPEN | {"recipient": ["erika@example.com"]}), Reason.WRONG_TYPE, "recipient"),
        (wire(OPEN | {"occurred_at": "2026-11-23T09:14:05"}), Reason.BAD_TIME, "occurred_at"),
        (wire(OPEN | {"occurred_at": "9999-12-31T23:59:59Z"}), Reason.BAD_TIME, "occurred_at"),
        (wire(OPEN | {"occurred_at": True}), Reason.WRONG_TYPE, "occurred_at"),
        (wire(OPEN | {"kind": "click"}), Reason.MISSING_FIELD, "link"),
        (wire(OPEN | {"kind": "click", "link": None, "url": ""}), Reason.MISSING_FIELD, "link"),
        (wire(CLICK | {"link": "x" * 65}), Reason.BAD_VALUE, "link"),
        (wire(CLICK | {"url": "x" * 8_193}), Reason.BAD_VALUE, "url"),
        (wire(CLICK | {"user_agent": "x" * 2_049}), Reason.BAD_VALUE, "user_agent"),
        (wire(CLICK | {"ip": 1}), Reason.WRONG_TYPE, "ip"),
        (wire(CLICK | {"actor": "robot"}), Reason.BAD_VALUE, "actor"),
        (wire(CLICK | {"feed": "a@b"}), Reason.BAD_VALUE, "feed"),
    ],
)
def test_says_why_a_row_is_refused(raw: bytes | None, reason: Reason, field: str | None) -> None:
    with pytest.raises(BadRow) as caught:
        read_event(raw, NOW)
    assert (caught.value.reason, caught.value.field) == (reason, field)
    assert_agrees([wire(OPEN), raw, wire(CLICK)])


@pytest.mark.parametrize("separators", [COMPACT, SPACED])
@pytest.mark.parametrize("ascii_only", [True, False])
@pytest.mark.parametrize(
    "extra", [{}, {"x": 1, "y": "z"}, {"x": {"kind": ["open", {"a": None}]}}, {"ip": None}, {"ip": ""}]
)
def test_good_events_keep_their_values_and_are_not_read_twice(
    separators: tuple[str, str], ascii_only: bool, extra: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.decode.read_event", None)  # calling it would raise
    messages = [OPEN | extra, CLICK | extra, OPEN | {"occurred_at": NOW - 1} | extra]
    frame = decode([wire(message, separators, ascii_only) for message in messages], NOW).frame
    for message, row in zip(messages, frame.to_dicts(), strict=True):
        known = {name: value or None for name, value in message.items() if name in CLICK and name != "occurred_at"}
        assert row == dict.fromkeys(SCHEMA) | known | {"row": row["row"], "occurred_ms": row["occurred_ms"]}
    assert frame["occurred_ms"].to_list() == [NOW - 9_954_880, NOW - 9_954_880, NOW - 1]


def test_nothing_shows_what_was_sent() -> None:
    decoded = decode([wire(CLICK)], NOW)
    assert repr(decoded) == "Decoded(1 events, 0 bad)"
    assert "erika" not in repr(read_event(wire(CLICK), NOW))
