"""Keys as the worker needs them: asked of the ring once, kept in memory, never in a repr."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from pseudonymizer.keys import KeyKind, purpose_key
from pseudonymizer.pseudonyms import Pseudonymizer, stubs
from streams import partitioner
from streams.keyring import KeyRing

SEPARATOR = partitioner.SEPARATOR.decode()  # also between tenant and mailing in the name of a key


ROOTS_SECONDS = 2.0  # so long a root key that was destroyed may still be used


class Keys:
    """What the ring holds, cached. Used by one thread at a time (the one that builds batches) and by the event loop
    only between batches.

    Whoever keeps one for long calls `look` before it uses pseudonymizers: a root key that was destroyed is not used any
    more then.
    """

    def __init__(self, ring: KeyRing) -> None:
        self._ring = ring
        self._mailings: dict[str, bytes] = {}
        self._pseudonymizers: dict[tuple[str, str, int], Pseudonymizer] = {}
        self._single: dict[tuple[KeyKind, str], bytes] = {}
        self._forgotten, self._looked = 0, float("-inf")

    def __repr__(self) -> str:
        return "<Keys>"

    def primary(self, tenant: str) -> int:
        """The version of the tenant's root key that new grants use."""
        return self._ring.primary(tenant)[0]

    def look(self) -> int:
        """Forget pseudonymizers whose root key was destroyed; how often something was forgotten so far.

        The ring is asked at most every `ROOTS_SECONDS`. Who remembers what came out of a pseudonymizer forgets it too
        when the number has changed. Raises StoreUnavailable: who cannot know goes on with nothing.
        """
        now = time.monotonic()
        if self._pseudonymizers and now - self._looked >= ROOTS_SECONDS:
            roots = self._ring.roots()
            gone = [key for key in self._pseudonymizers if (key[0], key[2]) not in roots]
            for key in gone:
                del self._pseudonymizers[key]
            self._forgotten += bool(gone)
            self._looked = now
        return self._forgotten

    def pseudonymizer(self, tenant: str, purpose: str, version: int) -> Pseudonymizer | None:
        """The pseudonymizer of a tenant's purpose under a version of its root key; None: that key is gone."""
        found = self._pseudonymizers.get((tenant, purpose, version))
        if found is None:
            root = self._ring.get(KeyKind.ROOT, tenant, version)
            if root is None:
                return None
            found = Pseudonymizer(purpose_key(root, tenant, purpose, version))
            self._pseudonymizers[tenant, purpose, version] = found
        return found

    def mailings(self, names: Iterable[str]) -> dict[str, bytes]:
        """The secret of each mailing (name: tenant, separator, mailing), made where there is none.

        Raises KeyRetired for a mailing that is closed: a claim that still counts events of it is done long ago.
        """
        names = list(names)
        missing = [name for name in names if name not in self._mailings]
        if missing:
            self._mailings.update(self._ring.ensure_many(KeyKind.MAILING, missing))
        return {name: self._mailings[name] for name in names}

    def forget_mailings(self) -> None:
        """Ask the ring again for every mailing's secret: some may be about to be destroyed."""
        self._mailings.clear()

    def data_keys(self, names: Iterable[str]) -> dict[str, bytes]:
        """The data key of each mapping (name: hex of its pseudonym), made where there is none. Not cached."""
        return self._ring.ensure_many(KeyKind.DATA, list(names))

    def drop_data_keys(self, names: Iterable[str]) -> None:
        """Destroy data keys: what they sealed is gone."""
        self._ring.destroy_many(KeyKind.DATA, list(names))

    def single(self, kind: KeyKind, name: str = "") -> bytes:
        """A key of which there is one (seen, blind, stub) or one a day (day)."""
        key = self._single.get((kind, name))
        if key is None:
            key = self._single[kind, name] = self._ring.ensure(kind, name)
        return key

    def stub_keys(self, keys: Sequence[bytes]) -> list[bytes]:
        """Of each recipient's key, the key in tracking.state of the stub that she leaves when she is erased."""
        return stubs(self.single(KeyKind.STUB), keys)

    def drop_exports(self, blinds: Iterable[bytes]) -> None:
        """Destroy the keys of all sealed exports of these recipients (blind indexes)."""
        self._ring.destroy_named(KeyKind.EXPORT, [f"{blind.hex()}:" for blind in blinds])
