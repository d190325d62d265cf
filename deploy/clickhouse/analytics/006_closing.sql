-- The window of a mailing closes (streams/rights/closing.py): sets become integers, the sets and the mailing's secret go.

-- Which mailings are closed, from which claim of a partition on: a part of the chain, written with the claim's token.
-- Kept for ever: closed stays closed, in later incarnations too.
CREATE TABLE closings
(
    incarnation UInt32,
    partition UInt16,
    claim UInt64,
    tenant LowCardinality(String),
    mailing String,
    id String,
    at DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC'),
    deadline DateTime64(3, 'UTC'),
    CONSTRAINT in_time CHECK deadline > now64(3)
)
ENGINE = MergeTree ORDER BY (incarnation, partition, claim)
SETTINGS non_replicated_deduplication_window = 100000, fsync_after_insert = 1, fsync_part_directory = 1;

-- What the sets of a closed mailing were: distinct recipients of a cell in all steps up to this one. The largest figure
-- stands: counted again while its sets are going, a cell can only seem smaller.
CREATE TABLE cells_closed
(
    tenant LowCardinality(String),
    mailing LowCardinality(String),
    kind LowCardinality(String),
    dimension LowCardinality(String),
    value LowCardinality(String),
    actor LowCardinality(String),
    step UInt8,
    recipients SimpleAggregateFunction(max, UInt64)
)
ENGINE = AggregatingMergeTree ORDER BY (tenant, mailing, kind, dimension, value, actor, step)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- How far a mailing is on its way to be closed: `over` (its window was seen to be over, with so many events), `asked`
-- (its closing was sent to every partition), `done` (so many figures stand in cells_closed).
CREATE TABLE closing_notes
(
    tenant LowCardinality(String),
    mailing String,
    note LowCardinality(String),
    count UInt64,
    at DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC')
)
ENGINE = MergeTree ORDER BY (tenant, mailing, note)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- Deleted sets leave the disk as soon as deleted rows do.
ALTER TABLE cells_unique MODIFY SETTING old_parts_lifetime = 60;
