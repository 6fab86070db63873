-- The one question that crosses tenants: which campaigns need the engine now? It gives away no more than
-- tenant, id and status, and belongs to a role that can read just the campaigns that are due.

CREATE POLICY rollwave_due ON ota_campaigns FOR SELECT TO rollwave_due
    USING (status IN ('RUNNING', 'PAUSED') OR (status = 'ABORTED' AND settled_at IS NULL));
GRANT SELECT (tenant_id, id, status, settled_at) ON ota_campaigns TO rollwave_due;

CREATE OR REPLACE FUNCTION rollwave_due_campaigns()
RETURNS TABLE (tenant_id text, campaign_id bigint, status text)
LANGUAGE sql STABLE SECURITY DEFINER
BEGIN ATOMIC
    SELECT c.tenant_id::text, c.id::bigint, c.status::text
    FROM ota_campaigns c
    WHERE c.status IN ('RUNNING', 'PAUSED') OR (c.status = 'ABORTED' AND c.settled_at IS NULL)
    ORDER BY c.tenant_id, c.id;
END;

REVOKE ALL ON FUNCTION rollwave_due_campaigns() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION rollwave_due_campaigns() TO pulse_app;

DO $$
BEGIN
    -- A new owner must be able to create in the schema, for just as long as it takes.
    EXECUTE format('GRANT CREATE ON SCHEMA %I TO rollwave_due', current_schema());
    ALTER FUNCTION rollwave_due_campaigns() OWNER TO rollwave_due;
    EXECUTE format('REVOKE CREATE ON SCHEMA %I FROM rollwave_due', current_schema());
END $$;
