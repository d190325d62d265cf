"""Mailings and their links, as declared up to a position of tracking.mailings.

Every worker reads the whole topic (one partition). A claim names the position that holds for it, so that whoever
carries it out again classifies its links by the same declarations.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from aggregates.links import LinkRules
from streams.errors import BadRow
from streams.messages import Declaration, parse_mailing

if TYPE_CHECKING:
    from streams.tenants import TenantSettings
    from streams.transport import Record


class Declarations:
    """All declarations with their positions; the newest at or below a position holds.

    A declaration that cannot be read is passed over here; intake refuses it with a rejection.
    """

    def __init__(self) -> None:
        self._history: dict[tuple[str, str], list[tuple[int, Declaration]]] = {}
        self._rules: dict[tuple[str, str, int, str], LinkRules] = {}

    def apply(self, records: list[Record], tenants: Mapping[str, TenantSettings] | None = None) -> None:
        """Add the records of tracking.mailings, in offset order."""
        for record in records:
            try:
                declared = parse_mailing(record.value, tenants)
            except BadRow:
                continue
            history = self._history.setdefault((declared.tenant, declared.mailing), [])
            if not history or record.offset > history[-1][0]:
                history.append((record.offset, declared))

    def at(self, tenant: str, mailing: str, position: int) -> tuple[int, Declaration] | None:
        """The newest declaration before `position` (and its offset), or None: the mailing is not declared."""
        for offset, declared in reversed(self._history.get((tenant, mailing), ())):
            if offset < position:
                return offset, declared
        return None

    def links(self, tenant: TenantSettings, mailing: str, position: int) -> LinkRules:
        """How links of this mailing are found, by what was declared before `position`."""
        found = self.at(tenant.name, mailing, position)
        offset, declared = found if found else (-1, None)
        key = (tenant.name, mailing, offset, f"{tenant.links}{tenant.url_keys}")
        rules = self._rules.get(key)
        if rules is None:
            rules = LinkRules(declared.links if declared else {}, tenant.url_keys, tenant.links == "path")
            self._rules[key] = rules
        return rules

    def __len__(self) -> int:
        return len(self._history)
