"""The three senders of the demo, their mailings and links, and what their recipients read mail with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
MONTHS_BEFORE, REACH_BEFORE = 5, 0.12
_MONTHS = (
    *("Januar", "Februar", "März", "April", "Mai", "Juni", "Juli", "August", "September", "Oktober", "November"),
    "Dezember",
)

TENANTS_TOML = """\
# The three senders of the demo. Defaults stand beside each setting.
[stadtwerke]
local_part = "keep"            # or "lower": how addresses are compared
links = "declared"             # or "path"
url_keys = []                  # query keys that stay
[stadtwerke.purposes.engagement]
ceiling = "personal"
retention = "13 months"

[buchladen]
url_keys = ["ausgabe"]         # paperback and e-book are two links of one page
[buchladen.purposes.engagement]
ceiling = "personal"
retention = "13 months"

[verein]
local_part = "lower"
links = "path"                 # its paths name pages, never people
[verein.purposes.engagement]
ceiling = "pseudonymous"
retention = "6 months"
"""


@dataclass(frozen=True, slots=True)
class MailingPlan:
    """One mailing. Of the clicks, `weights` go to the links in their order, the rest to `undeclared`."""

    mailing: str
    name: str
    links: Mapping[str, str]
    weights: tuple[float, ...]
    reach: float
    """Share of the sender's people that it is sent to."""
    days_ago: int
    """Sent so many days ago at `hour` (UTC); 0: some hours before now."""
    hour: int
    interest: float
    """How much more or less than usual it is opened."""


@dataclass(frozen=True, slots=True)
class Sender:
    """One tenant. `undeclared`: URL -> the link it counts under; `{}` in it becomes the recipient's own number."""

    tenant: str
    share: float
    """Share of all events."""
    lower_local: bool
    names_link_ids: bool
    """Whether its events carry a link id, or a URL only."""
    iso_times: bool
    gateways: float
    """Share of its people who sit behind a security gateway."""
    mailings: tuple[MailingPlan, ...]
    """Of the week."""
    newsletter: str
    """What it sends monthly, and has sent in the months before."""
    undeclared: Mapping[str, str] = field(default_factory=dict)


SENDERS = (
    Sender(
        "stadtwerke",
        0.42,
        lower_local=False,
        names_link_ids=True,
        iso_times=True,
        gateways=0.03,
        mailings=(
            MailingPlan(
                "2026-zaehlerstand",
                "Ihr Zählerstand",
                {
                    "melden": "https://stadtwerke.example/zaehlerstand",
                    "hilfe": "https://stadtwerke.example/hilfe",
                    "abmelden": "https://stadtwerke.example/abmelden",
                },
                (0.8, 0.15, 0.05),
                1.0,
                6,
                8,
                1.3,
            ),
            MailingPlan(
                "2026-solar",
                "Strom vom eigenen Dach",
                {
                    "rechner": "https://stadtwerke.example/solar/rechner",
                    "beratung": "https://stadtwerke.example/solar/beratung",
                    "abmelden": "https://stadtwerke.example/abmelden",
                },
                (0.6, 0.3, 0.1),
                0.95,
                4,
                15,
                0.9,
            ),
            MailingPlan(
                "2026-abschlag",
                "Neue Abschläge",
                {
                    "rechnung": "https://stadtwerke.example/rechnung",
                    "tarife": "https://stadtwerke.example/tarife",
                    "abmelden": "https://stadtwerke.example/abmelden",
                },
                (0.7, 0.25, 0.05),
                1.0,
                2,
                7,
                1.2,
            ),
            MailingPlan(
                "2026-stoerung",
                "Wartung am Wochenende",
                {"karte": "https://stadtwerke.example/stoerungen", "abmelden": "https://stadtwerke.example/abmelden"},
                (0.95, 0.05),
                0.9,
                0,
                0,
                1.1,
            ),
        ),
        newsletter="Stadtwerke aktuell",
        undeclared={"https://stadtwerke.example/konto/{}/vertrag": "other"},
    ),
    Sender(
        "buchladen",
        0.5,
        lower_local=False,
        names_link_ids=False,
        iso_times=True,
        gateways=0.02,
        mailings=(
            MailingPlan(
                "2026-herbst",
                "Lesen im Herbst",
                {
                    "roman": "https://buchladen.example/titel/nebelhorn?ausgabe=taschenbuch",
                    "roman-ebook": "https://buchladen.example/titel/nebelhorn?ausgabe=ebook",
                    "krimi": "https://buchladen.example/titel/tote-flut",
                    "abmelden": "https://buchladen.example/abmelden",
                },
                (0.4, 0.15, 0.35, 0.05),
                1.0,
                6,
                17,
                1.0,
            ),
            MailingPlan(
                "2026-lesung",
                "Einladung zur Lesung",
                {
                    "karten": "https://buchladen.example/lesung/karten",
                    "anfahrt": "https://buchladen.example/anfahrt",
                    "abmelden": "https://buchladen.example/abmelden",
                },
                (0.6, 0.25, 0.05),
                0.9,
                5,
                9,
                0.8,
            ),
            MailingPlan(
                "2026-kinder",
                "Bücher für Kinder",
                {
                    "bilderbuch": "https://buchladen.example/kinder/bilderbuch",
                    "vorlesen": "https://buchladen.example/kinder/vorlesen",
                    "abmelden": "https://buchladen.example/abmelden",
                },
                (0.5, 0.3, 0.1),
                0.95,
                3,
                16,
                0.9,
            ),
            MailingPlan(
                "2026-advent",
                "24 Türchen",
                {
                    "kalender": "https://buchladen.example/advent",
                    "gutschein": "https://buchladen.example/gutschein",
                    "abmelden": "https://buchladen.example/abmelden",
                },
                (0.55, 0.35, 0.03),
                1.0,
                1,
                6,
                1.2,
            ),
        ),
        newsletter="Neu im Regal",
        undeclared={"https://buchladen.example/merkzettel/{}": "other"},
    ),
    Sender(
        "verein",
        0.08,
        lower_local=True,
        names_link_ids=False,
        iso_times=False,
        gateways=0.01,
        mailings=(
            MailingPlan(
                "2026-einladung",
                "Mitgliederversammlung",
                {
                    "zusage": "https://verein.example/versammlung/zusage",
                    "vollmacht": "https://verein.example/versammlung/vollmacht.pdf",
                },
                (0.5, 0.2),
                1.0,
                6,
                18,
                1.5,
            ),
            MailingPlan(
                "2026-arbeitstag",
                "Arbeitstag am Bootshaus",
                {"anmelden": "https://verein.example/arbeitstag"},
                (0.7,),
                0.8,
                4,
                19,
                1.2,
            ),
            MailingPlan(
                "2026-rundbrief",
                "Rundbrief",
                {"lesen": "https://verein.example/rundbrief", "fotos": "https://verein.example/fotos"},
                (0.4, 0.4),
                1.0,
                2,
                17,
                1.3,
            ),
            MailingPlan(
                "2026-weihnachtsfeier",
                "Weihnachtsfeier",
                {"anmelden": "https://verein.example/feier", "kuchen": "https://verein.example/feier/kuchen"},
                (0.5, 0.3),
                0.95,
                0,
                0,
                1.4,
            ),
        ),
        newsletter="Vereinsbrief",
        undeclared={
            "https://verein.example/satzung": "https://verein.example/satzung",
            "https://verein.example/mitglied/{}@example.org": "other",
        },
    ),
)

# What people read with; the first two are fetched by the mailbox provider when they open.
GOOGLE, YAHOO = 0, 1
PEOPLE_AGENTS = (
    "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)",
    "YahooMailProxy; https://help.yahoo.com/kb/yahoo-mail-proxy-SLN28749.html",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148",
    "Mozilla/5.0 (Linux; Android 15; Pixel 9) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 "
    "Mobile Safari/537.36",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:145.0) Gecko/20100101 Thunderbird/145.0",
    "Microsoft Office/16.0 (Windows NT 10.0; Microsoft Outlook 16.0.17928; Pro)",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 "
    "Safari/605.1.15",
    "Mozilla/5.0 (iPad; CPU OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148",
    "Mozilla/5.0 (Linux; Android 14; SM-X710) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36",
)
PEOPLE_WEIGHTS = (0.24, 0.06, 0.2, 0.14, 0.14, 0.05, 0.07, 0.06, 0.03, 0.01)
BROWSERS = (2, 3, 4, 7)
"""What people click with whose images a proxy fetches."""
APPLE_AGENTS = (2, 7, 8)
"""Who reads with Apple's own program may have its prefetch on."""
PREFETCH = "Mozilla/5.0"
SCANNERS = ("BarracudaCentral/1.0", "Mozilla/5.0 (compatible; Proofpoint URL Defense)", "Go-http-client/2.0")
AGENTS = (*PEOPLE_AGENTS, PREFETCH, *SCANNERS)
POSING = 4
"""A gateway that poses as a browser: only the vendor knows, and its events say so in `actor`."""


def sent(sender: Sender, now_ms: int) -> Iterator[tuple[MailingPlan, int]]:
    """A sender's mailings and when they were sent (milliseconds since 1970): a newsletter to a few of its people on the
    12th of each of the months before, then those of the last 7 days, each at least 4 hours ago."""
    now = datetime.fromtimestamp(now_ms / 1000, UTC)
    site = f"https://{sender.tenant}.example"
    for back in range(MONTHS_BEFORE, 0, -1):
        year, month = divmod(now.year * 12 + now.month - 1 - back, 12)
        when = datetime(year, month + 1, 12, 8, tzinfo=UTC)
        plan = MailingPlan(
            f"{year}-{month + 1:02}-brief",
            f"{sender.newsletter}, {_MONTHS[month]} {year}",
            {"lesen": f"{site}/aktuell", "abmelden": f"{site}/abmelden"},
            (0.9, 0.05),
            REACH_BEFORE,
            (now - when).days,
            when.hour,
            0.85 + 0.1 * (month % 4),
        )
        yield plan, int(when.timestamp() * 1000)
    for plan in sender.mailings:
        yield plan, _sent_ms(plan, now_ms)


def _sent_ms(plan: MailingPlan, now_ms: int) -> int:
    if not plan.days_ago:
        return (now_ms - 5 * HOUR_MS) // (HOUR_MS // 4) * (HOUR_MS // 4)
    return now_ms // DAY_MS * DAY_MS - plan.days_ago * DAY_MS + plan.hour * HOUR_MS
