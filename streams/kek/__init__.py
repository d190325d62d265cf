"""Where the key-encryption key (KEK) of the key ring comes from: a file, Vault, or AWS KMS, behind one small interface.

The ring keeps a *reference* to its KEK beside its entries: whatever its source needs to find it again, and nothing that
helps anybody else (a fingerprint, a version number, or the KEK wrapped by somebody who keeps the key to it). So which
KEK is in force changes in the very transaction that seals all entries anew.

    path                                    an owner-only file                                  streams/kek/file.py
    vault-transit://HOST:PORT/MOUNT/KEY     wrapped by Vault's transit engine                   streams/kek/vault.py
    vault-kv://HOST:PORT/MOUNT/PATH         in Vault's KV engine, version 2                     streams/kek/vault.py
    aws-kms://REGION/KEY                    wrapped by AWS KMS (a key's id, or alias/NAME)      streams/kek/aws.py

A source is asked when a process opens the ring and when the KEK is rotated; never for an event.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from streams.errors import SettingsError

__all__ = ["SCHEMES", "KekSource", "KeyRingRefused", "check_uri", "source_of"]

SCHEMES = ("vault-transit", "vault-kv", "aws-kms")


class KeyRingRefused(SettingsError):
    """The key ring, or its key-encryption key, cannot be used as it is. The text names where it is and what to do."""


class KekSource(Protocol):
    """Keeps the KEK of one key ring. `str` of it says where, and never a secret.

    Every method raises KeyRingRefused when the source answers no (missing, denied, damaged) and StoreUnavailable when
    it does not answer: nothing was changed, and the same may be asked again. No text quotes what a library said.
    """

    @property
    def remembers(self) -> bool:
        """Whether `make(None)` is refused by itself where it has made one before: then a lost ring is noticed."""

    def make(self, before: bytes | None) -> tuple[bytes, bytes]:
        """A new KEK (32 random bytes) and its reference. `before` is the reference of the one in force; None: none is.

        The one in force stays as it is: the new one counts only once the ring's transaction has written its reference.
        """

    def fetch(self, reference: bytes) -> bytes:
        """The KEK of a reference. A caller may NOT assume that it is the right one: the ring's check value tells."""

    def settle(self, reference: bytes) -> None:
        """The KEK of this reference is in force now; may be called again at any time."""

    def forget(self, reference: bytes) -> None:
        """The KEK of this reference will never be asked for again: destroy it, where that is for this source to do."""


def source_of(kek: Path | str) -> KekSource:
    """The source that a path or URI names. Raises SettingsError: a URI that is none, or an extra not installed."""
    if isinstance(kek, Path) or "://" not in kek:
        from streams.kek.file import KekFile  # noqa: PLC0415  each source is imported by whoever uses it

        return KekFile(Path(kek))
    check_uri(kek, "the key-encryption key's URI")
    try:
        if kek.startswith("aws-kms:"):
            from streams.kek.aws import AwsKms  # noqa: PLC0415  an extra

            return AwsKms(kek)
        from streams.kek.vault import VaultKv, VaultTransit  # noqa: PLC0415  an extra

        return VaultTransit(kek) if kek.startswith("vault-transit:") else VaultKv(kek)
    except ModuleNotFoundError as error:
        extra = "aws" if kek.startswith("aws-kms:") else "vault"
        raise SettingsError(
            f"{kek.split(':')[0]} needs {error.name}, which is not installed: pip install 'schleuse[{extra}]'"
        ) from None


def check_uri(kek: str, where: str) -> None:
    """Raises SettingsError unless it is the URI of a source. Nothing of it is quoted: it might hold a password."""
    scheme, _, rest = kek.partition("://")
    host, _, path = rest.partition("?")[0].partition("/")
    if scheme not in SCHEMES:
        raise SettingsError(f"{where} must be a path, or begin with {', '.join(f'{one}://' for one in SCHEMES)}")
    if "@" in host:
        raise SettingsError(f"{where} must not hold a password: see docs/keys.md for where tokens lie")
    if not host or not path.strip("/") or (scheme != "aws-kms" and "/" not in path.strip("/")):
        shape = "aws-kms://REGION/KEY" if scheme == "aws-kms" else f"{scheme}://HOST:PORT/MOUNT/NAME"
        raise SettingsError(f"{where} must be {shape}")
