"""Who agreed to what, for the partitions this worker owns.

The compacted topic tracking.state is the memory; this is its index, kept as encoded bytes (a key and a value a
recipient) and decoded when somebody's events come. The highest version wins, whatever order records come in: a stalled
worker may write an older one late, and the owner then writes its own again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from streams.errors import BadRow
from streams.messages import RecipientState, decode_state, state_version
from streams.transport import Record

Version = tuple[int, int]
WATCHED = 200_000  # changed keys that a watcher may be behind


class StateIndex:
    """The states of one partition. Reads may come from another thread; writes come from the event loop only."""

    def __init__(self) -> None:
        self._states: dict[bytes, bytes] = {}
        self.highest: Version = (0, -1)
        self.stale: list[bytes] = []
        self._watched: deque[bytes] = deque(maxlen=0)

    def watch(self) -> deque[bytes]:
        """From now on the key of every state that is put or applied, for whoever remembers what came out of it.

        Of one watcher, the last. Where it is full (`maxlen`), keys have fallen out of it: forget everything.
        """
        self._watched = deque(maxlen=WATCHED)
        return self._watched

    def __len__(self) -> int:
        return len(self._states)

    def raw(self, key: bytes) -> bytes | None:
        """The encoded state of a recipient's key, or None: unknown."""
        return self._states.get(key)

    def raws(self, keys: Iterable[bytes]) -> list[bytes | None]:
        """`raw` of each key."""
        return list(map(self._states.get, keys))

    def state(self, key: bytes) -> RecipientState | None:
        """The state of a recipient's key, or None: unknown, which means anonymous."""
        raw = self._states.get(key)
        return decode_state(raw) if raw is not None else None

    def put(self, key: bytes, value: bytes) -> None:
        """Remember a state that this worker has written itself; if it was the late one, the newer stays."""
        known, version = self._states.get(key), state_version(value)
        if known is not None and state_version(known) > version:
            self.stale.append(key)
        else:
            self._put(key, value, version)

    def apply(self, records: list[Record]) -> None:
        """Add records of the topic. A key whose topic record is older than what is known lands in `stale`."""
        for record in records:
            key, value = record.key, record.value
            if key is None or value is None:
                continue  # a tombstone removes nothing by itself: versions only rise
            try:
                version = state_version(value)
            except BadRow:
                continue
            known = self._states.get(key)
            if known is not None and known != value:
                known_version = state_version(known)
                if version < known_version:
                    self.stale.append(key)
                    continue
            self._put(key, value, version)

    def _put(self, key: bytes, value: bytes, version: Version) -> None:
        self._states[key] = value
        self._watched.append(key)  # after the state: who reads the key finds it
        self.highest = max(self.highest, version)
