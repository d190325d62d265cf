-- A claim a second and partition would grow for ever, and what reads them would slow down. After two weeks the claims of
-- a partition become one, the newest of them: all that a chain that stands still, or a later incarnation, has to know.
-- (docs/decisions/0011)

ALTER TABLE claims MODIFY TTL toDateTime(now) + INTERVAL 14 DAY GROUP BY incarnation, partition SET
    number = max(number),
    kind = argMax(kind, number),
    first = argMax(first, number),
    last = argMax(last, number),
    next_event = argMax(next_event, number),
    next_change = argMax(next_change, number),
    now = argMax(now, number),
    rules = argMax(rules, number),
    mailings = argMax(mailings, number),
    settings = argMax(settings, number),
    worker = argMax(worker, number),
    deadline = argMax(deadline, number)
SETTINGS materialize_ttl_after_modify = 0;

-- How many claims were made since a moment is asked at every start.
ALTER TABLE claims ADD INDEX IF NOT EXISTS by_time now TYPE minmax GRANULARITY 1;
