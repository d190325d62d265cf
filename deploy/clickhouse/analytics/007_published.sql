-- What analysts read (docs/publishing.md), and what was measured for it (streams/publish/publisher.py).

-- What was measured of a mailing at a step, decided once: a batch goes in under its number as token, and whoever is second
-- with a number has drawn nothing. `new`, exact, is what later steps subtract; rows leave when the last step is published.
-- A figure's `rho` is spent with its first step, for all of them; it stands in the same row.
CREATE TABLE draws
(
    batch UInt64,
    tenant LowCardinality(String),
    mailing String,
    step UInt8,
    kind LowCardinality(String),
    dimension LowCardinality(String),
    actor LowCardinality(String),
    links Array(String),
    new Array(UInt64),
    measured Array(Float64),
    rho Float64,
    at DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC'),
    deadline DateTime64(3, 'UTC'),
    CONSTRAINT in_time CHECK deadline > now64(3)
)
ENGINE = MergeTree ORDER BY (tenant, mailing, step)
SETTINGS non_replicated_deduplication_window = 100000, fsync_after_insert = 1, fsync_part_directory = 1,
    auto_statistics_types = '', old_parts_lifetime = 60;

-- One row a cell and step: the only figures that an analyst's login can read. A physical table: a view with a threshold
-- over exact figures leaks through predicates.
CREATE TABLE published
(
    tenant LowCardinality(String),
    mailing LowCardinality(String),
    step UInt8,
    hours UInt16,
    kind LowCardinality(String),
    dimension LowCardinality(String),
    value LowCardinality(String),
    actor LowCardinality(String),
    recipients UInt64,
    margin UInt64,
    too_few Bool,
    sent UInt64,
    measured Float64,
    sigma Float64,
    rho Float64,
    batch UInt64,
    at DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC'),
    deadline DateTime64(3, 'UTC'),
    CONSTRAINT in_time CHECK deadline > now64(3)
)
ENGINE = MergeTree ORDER BY (tenant, mailing, step, kind, dimension, value, actor)
SETTINGS non_replicated_deduplication_window = 100000, fsync_after_insert = 1, fsync_part_directory = 1;
