"""Who agreed to what, for the partitions this worker owns.

The compacted topic tracking.state is the memory; this is its index, kept as encoded bytes (a key and a value a
recipient) and decoded when somebody's events come. The highest version wins, whatever order records come in: a stalled
worker may write an older one late, and the owner then writes its own again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from pseudonymizer.pseudonyms import STUB_PREFIX
from streams.errors import BadRow
from streams.keyring import KeyRingRefused
from streams.messages import RecipientState, decode_state, state_version
from streams.partitioner import message_key

if TYPE_CHECKING:
    from streams.transport import Record

Version = tuple[int, int]
WATCHED = 200_000  # changed keys that a watcher may be behind
StubKeys = Callable[[Sequence[bytes]], list[bytes]]
"""The key of the stub that an erased recipient leaves, of each recipient's key (streams/keys.py)."""


def _no_stubs(_: Sequence[bytes]) -> list[bytes]:
    raise KeyRingRefused("a state of an erased recipient was met, and no key to find it by")


class StateIndex:
    """The states of one partition. Reads may come from another thread; writes come from the event loop only.

    Of an erased recipient there is a stub under a keyed hash of her key: her state is the higher of the two versions.
    """

    def __init__(self, stub_keys: StubKeys = _no_stubs) -> None:
        self._states: dict[bytes, bytes] = {}
        self._stub_keys = stub_keys
        self._stubs = 0
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

    def raws(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The encoded state of each recipient's key, or None: unknown."""
        found = list(map(self._states.get, keys))
        if self._stubs:
            for at, stub in enumerate(map(self._states.get, self._stub_keys(keys))):
                if stub is not None and _newer(stub, found[at]):
                    found[at] = stub
        return found

    def raw(self, key: bytes) -> bytes | None:
        """`raws` of one key."""
        return self.raws([key])[0]

    def state(self, key: bytes) -> RecipientState | None:
        """The state of a recipient's key, or None: unknown, which means anonymous."""
        raw = self.raw(key)
        return decode_state(raw) if raw is not None else None

    def of_tenant(self, tenant: str) -> list[tuple[bytes, bytes]]:
        """Key and encoded state of every recipient of a tenant; those who were erased have nothing and are left out."""
        prefix = message_key(tenant, "")
        keys = [key for key in self._states if key.startswith(prefix)]
        return [
            (key, raw)
            for key, raw in zip(keys, self.raws(keys), strict=True)
            if raw is not None and raw is self._states.get(key)
        ]

    def written(self, key: bytes) -> bytes | None:
        """What tracking.state has to say under this very key: a state, or None for a tombstone."""
        own = self._states.get(key)
        return own if own is None or _is_stub(key) or self.raw(key) is own else None

    def look_for_superseded(self) -> None:
        """Find states that lie under the address of somebody who was erased, and note them as `stale`.

        After loading: a worker that ended between a stub and its tombstone has left one.
        """
        if self._stubs:
            people = [key for key in self._states if not _is_stub(key)]
            for key, stub in zip(people, map(self._states.get, self._stub_keys(people)), strict=True):
                if stub is not None and _newer(stub, self._states[key]):
                    self.stale.append(key)

    def put(self, key: bytes, value: bytes | None) -> None:
        """`put_all` of one state."""
        self.put_all([(key, value)])

    def put_all(self, written: Sequence[tuple[bytes, bytes | None]]) -> None:
        """Remember what this worker has written itself, in that order; of what was late, the newer stays."""
        self._take_all(written)

    def apply(self, records: list[Record]) -> None:
        """Add records of the topic. A key whose topic record is older than what is known lands in `stale`."""
        self._take_all([(record.key, record.value) for record in records if record.key is not None])

    def _take_all(self, written: Sequence[tuple[bytes, bytes | None]]) -> None:
        superseded: Mapping[bytes, bytes] | None = None
        for key, value in written:
            if self._stubs and superseded is None:  # from the first stub of all on they are looked for
                superseded = self._superseded([key for key, _ in written])
            self._take(key, value, superseded or {})

    def _superseded(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Recipient's key -> the key that a stub of hers has."""
        people = [key for key in keys if not _is_stub(key)]
        return dict(zip(people, self._stub_keys(people), strict=True)) if people else {}

    def _take(self, key: bytes, value: bytes | None, superseded: Mapping[bytes, bytes]) -> None:
        known = self._states.get(key)
        stub = self._states.get(superseded.get(key, b""))
        if value is None:
            # A tombstone by itself removes nothing: it stands only where a stub of a higher version says so.
            if known is not None and stub is not None and _newer(stub, known):
                del self._states[key]
            elif known is not None:
                self.stale.append(key)
            self._watched.append(key)
            return
        try:
            version = state_version(value)
        except BadRow:
            return
        if stub is not None and state_version(stub) > version:
            self.stale.append(key)  # of before her erasure: a tombstone has to follow it
        elif known is not None and known != value and state_version(known) > version:
            self.stale.append(key)
        else:
            self._stubs += _is_stub(key) and known is None
            self._states[key] = value
            self._watched.append(key)  # after the state: who reads the key finds it
            self.highest = max(self.highest, version)


def _is_stub(key: bytes) -> bool:
    return key.startswith(STUB_PREFIX)


def _newer(one: bytes, other: bytes | None) -> bool:
    return other is None or state_version(one) > state_version(other)
