-- Erasure (streams/changes.py): whom a claim erases, what was disclosed about whom, and what a receipt says of both.

-- By whom it is found here, for a day: a DELETE that named her itself would keep it in system.mutations for ever.
-- `until` (epoch ms): the ledger's lines decided up to then go; later ones belong to a new grant that stands.
CREATE TABLE erasing
(
    tenant LowCardinality(String),
    blind FixedString(16),
    until Int64,
    incarnation UInt32,
    partition UInt16,
    claim UInt64,
    at DateTime('UTC') DEFAULT now(),
    deadline DateTime64(3, 'UTC'),
    CONSTRAINT in_time CHECK deadline > now64(3)
)
ENGINE = MergeTree ORDER BY (incarnation, partition, claim) TTL at + INTERVAL 1 DAY
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1,
    auto_statistics_types = '';

-- Who was told what about whom (Art. 15(1)(c) GDPR): written before it is handed out, removed with her erasure, whose
-- receipt names `disclosed_to` (Art. 19).
CREATE TABLE disclosures
(
    tenant LowCardinality(String),
    blind FixedString(16),
    purpose LowCardinality(String),
    mailing String,
    kind LowCardinality(String),
    link String,
    disclosed_to String,
    why String,
    disclosure_id String,
    at DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC')
)
ENGINE = MergeTree ORDER BY (tenant, blind, at)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1,
    auto_statistics_types = '';

ALTER TABLE requests ADD COLUMN IF NOT EXISTS consents UInt64 AFTER mappings;
ALTER TABLE requests ADD COLUMN IF NOT EXISTS disclosures UInt64 AFTER consents;
ALTER TABLE requests ADD COLUMN IF NOT EXISTS disclosed_to Array(String) AFTER disclosures;
ALTER TABLE receipts ADD COLUMN IF NOT EXISTS consents UInt64 AFTER mappings;
ALTER TABLE receipts ADD COLUMN IF NOT EXISTS disclosures UInt64 AFTER consents;
ALTER TABLE receipts ADD COLUMN IF NOT EXISTS disclosed_to Array(String) AFTER disclosures;
