-- The audit trail: what was opened, disclosed, asked for and destroyed, by whom and why (streams/rights/audit.py).
-- Append-only, and no login can change or remove a line. Each line's `mac` is keyed, by a key that is not in this store,
-- over the line and the `mac` before it. `subject` is a blind index; sixteen zero bytes: nobody in particular.
CREATE TABLE audit
(
    number UInt64,
    at DateTime64(3, 'UTC'),
    actor String,
    action LowCardinality(String),
    tenant LowCardinality(String),
    subject FixedString(16),
    why String,
    detail String,
    mac FixedString(32),
    deadline DateTime64(3, 'UTC'),
    INDEX by_time at TYPE minmax GRANULARITY 1,
    CONSTRAINT in_time CHECK deadline > now64(3)
)
ENGINE = MergeTree ORDER BY number
SETTINGS non_replicated_deduplication_window = 100000, fsync_after_insert = 1, fsync_part_directory = 1,
    auto_statistics_types = '';
