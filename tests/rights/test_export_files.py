"""The files of an export: the documented schema, cells that start no formula, a page that asks for nothing."""

from __future__ import annotations

import csv
import io
import re
import stat
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.errors import SettingsError
from streams.rights.export import bundle, held
from streams.rights.export.page import page
from streams.rights.export.tables import cell, tables

AT = "2026-11-23T09:14:05.120Z"
HOSTILE = "=HYPERLINK(\"http://evil.example\")</td><script>alert('1')</script>"


def sample(text: str = "m1") -> held.Export:
    """One of everything; `text` stands wherever a sender's own words can."""
    proof = held.Proof(source=text, text_version="2026-05", evidence=text, conditional=False)
    decision = held.Decision(
        kind="open",
        mode="personal",
        effect="raised",
        decided_at=AT,
        recorded_at=AT,
        preference_id="tracking.preferences:0:7",
        proof=proof,
        proof_state="opened",
    )
    without = msgspec.structs.replace(decision, mode="off", effect="lowered", proof=None, proof_state="none")
    row = held.Row(
        occurred_at=AT,
        kind="click",
        mailing=text,
        link=text,
        device="phone",
        actor="human",
        feed=text,
        pseudonym="0f" * 16,
        key_version=1,
        kept_until="2027-12-18",
    )
    choice = held.Choice(
        kind="open",
        mode="personal",
        in_force="pseudonymous",
        decided_at=AT,
        anonymous_since=None,
        pseudonymous_since=AT,
        personal_since=AT,
    )
    return held.Export(
        format="schleuse-export",
        version=1,
        made_at=AT,
        tenant="acme",
        recipient=f"{text}@example.com",
        found_by="ab" * 16,
        nothing_held=False,
        erasure=held.Erasure(at=AT, counted=True),
        purposes=[
            held.Purpose(
                purpose="engagement",
                ceiling="personal",
                retention_days=390,
                choices=[choice],
                decisions=[decision, without],
                mappings=[held.Mapping(kind="open", pseudonym="0f" * 16, key_version=1, made_at=AT, opens=True)],
                rows=[row],
                disclosures=[
                    held.Disclosure(
                        at=AT, disclosed_to=text, why=text, mailing=text, kind="", link=text, disclosure_id="d1"
                    )
                ],
            ),
            held.Purpose(
                purpose="*",
                ceiling=None,
                retention_days=None,
                choices=[],
                decisions=[],
                mappings=[],
                rows=[],
                disclosures=[],
            ),
        ],
        receipts=[held.Receipt(id="p:0:1", kind="withdrawal", completed_at=AT, rows=1, mappings=0, gone_by=AT)],
        looks=[held.Look(at=AT, action="exported", why=text)],
        elsewhere=[held.Place(place="tracking.events", what="events", kept="until", until=AT)],
    )


# --- JSON ---


def check(value: Any, schema: Any, root: Any, at: str = "$") -> None:  # noqa: PLR0912  # one keyword a branch
    """JSON Schema, as far as this schema uses it; a keyword that is unknown here fails."""
    for keyword, wanted in schema.items():
        match keyword:
            case "$ref":
                check(value, root["$defs"][wanted.removeprefix("#/$defs/")], root, at)
            case "type":
                kinds = {"string": str, "integer": int, "boolean": bool, "array": list, "object": dict}
                right = value is None if wanted == "null" else isinstance(value, kinds[wanted])
                assert right, at
                assert wanted != "integer" or not isinstance(value, bool), at
            case "properties":
                for name in value.keys() & wanted.keys():
                    check(value[name], wanted[name], root, f"{at}.{name}")
            case "required":
                assert set(wanted) <= value.keys(), at
            case "additionalProperties":
                assert wanted is False
                assert value.keys() <= schema["properties"].keys(), at
            case "items":
                for number, one in enumerate(value):
                    check(one, wanted, root, f"{at}[{number}]")
            case "enum":
                assert value in wanted, at
            case "pattern":
                assert re.search(wanted, value), at
            case "minimum":
                assert value >= wanted, at
            case "anyOf":
                assert any(_fits(value, one, root) for one in wanted), at
            case "default":
                assert at != "$"
            case _:
                assert keyword in ("$schema", "$defs", "title", "description"), keyword


def _fits(value: Any, schema: Any, root: Any) -> bool:
    try:
        check(value, schema, root)
    except (AssertionError, TypeError):
        return False
    return True


def test_the_json_keeps_to_the_schema_that_is_shipped() -> None:
    shipped = Path(held.__file__).with_name(held.SCHEMA_FILE).read_bytes()
    assert shipped == held.schema(), "write held.schema() there"
    root = msgspec.json.decode(shipped)
    raw = held.encode(sample())
    assert held.decode(raw) == sample()
    whole = msgspec.json.decode(raw)
    check(whole, root, root)
    for spoil in (
        {"made_at": "2026-11-23"},
        {"version": 2},
        {"found_by": "AB" * 16},
        {"more": 1},
        {"purposes": [{"purpose": "x"}]},
        {"nothing_held": 0},
    ):
        assert not _fits({**whole, **spoil}, root, root), spoil
    del whole["looks"]
    assert not _fits(whole, root, root)


def test_no_repr_shows_anything() -> None:
    assert repr(sample()) == "Export(...)"
    assert f"{sample().purposes}" == "[Purpose(...), Purpose(...)]"


# --- CSV ---


@given(
    st.text() | st.sampled_from(["=1+1", " =1", "\t=1", "\ufeff@x", "\uff1d1", "-1", "+1", "@a", "\r\n=1", "\u200b=1"])
)
def test_no_cell_starts_a_formula_and_nothing_of_it_is_lost(text: str) -> None:
    shown = cell(text)
    assert not shown.strip(" \t\r\n\xa0\u200b\ufeff").startswith(tuple("=+-@\uff1d\uff0b\uff0d\uff20"))
    assert not shown.startswith(("\t", "\r", "\n"))
    assert shown in (text, f"'{text}")
    if shown == text:
        written = io.StringIO(newline="")
        csv.writer(written, quoting=csv.QUOTE_ALL).writerow([shown, "next"])
        assert next(csv.reader(io.StringIO(written.getvalue(), newline=""))) == [shown, "next"]


def test_every_value_of_the_json_is_in_a_table() -> None:
    found = {
        name: list(csv.DictReader(io.StringIO(raw.decode("utf-8-sig"), newline="")))
        for name, raw in tables(sample()).items()
    }
    assert {name.partition("-")[0].removesuffix(".csv") for name in found} == {
        *("choices", "consents", "mappings", "rows", "disclosures", "receipts", "looks", "elsewhere")
    }
    assert "choices-_every.csv" in found
    assert found["rows-engagement.csv"][0]["feed"] == "m1"
    first, second = found["consents-engagement.csv"]
    assert (first["proof.source"], first["proof.conditional"], first["proof.age_check"]) == ("m1", "false", "")
    assert (second["proof.source"], second["proof_state"]) == ("", "none")
    hostile = tables(sample(HOSTILE))["rows-engagement.csv"].decode("utf-8-sig")
    assert ",\"'=HYPERLINK" in hostile


# --- the page ---


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_asks_for_nothing_runs_nothing_and_says_it_in_both_languages() -> None:
    raw = page(sample(HOSTILE)).decode()
    read = _Reader()
    read.feed(raw)
    assert read.open == []
    assert {tag for tag, _ in read.tags} <= {
        *("html", "head", "meta", "title", "style", "body", "input", "label", "main", "h1", "h2", "h3", "p", "div"),
        *("span", "dl", "dt", "dd", "table", "thead", "tbody", "tr", "th", "td", "code", "ul", "li"),
    }
    attributes = {name for _, given in read.tags for name in given}
    assert attributes <= {
        *("lang", "charset", "http-equiv", "content", "name", "type", "id", "for", "checked", "class", "scope")
    }
    assert "url(" not in raw
    assert "@import" not in raw
    assert read.text.count(HOSTILE) == raw.count("&lt;script&gt;") >= 8  # as text, wherever it stands
    assert "<script" not in raw
    german, english = raw.count('class="de"'), raw.count('class="en"')
    assert german == english > 50
    for word in ("Widerruf", "withdrawal", "Kafka", "2027-12-18", "0f" * 16, "Art. 77 DSGVO"):
        assert word in read.text


def test_the_page_says_that_nothing_is_held() -> None:
    empty = msgspec.structs.replace(sample(), nothing_held=True, purposes=[], receipts=[], looks=[])
    raw = page(empty).decode()
    assert "Über Sie ist hier nichts gespeichert" in raw
    assert "Zweck:" not in raw


# --- the folder ---


def test_files_go_into_a_folder_that_is_new_or_empty_and_only_its_owners(tmp_path: Path) -> None:
    content = bundle.files(sample())
    assert bundle.unpack(bundle.pack(content)) == content
    assert bundle.pack(content) == bundle.pack(dict(reversed(content.items())))
    folder = tmp_path / "hers"
    bundle.write(folder, content)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == content
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    for wrong, said in (
        (folder, "not empty"),
        (folder / "export.json", "not a folder"),
        (link, "not a folder"),
        (tmp_path / "a" / "b", "does not exist"),
    ):
        with pytest.raises(SettingsError, match=said):
            bundle.write(wrong, content)
    with pytest.raises(SettingsError, match="outside"):
        bundle.write(tmp_path / "out", {"../x": b""})
