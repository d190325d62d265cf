"""The rights desk: both gates open, under one login, with a witness.

Commands that answer a recipient, or a data protection officer about her, work from here and nowhere else. Whatever they
open is in the audit trail before it is open.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING

from pseudonymizer.keys import KeyKind
from pseudonymizer.pseudonyms import blind_index
from pseudonymizer.recipients import BadRecipient, canonical
from streams import tenants
from streams.errors import SettingsError
from streams.keyring import KeyRing
from streams.keys import Keys
from streams.rights.audit import Audit
from streams.stores import Role, Store, StoreClient, connect

if TYPE_CHECKING:
    from typing import Self

    from streams.settings import Settings
    from streams.tenants import TenantSettings


class Desk:
    """Both stores under the login `rights`, the key ring, and the audit trail. A context manager.

    Used by one thread at a time. Fields: `settings`, `identity`, `analytics`, `ring`, `keys`, `audit`. The repr names
    nobody.
    """

    def __init__(
        self,
        settings: Settings,
        identity: StoreClient,
        analytics: StoreClient,
        ring: KeyRing,
        keys: Keys,
        audit: Audit,
    ) -> None:
        """Use `open`."""
        self.settings, self.identity, self.analytics = settings, identity, analytics
        self.ring, self.keys, self.audit = ring, keys, audit

    @classmethod
    def open(cls, settings: Settings, actor: str | None = None) -> Desk:
        """Log in at both stores and open the key ring, which must be there. `actor`: who is at the desk; by default the
        operating system's user.

        Raises StoreUnavailable, StoreRefused, SettingsError (KeyRingRefused); nothing stays open then.
        """
        with ExitStack() as opened:
            ring = KeyRing.open(settings.keyring, settings.keyring_kek, create=False)
            opened.callback(ring.close)
            identity = connect(settings, Store.IDENTITY, Role.RIGHTS, connections=4)
            opened.callback(identity.close)
            analytics = connect(settings, Store.ANALYTICS, Role.RIGHTS, connections=4)
            opened.callback(analytics.close)
            keys = Keys(ring)
            who = f"{Role.RIGHTS}/{actor or system_user()}"
            audit = Audit(identity, keys, who, int(settings.insert_deadline_seconds * 1000))
            desk = cls(settings, identity, analytics, ring, keys, audit)
            opened.pop_all()
            return desk

    def close(self) -> None:
        """Close everything. May be called twice."""
        self.identity.close()
        self.analytics.close()
        self.ring.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Desk {self.audit!r}>"

    # --- what every command asks first ---

    def tenant(self, name: str) -> TenantSettings:
        """The settings in force of a tenant, read now. Raises SettingsError when there is none of this name."""
        found = tenants.in_force(self.analytics).get(name)
        if found is None:
            raise SettingsError("the tenant that --tenant names is not in the settings in force: schleuse tenants show")
        return found

    def canonical(self, tenant: TenantSettings, recipient: str) -> str:
        """The canonical form of a recipient as somebody has written it. Raises SettingsError, without the recipient."""
        try:
            return canonical(recipient, tenant.lower_local)
        except BadRecipient as why:
            raise SettingsError(f"what --recipient gives is no address or id: {why}") from None

    def blind(self, tenant: str, recipient: str) -> bytes:
        """The 16 bytes by which the identity store and the audit trail know a canonical recipient of a tenant."""
        return blind_index(self.keys.single(KeyKind.BLIND), tenant, recipient)


def system_user() -> str:
    """The operating system's word for who runs this process, not what the environment says."""
    if os.name == "posix":
        import pwd  # noqa: PLC0415  only there

        try:
            return pwd.getpwuid(os.getuid()).pw_name
        except KeyError:
            return f"uid {os.getuid()}"
    return os.getlogin()
