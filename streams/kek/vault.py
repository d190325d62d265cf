"""The KEK in Vault (or OpenBao, which speaks the same): wrapped by its transit engine, or kept by its KV engine.

    vault-transit://HOST:PORT/MOUNT/KEY    the ring holds the KEK as transit wrapped it; the token needs `update` on
                                           MOUNT/decrypt/KEY, and on MOUNT/encrypt/KEY where the KEK is made or rotated
    vault-kv://HOST:PORT/MOUNT/PATH        KV version 2 keeps it (field `kek`, base64); the token needs `read` on
                                           MOUNT/data/PATH, and `create`, `update` there and on MOUNT/destroy/PATH
                                           where it is made or rotated

HTTPS, unless the URI ends in `?tls=off`. The token is what the `vault` command would use (VAULT_TOKEN, ~/.vault-token),
or lies in the owner-only file that `?token_file=PATH` names (a Vault agent's sink, for one). VAULT_CACERT is heeded.
"""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlsplit

import hvac
import requests
from hvac import exceptions as said

from pseudonymizer.keys import KEY_BYTES
from streams.errors import SettingsError, StoreUnavailable
from streams.kek import KeyRingRefused
from streams.kek.file import owner_only

SECONDS = 10
_FOR_NOW = (said.VaultDown, said.BadGateway, said.InternalServerError, said.RateLimitExceeded, said.VaultNotInitialized)
T = TypeVar("T")


class _Vault:
    """What both have in common: where it is, the token, and what an error becomes."""

    def __init__(self, uri: str) -> None:
        parts = urlsplit(uri)
        options = dict(parse_qsl(parts.query))
        if set(options) - {"tls", "token_file", "namespace"} or options.get("tls", "on") not in ("on", "off"):
            raise SettingsError(f"{parts.scheme}:// takes tls=on|off, token_file=PATH and namespace=NAME after a ?")
        self._mount, _, self._name = parts.path.strip("/").rpartition("/")
        self._where = f"{parts.scheme}://{parts.netloc}{parts.path}"
        self._url = f"{'http' if options.get('tls') == 'off' else 'https'}://{parts.netloc}"
        self._token_file, self._namespace = options.get("token_file"), options.get("namespace")

    def __str__(self) -> str:
        return f"the key-encryption key at {self._where}"

    def settle(self, reference: bytes) -> None:
        """Nothing to do: the reference says it all."""

    def _ask(self, call: Callable[[Any], T]) -> T:
        try:
            token = self._token()
            client = hvac.Client(url=self._url, token=token, namespace=self._namespace, timeout=SECONDS)
            try:
                return call(client.secrets)
            finally:
                client.adapter.close()
        except _FOR_NOW as error:
            raise StoreUnavailable(f"Vault cannot for now: {self} ({type(error).__name__})") from None
        except said.InvalidPath:
            raise KeyRingRefused(f"Vault has nothing there: {self}") from None
        except (said.Forbidden, said.Unauthorized):
            raise KeyRingRefused(f"Vault refused the token: {self}; docs/keys.md says what it needs") from None
        except said.VaultError as error:
            raise KeyRingRefused(f"Vault refused ({type(error).__name__}): {self}") from None
        except requests.exceptions.RequestException as error:
            raise StoreUnavailable(f"Vault did not answer: {self} ({type(error).__name__})") from None

    def _token(self) -> str | None:
        if self._token_file is None:
            return None  # hvac looks where the command `vault` does
        try:
            owner_only(Path(self._token_file))
            return Path(self._token_file).read_text("ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise KeyRingRefused(f"the token file {self._token_file} cannot be read ({type(error).__name__})") from None

    def _decoded(self, text: object) -> bytes:
        try:
            kek = base64.b64decode(str(text), validate=True)
        except binascii.Error:
            kek = b""
        if len(kek) != KEY_BYTES:
            raise KeyRingRefused(f"what Vault holds is no key of {KEY_BYTES} bytes: {self}")
        return kek


class VaultTransit(_Vault):
    """A KekSource: see there. The reference is the KEK as transit wrapped it, under whichever version of its key."""

    remembers = False

    def make(self, before: bytes | None) -> tuple[bytes, bytes]:
        """Drawn here, wrapped there."""
        kek = secrets.token_bytes(KEY_BYTES)
        answer = self._ask(
            lambda engines: engines.transit.encrypt_data(
                self._name, base64.b64encode(kek).decode(), mount_point=self._mount
            )
        )
        return kek, answer["data"]["ciphertext"].encode()

    def fetch(self, reference: bytes) -> bytes:
        """Unwrapped there."""
        answer = self._ask(
            lambda engines: engines.transit.decrypt_data(self._name, reference.decode(), mount_point=self._mount)
        )
        return self._decoded(answer["data"]["plaintext"])

    def forget(self, reference: bytes) -> None:
        """Nothing to do: the ring held it, and holds another now. Rotating transit's own key is Vault's business."""


class VaultKv(_Vault):
    """A KekSource: see there. The reference is the secret's version."""

    remembers = True

    def make(self, before: bytes | None) -> tuple[bytes, bytes]:
        """Written by check-and-set over nothing the first time; later as a further version."""
        kek = secrets.token_bytes(KEY_BYTES)
        secret = {"kek": base64.b64encode(kek).decode()}

        def create(engines: Any) -> Any:
            try:
                return engines.kv.v2.create_or_update_secret(
                    self._name, secret, cas=0 if before is None else None, mount_point=self._mount
                )
            except said.InvalidRequest:
                if before is not None:
                    raise
                raise KeyRingRefused(
                    f"{self} is there but not its key ring: bring the ring back from a backup, or delete the secret "
                    "with all its versions to begin with new keys"
                ) from None

        return kek, str(self._ask(create)["data"]["version"]).encode()

    def fetch(self, reference: bytes) -> bytes:
        """That very version."""
        answer = self._ask(
            lambda engines: engines.kv.v2.read_secret_version(
                self._name, version=int(reference), mount_point=self._mount, raise_on_deleted_version=True
            )
        )
        return self._decoded(answer["data"]["data"].get("kek"))

    def forget(self, reference: bytes) -> None:
        """Destroy that version: Vault can bring it back no more."""
        self._ask(
            lambda engines: engines.kv.v2.destroy_secret_versions(self._name, [int(reference)], mount_point=self._mount)
        )
