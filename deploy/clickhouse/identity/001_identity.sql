-- The identity store: who agreed to what, and, for those who agreed to be known, who a pseudonym is.
-- Recipients are found by a blind index (HMAC under a key of this store's own) and never stand here in the clear.

-- In `personal` mode only: the recipient, sealed under a data key of her own, beside her pseudonym.
CREATE TABLE recipients
(
    tenant LowCardinality(String),
    purpose LowCardinality(String),
    kind LowCardinality(String),
    pseudonym UInt128,
    key_version UInt16,
    blind FixedString(16),
    sealed String,
    incarnation UInt32,
    partition UInt16,
    claim UInt64,
    at DateTime64(3, 'UTC'),
    deadline DateTime64(3, 'UTC'),
    CONSTRAINT in_time CHECK deadline > now64(3)
)
ENGINE = MergeTree ORDER BY (tenant, blind)
SETTINGS non_replicated_deduplication_window = 100000, fsync_after_insert = 1, fsync_part_directory = 1,
    auto_statistics_types = '', old_parts_lifetime = 60;

-- Every decision that was carried out or recorded, with its proof: append-only.
CREATE TABLE consents
(
    tenant LowCardinality(String),
    blind FixedString(16),
    purpose LowCardinality(String),
    kind LowCardinality(String),
    mode LowCardinality(String),
    effect LowCardinality(String),
    decided_at DateTime64(3, 'UTC'),
    recorded_at DateTime64(3, 'UTC'),
    preference_id String,
    proof String,
    incarnation UInt32,
    partition UInt16,
    claim UInt64,
    deadline DateTime64(3, 'UTC'),
    CONSTRAINT in_time CHECK deadline > now64(3)
)
ENGINE = MergeTree ORDER BY (tenant, blind, recorded_at)
SETTINGS non_replicated_deduplication_window = 100000, fsync_after_insert = 1, fsync_part_directory = 1,
    auto_statistics_types = '';

-- What was asked for and what was found before it was removed: counted once, so that a receipt says the same however
-- often its claim is carried out.
CREATE TABLE requests
(
    id String,
    kind LowCardinality(String),
    tenant LowCardinality(String),
    rows UInt64,
    mappings UInt64,
    incarnation UInt32,
    partition UInt16,
    claim UInt64,
    at DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC'),
    deadline DateTime64(3, 'UTC'),
    CONSTRAINT in_time CHECK deadline > now64(3)
)
ENGINE = MergeTree ORDER BY (incarnation, partition, claim, id)
SETTINGS non_replicated_deduplication_window = 100000, fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE receipts
(
    id String,
    kind LowCardinality(String),
    tenant LowCardinality(String),
    rows UInt64,
    mappings UInt64,
    incarnation UInt32,
    partition UInt16,
    claim UInt64,
    completed_at DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC'),
    gone_by DateTime64(3, 'UTC'),
    deadline DateTime64(3, 'UTC'),
    CONSTRAINT in_time CHECK deadline > now64(3)
)
ENGINE = MergeTree ORDER BY (incarnation, partition, claim, id)
SETTINGS non_replicated_deduplication_window = 100000, fsync_after_insert = 1, fsync_part_directory = 1;

-- Pseudonyms whose mappings a claim of changes removes (see analytics/001: `removals`).
CREATE TABLE removals
(
    incarnation UInt32,
    partition UInt16,
    claim UInt64,
    pseudonym UInt128,
    at DateTime('UTC') DEFAULT now(),
    deadline DateTime64(3, 'UTC'),
    CONSTRAINT in_time CHECK deadline > now64(3)
)
ENGINE = MergeTree ORDER BY (incarnation, partition, claim) TTL at + INTERVAL 1 DAY
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1,
    auto_statistics_types = '';
