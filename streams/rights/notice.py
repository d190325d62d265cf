"""The passage for a sender's privacy notice (Art. 13 GDPR), in German or English, from the settings in force.

Written for recipients. What only the sender can say and has not said stands in square brackets, to be filled in. It
describes what the lock does; whatever else a sender does with the data, it has to say itself.
"""

from __future__ import annotations

import re
import tomllib
from importlib import resources
from typing import Any, Literal

from pseudonymizer.consent import Mode
from streams.controller import Controller
from streams.settings import Settings
from streams.tenants import PRIMARY, PurposeSettings, TenantSettings

Language = Literal["de", "en"]
_SLOT = re.compile(r"\[[^\[\]]+\]")


def _texts(language: Language) -> Any:
    """The words of a language, from notice.toml beside this module."""
    text = resources.files(__package__).joinpath("notice.toml").read_text("utf-8")
    return tomllib.loads(text)[language]


def default_purpose(purpose: str, language: Language) -> str:
    """What a purpose is for where the tenant does not say: of `engagement` it is known, of any other it is empty."""
    return str(_texts(language)[PRIMARY]) if purpose == PRIMARY else ""


def notice(settings: Settings, tenant: TenantSettings, said: Controller, language: Language) -> tuple[str, list[str]]:
    """The passage in Markdown, and what in it still has to be filled in (as it stands there, brackets included)."""
    texts = _texts(language)

    def own(name: str) -> str:
        value = str(getattr(said, name)).rstrip(".")
        return (texts["none"] if value.lower() == "none" else value) or texts["slots"][name]

    ceiling = max(limits.ceiling for limits in tenant.purposes.values())
    counted = tenant.purposes[PRIMARY].ceiling > Mode.OFF
    events = texts["hours"].format(n=settings.events_retention_hours + 1)  # and half an hour of its segment
    window = tenant.window_days
    parts = [f"### {texts['title']}"]
    who = texts["who"].format(name=own("name"), contact=own("contact"))
    parts.append(who + ("" if said.dpo.lower() == "none" else texts["dpo"].format(dpo=own("dpo"))))
    if not counted and ceiling <= Mode.ANONYMOUS:
        parts.append(texts["only_off"].format(events=events))
    else:
        levels = ["off", *(["anonymous"] if counted else [])]
        levels += [mode.word for mode in (Mode.PSEUDONYMOUS, Mode.PERSONAL) if mode <= ceiling]
        parts.append(texts["what"].format(events=events))
        parts.append("\n".join(f"- {texts[level].format(window=window)}" for level in levels))
    purposes = [
        f"- {_purpose(texts, name, limits, said.says(name, language))}" for name, limits in tenant.purposes.items()
    ]
    parts.append("\n".join([texts["for"], "", *purposes]))
    parts.append(texts["proof"])
    parts.append(texts["basis"].format(counting=own("counting_basis")))
    parts.append(texts["free"])
    parts.append(texts["withdraw"].format(withdraw=own("withdraw")))
    processors = "; ".join(one.rstrip(".") for one in said.processors) or texts["slots"]["processors"]
    parts.append(texts["recipients"].format(processors=processors, transfers=own("transfers")))
    parts.append(texts["rights"].format(authority=own("authority")))
    text = "\n\n".join(parts) + "\n"
    known = {slot.format(purpose=name) for slot in texts["slots"].values() for name in tenant.purposes}
    return text, [found for found in dict.fromkeys(_SLOT.findall(text)) if found in known]


def _purpose(texts: Any, name: str, limits: PurposeSettings, text: str) -> str:
    text = text or (texts[PRIMARY] if name == PRIMARY else texts["slots"]["purpose"].format(purpose=name))
    text = text.rstrip(".") + "."
    if limits.ceiling is Mode.OFF:
        return str(texts["purpose_off"].format(text=text))
    if limits.ceiling is Mode.ANONYMOUS:
        return str(texts["purpose_count"].format(text=text))
    return str(texts["purpose"].format(text=text, mode=texts["modes"][limits.ceiling.word], days=limits.retention_days))
