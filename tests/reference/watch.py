"""A look at the stores while it runs: once a receipt is there, no row and no mapping of hers may be seen again."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from deploy.clickhouse.grants import Role, Store
from tests.reference.actual import Rows
from tests.reference.facts import Expected

_LOOKS = (
    (Store.ANALYTICS, "SELECT DISTINCT pseudonym FROM engagement"),
    (Store.IDENTITY, "SELECT DISTINCT pseudonym FROM recipients"),
)


class Watch:
    """Looks again and again, receipts first: so whatever row it then sees was there after them. A context manager.

    A look that a store does not answer (it is being restarted) is left out.
    """

    def __init__(self, rows: Rows, seconds: float = 1.0) -> None:
        self._rows, self._seconds = rows, seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._confirmed: dict[str, int] = {}  # receipt -> the look that saw it first
        self._seen: dict[tuple[Store, int], int] = {}  # pseudonym -> the look that saw it last
        self.looks = 0
        self.failed = 0

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(90)

    def _run(self) -> None:
        while not self._stop.wait(self._seconds):
            try:
                self.look()
            except Exception:  # whatever a store that is away does
                self.failed += 1

    def look(self) -> None:
        """One look."""
        self.looks += 1
        for row in self._ask(Store.IDENTITY, "SELECT id FROM receipts"):
            self._confirmed.setdefault(row[0], self.looks)
        for store, sql in _LOOKS:
            for row in self._ask(store, sql):
                self._seen[store, int(row[0])] = self.looks

    def _ask(self, store: Store, sql: str) -> Sequence[Sequence[Any]]:
        return self._rows(store, sql, Role.RIGHTS)

    def after_receipts(self, expected: Expected) -> list[str]:
        """What was seen after its receipt, a line each; none when the promise held."""
        lines = []
        for (store, pseudonym), last in self._seen.items():
            partition, claim, receipt = expected.dropped.get(pseudonym, (0, 0, ""))
            confirmed = self._confirmed.get(receipt)
            if confirmed is not None and last >= confirmed:
                lines.append(
                    f"{store}: pseudonym {pseudonym} was seen by look {last}, its receipt {receipt} (claim {claim} of "
                    f"partition {partition}) by look {confirmed}"
                )
        return lines
