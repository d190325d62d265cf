"""The canonical form of a recipient: the one spelling under which she is keyed, looked up and hashed.

Two spellings of one mailbox must come out the same, or a withdrawal would miss the other. Two mailboxes must never come
out the same. Rule 1, in this order:

1. trim white space; refuse control characters (Unicode's category Cc) and lone surrogates; NFC
2. with an `@`: split at the last one. The domain (RFC 5321 says it has no case) is lower-cased; a domain with non-ASCII
   characters is mapped by UTS 46 and encoded by IDNA 2008, strictly, and kept as its A-label (`xn--...`): the form that
   is ASCII on every system. An ASCII domain is taken leniently: labels of letters, digits, `-` and `_`, at most 63
   characters each and 253 in all (`localhost` and `_x` occur). The local part keeps its case (RFC 5321 2.4) unless the
   tenant says `local_part = "lower"`.
3. without an `@`: an id of the sender's own, kept as it is.

At most 320 characters (RFC 5321: 64 + 1 + 255), after trimming and after the rule. The rule is idempotent. NFC and
UTS 46 stand on tables of Unicode: stable for assigned characters, so that a newer Python only adds some.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

import idna

CANONICAL_RULE = 1
"""Version of the rule above. A change of any result is a new version, and a new key for everybody it touches."""

MAX_CHARS = 320
_BLANK = " \t\r\n"
_DOMAIN = re.compile(r"(?:[a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}")


class BadRecipient(ValueError):
    """A string that names no recipient. The text says what is wrong in fixed words and never holds the string."""


def canonical(recipient: str, lower_local: bool = False) -> str:
    """The canonical form of a recipient string by rule `CANONICAL_RULE`: 1 to `MAX_CHARS` characters.

    A caller may NOT assume that the result is an address that exists or could, only that equal mailboxes are equal
    strings. Raises BadRecipient.
    """
    text = recipient.strip(_BLANK)
    if not text.isascii():
        text = _normal(text)
    elif not text.isprintable():
        raise BadRecipient("control characters")
    if not 0 < len(text) <= MAX_CHARS:
        raise BadRecipient(f"1 to {MAX_CHARS} characters are expected")
    local, at, domain = text.rpartition("@")
    if not at:
        return text
    if not local:
        raise BadRecipient("nothing before the @")
    if lower_local:
        local = _lower(local)
    result = f"{local}@{_domain(domain)}"
    if len(result) > MAX_CHARS:
        raise BadRecipient(f"1 to {MAX_CHARS} characters are expected")
    return result


def _normal(text: str) -> str:
    """Trimmed NFC of a text that is not ASCII."""
    if any(char < " " or "\x7f" <= char <= "\x9f" for char in text):
        raise BadRecipient("control characters")
    if any("\ud800" <= char <= "\udfff" for char in text):
        raise BadRecipient("half a surrogate pair")
    return unicodedata.normalize("NFC", text.strip())


def _lower(local: str) -> str:
    return local.lower() if local.isascii() else unicodedata.normalize("NFC", local.lower())


@lru_cache(maxsize=4096)
def _domain(domain: str) -> str:
    """A domain in lower case and ASCII. Cached: a few domains have most of the mailboxes, and IDNA is slow."""
    lower = domain.lower()
    if not lower.isascii():
        try:
            lower = idna.encode(domain, uts46=True).decode("ascii").lower()
        except (idna.IDNAError, UnicodeError):
            raise BadRecipient("IDNA refuses the domain") from None
    if len(lower) > 253 or _DOMAIN.fullmatch(lower) is None:
        raise BadRecipient("the domain is none")
    return lower
