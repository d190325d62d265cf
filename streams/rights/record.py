"""The record of processing of one tenant (Art. 30 GDPR), from the catalogue and the settings in force.

Everything in it is either in the catalogue, in the settings in force, counted in the identity store, or said by the
tenant in `[TENANT.controller]`. What only the tenant can say and has not said is listed as missing, never made up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deploy.clickhouse.grants import GRANTS, Role, Store
from pseudonymizer.consent import Mode
from streams import catalogue, controller, tenants
from streams.catalogue import Personal, Place, Use
from streams.errors import SettingsError
from streams.messages import format_time
from streams.rights.notice import default_purpose
from streams.settings import Settings
from streams.stores import StoreClient, connect
from streams.tenants import TenantSettings
from streams.topics import DAY_MS, HOUR_MS, STATE, topics

MISSING = "not said"

# Why each use is lawful. COUNTING is the tenant's to say; the others follow from what the lock does.
BASIS: dict[Use, str] = {
    Use.CONSENTED: "consent, Art. 6(1)(a) GDPR: no row without a grant that was in force when the event occurred",
    Use.CHOICES: "legal obligation, Art. 6(1)(c) with Art. 7(1), 7(3) and 5(2) GDPR",
    Use.RIGHTS: "legal obligation, Art. 6(1)(c) with Art. 12 and 15 to 22 GDPR",
    Use.ONCE: "as the counting and the rows that it keeps exact",
    Use.RUNNING: "as what it serves; holds nothing about a person unless the field says so",
}

MEASURES = (
    "Two stores with two sets of logins; only the worker and the rights commands read about people in both.",
    "Consent is looked up for every event; unknown means anonymous; what cannot be read is refused.",
    "Pseudonyms by HMAC-SHA-256 under a key of tenant and purpose and a random salt that goes with the consent.",
    "Mappings, proofs and refused records are sealed (AES-256-GCM); keys lie in a key ring apart from the stores.",
    "Withdrawal removes rows and mappings and drops the salt; a receipt says when, and by when the bytes are gone.",
    "Exactly-once effect by a chain of claims; every record is counted, off, a duplicate or refused.",
    "Analysts read published figures only. Logs and errors hold no value that a sender sent.",
    "`schleuse verify` checks all of it on the running system.",
)


@dataclass(frozen=True, slots=True)
class Disclosed:
    """How many recipients' data went to somebody for a purpose (`schleuse engaged`)."""

    disclosed_to: str
    purpose: str
    recipients: int
    times: int
    first_ms: int
    last_ms: int


@dataclass(frozen=True, slots=True)
class Record:
    """All that a record is rendered from. `disclosed` is by whom it went to."""

    tenant: TenantSettings
    settings: Settings
    controller: controller.Controller
    disclosed: tuple[Disclosed, ...]
    made_ms: int

    def missing(self) -> list[str]:
        """What only the tenant can say and has not said: names of `[TENANT.controller]`."""
        said = self.controller
        names = [name for name in controller.TEXTS if not getattr(said, name)]
        names += [] if said.processors else ["processors"]
        return names + [f"purposes.{name}" for name in self.tenant.purposes if not self.what_for(name)]

    def what_for(self, purpose: str) -> str:
        """What a purpose is for, in the tenant's words; empty where nothing is known of it."""
        return self.controller.says(purpose, "en") or default_purpose(purpose, "en")


_DISCLOSED = """
SELECT disclosed_to, toString(purpose), uniqExact(blind), count(), toUnixTimestamp64Milli(min(at)),
    toUnixTimestamp64Milli(max(at))
FROM disclosures WHERE tenant = {tenant:String} GROUP BY disclosed_to, purpose ORDER BY disclosed_to, purpose
"""


def read(settings: Settings, tenant: str) -> Record:
    """Read what the record of a tenant says. Blocking.

    Raises SettingsError for a tenant that is not in force, StoreUnavailable, StoreRefused.
    """
    in_force, made_ms = _in_force(settings, tenant)
    identity = connect(settings, Store.IDENTITY, Role.RIGHTS)
    try:
        disclosed = _disclosed(identity, tenant)
    finally:
        identity.close()
    said = controller.load(settings.tenants, tenant) or controller.Controller()
    return Record(in_force, settings, said, disclosed, made_ms)


def _in_force(settings: Settings, tenant: str) -> tuple[TenantSettings, int]:
    analytics = connect(settings, Store.ANALYTICS, Role.RIGHTS)
    try:
        found = tenants.in_force(analytics).get(tenant)
        now_ms = analytics.now_ms()
    finally:
        analytics.close()
    if found is None:
        raise SettingsError("the tenant that --tenant names is not in the settings in force: schleuse tenants show")
    return found, now_ms


def _disclosed(identity: StoreClient, tenant: str) -> tuple[Disclosed, ...]:
    rows = identity.rows("counting disclosures", _DISCLOSED, {"tenant": tenant})
    return tuple(Disclosed(*row) for row in rows)


# --- what the settings say ---


def slots(settings: Settings, tenant: TenantSettings) -> dict[str, str]:
    """What the catalogue's `kept` texts leave open, but `topic`, which is each topic's own."""
    state = next(topic for topic in topics(settings) if topic.name == STATE).configs
    compaction = int(state["max.compaction.lag.ms"]) + int(state["segment.ms"]) + int(state["delete.retention.ms"])
    return {
        "rows": "; ".join(
            f"{purpose}: {limits.retention_days} days" if limits.ceiling > Mode.ANONYMOUS else f"{purpose}: no rows"
            for purpose, limits in tenant.purposes.items()
        ),
        "window": window(tenant),
        "compaction": _duration(compaction),
    }


def window(tenant: TenantSettings) -> str:
    """How long distinct recipients of a mailing are counted after it was sent."""
    return f"{tenant.window_days} days after sending"


def kept(place: Place, settings: Settings, tenant: TenantSettings) -> str:
    """How long what lies in a place stays."""
    found = {topic.name: topic.configs for topic in topics(settings)}.get(place.name, {})
    limit = int(found.get("retention.ms", "-1"))
    if limit < 0:
        by_topic = "without end"
    else:
        segment = int(found.get("segment.ms", 7 * DAY_MS))
        by_topic = f"{_duration(limit)}, and at most {_duration(segment)} more until its segment is over"
    return place.kept.format(topic=by_topic, **slots(settings, tenant))


def _duration(ms: int) -> str:
    for size, word in ((DAY_MS, "day"), (HOUR_MS, "hour"), (60_000, "minute")):
        if ms % size == 0 and ms >= size:
            return f"{ms // size} {word}{'s' if ms > size else ''}"
    return f"{ms} ms"


def who(place: Place, settings: Settings, column: str | None = None) -> tuple[str, str]:
    """Who writes a place and who reads it (one column of it): logins of the stores, clients of Kafka."""
    if place.who:
        return place.source, place.who
    if place.store == "kafka":
        topic = next(topic for topic in topics(settings) if topic.name == place.name)
        return topic.written_by, topic.read_by
    store = Store(place.store)
    lines = [grant for grant in GRANTS if grant.store is store and grant.table == place.name]
    reads = [
        g.role for g in lines if g.privilege == "SELECT" and (not g.columns or column is None or column in g.columns)
    ]
    writes = [g.role for g in lines if g.privilege in ("INSERT", "ALTER UPDATE", "ALTER DELETE")]
    if Role.MIGRATIONS in writes and place.name != "migrations":  # the views' definer moves what the worker inserts
        writes = [Role.WORKER, *(role for role in writes if role is not Role.MIGRATIONS)]
    return ", ".join(dict.fromkeys(map(str, writes))), ", ".join(dict.fromkeys(map(str, reads))) or "nobody"


# --- rendering ---


def as_json(record: Record) -> dict[str, Any]:
    """The record as plain objects; names are stable."""
    settings, tenant, said = record.settings, record.tenant, record.controller
    return {
        "tenant": tenant.name,
        "made_at": format_time(record.made_ms),
        "controller": {name: getattr(said, name) or None for name in controller.TEXTS}
        | {"processors": list(said.processors)},
        "missing": record.missing(),
        "purposes": [
            {
                "purpose": purpose,
                "what_for": record.what_for(purpose) or None,
                "at_most": limits.ceiling.word,
                "retention_days": limits.retention_days if limits.ceiling > Mode.ANONYMOUS else None,
                "legal_basis": BASIS[Use.CONSENTED],
            }
            for purpose, limits in tenant.purposes.items()
        ],
        "legal_basis": {str(use): basis for use, basis in _bases(said).items()},
        "data_subjects": "recipients of the tenant's mailings",
        "disclosed": [
            {
                "disclosed_to": one.disclosed_to,
                "purpose": one.purpose,
                "recipients": one.recipients,
                "times": one.times,
                "first_at": format_time(one.first_ms),
                "last_at": format_time(one.last_ms),
            }
            for one in record.disclosed
        ],
        "measures": list(MEASURES),
        "places": [_place(place, settings, tenant) for place in catalogue.PLACES],
        "keys": [
            {"kind": str(kind), "name_is": str(personal), "what": what, "kept": until.format(**slots(settings, tenant))}
            for kind, (personal, what, until) in catalogue.KEYS.items()
        ],
    }


def _bases(said: controller.Controller) -> Mapping[Use, str]:
    return {use: BASIS.get(use) or said.counting_basis or f"{MISSING}: counting_basis" for use in Use}


def _place(place: Place, settings: Settings, tenant: TenantSettings) -> dict[str, Any]:
    written_by, read_by = who(place, settings)
    return {
        "store": place.store,
        "name": place.name,
        "what": place.what,
        "personal": place.personal,
        "for": [str(use) for use in place.uses],
        "from": place.source,
        "written_by": written_by,
        "read_by": read_by,
        "kept": kept(place, settings, tenant),
        "fields": [
            {
                "name": field.name,
                "personal": str(field.personal),
                "what": field.what,
                "read_by": who(place, settings, field.name)[1],
            }
            for field in place.fields
        ],
    }


_STORES = {
    "kafka": "Kafka",
    "identity": "Identity store",
    "analytics": "Analytics store",
    "keyring": "Key ring",
    "beside": "Beside them",
}


def markdown(record: Record) -> str:
    """The record for people to read and file."""
    found = as_json(record)
    said, missing = record.controller, record.missing()
    lines = [f"# Record of processing: {record.tenant.name}", "", f"Art. 30 GDPR. Made {found['made_at']}.", ""]
    if missing:
        lines += [f"**Not said yet** in `[{record.tenant.name}.controller]`: {', '.join(missing)}.", ""]
    lines += ["## Controller", ""]
    lines += _table(
        ("", ""), [(name.replace("_", " "), getattr(said, name) or f"*{MISSING}*") for name in controller.TEXTS]
    )
    lines += ["", "## Purposes", ""]
    lines += _table(
        ("purpose", "what for", "at most", "rows stay", "legal basis"),
        [
            (
                one["purpose"],
                one["what_for"] or f"*{MISSING}*",
                one["at_most"],
                f"{one['retention_days']} days" if one["retention_days"] else "no rows",
                one["legal_basis"],
            )
            for one in found["purposes"]
        ],
    )
    lines += ["", "What data is used for, and why that is lawful:", ""]
    lines += _table(("for", "legal basis"), list(found["legal_basis"].items()))
    lines += ["", "## Whose data, and which", "", f"Of {found['data_subjects']}:", ""]
    lines += [f"- {kind}: {_WHAT[kind]}" for kind in Personal if kind is not Personal.NONE]
    lines += ["", "## To whom", ""]
    lines += [*(f"- {one} (processor)" for one in said.processors)] or [f"Processors: *{MISSING}*."]
    lines += ["", "Handed out by `schleuse engaged`, of recipients in personal mode:", ""]
    lines += (
        _table(
            ("to", "purpose", "recipients", "times", "first", "last"),
            [tuple(str(value) for value in one.values()) for one in found["disclosed"]],
        )
        if found["disclosed"]
        else ["Nothing was handed out."]
    )
    lines += ["", "Logins and processes stand beside each place below.", "", "## Measures (Art. 32)", ""]
    lines += [f"- {measure}" for measure in MEASURES]
    for store, title in _STORES.items():
        lines += ["", f"## {title}"]
        for place in found["places"]:
            if place["store"] == store:
                lines += _section(place)
        if store == "keyring":
            lines += [
                "",
                *_table(("kind of key", "what", "kept"), [(k["kind"], k["what"], k["kept"]) for k in found["keys"]]),
            ]
    return "\n".join(lines) + "\n"


_WHAT = {
    Personal.ADDRESS: "the recipient in the clear",
    Personal.DEVICE: "IP address and user agent; read, never stored beyond Kafka",
    Personal.TEXT: "a sender's own words about a consent",
    Personal.BEHAVIOUR: "opens and clicks",
    Personal.CHOICE: "what she decided and when",
    Personal.PSEUDONYM: "stands for her in one purpose and kind; made with a salt that goes with her consent",
    Personal.KEYED_HASH: "stands for her or her event in one place; who holds the key can confirm a guess",
    Personal.SECRET: "salts and keys",
    Personal.SEALED: "encrypted; opens with the key ring",
    Personal.COORDINATES: "where a record about her lay in Kafka, for as long as that record is kept",
}


def _section(place: Mapping[str, Any]) -> list[str]:
    lines = ["", f"### {place['name']}", "", f"{place['what'][0].upper()}{place['what'][1:]}.", ""]
    facts = [
        ("for", "; ".join(place["for"])),
        ("from", place["from"]),
        ("written by", place["written_by"]),
        ("read by", place["read_by"]),
        ("kept", place["kept"]),
    ]
    lines += [f"- {name}: {value}" for name, value in facts]
    narrower = any(field["read_by"] != place["read_by"] for field in place["fields"])
    head = ("field", "personal", "what", *(("read by",) if narrower else ()))
    rows = [
        (f"`{f['name']}`", f["personal"], f["what"], *((f["read_by"],) if narrower else ())) for f in place["fields"]
    ]
    return [*lines, "", *_table(head, rows)]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(" ".join(str(cell).replace("|", "\\|").split()) for cell in cells) + " |"

    return [line(head), line(["---"] * len(head)), *map(line, rows)]
