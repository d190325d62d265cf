"""Reports of `schleuse verify` and `schleuse attack`, where the officer's view finds them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import orjson
import pyarrow as pa

from streams.stores import arrow

if TYPE_CHECKING:
    from streams.stores import StoreClient

_REPORTS: Final = pa.schema({"kind": pa.string(), "held": pa.bool_(), "body": pa.string()})


def file_report(analytics: StoreClient, kind: str, held: bool, body: Mapping[str, Any]) -> None:
    """Put a report among `reports`: `kind` is `verify` or `attack`, `body` what the command's `--json` prints.

    `analytics`: under the login `rights` or `operator`. Raises StoreUnavailable, StoreRefused.
    """
    analytics.insert("filing the report", "reports", arrow([(kind, held, orjson.dumps(body).decode())], _REPORTS), None)
