-- Where a batch of events goes. One insert into `ingest` (Null engine: nothing of it reaches a disk) is fanned out by
-- the views below; each target has a token memory of its own, so an insert done twice is done once in every one.
-- The columns come in groups; a row fills those it speaks for and leaves the others empty:
--   counted = 1         the event is counted in the cells, by seeds that exist in this row only
--   pseudonym != 0      the event is a row of `engagement` (its recipient agreed)
--   event_hash != 0     the event's id is remembered, so that a sender's retry counts once
--   outcome != ''       how many records of the claim ended that way

CREATE TABLE ingest
(
    deadline DateTime64(3, 'UTC'),
    incarnation UInt32,
    partition UInt16,
    claim UInt64,
    first UInt64,
    tenant LowCardinality(String),
    mailing LowCardinality(String),
    kind LowCardinality(String),
    link LowCardinality(String),
    device LowCardinality(String),
    actor LowCardinality(String),
    occurred_ms Int64,
    counted UInt8,
    step UInt8,
    seed0 UInt64,
    seed1 UInt64,
    purpose LowCardinality(String),
    pseudonym UInt128,
    key_version UInt16,
    expires Date,
    event_hash UInt64,
    hour UInt32,
    outcome LowCardinality(String),
    reason LowCardinality(String),
    events UInt64,
    CONSTRAINT in_time CHECK deadline > now64(3)
)
ENGINE = Null;

-- Pseudonymous rows: only of recipients who agreed. The pseudonym is never in ORDER BY: what is sorted can be searched.
-- A recipient's rows all lie in the partition of her key, so that a withdrawal looks through that one (decision 0013).
CREATE TABLE engagement
(
    incarnation UInt32,
    partition UInt16,
    claim UInt64,
    tenant LowCardinality(String),
    purpose LowCardinality(String),
    mailing LowCardinality(String),
    kind LowCardinality(String),
    link LowCardinality(String),
    occurred DateTime('UTC'),
    device LowCardinality(String),
    actor LowCardinality(String),
    pseudonym UInt128,
    key_version UInt16,
    expires Date
)
ENGINE = MergeTree PARTITION BY partition ORDER BY (tenant, purpose, mailing, kind, occurred) TTL expires
SETTINGS non_replicated_deduplication_window = 100000, fsync_after_insert = 1, fsync_part_directory = 1,
    auto_statistics_types = '', old_parts_lifetime = 60;

CREATE MATERIALIZED VIEW engagement_view TO engagement SQL SECURITY DEFINER AS
SELECT incarnation, partition, claim, tenant, purpose, mailing, kind, link,
    toDateTime(intDiv(occurred_ms, 1000), 'UTC') AS occurred, device, actor, pseudonym, key_version, expires
FROM ingest WHERE pseudonym != 0;

CREATE TABLE cells_hourly
(
    tenant LowCardinality(String),
    mailing LowCardinality(String),
    kind LowCardinality(String),
    link LowCardinality(String),
    device LowCardinality(String),
    actor LowCardinality(String),
    hour DateTime('UTC'),
    events UInt64
)
ENGINE = SummingMergeTree(events) ORDER BY (tenant, mailing, kind, link, device, actor, hour)
SETTINGS non_replicated_deduplication_window = 100000, fsync_after_insert = 1, fsync_part_directory = 1;

CREATE MATERIALIZED VIEW cells_hourly_view TO cells_hourly SQL SECURITY DEFINER AS
SELECT tenant, mailing, kind, link, device, actor,
    toStartOfHour(toDateTime(intDiv(occurred_ms, 1000), 'UTC')) AS hour, count() AS events
FROM ingest WHERE counted = 1 GROUP BY tenant, mailing, kind, link, device, actor, hour;

-- Exact sets of visitor hashes, one a cell and step. The hash is keyed by the recipient's seed and separated by cell, so
-- the same recipient is another number in every cell, and without the mailing's secret nobody can be looked for.
-- The step is not hashed: a recipient must stay the same member in all steps of a cell.
CREATE TABLE cells_unique
(
    tenant LowCardinality(String),
    mailing LowCardinality(String),
    kind LowCardinality(String),
    dimension LowCardinality(String),
    value LowCardinality(String),
    actor LowCardinality(String),
    step UInt8,
    recipients AggregateFunction(uniqExact, UInt64)
)
ENGINE = AggregatingMergeTree ORDER BY (tenant, mailing, kind, dimension, value, actor, step)
SETTINGS non_replicated_deduplication_window = 100000, fsync_after_insert = 1, fsync_part_directory = 1,
    index_granularity = 256, auto_statistics_types = '';

CREATE MATERIALIZED VIEW cells_unique_view TO cells_unique SQL SECURITY DEFINER AS
SELECT tenant, mailing, kind, cell.1 AS dimension, cell.2 AS value, actor, step,
    uniqExactState(sipHash64Keyed((seed0, seed1), toString(kind), cell.1, cell.2, toString(actor))) AS recipients
FROM ingest
ARRAY JOIN if(link = '', [('all', ''), ('device', toString(device))],
    [('all', ''), ('link', toString(link)), ('device', toString(device))]) AS cell
WHERE counted = 1
GROUP BY tenant, mailing, kind, dimension, value, actor, step;

-- 24 h of event ids under a keyed hash, kept for the events' retention and a day: a partition's next owner reads them.
CREATE TABLE seen
(
    incarnation UInt32,
    partition UInt16,
    first UInt64,
    hour UInt32,
    hash UInt64
)
ENGINE = MergeTree ORDER BY (partition, hour) TTL toDateTime(toUInt64(hour) * 3600, 'UTC') + INTERVAL 4 DAY
SETTINGS non_replicated_deduplication_window = 100000, fsync_after_insert = 1, fsync_part_directory = 1,
    auto_statistics_types = '';

CREATE MATERIALIZED VIEW seen_view TO seen SQL SECURITY DEFINER AS
SELECT incarnation, partition, first, hour, event_hash AS hash FROM ingest WHERE event_hash != 0;

-- received = counted + off + duplicates + rejected, per partition, for ever.
CREATE TABLE outcomes
(
    incarnation UInt32,
    partition UInt16,
    outcome LowCardinality(String),
    reason LowCardinality(String),
    events UInt64
)
ENGINE = SummingMergeTree(events) ORDER BY (incarnation, partition, outcome, reason)
SETTINGS non_replicated_deduplication_window = 100000, fsync_after_insert = 1, fsync_part_directory = 1;

CREATE MATERIALIZED VIEW outcomes_view TO outcomes SQL SECURITY DEFINER AS
SELECT incarnation, partition, outcome, reason, events FROM ingest WHERE outcome != '';
