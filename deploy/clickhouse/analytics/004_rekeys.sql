-- Pseudonyms that a claim of changes rewrites in `engagement`, when a recipient moves to another root key of her tenant:
-- an UPDATE that named them itself would keep them in system.mutations for ever (docs/decisions/0015).
CREATE TABLE rekeys
(
    incarnation UInt32,
    partition UInt16,
    claim UInt64,
    old UInt128,
    new UInt128,
    key_version UInt16,
    at DateTime('UTC') DEFAULT now(),
    deadline DateTime64(3, 'UTC'),
    CONSTRAINT in_time CHECK deadline > now64(3)
)
ENGINE = MergeTree ORDER BY (incarnation, partition, claim) TTL at + INTERVAL 1 DAY
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1,
    auto_statistics_types = '';
