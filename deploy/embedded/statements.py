"""What a request to the embedded store asks for, as ClickHouse's own parser reads it.

A request carries one statement; an insert's data may follow it in the same body. chDB would run several statements
and would read and write local files for whoever asks, and it knows one login only, whose role is chosen by a
statement. So nothing that a request says is run as it was written: the engine's parser (`formatQuerySingleLine`)
turns it into its canonical text or refuses it, the canonical text is looked at here, and that text is what is run.
`split` only guesses where the data begin: they go to the engine as data, never as a part of a statement.

Everything here is pure. A refusal names the rule, never the statement.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final


class Refused(Exception):
    """The request asks for what this server does not do; `code` and `name` are ClickHouse's own for it."""

    def __init__(self, code: int, name: str, why: str) -> None:
        self.code, self.name = code, name
        super().__init__(f"Code: {code}. DB::Exception: {why}. ({name})")


@dataclass(frozen=True, slots=True)
class Insert:
    """An insert whose data come beside it, in canonical form: `target` is `INSERT INTO t (a, b)`."""

    target: str
    settings: str
    format: str

    def reading(self, path: str) -> str:
        """The statement that takes the data from this path (ours: a request cannot name one)."""
        return f"{self.target} FROM INFILE '{path}'{self.settings} FORMAT {self.format}"


_TOKEN: Final = re.compile(
    rb"""'(?:\\.|''|[^'\\])*' | "(?:\\.|[^"\\])*" | `(?:\\.|[^`\\])*`
    | --[^\n]* | /\*.*?\*/ | [A-Za-z_]\w* | [()] | .""",
    re.VERBOSE | re.DOTALL,
)
_INSERT: Final = re.compile(rb"(?:\s|--[^\n]*\n|/\*.*?\*/)*INSERT\s", re.IGNORECASE | re.DOTALL)
_FORMAT: Final = re.compile(rb"\s+\w+[ \t\r]*(?:\n|$)?")
_QUOTED: Final = re.compile(r"'(?:\\.|[^'\\])*'|`(?:\\.|[^`\\])*`", re.DOTALL)
_NAME: Final = r"(?:`(?:\\.|[^`\\])*`|\w+)"
_CANONICAL_INSERT: Final = re.compile(
    rf"(?P<target>INSERT\ INTO\ {_NAME}(?:\.{_NAME})?(?:\ \((?:`(?:\\.|[^`\\])*`|[^()`])*\))?)"
    rf"(?P<settings>(?:\ SETTINGS\ (?:'(?:\\.|[^'\\])*'|[^'()])*?)?)\ FORMAT\ (?P<format>\w+)",
    re.VERBOSE | re.DOTALL,
)
# Nothing in these is another login's; errors, processes and the like would show what others asked.
_SYSTEM_TABLES: Final = "settings|tables|columns|databases|parts|mutations|merges|disks|functions|formats|one|numbers"
_DENIED: Final = (497, "ACCESS_DENIED")
_NOT_HERE: Final = (48, "NOT_IMPLEMENTED")
# ClickHouse asks no grant for its scalar function `file`, and inside a process that is no server it reads any path: the
# other store's password, the key ring. It is called by name, by APPLY, and in what some settings take as an expression.
_READS_FILES: Final = re.compile(r"\bfile\b|(?i:\bexecutable(?:pool)?\b)")
_SETTINGS: Final = (
    r"(?:dialect|filter|additional_\w+|http_allow_filters\w*|format_template\w*|format_schema\w*|format_avro_schema\w*"
    r"|input_format_values_\w+)"
)
_NAME_OF_SETTING: Final = re.compile(r"[A-Za-z_]\w*")
_FORBIDDEN: Final = (
    (re.compile(r"\bSET (?:DEFAULT )?ROLE\b|\bEXECUTE AS\b"), *_DENIED, "a login keeps its one role"),
    (
        re.compile(
            rf"(?i)\b(?:system|information_schema)\.(?!(?:{_SYSTEM_TABLES})\b)|\b(?:merge|loop)\(|\bprocesslist\b"
        ),
        *_DENIED,
        "this system table may show what other logins asked",
    ),
    (re.compile(r"\AKILL\b"), *_DENIED, "a login ends nobody's queries"),
    (re.compile(rf"(?i)\b{_SETTINGS} = "), 115, "UNKNOWN_SETTING", "this is not a setting that a request can make"),
    (re.compile(r"\bPARALLEL WITH\b"), *_NOT_HERE, "a request carries one statement"),
    (re.compile(r"\b(?:INTO OUTFILE|FROM INFILE)\b"), *_NOT_HERE, "a request touches no files"),
    (
        re.compile(r"\A(?:SET|USE|BEGIN|COMMIT|ROLLBACK|CREATE TEMPORARY|CREATE OR REPLACE TEMPORARY)\b"),
        *_NOT_HERE,
        "no session is kept between requests; send settings and the database with each one",
    ),
)


def split(body: bytes) -> tuple[bytes, bytes]:
    """Part a body into the statement and, for an insert, the data after `FORMAT name` or `VALUES`."""
    if not _INSERT.match(body):
        return body, b""
    depth = 0
    for token in _TOKEN.finditer(body):
        word = token.group().upper()
        depth += (word == b"(") - (word == b")")
        if depth == 0 and word in (b"SELECT", b"WITH"):
            break
        if depth == 0 and word == b"VALUES":
            return body[: token.end()], body[token.end() :]
        if depth == 0 and word == b"FORMAT" and (name := _FORMAT.match(body, token.end())):
            return body[: name.end()], body[name.end() :]
    return body, b""


def is_setting(name: str) -> bool:
    """Whether a request may make this setting: none that changes the language, or that takes expressions or files."""
    return _NAME_OF_SETTING.fullmatch(name) is not None and re.fullmatch(_SETTINGS, name) is None


def judge(canonical: str) -> Insert | None:
    """Look at a statement in canonical form: Insert when its data come beside it, None when it stands for itself.

    Raises Refused for what no login may ask here, whatever its grants say.
    """
    bare = _QUOTED.sub("''", canonical)
    if _READS_FILES.search(_QUOTED.sub(lambda quoted: "''" if quoted[0].startswith("'") else quoted[0], canonical)):
        raise Refused(*_DENIED, "a request reads no files")
    for pattern, code, name, why in _FORBIDDEN:
        if pattern.search(bare):
            raise Refused(code, name, why)
    if not canonical.startswith("INSERT INTO "):
        return None
    if match := _CANONICAL_INSERT.fullmatch(canonical):
        return Insert(match["target"], match["settings"], match["format"])
    if re.search(r"\b(?:SELECT|WITH)\b", bare):
        return None
    raise Refused(48, "NOT_IMPLEMENTED", "this form of INSERT is not understood here")
