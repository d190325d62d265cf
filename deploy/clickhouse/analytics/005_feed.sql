-- Where an event came from, in its sender's word ("mailgun"), beside the row that it became: the access export has to
-- say it (Art. 15(1)(g) GDPR). Of events that are no row nothing of it is stored.
--
-- The view is made anew under its name: then tokens that it has met still count (measured). After ALTER TABLE ...
-- MODIFY QUERY they do not, and a batch done twice would be there twice. While it is missing another view refuses
-- whatever is inserted: a worker ends, and does its claim again when it is started again.

CREATE MATERIALIZED VIEW refuse_view TO engagement SQL SECURITY DEFINER AS
SELECT throwIf(partition >= 0, 'schleuse migrate is at work') AS incarnation FROM ingest;

ALTER TABLE ingest ADD COLUMN IF NOT EXISTS feed LowCardinality(String) AFTER expires;

ALTER TABLE engagement ADD COLUMN IF NOT EXISTS feed LowCardinality(String) AFTER expires;

DROP VIEW IF EXISTS engagement_view SYNC;

CREATE MATERIALIZED VIEW engagement_view TO engagement SQL SECURITY DEFINER AS
SELECT incarnation, partition, claim, tenant, purpose, mailing, kind, link,
    toDateTime(intDiv(occurred_ms, 1000), 'UTC') AS occurred, device, actor, pseudonym, key_version, expires, feed
FROM ingest WHERE pseudonym != 0;

DROP VIEW IF EXISTS refuse_view SYNC;
