-- When a mailing's last step is due, by its tenant's window when this was published: so that readers know what is complete.
ALTER TABLE published ADD COLUMN last_hours UInt16 DEFAULT 720 AFTER hours;
