-- How many executions of a campaign are in each state, beside succeeded and failed: moved with the rows, so that nobody
-- who looks at a campaign scans them. NULL: not counted yet, as in every row written before, or by hand.

ALTER TABLE ota_campaigns
    ADD COLUMN IF NOT EXISTS pending integer,
    ADD COLUMN IF NOT EXISTS downloading integer,
    ADD COLUMN IF NOT EXISTS installing integer,
    ADD COLUMN IF NOT EXISTS skipped integer;
