"""An export as one HTML page that a person can read: German and English, no script, no request to anywhere.

Both languages are in the page; two radio buttons choose which is shown (German at first), so it works from a file, in
a mail program and on paper. Everything that comes from data is escaped; a policy in the page forbids scripts and
requests besides.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple

from streams.messages import EVERYTHING
from streams.rights.export.held import Choice, Decision, Export, Place, Proof, Purpose
from streams.rights.export.words import (
    ACTIONS,
    DEVICES,
    EFFECTS,
    EVERY_PURPOSE,
    KEPT,
    KINDS,
    MODES,
    PLACES,
    PROOF,
    YES,
    Words,
)

_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#1c2430;background:#fff}
h1{font-size:1.6rem;margin:.2rem 0 1rem}h2{font-size:1.25rem;margin:2.2rem 0 .5rem;border-top:2px solid #1f6f8b;
padding-top:.7rem}h3{font-size:1rem;margin:1.3rem 0 .3rem}p,ul{margin:.4rem 0}.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.86rem}th,td{text-align:left;vertical-align:top;
padding:.3rem .6rem .3rem 0;border-bottom:1px solid #d8dee6}th{font-weight:600;white-space:nowrap}
td{overflow-wrap:break-word}
code{font-size:.8rem}.none{color:#5c6672}.box{background:#eef5f8;border-left:4px solid #1f6f8b;
padding:.6rem 1rem;margin:1rem 0}label{margin-right:1rem}input{accent-color:#1f6f8b}.en,#en:checked~main .de{
display:none}#en:checked~main .en{display:revert}dl{display:grid;grid-template-columns:max-content 1fr;gap:.1rem 1rem;
margin:.3rem 0}dt{font-weight:600}dd{margin:0;overflow-wrap:anywhere}
@media print{label,input{display:none}h2{break-after:avoid}tr{break-inside:avoid}body{margin:0;max-width:none}}
"""


class Html(NamedTuple):
    """A piece of the page that is escaped already."""

    text: str


Cell = Html | Words | str | int | None


def page(export: Export) -> bytes:
    """The page, UTF-8. Says the same as the JSON, in the order in which one reads it."""
    body = [*_head(export), *_summary(export)]
    for purpose in export.purposes:
        body += _purpose(purpose)
    body += _receipts(export) + _looks(export) + _elsewhere(export.elsewhere) + _your_rights()
    return (
        '<!doctype html>\n<html lang="de">\n<head>\n<meta charset="utf-8">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n<meta name="robots" content="noindex">\n'
        f"<title>Auskunft / Access: {escape(export.tenant)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        '<input type="radio" name="language" id="de" checked><label for="de">Deutsch</label>\n'
        '<input type="radio" name="language" id="en"><label for="en" lang="en">English</label>\n'
        f"<main>\n{chr(10).join(piece.text for piece in body)}\n</main>\n</body>\n</html>\n"
    ).encode()


# --- the parts of the page ---


def _head(export: Export) -> list[Html]:
    return [
        _tag("h1", Words("Auskunft über Ihre Daten", "Information about your data")),
        _list(
            [
                (Words("Absender", "Sender"), export.tenant),
                (Words("Empfänger", "Recipient"), export.recipient),
                (Words("Stand", "As of"), _at(export.made_at)),
            ]
        ),
    ]


def _summary(export: Export) -> list[Html]:
    said: list[Html] = []
    if export.nothing_held:
        said.append(
            _tag(
                "p",
                Words(
                    "Über Sie ist hier nichts gespeichert: keine Einwilligung, keine einzelne Öffnung, kein Klick.",
                    "Nothing is held about you here: no consent, no single open, no click.",
                ),
            )
        )
    else:
        said.append(_tag("p", Words("Über Sie ist hier gespeichert:", "Held about you here:")))
        said.append(
            _list(
                [
                    (Words("Einzelne Öffnungen und Klicks", "Single opens and clicks"), _sum(export, "rows")),
                    (Words("Verbindungen mit Ihrem Namen", "Links to your name"), _sum(export, "mappings")),
                    (Words("Einträge zu Einwilligungen", "Entries about consents"), _sum(export, "decisions")),
                    (
                        Words("Weitergaben unter Ihrem Namen", "Disclosures under your name"),
                        _sum(export, "disclosures"),
                    ),
                ]
            )
        )
    if export.erasure is not None:
        at = _at(export.erasure.at)
        said.append(
            _tag(
                "p",
                Words(
                    f"Ihre Daten wurden gelöscht{' (' + at + ')' if at else ''}. Davon bleibt nur ein Vermerk unter "
                    "einem verschlüsselten Kennzeichen, damit eine ältere Einwilligung sie nicht zurückbringt"
                    + ("." if export.erasure.counted else " und damit Ihre Öffnungen und Klicks nicht gezählt werden."),
                    f"Your data were erased{' (' + at + ')' if at else ''}. What is left is a note under a keyed hash, "
                    "so that an older consent does not bring them back"
                    + ("." if export.erasure.counted else " and so that your opens and clicks are not counted."),
                ),
            )
        )
    said.append(
        _tag(
            "p",
            Words(
                "Unabhängig davon werden Öffnungen und Klicks gezählt, ohne dass festgehalten wird, von wem sie sind. "
                "Solche Summen gehören zu keiner Person und stehen deshalb nicht in dieser Auskunft.",
                "Apart from that, opens and clicks are counted without recording whose they are. Such sums belong to "
                "no person and are therefore not part of this information.",
            ),
        )
    )
    return [Html(f'<div class="box">{"".join(piece.text for piece in said)}</div>')]


def _sum(export: Export, what: str) -> int:
    return sum(len(getattr(purpose, what)) for purpose in export.purposes)


def _purpose(purpose: Purpose) -> list[Html]:
    every = purpose.purpose == EVERYTHING
    name = EVERY_PURPOSE if every else Words(f"Zweck: {purpose.purpose}", f"Purpose: {purpose.purpose}")
    parts = [_tag("h2", name)]
    if every:
        parts.append(
            _tag(
                "p",
                Words(
                    "Was Sie für alle Zwecke auf einmal entschieden haben. Es gilt auch für Zwecke, die noch kommen.",
                    "What you decided for all purposes at once. It holds for purposes to come as well.",
                ),
            )
        )
    elif purpose.ceiling is None:
        parts.append(
            _tag(
                "p",
                Words(
                    "Der Absender verfolgt diesen Zweck nicht mehr.",
                    "The sender does not pursue this purpose any more.",
                ),
            )
        )
    else:
        ceiling = MODES[purpose.ceiling]
        parts.append(
            _tag(
                "p",
                Words(
                    f"Einzelne Öffnungen und Klicks werden höchstens {purpose.retention_days} Tage gespeichert. "
                    f"Der Absender geht selbst höchstens bis: {ceiling.de}.",
                    f"Single opens and clicks are held for at most {purpose.retention_days} days. "
                    f"The sender itself goes no further than: {ceiling.en}.",
                ),
            )
        )
    parts += _section(
        Words("Was jetzt gilt", "What holds now"),
        [
            Words("Art", "Kind"),
            Words("Ihre Wahl", "Your choice"),
            Words("Wirksam", "In force"),
            Words("Entschieden", "Decided"),
            Words("Gilt seit", "Holds since"),
        ],
        [
            [
                _word(KINDS, choice.kind),
                _word(MODES, choice.mode),
                _word(MODES, choice.in_force),
                _at(choice.decided_at) or Words("nie (Voreinstellung)", "never (default)"),
                _since(choice),
            ]
            for choice in purpose.choices
        ],
    )
    parts += _section(
        Words("Einwilligungen und Widerrufe, mit Nachweis", "Consents and withdrawals, with their proof"),
        [
            Words("Entschieden", "Decided"),
            Words("Art", "Kind"),
            Words("Wahl", "Choice"),
            Words("Wirkung", "Effect"),
            Words("Nachweis und Herkunft", "Proof and origin"),
        ],
        [
            [
                _at(decision.decided_at),
                _word(KINDS, decision.kind),
                _word(MODES, decision.mode),
                _word(EFFECTS, decision.effect),
                _proof(decision),
            ]
            for decision in purpose.decisions
        ],
    )
    if every:
        return parts
    parts += _section(
        Words("Verbindung mit Ihrem Namen", "Link to your name"),
        [Words("Art", "Kind"), Words("Pseudonym", "Pseudonym"), Words("Angelegt", "Made"), Words("Lesbar", "Opens")],
        [
            [_word(KINDS, one.kind), _code(one.pseudonym), _at(one.made_at), _word(YES, str(one.opens))]
            for one in purpose.mappings
        ],
    )
    parts += _section(
        Words("Einzelne Öffnungen und Klicks", "Single opens and clicks"),
        [
            Words("Zeit", "Time"),
            Words("Art", "Kind"),
            Words("Mailing", "Mailing"),
            Words("Link", "Link"),
            Words("Gerät", "Device"),
            Words("Herkunft", "Origin"),
            Words("Pseudonym", "Pseudonym"),
            Words("Gespeichert bis", "Held until"),
        ],
        [
            [
                _at(row.occurred_at),
                _word(KINDS, row.kind),
                row.mailing,
                row.link,
                _word(DEVICES, row.device),
                row.feed or Words("nicht angegeben", "not stated"),
                _code(row.pseudonym),
                row.kept_until,
            ]
            for row in purpose.rows
        ],
    )
    parts += _section(
        Words("An wen weitergegeben", "Passed on to"),
        [
            Words("Zeit", "Time"),
            Words("An", "To"),
            Words("Warum", "Why"),
            Words("Mailing", "Mailing"),
            Words("Art", "Kind"),
            Words("Link", "Link"),
        ],
        [
            [_at(one.at), one.disclosed_to, one.why, one.mailing, _word(KINDS, one.kind), one.link]
            for one in purpose.disclosures
        ],
    )
    return parts


def _since(choice: Choice) -> Cell:
    return {
        "anonymous": _at(choice.anonymous_since) or Words("von Anfang an", "from the beginning"),
        "pseudonymous": _at(choice.pseudonymous_since),
        "personal": _at(choice.personal_since),
        "off": _at(choice.decided_at),
    }[choice.mode]


def _proof(decision: Decision) -> Html:
    lines: list[tuple[Words, Cell]] = []
    if decision.proof_state == "cannot_be_opened":
        lines.append((PROOF["proof"], Words("lässt sich nicht mehr öffnen", "cannot be opened any more")))
    for name in Proof.__struct_fields__:
        value = getattr(decision.proof, name, None)
        if value is not None:
            lines.append((PROOF[name], _word(YES, str(value)) if isinstance(value, bool) else value))
    lines.append((PROOF["recorded_at"], _at(decision.recorded_at)))
    lines.append((PROOF["preference_id"], decision.preference_id))
    return _list(lines)


def _receipts(export: Export) -> list[Html]:
    if not export.receipts:
        return []
    return _section(
        _tag("h2", Words("Bestätigungen", "Confirmations")),
        [
            Words("Ausgeführt", "Carried out"),
            Words("Art", "Kind"),
            Words("Öffnungen und Klicks entfernt", "Opens and clicks removed"),
            Words("Verbindungen entfernt", "Links removed"),
            Words("Endgültig gelöscht bis", "Gone for good by"),
            Words("Nummer", "Number"),
        ],
        [
            [
                _at(one.completed_at),
                Words("Widerruf", "withdrawal") if one.kind == "withdrawal" else one.kind,
                one.rows,
                one.mappings,
                _at(one.gone_by),
                _code(one.id),
            ]
            for one in export.receipts
        ],
    )


def _looks(export: Export) -> list[Html]:
    if not export.looks:
        return []
    return _section(
        _tag("h2", Words("Wann Ihre Daten eingesehen wurden", "When your data were looked at")),
        [Words("Zeit", "Time"), Words("Was", "What"), Words("Warum", "Why")],
        [[_at(one.at), _word(ACTIONS, one.action), one.why] for one in export.looks],
    )


def _elsewhere(places: Sequence[Place]) -> list[Html]:
    said = Words(
        "Nachrichten liegen für begrenzte Zeit in der Warteschlange (Kafka), durch die sie laufen. Was dort liegt, "
        "wird nicht nach Personen durchsucht; hier steht, was es ist und wann es verschwindet.",
        "Messages lie for a limited time in the queue (Kafka) that they pass through. What lies there is not searched "
        "for persons; here is what it is and when it goes.",
    )
    return _section(
        Html(_tag("h2", Words("Was noch anderswo liegt", "What lies elsewhere")).text + _tag("p", said).text),
        [Words("Ort", "Place"), Words("Was", "What"), Words("Wie lange", "How long")],
        [[_code(one.place), PLACES.get(one.place, Words(one.what, one.what)), _kept(one)] for one in places],
    )


def _kept(place: Place) -> Cell:
    if place.kept == "until":
        return Words(f"bis {_at(place.until)}", f"until {_at(place.until)}")
    if place.kept == "at_most":
        return Words(f"höchstens {place.days} Tage", f"at most {place.days} days")
    return KEPT["no_limit"]


def _your_rights() -> list[Html]:
    return [
        _tag("h2", Words("Ihre Rechte", "Your rights")),
        Html(
            "<ul>"
            + "".join(
                _tag("li", words).text
                for words in (
                    Words(
                        "Sie können jede Einwilligung jederzeit widerrufen, so einfach, wie Sie sie gegeben haben "
                        "(Art. 7 Abs. 3 DSGVO). Danach ist keine einzelne Öffnung und kein Klick von Ihnen mehr "
                        "gespeichert.",
                        "You can withdraw any consent at any time, as easily as you gave it (Art. 7(3) GDPR). After "
                        "that no single open and no click of yours is held any more.",
                    ),
                    Words(
                        "Sie können verlangen, dass alles über Sie gelöscht oder berichtigt oder seine Verarbeitung "
                        "eingeschränkt wird (Art. 16 bis 18 DSGVO), und der Verarbeitung widersprechen (Art. 21).",
                        "You can have everything about you erased or corrected, or its processing restricted (Art. 16 "
                        "to 18 GDPR), and object to the processing (Art. 21).",
                    ),
                    Words(
                        "Diese Daten gehören Ihnen: Neben dieser Seite liegen sie als JSON und als CSV, die andere "
                        "Dienste lesen können (Art. 20 DSGVO).",
                        "These data are yours: beside this page they lie as JSON and as CSV, which other services can "
                        "read (Art. 20 GDPR).",
                    ),
                    Words(
                        "Automatisierte Entscheidungen über Sie werden hier nicht getroffen (Art. 22 DSGVO).",
                        "No automated decisions are made about you here (Art. 22 GDPR).",
                    ),
                    Words(
                        "Wenden Sie sich dazu an den Absender. Sie können sich auch bei einer Aufsichtsbehörde für "
                        "den Datenschutz beschweren (Art. 77 DSGVO).",
                        "Turn to the sender for this. You can also complain to a data protection authority "
                        "(Art. 77 GDPR).",
                    ),
                )
            )
            + "</ul>"
        ),
    ]


# --- pieces of HTML ---


def _section(heading: Words | Html, names: Sequence[Words], rows: Iterable[Sequence[Cell]]) -> list[Html]:
    """A heading and a table under it."""
    parts = [_tag("h3", heading) if isinstance(heading, Words) else heading]
    lines = ["<tr>" + "".join(f"<td>{_html(cell)}</td>" for cell in row) + "</tr>" for row in rows]
    if not lines:
        return [*parts, Html(f'<p class="none">{_html(Words("Nichts.", "Nothing."))}</p>')]
    head = "".join(f'<th scope="col">{_html(name)}</th>' for name in names)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{chr(10).join(lines)}</tbody></table>"
    return [*parts, Html(f'<div class="scroll">{table}</div>')]


def _list(lines: Iterable[tuple[Words, Cell]]) -> Html:
    return Html("<dl>" + "".join(f"<dt>{_html(name)}</dt><dd>{_html(value)}</dd>" for name, value in lines) + "</dl>")


def _tag(name: str, words: Words) -> Html:
    return Html(f"<{name}>{_html(words)}</{name}>")


def _code(text: str) -> Html:
    return Html(f"<code>{escape(text)}</code>")


def _at(time: str | None) -> str:
    """A time for a person: to the second, in UTC. The JSON has it to the millisecond."""
    return f"{time[:10]} {time[11:19]} UTC" if time is not None else ""


def _word(words: dict[str, Words], value: str) -> Words:
    """A word of ours in both languages, or, where we have none for it, as it stands."""
    return words.get(value, Words(value, value))


def _html(cell: Cell) -> str:
    if isinstance(cell, Html):
        return cell.text
    if isinstance(cell, Words):
        if cell.de == cell.en:
            return escape(cell.de)
        return f'<span class="de">{escape(cell.de)}</span><span class="en" lang="en">{escape(cell.en)}</span>'
    return "" if cell is None else escape(str(cell))
