"""What the pages say, in each language: one TOML file each, all with the same keys."""

from __future__ import annotations

import datetime
import tomllib
from functools import cache
from importlib import resources
from typing import Any, Final

from aggregates.reading import Reading, percent

LANGUAGES: Final = ("en", "de")
_SEPARATORS: Final = {"en": (",", "."), "de": (".", ",")}
_DATE: Final = {"en": "%d %b %Y", "de": "%d.%m.%Y"}
THIN: Final = "\N{NO-BREAK SPACE}"


class Words:
    """One language: sentences by key, and how it writes numbers, shares and times."""

    def __init__(self, language: str) -> None:
        """`language`: one of `LANGUAGES`."""
        self.language = language
        self.texts = texts(language)
        self._thousands, self._point = _SEPARATORS[language]

    def __call__(self, key: str, **slots: str) -> str:
        """The sentence of a key (`login.title`), its slots filled. Raises KeyError for a key that there is not."""
        return self.texts[key].format(**slots) if slots else self.texts[key]

    def get(self, key: str, instead: str) -> str:
        """The sentence of a key, or `instead`."""
        return self.texts.get(key, instead)

    def number(self, value: float, decimals: int = 0) -> str:
        """1234.5 as this language writes it."""
        text = f"{value:,.{decimals}f}"
        return text.translate({ord(","): self._thousands, ord("."): self._point})

    def share(self, reading: Reading) -> str:
        """A figure as a share: "80 % ± 1", "too few to say"; recipients where nobody said how many were sent."""
        if reading.too_few:
            return self("figure.too_few")
        if reading.share is None or reading.share_margin is None:
            return self.recipients(reading)
        shown = percent(reading.share, reading.share_margin)
        value, margin = (self.number(one, shown.decimals) for one in (shown.value, shown.margin))
        return f"{value}{THIN}%{THIN}±{THIN}{margin}"

    def recipients(self, reading: Reading) -> str:
        """A figure in recipients: "7,440 ± 15 recipients", "at most 12 recipients"."""
        if reading.too_few:
            return self("figure.at_most_recipients", count=self.number(reading.at_most))
        return self(
            "figure.of_recipients", count=self.number(reading.recipients), margin=self.number(reading.margin)
        ).replace(" ± ", f"{THIN}±{THIN}")

    def at_most(self, reading: Reading) -> str:
        """What there is to say where it is too few to say."""
        return self._at_most("figure.at_most", reading)

    def bound(self, reading: Reading) -> str:
        """The same in a narrow cell: "≤ 6 %"."""
        return self._at_most("figure.bound", reading)

    def _at_most(self, key: str, reading: Reading) -> str:
        if not reading.sent:
            return self(f"{key}_recipients", count=self.number(reading.at_most))
        share = 100 * reading.at_most / reading.sent
        decimals = 0 if share >= 1 else 1
        step: float = 10**-decimals
        up = -(-share // step) * step  # rounded up: it is a bound
        return self(key, share=f"{self.number(up, decimals)}{THIN}%")

    def day(self, at: datetime.date) -> str:
        """A date."""
        return at.strftime(_DATE[self.language])

    def time(self, at: datetime.datetime) -> str:
        """A date and time, in UTC; the page turns it into the reader's own."""
        return f"{self.day(at)}, {at:%H:%M} UTC"


@cache
def texts(language: str) -> dict[str, str]:
    """Key -> sentence."""
    found = tomllib.loads((resources.files(__name__) / f"{language}.toml").read_text("utf-8"))
    return dict(_flat("", found))


def _flat(before: str, found: dict[str, Any]) -> list[tuple[str, str]]:
    flat: list[tuple[str, str]] = []
    for key, value in found.items():
        flat += _flat(f"{before}{key}.", value) if isinstance(value, dict) else [(before + key, value)]
    return flat
