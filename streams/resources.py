"""What the partitions of one worker share: stores, keys, topics, threads. Opened once, closed once."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from pseudonymizer.keys import KeyKind
from streams import tenants as tenants_file
from streams.declarations import Declarations
from streams.errors import BrokerError, SettingsError
from streams.incarnation import Incarnation, WasOff, current, remove_orphans, who_was_off
from streams.keyring import KeyRing
from streams.keys import Keys
from streams.metrics import Metrics
from streams.patience import Waits
from streams.rejections import Rejection, Stage, rejection_id, seal_content
from streams.state import StateIndex
from streams.stores import Role, Store, StoreClient, connect
from streams.tail import Tail
from streams.tenants import TenantSettings
from streams.topics import (
    EVENTS,
    KEPT_DAYS,
    MAILINGS,
    RECEIPTS,
    REJECTED,
    STATE,
    committed,
    ends,
    erased_after_ms,
    topic_ids,
    withdrawn_after_ms,
)

if TYPE_CHECKING:
    from streams.errors import BadRow
    from streams.settings import Settings
    from streams.transport import Record

T = TypeVar("T")
MASKED_ANALYTICS = ("engagement",)
MASKED_IDENTITY = ("recipients", "consents", "disclosures")


class Resources:
    """Shared by all partitions of a worker; used from its event loop."""

    def __init__(self, settings: Settings, name: str) -> None:
        self.settings, self.name = settings, name
        self.waits, self.metrics = Waits(), Metrics()
        self.declarations = Declarations()
        self.gone_after_ms = withdrawn_after_ms(settings)
        self.erased_after_ms = erased_after_ms(settings)
        self.was_off: WasOff = {}
        self.end_is_a_lower_bound = False
        self.states: dict[int, StateIndex] = {}
        self.done: Callable[[int, int, int], None] = lambda _partition, _next_event, _next_change: None
        self._compute = ThreadPoolExecutor(1, "build")
        self._threads = ThreadPoolExecutor(4 + 2 * settings.partitions, "store")
        self._tenants: dict[str, Mapping[str, TenantSettings]] = {}
        self.identity: StoreClient
        self.analytics: StoreClient
        self.keys: Keys
        self.life: Incarnation
        self.tail: Tail
        self._ring: KeyRing
        self._producer: AIOKafkaProducer
        self.ids: tuple[str, ...]

    def open(self) -> None:
        """Connect to the stores and open the key ring; find out which incarnation this is. Blocking.

        Raises SettingsError, StoreUnavailable, StoreRefused, BrokerError: nothing was begun.
        """
        settings = self.settings
        self._ring = KeyRing.open(settings.keyring, settings.keyring_kek)
        self.keys = Keys(self._ring)
        self.identity = connect(settings, Store.IDENTITY, Role.WORKER)
        self.analytics = connect(settings, Store.ANALYTICS, Role.WORKER)
        self.ids, self.end_is_a_lower_bound = topic_ids(settings)
        if (partitions := len(ends(settings, EVENTS))) != settings.partitions:
            raise SettingsError(f"{EVENTS} has {partitions} partitions, but the setting says {settings.partitions}")
        self.life = current(self.analytics, self.ids)
        self.remove_orphans()
        self.was_off = who_was_off(self.life, self.identity)
        self.tenants_in_force()

    def remove_orphans(self) -> None:
        """Remove what a lost state left; later again, for rows that a worker of an earlier incarnation wrote late."""
        remove_orphans(self.life, self.analytics, self.identity)

    def let_go(self) -> None:
        """Have the stores write anew what still holds removed rows: a DELETE only masks them. Blocking.

        They do it in the background; old parts leave the disk some minutes later. Raises StoreUnavailable.
        """
        for store, tables in ((self.analytics, MASKED_ANALYTICS), (self.identity, MASKED_IDENTITY)):
            for table in tables:
                store.do(f"letting go of what was removed from {table}", f"ALTER TABLE {table} APPLY DELETED MASK")

    def same_topics(self) -> bool:
        """Whether the topics are still those that this worker began with. Blocking; raises BrokerError."""
        return topic_ids(self.settings)[0] == self.ids

    async def committed(self, topic: str, partition: int) -> int | None:
        """The group's committed offset, or None. Raises BrokerError."""
        found = await self.in_thread(lambda: committed(self.settings, topic, [partition]))
        return found.get(partition)

    async def start(self) -> None:
        """Connect to Kafka and read all declarations. Raises BrokerError."""
        settings = self.settings
        self._producer = AIOKafkaProducer(
            bootstrap_servers=settings.broker,
            client_id=f"schleuse-{self.name}",
            acks="all",
            linger_ms=5,
            max_request_size=4 << 20,
        )
        self.tail = Tail(settings.broker, "schleuse-state")
        try:
            await self._producer.start()
        except KafkaError as error:
            raise BrokerError(f"Kafka at {settings.broker} did not answer ({type(error).__name__})") from None
        await self.tail.start()
        self.tail.follow(MAILINGS, [0], lambda _, records: self.declarations.apply(records))
        await self.tail.caught_up(MAILINGS, [0])

    async def stop(self) -> None:
        """Disconnect from Kafka."""
        await self.tail.stop()
        await self._producer.stop()

    def close(self) -> None:
        """Disconnect from the stores and let the threads end. Blocking; may be called after a failure at any point."""
        self._compute.shutdown(wait=False, cancel_futures=True)
        self._threads.shutdown(wait=False, cancel_futures=True)
        self.identity.close()
        self.analytics.close()

    # --- threads ---

    async def compute(self, call: Callable[[], T]) -> T:
        """Run what needs the processor; one at a time, so that builders do not fight for the interpreter."""
        return await asyncio.get_running_loop().run_in_executor(self._compute, call)

    async def in_thread(self, call: Callable[[], T]) -> T:
        """Run what waits for a store."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    # --- what holds for a claim ---

    async def declared(self) -> int:
        """The position up to which all declarations that the broker has acknowledged by now are applied."""
        await self.tail.caught_up(MAILINGS, [0])
        return self.tail.position(MAILINGS, 0)

    def tenants_of(self, fingerprint: str) -> Mapping[str, TenantSettings]:
        """The tenants' settings with this hash. Blocking. Raises SettingsError when the store does not hold them."""
        found = self._tenants.get(fingerprint)
        if found is None:
            rows = self.analytics.rows(
                "reading the tenants' settings",
                "SELECT body FROM settings WHERE hash = {hash:String} LIMIT 1",
                {"hash": fingerprint},
            )
            if not rows:
                raise SettingsError("no tenants' settings are in force: schleuse tenants apply --yes")
            found = self._tenants[fingerprint] = tenants_file.from_json(rows[0][0])
        return found

    def tenants_in_force(self) -> Mapping[str, TenantSettings]:
        """The newest settings. Blocking. Raises SettingsError when none were ever applied."""
        ((fingerprint,),) = self.analytics.rows(
            "reading the tenants' settings", "SELECT argMax(hash, at) FROM settings"
        )
        return self.tenants_of(fingerprint)

    # --- the state of the partitions ---

    def follow_states(self, partitions: Iterable[int]) -> None:
        """Follow tracking.state of exactly these partitions; those that stay keep what was read already."""
        self.states = {number: self.states.get(number) or StateIndex(self.keys.stub_keys) for number in partitions}
        self.tail.follow(STATE, self.states, self._apply_states)

    def _apply_states(self, partition: int, records: list[Record]) -> None:
        if partition in self.states:
            self.states[partition].apply(records)

    # --- what is sent ---

    async def send_all(self, topic: str, partition: int, messages: Sequence[tuple[bytes, bytes | None]]) -> None:
        """Send, and wait until all in-sync replicas have it. May be called again with the same. Raises BrokerError."""
        await self._send([(topic, partition, key, value) for key, value in messages])

    async def send_receipts(self, receipts: Sequence[tuple[str, bytes]]) -> None:
        """Send to tracking.receipts, keyed by the receipt's id."""
        await self._send([(RECEIPTS, None, key.encode(), value) for key, value in receipts])

    async def _send(self, messages: Sequence[tuple[str, int | None, bytes, bytes | None]]) -> None:
        try:
            futures = [
                await self._producer.send(topic, value, key=key, partition=partition)
                for topic, partition, key, value in messages
            ]
            for future in futures:
                await future
        except KafkaError as error:
            topics = ", ".join(sorted({message[0] for message in messages}))
            raise BrokerError(f"Kafka did not take what goes to {topics} ({type(error).__name__})") from None

    async def reject(
        self, stage: Stage, topic: str, partition: int, now_ms: int, refused: Sequence[tuple[Record, BadRow]]
    ) -> None:
        """Send a rejection for each record, its content sealed under the key of the day. Raises BrokerError."""
        day = datetime.fromtimestamp(now_ms / 1000, UTC).date().isoformat()
        key = self.keys.single(KeyKind.DAY, day)
        messages = []
        for record, why in refused:
            number = rejection_id(topic, partition, record.offset)
            rejection = Rejection(
                topic=topic,
                partition=partition,
                offset=record.offset,
                at_ms=now_ms,
                stage=stage,
                reason=why.reason,
                field=why.field,
                expected=why.expected,
                size=len(record.value or b""),
                sealed=seal_content(key, record.key, record.value, number, secrets.token_bytes(12)),
                key_id=day,
            )
            messages.append((REJECTED, None, number.encode(), rejection.encode()))
        await self._send(messages)

    def forget_days(self) -> int:
        """Destroy the keys of days that are over for KEPT_DAYS: what they sealed cannot be opened any more.

        By the store's clock, which named the days: a worker whose clock is ahead must not destroy a key too early.
        Blocking. Raises StoreUnavailable.
        """
        ((first_kept,),) = self.analytics.rows("reading the date", f"SELECT toString(toDate(now('UTC')) - {KEPT_DAYS})")
        return self._ring.destroy_before(KeyKind.DAY, first_kept)
