-- Who reads figures by the dashboard and the API, and what the officer's view shows (docs/dashboard.md).

-- One row when a reader is let in and one when it is shut out; a reader's last row holds. The key itself is nowhere: 256 random
-- bits need no slow hash.
CREATE TABLE readers
(
    reader String,
    tenant LowCardinality(String),
    role LowCardinality(String),
    label String,
    key_sha256 FixedString(32),
    until DateTime64(3, 'UTC'),
    revoked Bool,
    at DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC')
)
ENGINE = MergeTree ORDER BY (reader, at)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- What the rights service counts once a day of each tenant, exact: requests, receipts, recipients by mode, keys' age. The last
-- count of a day holds.
CREATE TABLE daily
(
    day Date,
    tenant LowCardinality(String),
    what LowCardinality(String),
    value LowCardinality(String),
    count UInt64,
    at DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC')
)
ENGINE = ReplacingMergeTree(at) ORDER BY (tenant, what, value, day)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- Reports of `schleuse verify` and `schleuse attack`, of the system as a whole: whether all held, and the report as JSON.
CREATE TABLE reports
(
    kind LowCardinality(String),
    at DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC'),
    held Bool,
    body String
)
ENGINE = MergeTree ORDER BY (kind, at)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;
