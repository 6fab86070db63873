-- A campaign over a large group is targeted in batches, by the workers, after it was written down. Until the last one it
-- is marked, also while it is CREATED, and workers are told of it: by a function of their own. To workers of an older
-- version, who do not know the mark, such a campaign is not due: they would send and conclude it as if that were all.

ALTER TABLE ota_campaigns
    ADD COLUMN IF NOT EXISTS targeted_devices integer, -- of total_devices, so far; NULL: all of them
    ADD COLUMN IF NOT EXISTS targeted_up_to text;      -- the last of those, in the order of device ids

ALTER POLICY rollwave_due ON ota_campaigns
    USING (status IN ('RUNNING', 'PAUSED') OR (status = 'ABORTED' AND settled_at IS NULL)
           OR (status = 'CREATED' AND targeted_devices IS NOT NULL));
GRANT SELECT (targeted_devices) ON ota_campaigns TO rollwave_due;

DROP INDEX IF EXISTS ota_campaigns_due;
CREATE INDEX ota_campaigns_due
    ON ota_campaigns (tenant_id, id)
    WHERE status IN ('RUNNING', 'PAUSED') OR (status = 'ABORTED' AND settled_at IS NULL)
          OR (status = 'CREATED' AND targeted_devices IS NOT NULL);

-- Their owner makes the functions, with leave to create in the schema for just as long as it takes.
DO $$
BEGIN
    EXECUTE format('GRANT CREATE ON SCHEMA %I TO rollwave_due', current_schema());
END $$;
SET LOCAL ROLE rollwave_due;
CREATE OR REPLACE FUNCTION rollwave_due_campaigns()
RETURNS TABLE (tenant_id text, campaign_id bigint, status text)
LANGUAGE sql STABLE SECURITY DEFINER
BEGIN ATOMIC
    SELECT c.tenant_id::text, c.id::bigint, c.status::text
    FROM ota_campaigns c
    WHERE (c.status IN ('RUNNING', 'PAUSED') AND c.targeted_devices IS NULL)
          OR (c.status = 'ABORTED' AND c.settled_at IS NULL)
    ORDER BY c.tenant_id, c.id;
END;
CREATE FUNCTION rollwave_due_campaigns_2()
RETURNS TABLE (tenant_id text, campaign_id bigint, status text)
LANGUAGE sql STABLE SECURITY DEFINER
BEGIN ATOMIC
    SELECT c.tenant_id::text, c.id::bigint, c.status::text
    FROM ota_campaigns c
    WHERE c.status IN ('RUNNING', 'PAUSED') OR (c.status = 'ABORTED' AND c.settled_at IS NULL)
          OR (c.status = 'CREATED' AND c.targeted_devices IS NOT NULL)
    ORDER BY c.tenant_id, c.id;
END;
REVOKE ALL ON FUNCTION rollwave_due_campaigns_2() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION rollwave_due_campaigns_2() TO pulse_app;
RESET ROLE;
DO $$
BEGIN
    EXECUTE format('REVOKE CREATE ON SCHEMA %I FROM rollwave_due', current_schema());
END $$;
