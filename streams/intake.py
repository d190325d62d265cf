"""tracking.preferences and tracking.requests -> tracking.changes: validate, key, draw the consent salts.

And tracking.mailings -> mailings. A request for access is left to the rights commands: no worker reads people.

Forwarded means acknowledged by all in-sync replicas; only then is the position committed. What is forwarded twice after
a crash changes nothing the second time: the same decision keeps the first one's salt (pseudonymizer/consent.py).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import pyarrow as pa

from pseudonymizer.consent import Mode
from streams.errors import BadRow
from streams.messages import Change, Erasure, encode_change, parse_mailing, parse_preference, parse_request
from streams.partitioner import message_key, partition_of
from streams.patience import patiently
from streams.rejections import Stage
from streams.stores import TIME, arrow
from streams.topics import CHANGES, MAILINGS, PREFERENCES, REQUESTS

if TYPE_CHECKING:
    from streams.resources import Resources
    from streams.tenants import TenantSettings
    from streams.transport import Chunk, Record

SALT_BYTES = 16
LIFE_BITS = 40  # the newest declaration wins: by the topics' incarnation, then by offset
ROWS = pa.schema(
    [
        ("tenant", pa.string()),
        ("mailing", pa.string()),
        ("name", pa.string()),
        ("sent_at", TIME),
        ("recipients", pa.uint64()),
        ("links", pa.map_(pa.string(), pa.string())),
        ("position", pa.uint64()),
    ]
)


class Intake:
    """Carries out whole chunks of preferences and mailings. One at a time a topic-partition."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    async def carry_out(self, chunk: Chunk) -> None:
        """Returns when everything of the chunk is forwarded, or refused with a rejection."""
        resources = self._resources
        tenants = await patiently(lambda: resources.in_thread(resources.tenants_in_force), resources.waits)
        if chunk.topic == PREFERENCES:
            keys = resources.keys
            versions = await patiently(  # of root keys: asked of the ring once a chunk
                lambda: resources.in_thread(lambda: {tenant: keys.primary(tenant) for tenant in tenants}),
                resources.waits,
            )
            await self._forward(Stage.PREFERENCES, chunk, lambda record: self._change(chunk, record, tenants, versions))
        elif chunk.topic == REQUESTS:
            await self._forward(Stage.REQUESTS, chunk, lambda record: self._erasure(chunk, record, tenants))
        else:
            await self._mailings(chunk, tenants)

    async def _forward(self, stage: Stage, chunk: Chunk, read: Callable[[Record], Change | Erasure | None]) -> None:
        """Send on what `read` makes of each record; None: nothing."""
        resources = self._resources
        by_partition: dict[int, list[tuple[bytes, bytes]]] = {}
        bad: list[tuple[Record, BadRow]] = []
        for record in chunk.records:
            try:
                change = read(record)
            except BadRow as why:
                bad.append((record, why))
                continue
            if change is None:
                continue
            key = message_key(change.tenant, change.recipient)
            to = partition_of(key, resources.settings.partitions)
            by_partition.setdefault(to, []).append((key, encode_change(change)))
        for partition, messages in by_partition.items():
            await patiently(lambda p=partition, m=messages: resources.send_all(CHANGES, p, m), resources.waits)  # type: ignore[misc]
        await self._refuse(stage, chunk, bad)

    def _change(
        self, chunk: Chunk, record: Record, tenants: Mapping[str, TenantSettings], versions: Mapping[str, int]
    ) -> Change:
        asked = parse_preference(record.value, tenants, record.timestamp)
        salts = {
            purpose: {kind: secrets.token_bytes(SALT_BYTES) for kind, mode in kinds.items() if mode > Mode.ANONYMOUS}
            for purpose, kinds in (asked.modes or {}).items()
        }
        return Change(
            preference_id=f"{chunk.topic}:{chunk.partition}:{record.offset}",
            tenant=asked.tenant,
            recipient=asked.recipient,
            decided_at=asked.decided_at,
            modes=asked.modes,
            everything=asked.everything,
            salts={purpose: kinds for purpose, kinds in salts.items() if kinds},
            key_version=versions[asked.tenant],
            proof=asked.proof,
        )

    def _erasure(self, chunk: Chunk, record: Record, tenants: Mapping[str, TenantSettings]) -> Erasure | None:
        asked = parse_request(record.value, tenants, record.timestamp)
        if asked.kind != "erasure":
            return None
        source = f"{chunk.topic}:{chunk.partition}:{record.offset}"
        return Erasure(asked.request_id, asked.tenant, asked.recipient, asked.requested_at, source)

    async def _mailings(self, chunk: Chunk, tenants: Mapping[str, TenantSettings]) -> None:
        resources = self._resources
        rows, bad = [], []
        for record in chunk.records:
            try:
                declared = parse_mailing(record.value, tenants)
            except BadRow as why:
                bad.append((record, why))
                continue
            rows.append(
                (
                    *(declared.tenant, declared.mailing, declared.name, declared.sent_at, declared.recipients),
                    *(list(declared.links.items()), (resources.life.number << LIFE_BITS) + record.offset),
                )
            )
        if rows:
            table = arrow(rows, ROWS)
            await patiently(
                # Without a token: the newest position of a mailing wins, and the same row twice is the same row.
                lambda: resources.in_thread(
                    lambda: resources.analytics.insert("writing mailings", "mailings", table, token=None)
                ),
                resources.waits,
            )
        await self._refuse(Stage.MAILINGS, chunk, bad)

    async def _refuse(self, stage: Stage, chunk: Chunk, bad: list[tuple[Record, BadRow]]) -> None:
        resources = self._resources
        if bad:
            await patiently(
                lambda: resources.reject(stage, chunk.topic, chunk.partition, chunk.records[-1].timestamp, bad),
                resources.waits,
            )


TOPICS = (PREFERENCES, REQUESTS, MAILINGS)
