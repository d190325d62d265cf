-- The chain of claims (streams/chain.py) and what it stands on. Every table whose inserts carry a token remembers the
-- last 100,000 of them, and refuses an insert that comes after its deadline by this server's own clock: a worker that
-- slept longer than the memory lasts cannot write.

CREATE TABLE incarnations
(
    number UInt32,
    events_id String,
    changes_id String,
    state_id String,
    mailings_id String,
    at DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC')
)
ENGINE = MergeTree ORDER BY number
SETTINGS non_replicated_deduplication_window = 100000, fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE settings
(
    hash String,
    body String,
    at DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC')
)
ENGINE = MergeTree ORDER BY at
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE claims
(
    incarnation UInt32,
    partition UInt16,
    number UInt64,
    kind Enum8('events' = 1, 'changes' = 2),
    first UInt64,
    last UInt64,
    next_event UInt64,
    next_change UInt64,
    now DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC'),
    rules UInt16,
    mailings UInt64,
    settings String,
    worker String,
    deadline DateTime64(3, 'UTC'),
    CONSTRAINT in_time CHECK deadline > now64(3)
)
ENGINE = MergeTree ORDER BY (incarnation, partition, number)
SETTINGS non_replicated_deduplication_window = 100000, fsync_after_insert = 1, fsync_part_directory = 1;

-- Pseudonyms that a claim of changes removes from `engagement`: a DELETE that named them itself would keep them in
-- system.mutations for ever.
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

-- What senders declared: the newest wins, by incarnation (<< 40) and offset in tracking.mailings.
CREATE TABLE mailings
(
    tenant LowCardinality(String),
    mailing String,
    name String,
    sent_at DateTime64(3, 'UTC'),
    recipients UInt64,
    links Map(String, String),
    position UInt64
)
ENGINE = ReplacingMergeTree(position) ORDER BY (tenant, mailing)
SETTINGS non_replicated_deduplication_window = 100000, fsync_after_insert = 1, fsync_part_directory = 1;
