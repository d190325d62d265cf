-- Every withdrawal asks whether its preference was confirmed lately: by time, not through all that was ever confirmed.

ALTER TABLE requests ADD INDEX IF NOT EXISTS by_time at TYPE minmax GRANULARITY 1;
