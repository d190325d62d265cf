-- How much a mailing's figures may spend in all (rho): said by its tenant's settings when its first step was drawn, and the
-- same in every row of it since. Whatever was drawn before tenants could say it has spent 0.1.
ALTER TABLE draws ADD COLUMN budget Float64 DEFAULT 0.1 AFTER rho;
