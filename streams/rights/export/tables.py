"""An export as CSV: one file for each kind of thing and purpose, for a spreadsheet or another service.

RFC 4180, UTF-8 with a byte order mark (spreadsheets take umlauts for something else without), every cell quoted, first
line the names of the JSON. A cell that a spreadsheet would take for a formula has a `'` before it (OWASP, CSV
injection); who needs the very characters reads the JSON.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

import msgspec

from streams.messages import EVERYTHING
from streams.rights.export.held import (
    Choice,
    Decision,
    Disclosure,
    Export,
    Look,
    Mapping,
    Part,
    Place,
    Proof,
    Purpose,
    Receipt,
    Row,
)

_FORMULA = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")  # the wide forms too: spreadsheets take them for the narrow ones
_PROOF = tuple(f"proof.{name}" for name in Proof.__struct_fields__)


def cell(value: object) -> str:
    """A value as a cell: never the beginning of a formula, however a spreadsheet trims it. Null is an empty cell."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value)
    return f"'{text}" if text.lstrip(" \xa0\u200b\ufeff").startswith(_FORMULA) else text


def tables(export: Export) -> dict[str, bytes]:
    """File name -> content; of every kind of thing one, also when it is empty but for its heading."""
    files = {
        "receipts.csv": _csv(Receipt, export.receipts),
        "looks.csv": _csv(Look, export.looks),
        "elsewhere.csv": _csv(Place, export.elsewhere),
    }
    for purpose in export.purposes:
        name = file_name(purpose)
        files[f"choices-{name}.csv"] = _csv(Choice, purpose.choices)
        files[f"consents-{name}.csv"] = _csv(Decision, purpose.decisions)
        files[f"mappings-{name}.csv"] = _csv(Mapping, purpose.mappings)
        files[f"rows-{name}.csv"] = _csv(Row, purpose.rows)
        files[f"disclosures-{name}.csv"] = _csv(Disclosure, purpose.disclosures)
    return files


def file_name(purpose: Purpose) -> str:
    """A purpose in a file's name. `*` becomes `_every`: no purpose's name begins so."""
    return "_every" if purpose.purpose == EVERYTHING else purpose.purpose


def _csv(kind: type[Part], parts: Sequence[Part]) -> bytes:
    names = list(_heading(kind))
    text = io.StringIO(newline="")
    writer = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\r\n")
    writer.writerow(names)
    writer.writerows([cell(value) for value in _values(part)] for part in parts)
    return text.getvalue().encode("utf-8-sig")


def _heading(kind: type[Part]) -> Iterable[str]:
    for name in kind.__struct_fields__:
        if name == "proof":
            yield from _PROOF
        else:
            yield name


def _values(part: Part) -> Iterable[object]:
    for name, value in msgspec.structs.asdict(part).items():
        if name != "proof":
            yield value
        elif value is None:
            yield from [None] * len(_PROOF)
        else:
            yield from msgspec.structs.astuple(value)
