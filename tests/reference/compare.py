"""What is expected against what is there: three numbers, and lines that one can read.

lost     what is expected and not there
doubled  what is there and not expected, or more often than expected
ignored  of that, what a withdrawal forbade: rows, mappings and data keys under a pseudonym that one made go
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tests.reference.facts import TABLES, Expected, Facts, Mapping, Row

SHOWN = 5  # lines for each table and way to differ


@dataclass(slots=True)
class Report:
    """The outcome. Good when there are no lines; the numbers are then 0."""

    expected: Expected
    lines: list[str] = field(default_factory=list)
    lost: int = 0
    doubled: int = 0
    ignored: int = 0

    def text(self) -> str:
        """Every difference, a few lines a table."""
        return "\n".join([f"lost = {self.lost}, doubled = {self.doubled}, ignored = {self.ignored}", *self.lines])

    def summary(self, headline: str) -> str:
        """What was compared, and the three numbers."""
        found = self.expected
        size, ways = found.size, Counter[str]()
        for (_, outcome, _), count in found.outcomes.items():
            ways[outcome] += count
        reasons = Counter[str]()
        for (_, outcome, reason), count in found.outcomes.items():
            if outcome == "rejected":
                reasons[reason] += count
        effects = Counter[str]()
        for decision, count in found.ledger.items():
            effects[decision.effect] += count
        return "\n".join(
            [
                f"{headline}: {size['events']:,} events in {size['claims of events']:,} claims, "
                f"{size['changes']:,} changes in {size['claims of changes']:,}",
                f"  received {ways['received']:,} = counted {ways['counted']:,} + off {ways['off']:,} + duplicates "
                f"{ways['duplicates']:,} + rejected {ways['rejected']:,} ({_told(reasons)})",
                f"  {len(found.totals):,} totals, {len(found.uniques):,} unique counts, "
                f"{found.rows.total():,} rows ({found.removed['rows']:,} more were removed by withdrawals), "
                f"{found.mappings.total():,} mappings ({found.removed['mappings']:,} removed)",
                f"  {found.ledger.total():,} decisions ({_told(effects)}), {found.receipts.total():,} receipts, "
                f"{found.states.total():,} states",
                f"  lost = {self.lost}, doubled = {self.doubled}, withdrawals ignored = {self.ignored}",
            ]
        )


def _told(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items())) or "none"


def compare(expected: Expected, actual: Facts) -> Report:
    """Everything that differs."""
    report = Report(expected)
    for (topic, partition), count in expected.unclaimed.items():
        report.lost += count
        what = "were not forwarded as they were sent" if topic == "tracking.preferences" else "are in no claim"
        report.lines.append(f"{topic}-{partition}: {count:,} records {what}")
    for table in TABLES:
        should, is_ = getattr(expected, table), getattr(actual, table)
        if should == is_:
            continue
        missing, extra = should - is_, is_ - should
        forbidden = Counter({one: count for one, count in extra.items() if _pseudonym(table, one) in expected.dropped})
        extra -= forbidden
        report.lost += missing.total()
        report.doubled += extra.total()
        report.ignored += forbidden.total()
        for what, ones in (("lost", missing), ("doubled", extra), ("a withdrawal ignored", forbidden)):
            report.lines += [
                f"{table}: {what}: {_line(one)}: {is_[one]:,} where {should[one]:,} should be"
                + _why(expected, table, one)
                for one in list(ones)[:SHOWN]
            ]
            if len(ones) > SHOWN:
                report.lines.append(f"{table}: {what}: and {len(ones) - SHOWN:,} more, {ones.total():,} in all")
    return report


def differences(expected: Expected, actual: Facts) -> list[str]:
    """Everything that differs, as lines; none when all is as it must be."""
    return compare(expected, actual).lines


def _pseudonym(table: str, one: Any) -> int | None:
    if table == "data_keys":
        return int(one)
    return one.pseudonym if isinstance(one, Row | Mapping) else None


def _line(one: Any) -> str:
    if hasattr(one, "_asdict"):
        return ", ".join(f"{name} {value}" for name, value in one._asdict().items())
    return " ".join(map(str, one)) if isinstance(one, tuple) else str(one)


def _why(expected: Expected, table: str, one: Any) -> str:
    gone = expected.dropped.get(_pseudonym(table, one) or 0)
    return f"; claim {gone[1]} of partition {gone[0]} made it go ({gone[2]})" if gone else ""
