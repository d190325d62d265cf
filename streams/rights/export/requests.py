"""Access requests of tracking.requests -> sealed exports, and receipts that say where they lie.

    1  take a record; what is no access request, or cannot be read, is the intake agent's (streams/intake.py)
    2  make the export's key, gather, seal, publish the file (streams/rights/export/sealed.py); the one that is there
       already is taken as it is
    3  send the receipt, and wait until all in-sync replicas have it
    4  commit

Each is the same done twice: after a kill at any instant, or where two processes have the same record, the second takes
the first one's file and sends the same receipt again. A request that comes again under its id is answered by the same
export for as long as that can be opened.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import IllegalStateError, KafkaError

from streams import tenants
from streams.broker import admin, is_committed, log_ends
from streams.errors import BadRow, BrokerError
from streams.messages import Request, format_time, parse_request
from streams.rights.export import bundle, gather, sealed
from streams.topics import RECEIPTS, REQUESTS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiokafka import ConsumerRecord, TopicPartition

    from streams.rights.desk import Desk
    from streams.rights.export.sealed import SealedExport
    from streams.settings import Settings
    from streams.tenants import TenantSettings

KIND = "access"
WHY = "access request "
"""How the reason of such an export begins in the audit trail; the request's id follows."""
AT_ONCE = 500  # fetched; erasures among them are passed over
FETCH_MS = 300
LONGEST_MS = 3_600_000  # between two looks: another duty may take its time


class AccessRequests:
    """The duty, with its connections to Kafka: `run_once` opens them, `close` closes them. For one event loop."""

    def __init__(self) -> None:
        self._consumer: AIOKafkaConsumer | None = None
        self._producer: AIOKafkaProducer | None = None

    async def run_once(self, desk: Desk) -> int:
        """Answer the next access request; 1, or 0 where none has come. Passes over what is none.

        One at a time, so that the process can end between two. Raises StoreUnavailable, BrokerError, SchleuseError:
        nothing that was not answered is committed then.
        """
        await self._connect(desk)
        assert self._consumer is not None
        fetched: dict[TopicPartition, list[ConsumerRecord]] = await self._consumer.getmany(
            timeout_ms=FETCH_MS, max_records=AT_ONCE
        )
        if not fetched:
            return 0
        done = {tp: records[0].offset for tp, records in fetched.items()}
        answered = 0
        try:
            known = await asyncio.to_thread(tenants.in_force, desk.analytics)
            for tp, records in fetched.items():
                for record in records:
                    if answered:
                        break
                    answered = await self._carry_out(desk, record, known)
                    done[tp] = record.offset + 1
            await self._commit(done)
        finally:
            for tp, offset in done.items():  # what was not carried out comes again
                if offset <= fetched[tp][-1].offset:
                    with contextlib.suppress(IllegalStateError):  # the partition has gone to another process meanwhile
                        self._consumer.seek(tp, offset)
        return answered

    async def close(self) -> None:
        """Leave the group and disconnect."""
        for client in (self._consumer, self._producer):
            if client is not None:
                with contextlib.suppress(KafkaError):
                    await client.stop()
        self._consumer = self._producer = None

    async def _connect(self, desk: Desk) -> None:
        if self._consumer is not None:
            return
        settings = desk.settings
        consumer = AIOKafkaConsumer(
            REQUESTS,
            bootstrap_servers=settings.broker,
            group_id=_group(settings),
            client_id="schleuse-rights",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            max_poll_interval_ms=LONGEST_MS,
            session_timeout_ms=int(settings.session_timeout_seconds * 1000),
            heartbeat_interval_ms=int(settings.session_timeout_seconds * 200),
        )
        producer = AIOKafkaProducer(bootstrap_servers=settings.broker, client_id="schleuse-rights", acks="all")
        self._consumer, self._producer = consumer, producer
        try:
            await producer.start()
            await consumer.start()
        except KafkaError as error:
            await self.close()
            raise BrokerError(f"Kafka at {settings.broker} did not answer ({type(error).__name__})") from None

    async def _carry_out(self, desk: Desk, record: ConsumerRecord, known: Mapping[str, TenantSettings]) -> int:
        try:
            request = parse_request(record.value, known, record.timestamp)
        except BadRow:
            return 0
        if request.kind != KIND:
            return 0
        made = await asyncio.to_thread(answer, desk, request)
        assert self._producer is not None
        try:
            await self._producer.send_and_wait(RECEIPTS, receipt(request, made), key=request.request_id.encode())
        except KafkaError as error:
            raise BrokerError(f"Kafka did not take a receipt ({type(error).__name__})") from None
        return 1

    async def _commit(self, positions: Mapping[TopicPartition, int]) -> None:
        assert self._consumer is not None
        try:
            await self._consumer.commit(dict(positions))
        except (KafkaError, IllegalStateError) as error:  # the next one to have the partition does it again
            raise BrokerError(f"Kafka did not take a position in {REQUESTS} ({type(error).__name__})") from None


def are_answered(settings: Settings) -> bool:
    """Whether every access request that lies in Kafka now is answered, by whichever process. Blocking.

    Raises BrokerError.
    """
    with admin(settings.broker, "asking what is answered") as client:
        return is_committed(settings.broker, client, _group(settings), REQUESTS, log_ends(settings.broker, REQUESTS))


def _group(settings: Settings) -> str:
    return f"{settings.group}-rights"


def answer(desk: Desk, request: Request) -> SealedExport:
    """The sealed export that answers a request. Blocking. Raises what `sealed.ensure` and `gather.of` raise."""

    def make() -> tuple[str, bytes]:
        export = gather.of(desk, request.tenant, request.recipient, WHY + request.request_id)
        return export.made_at, bundle.pack(bundle.files(export))

    name = sealed.key_name(desk.blind(request.tenant, request.recipient), request.request_id)
    return sealed.ensure(desk, request.tenant, name, make)


def receipt(request: Request, made: SealedExport) -> bytes:
    """The message on tracking.receipts: where the sealed export lies, how it is known, and until when it opens.

    It names no recipient: whoever sent the request knows.
    """
    return orjson.dumps(
        {
            "request_id": request.request_id,
            "kind": KIND,
            "tenant": request.tenant,
            "completed_at": made.made_at,
            "export": {
                "file": str(made.path.absolute()),
                "sha256": made.sha256,
                "until": format_time(made.until_ms),
            },
        }
    )
