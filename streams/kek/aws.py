"""The KEK wrapped by AWS KMS: aws-kms://REGION/KEY, with KEY a key's id or alias/NAME.

Credentials are found where every AWS tool finds them. They need kms:Decrypt on the key, and kms:Encrypt where the KEK
is made or rotated; both can be bound to the encryption context `schleuse=key ring`. `?endpoint=URL` goes to another
address than the region's own (a VPC endpoint).
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
from botocore.exceptions import ConnectionError as NotConnected

from pseudonymizer.keys import KEY_BYTES
from streams.errors import SettingsError, StoreUnavailable
from streams.kek import KeyRingRefused

CONTEXT = {"schleuse": "key ring"}
_PATIENCE = Config(connect_timeout=5, read_timeout=10, retries={"mode": "standard", "total_max_attempts": 3})
_FOR_NOW = {"ThrottlingException", "DependencyTimeoutException", "KMSInternalException", "KeyUnavailableException"}
T = TypeVar("T")

logging.getLogger("botocore").setLevel(logging.INFO)  # at DEBUG it writes down bodies, and so the KEK


class AwsKms:
    """A KekSource: see there. The reference is the KEK as KMS wrapped it, under whichever version of its key."""

    remembers = False

    def __init__(self, uri: str) -> None:
        parts = urlsplit(uri)
        options = dict(parse_qsl(parts.query))
        if set(options) - {"endpoint"}:
            raise SettingsError("aws-kms:// takes endpoint=URL after a ?")
        self._region, self._key, self._endpoint = parts.netloc, parts.path.strip("/"), options.get("endpoint")
        self._where = f"{parts.scheme}://{parts.netloc}{parts.path}"

    def __str__(self) -> str:
        return f"the key-encryption key at {self._where}"

    def make(self, before: bytes | None) -> tuple[bytes, bytes]:
        """Drawn here, wrapped there."""
        kek = secrets.token_bytes(KEY_BYTES)
        answer = self._ask(lambda kms: kms.encrypt(KeyId=self._key, Plaintext=kek, EncryptionContext=CONTEXT))
        return kek, answer["CiphertextBlob"]

    def fetch(self, reference: bytes) -> bytes:
        """Unwrapped there, with this key and no other."""
        answer = self._ask(
            lambda kms: kms.decrypt(KeyId=self._key, CiphertextBlob=reference, EncryptionContext=CONTEXT)
        )
        kek: bytes = answer["Plaintext"]
        if len(kek) != KEY_BYTES:
            raise KeyRingRefused(f"what KMS unwrapped is no key of {KEY_BYTES} bytes: {self}")
        return kek

    def settle(self, reference: bytes) -> None:
        """Nothing to do: the reference says it all."""

    def forget(self, reference: bytes) -> None:
        """Nothing to do: the ring held it, and holds another now. Rotating KMS's own key is AWS's business."""

    def _ask(self, call: Callable[[Any], T]) -> T:
        try:
            client = boto3.session.Session().client(
                "kms", region_name=self._region, endpoint_url=self._endpoint, config=_PATIENCE
            )
            try:
                return call(client)
            finally:
                client.close()
        except ClientError as error:
            code, status = error.response.get("Error", {}).get("Code", ""), _status(error)
            word = code if code.isalnum() else "an error"
            if code in _FOR_NOW or status >= 500:
                raise StoreUnavailable(f"AWS KMS cannot for now ({word}): {self}") from None
            raise KeyRingRefused(f"AWS KMS refused ({word}): {self}; docs/keys.md lists what is needed") from None
        except (HTTPClientError, NotConnected) as error:
            raise StoreUnavailable(f"AWS KMS did not answer: {self} ({type(error).__name__})") from None
        except (BotoCoreError, ValueError) as error:  # no credentials, no such region, an endpoint that is no URL
            raise KeyRingRefused(f"AWS KMS cannot be asked ({type(error).__name__}): {self}") from None


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
