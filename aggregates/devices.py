"""The device as one of four families: all that is kept of a user agent.

Coarse on purpose. A full user agent, or a model name, singles people out together with other columns
(quasi-identifiers, EDPB Guidelines 01/2025 on pseudonymisation); desktop or phone does not. Versioned with
`aggregates.actors.RULES`.
"""

from __future__ import annotations

from enum import StrEnum
from functools import lru_cache

from aggregates.rules import LONGEST, RULES, fold


class Device(StrEnum):
    """A family of devices. `OTHER`: not told, or fetched by a machine of the mailbox provider."""

    DESKTOP = "desktop"
    PHONE = "phone"
    TABLET = "tablet"
    OTHER = "other"


_SCREENS = ("smart-tv", "smarttv", "googletv", "hbbtv", "crkey", "playstation", "xbox")
_TABLETS = ("ipad", "tablet", "kindle", "silk/", "playbook")
_PHONES = ("iphone", "ipod", "windows phone", "outlook-ios", "outlook-android", "mobile")
_DESKTOPS = ("windows nt", "macintosh", "mac os x", "x11", "linux", "cros ", "microsoft outlook", "thunderbird")


def family(user_agent: str | None) -> Device:
    """The family of the device, by tokens that browsers publish. Never raises.

    A caller may not assume more than the user agent says: an iPad that asks for desktop pages says Macintosh.
    """
    return _family(user_agent[: 2 * LONGEST]) if user_agent else Device.OTHER


@lru_cache(maxsize=20_000)
def _family(user_agent: str) -> Device:
    folded = fold(user_agent)
    if RULES.is_image_proxy(folded) or _any(_SCREENS, folded):
        return Device.OTHER
    if _any(_TABLETS, folded) or ("macintosh" in folded and "mobile/" in folded):  # the latter: an iPad in mail apps
        return Device.TABLET
    if _any(_PHONES, folded):
        return Device.PHONE
    if "android" in folded:  # browsers leave "Mobile" out on tablets; an app's own user agent never has it
        return Device.TABLET if folded.startswith("mozilla/") else Device.PHONE
    return Device.DESKTOP if _any(_DESKTOPS, folded) else Device.OTHER


def _any(tokens: tuple[str, ...], folded: str) -> bool:
    return any(token in folded for token in tokens)
