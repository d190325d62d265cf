"""Which life of the topics this is.

A chain belongs to one incarnation of its topics. Kafka gives every topic an id that dies with it; whenever one of
the four that a chain stands on has changed, the incarnation is one more. So a broker that came back empty neither
makes the worker skip what lies below the old positions nor lets old tokens swallow new batches.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import structlog

from pseudonymizer.consent import Mode
from streams.chain import PRIMARY
from streams.errors import ChainStopped
from streams.stores import StoreClient

log = structlog.get_logger("schleuse.incarnation")


@dataclass(frozen=True, slots=True)
class Incarnation:
    """`number` of the current life; `state_since` is the first one of the state topic that it still has."""

    number: int
    state_since: int


def current(analytics: StoreClient, ids: tuple[str, ...]) -> Incarnation:
    """The incarnation of the topics with these ids (events, changes, state); a new one is written by its first reader.

    Raises ChainStopped when two workers see different topics: one of them speaks to another broker.
    """
    lives = _lives(analytics)
    if not lives or lives[-1][1:] != ids:
        number = lives[-1][0] + 1 if lives else 1
        names = {"number": number, "events": ids[0], "changes": ids[1], "state": ids[2], "mailings": ids[3]}
        analytics.do(
            "beginning an incarnation",
            "INSERT INTO incarnations (number, events_id, changes_id, state_id, mailings_id) "
            "SELECT {number:UInt32}, {events:String}, {changes:String}, {state:String}, {mailings:String}",
            names,
            token=f"incarnation:{number}",
        )
        lives = _lives(analytics)
        log.info("the topics are new: incarnation begins", incarnation=number)
    if lives[-1][1:] != ids:
        raise ChainStopped("another worker sees other topics under the same names: do all speak to the same broker?")
    since = lives[-1][0]
    for number, _, _, state_id, _ in reversed(lives):
        if state_id != ids[2]:
            break
        since = number
    return Incarnation(lives[-1][0], since)


def _lives(analytics: StoreClient) -> list[tuple[int, str, str, str, str]]:
    rows = analytics.rows(
        "reading incarnations",
        "SELECT number, events_id, changes_id, state_id, mailings_id FROM incarnations ORDER BY number",
    )
    return [(int(row[0]), row[1], row[2], row[3], row[4]) for row in rows]


WasOff = Mapping[tuple[str, bytes, str], int]
"""(tenant, blind index, kind) of who was `off` when a state was lost -> when she decided that (epoch ms)."""


def remove_orphans(life: Incarnation, analytics: StoreClient, identity: StoreClient) -> None:
    """Remove the rows and mappings whose salts went with a lost state, before the first claim of the new chain.

    May be done any number of times, by all workers at once.
    """
    if life.state_since <= 1:
        return
    names = {"since": life.state_since}
    for store, table in ((analytics, "engagement"), (identity, "recipients")):
        ((left,),) = store.rows(
            f"counting orphans in {table}", f"SELECT count() FROM {table} WHERE incarnation < {{since:UInt32}}", names
        )
        if left:
            store.do(
                f"removing orphans from {table}",
                f"DELETE FROM {table} WHERE incarnation < {{since:UInt32}}",
                names,
                lightweight_deletes_sync=2,
            )
            log.warning("the state was lost: rows whose consent went with it are removed", table=table, rows=left)


def who_was_off(life: Incarnation, identity: StoreClient) -> WasOff:
    """Everybody whose last word before a lost state was `off`: she stays `off`.

    Nobody else is remembered: unknown means anonymous, never more.
    """
    if life.state_since <= 1:
        return {}
    rows = identity.rows(
        "reading who was off",
        "SELECT toString(tenant), blind, toString(kind), toUnixTimestamp64Milli(max(decided_at)) FROM consents "
        "WHERE incarnation < {since:UInt32} AND (purpose = {purpose:String} "
        "AND effect IN ('raised', 'lowered', 'confirmed') OR effect = 'erased') GROUP BY tenant, blind, kind "
        "HAVING argMax(mode = {off:String}, (decided_at, mode = {off:String}))",
        {"since": life.state_since, "purpose": PRIMARY, "off": Mode.OFF.word},
    )
    return {(tenant, bytes(blind), kind): decided_at for tenant, blind, kind, decided_at in rows}
