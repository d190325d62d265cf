"""The worker: one process that owns some partitions, as Faust gives them to it.

What runs where: Faust's consumer fetches in a thread of its own and hands chunks to the agent; every partition has a
task in the event loop (streams/partition.py) and so has every chunk of preferences and mailings (streams/intake.py);
batches are built in one thread, stores are waited for in others; a small web server on loopback answers `/health`,
`/ready`, `/metrics` and `/status`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import orjson
import structlog
from aiohttp import web
from faust.types import TP

from streams.chain import Claims
from streams.errors import BrokerError, LostLog, SchleuseError, SettingsError, StoreUnavailable
from streams.intake import TOPICS as TAKEN_IN
from streams.intake import Intake
from streams.partition import Overtaken, Partition
from streams.resources import Resources
from streams.topics import CHANGES, EVENTS, MAILINGS, PREFERENCES, REQUESTS, trim
from streams.transport import Chunk, ChunkApp, co_partitioned, fetch_batches

if TYPE_CHECKING:
    from streams.settings import Settings

log = structlog.get_logger("schleuse.worker")

CHUNKED = (EVENTS, CHANGES, PREFERENCES, REQUESTS, MAILINGS)
SHIFT_SECONDS = 12 * 3600  # removed rows leave the stores' disks this often
LOOK_SECONDS = 5.0  # how often the topics' ids and the lag are looked at
TRIM_SECONDS = 60.0
LATE_SECONDS = 600.0  # longer than any insert's deadline
STALLED_SECONDS = 60.0  # a partition that lags and moves no more: the consumer has stopped silently


class Standing:
    """How long each partition has stood where it stands, since it was taken: one that comes back begins anew."""

    def __init__(self) -> None:
        self._since: dict[int, tuple[object, int, float]] = {}

    def seconds(self, number: int, taken: object, position: int, now: float) -> float:
        """For how long partition `number`, as it was `taken` this time, has been seen at this position."""
        known = self._since.get(number)
        if known is None or known[0] is not taken or known[1] != position:
            self._since[number] = taken, position, now
            return 0.0
        return now - known[2]


class Worker:
    """Owns partitions for Faust (streams/transport.py, `Owner`)."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.name = f"{version('schleuse')}/{os.urandom(4).hex()}"
        self.resources = Resources(settings, self.name)
        self.resources.done = self._done
        self.partitions: dict[int, Partition] = {}
        self._intake = Intake(self.resources)
        self._intaking: dict[TP, asyncio.Task[None]] = {}
        self._reloading: set[asyncio.Task[None]] = set()
        self._began = time.monotonic()
        self._crashing: asyncio.Task[None] | None = None
        self._claims: Claims
        self.app: ChunkApp

    # --- what Faust's consumer asks (Owner) ---

    async def take(self, assigned: Mapping[str, frozenset[int]]) -> Mapping[TP, int]:
        """Load all partitions; where each topic-partition begins."""
        owned = co_partitioned(assigned, (EVENTS, CHANGES))
        resources = self.resources
        resources.follow_states(owned)
        fresh = {number: Partition(number, resources, self._claims, resources.states[number]) for number in owned}
        self.partitions = fresh
        positions = await asyncio.gather(*(partition.load() for partition in fresh.values()))
        start: dict[TP, int] = {}
        for number, (events, changes) in zip(fresh, positions, strict=True):
            start[TP(EVENTS, number)], start[TP(CHANGES, number)] = events, changes
        for partition in fresh.values():
            partition.start(lambda error, number=partition.number: self._failed(number, error))  # type: ignore[misc]
        log.info("partitions taken", partitions=sorted(owned))
        return start

    async def drain(self, seconds: float) -> None:
        """Finish what is being carried out, for all partitions at once."""
        intaking = list(self._intaking.values())
        partitions, self.partitions = self.partitions, {}  # whoever fails from here on is not read again
        for reloading in self._reloading:
            reloading.cancel()
        await asyncio.gather(*(partition.stop(seconds) for partition in partitions.values()))
        if intaking:
            _, pending = await asyncio.wait(intaking, timeout=1.0)
            for task in pending:
                task.cancel()
        self._intaking.clear()

    def wants(self, tp: TP) -> bool:
        """Whether more of a topic-partition may be fetched."""
        if tp.topic in TAKEN_IN:
            return tp not in self._intaking
        partition = self.partitions.get(tp.partition)
        return partition is not None and partition.wants(tp.topic)

    async def feed(self, chunk: Chunk) -> None:
        """Hand a chunk to its partition, or to intake."""
        if chunk.topic in TAKEN_IN:
            tp = TP(chunk.topic, chunk.partition)
            former = self._intaking.get(tp)
            task = asyncio.create_task(self._take_in(tp, chunk, former), name=f"intake {tp.topic}-{tp.partition}")
            self._intaking[tp] = task
        elif partition := self.partitions.get(chunk.partition):
            partition.feed(chunk)

    async def _take_in(self, tp: TP, chunk: Chunk, former: asyncio.Task[None] | None) -> None:
        if former is not None:  # never two at once: the second one's commit would pass the first
            await former
        try:
            await self._intake.carry_out(chunk)
            self.app.consumer.done(tp, chunk.last + 1)
        except Exception as error:
            await self.app.crash(error)
        finally:
            if self._intaking.get(tp) is asyncio.current_task():
                del self._intaking[tp]

    # --- what the partitions say ---

    def _done(self, number: int, next_event: int, next_change: int) -> None:
        self.app.consumer.done(TP(EVENTS, number), next_event)
        self.app.consumer.done(TP(CHANGES, number), next_change)

    def _failed(self, number: int, error: BaseException) -> None:
        partition = self.partitions.get(number)
        if isinstance(error, Overtaken) and partition is not None:
            log.warning("another worker has gone on with this partition, reading again", partition=number)
            task = asyncio.create_task(self._reload(number, partition))
            self._reloading.add(task)
            task.add_done_callback(self._reloading.discard)
        elif partition is not None:
            self._crashing = asyncio.create_task(self.app.crash(error))

    async def _reload(self, number: int, old: Partition) -> None:
        """Drop everything of a partition and read its chain again, as on assignment."""
        partition = Partition(number, self.resources, self._claims, old.state)
        if self.partitions.get(number) is not old:
            return  # it has gone meanwhile
        self.partitions[number] = partition
        try:
            events, changes = await partition.load()
            if self.partitions.get(number) is not partition:
                return
            await self.app.consumer.go_to(TP(EVENTS, number), events)
            await self.app.consumer.go_to(TP(CHANGES, number), changes)
            partition.start(lambda error: self._failed(number, error))
        except Exception as error:
            await self.app.crash(error)

    # --- running ---

    def open(self) -> None:
        """Everything that can be found wrong before Kafka is joined. Blocking. Raises SchleuseError."""
        fetch_batches()
        self.resources.open()
        self._claims = Claims(self.resources.analytics, self.resources.life.number, self.resources.ids)

    async def run(self) -> int:
        """Run until SIGTERM, SIGINT or a failure; the exit code."""
        settings = self.settings
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopping.set)
        runner = await self._serve()
        await self.resources.start()
        self.app = ChunkApp(
            settings.group,
            broker="kafka://" + settings.broker.replace(",", ";kafka://"),
            chunk_topics=CHUNKED,
            owner=self,
            topic_partitions=settings.partitions,
            consumer_auto_offset_reset="earliest",
            consumer_max_fetch_size=4 << 20,
            broker_session_timeout=settings.session_timeout_seconds,
            broker_heartbeat_interval=max(1.0, settings.session_timeout_seconds / 5),
            broker_commit_interval=1.0,
            stream_recovery_delay=0.0,
            datadir=settings.keyring.parent / "faust",
            store="memory://",
        )
        watching = asyncio.create_task(self._watch())
        self.app.finalize()
        await self.app.start()
        log.info("worker runs", worker=self.name, incarnation=self.resources.life.number)
        waits = [asyncio.create_task(stopping.wait()), asyncio.create_task(self.app.crashed_or_stopped.wait())]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        watching.cancel()
        told = self._tell_failure()  # now: stopping may take its 25 seconds, and the process with it (I7)
        await self.app.stop()
        await runner.cleanup()
        await self.resources.stop()
        if not told and not self._tell_failure():
            log.info("worker stopped", worker=self.name)
            return 0
        return 1

    def _tell_failure(self) -> bool:
        """Log what the worker ends of; False where it was told to stop."""
        failure = self.app.failure
        if isinstance(failure, SchleuseError):
            log.error("worker ends", reason=str(failure))
        elif failure is not None:
            log.error("worker ends by a fault of its own", error=type(failure).__name__, exc_info=failure)
        return failure is not None

    async def _watch(self) -> None:
        """Look at what nobody says by himself: topics that are new, a consumer that moves no more, lag."""
        standing = Standing()
        trimmed, shift = time.monotonic(), _shift()
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                if not await self.resources.in_thread(self.resources.same_topics):
                    await self.app.crash(
                        LostLog("the topics are not those that this worker began with: start it again")
                    )
                self._measure(standing)
                if time.monotonic() - trimmed > TRIM_SECONDS:
                    trimmed = time.monotonic()
                    await self._tidy()
                if _shift() != shift:
                    shift = _shift()
                    if 0 in self.partitions:  # one of all workers, the one that happens to have it
                        await self.resources.in_thread(self.resources.let_go)
            except (BrokerError, StoreUnavailable) as error:
                log.warning("looked in vain, later again", reason=str(error))
            except Exception as error:
                await self.app.crash(error)

    def _measure(self, standing: Standing) -> None:
        metrics, now = self.resources.metrics, time.monotonic()
        metrics.waiting.set(len(self.resources.waits.now))
        metrics.waits(self.resources.waits.total)
        for number, partition in self.partitions.items():
            for topic, buffer in ((EVENTS, partition.events), (CHANGES, partition.changes)):
                metrics.lag.labels(topic, number).set(self.lag(topic, number) + len(buffer.records))
            metrics.known.labels(number).set(len(partition.state))
            metrics.remembered.labels(number).set(len(partition.seen))
            if partition.progress.state != "running":  # one that loads has nothing to move, however long it takes
                continue
            stood = standing.seconds(number, partition, partition.events.position, now)
            behind = self.lag(EVENTS, number) and partition.wants(EVENTS)
            if behind and not self.resources.waits.now and stood > STALLED_SECONDS:
                raise LostLog(f"partition {number} lags and its consumer moves no more: start the worker again")

    def lag(self, topic: str, number: int) -> int:
        """Records of a topic-partition that have not been fetched, as far as the last fetch knows."""
        behind: int = self.app.consumer.behind(TP(topic, number))
        return behind

    async def _tidy(self) -> None:
        """Trim tracking.changes below what is carried out; destroy keys of days long over."""
        resources = self.resources
        below = {number: partition.changes_kept_from for number, partition in self.partitions.items()}
        await resources.in_thread(lambda: trim(self.settings, CHANGES, below))
        await resources.in_thread(resources.forget_days)
        if time.monotonic() - self._began < LATE_SECONDS:  # a worker of an earlier incarnation may have written late
            await resources.in_thread(resources.remove_orphans)

    # --- what others may see ---

    def status(self) -> dict[str, Any]:
        """State of this worker, as `/status` answers. No tenant, mailing or recipient."""
        resources = self.resources
        return {
            "worker": self.name,
            "incarnation": resources.life.number,
            "state": "waiting" if resources.waits.now else "running" if self.ready() else "loading",
            "waiting_for": [
                {"reason": reason, "seconds": round(time.time() - since, 1)}
                for reason, since in resources.waits.now.items()
            ],
            "waits": resources.waits.total,
            "outcomes": resources.metrics.outcomes,
            "partitions": [
                {
                    "partition": number,
                    "state": partition.progress.state,
                    "claim": partition.progress.claim,
                    "next_event": partition.progress.next_event,
                    "next_change": partition.progress.next_change,
                    "buffered": len(partition.events.records),
                    "oldest_uncommitted_seconds": self._age(partition.events.oldest_ms()),
                    "lag": self.lag(EVENTS, number) + len(partition.events.records),
                    "preferences_known": len(partition.state),
                    "event_ids_remembered": len(partition.seen),
                }
                for number, partition in sorted(self.partitions.items())
            ],
        }

    @staticmethod
    def _age(record_ms: int | None) -> float | None:
        return None if record_ms is None else round(time.time() - record_ms / 1000, 1)

    def ready(self) -> bool:
        """Whether all partitions of this worker are loaded."""
        return bool(self.partitions) and all(p.progress.state == "running" for p in self.partitions.values())

    async def _serve(self) -> web.AppRunner:
        async def health(_: web.Request) -> web.Response:
            return web.Response(text="ok\n")

        async def ready(_: web.Request) -> web.Response:
            return web.Response(text="ready\n") if self.ready() else web.Response(status=503, text="loading\n")

        async def metrics(_: web.Request) -> web.Response:
            return web.Response(
                body=self.resources.metrics.text(), headers={"Content-Type": "text/plain; version=0.0.4"}
            )

        async def status(_: web.Request) -> web.Response:
            return web.Response(body=orjson.dumps(self.status()), content_type="application/json")

        application = web.Application()
        for path, handler in (("/health", health), ("/ready", ready), ("/metrics", metrics), ("/status", status)):
            application.router.add_get(path, handler)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, self.settings.http_host, self.settings.http_port).start()
        except OSError:
            raise SettingsError(
                f"port {self.settings.http_port} of {self.settings.http_host} cannot be had, it is another worker's "
                "perhaps: set http_port (SCHLEUSE_HTTP_PORT) to a free one, or to 0"
            ) from None
        log.info("worker starts, joining the group", worker=self.name, http_port=runner.addresses[0][1])
        return runner


def run(settings: Settings) -> int:
    """Run a worker in this process until it is told to stop; the exit code. Raises SchleuseError before it began."""
    worker = Worker(settings)
    worker.open()
    try:
        return asyncio.run(worker.run())
    finally:
        worker.resources.close()


def _shift() -> int:
    """Which stretch of `SHIFT_SECONDS` this is: a worker that is there when it changes does what is due, however often
    workers are started anew."""
    return int(time.time() // SHIFT_SECONDS)
