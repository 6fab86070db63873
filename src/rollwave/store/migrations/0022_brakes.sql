-- What stops all sending of a tenant: a halt, until it is lifted, and freezes, from one time to another.

CREATE TABLE rollwave_brakes (
    tenant_id text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('halt', 'freeze')),
    name text NOT NULL,                                           -- of the freeze; of a halt: halt, since there is only one
    starts_at timestamptz NOT NULL DEFAULT statement_timestamp(),
    ends_at timestamptz,                                          -- NULL: a halt
    reason text,
    created_at timestamptz NOT NULL DEFAULT statement_timestamp(),
    created_by text NOT NULL,                                     -- id of an API key, or a user of the command line
    PRIMARY KEY (tenant_id, kind, name),
    CHECK ((kind = 'halt') = (ends_at IS NULL)),
    CHECK (starts_at < ends_at AND isfinite(starts_at) AND isfinite(ends_at))
);

-- Every change of a brake: who, why, and from when to when the brake applies.
CREATE TABLE rollwave_brake_history (
    tenant_id text NOT NULL,
    id bigserial NOT NULL,
    at timestamptz NOT NULL DEFAULT statement_timestamp(),
    kind text NOT NULL,
    name text NOT NULL,
    change text NOT NULL CHECK (change IN ('set', 'lifted')),
    actor text NOT NULL,
    reason text,           -- of this change
    starts_at timestamptz NOT NULL,
    ends_at timestamptz,   -- as planned; of a lifted brake: when it was lifted
    PRIMARY KEY (tenant_id, id)
);

-- What stops a campaign, as far as a look has written it to history: halt, freeze:<name>.
ALTER TABLE ota_campaigns
    ADD COLUMN IF NOT EXISTS stopped_by text[] NOT NULL DEFAULT '{}',
    ADD COLUMN IF NOT EXISTS deadlines_from timestamptz; -- no deadline is judged before this time; NULL: at any time

DO $$
DECLARE
    of_table text;
BEGIN
    FOREACH of_table IN ARRAY ARRAY['rollwave_brakes', 'rollwave_brake_history'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', of_table);
        IF NOT EXISTS (SELECT FROM rollwave_adopted_tables WHERE table_name = 'tenants') THEN
            EXECUTE format('ALTER TABLE %I ADD FOREIGN KEY (tenant_id) REFERENCES tenants (tenant_id) ON DELETE CASCADE', of_table);
        END IF;
    END LOOP;
    EXECUTE format('GRANT CREATE ON SCHEMA %I TO rollwave_due', current_schema());
END $$;

-- The number of halted tenants, for a metric.
GRANT SELECT (tenant_id, kind, starts_at, ends_at) ON rollwave_brakes TO rollwave_due;
SET LOCAL ROLE rollwave_due;
CREATE FUNCTION rollwave_halted_tenants() RETURNS bigint
LANGUAGE sql STABLE SECURITY DEFINER
BEGIN ATOMIC
    SELECT count(*) FROM rollwave_brakes WHERE kind = 'halt';
END;
REVOKE ALL ON FUNCTION rollwave_halted_tenants() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION rollwave_halted_tenants() TO pulse_app;

-- As in 0020. Workers of an older version do not know brakes either: campaigns of a halted or frozen tenant are not due to them.
CREATE OR REPLACE FUNCTION rollwave_due_campaigns_3()
RETURNS TABLE (tenant_id text, campaign_id bigint, status text)
LANGUAGE sql STABLE SECURITY DEFINER
BEGIN ATOMIC
    SELECT c.tenant_id::text, c.id::bigint, c.status::text
    FROM ota_campaigns c
    WHERE c.policy_revision IS NULL
      AND NOT EXISTS (SELECT FROM rollwave_brakes b
                      WHERE b.tenant_id = c.tenant_id::text AND b.starts_at <= statement_timestamp()
                        AND (b.ends_at IS NULL OR statement_timestamp() < b.ends_at))
      AND (c.status IN ('RUNNING', 'PAUSED') OR (c.status = 'ABORTED' AND c.settled_at IS NULL)
           OR (c.status = 'CREATED' AND c.targeted_devices IS NOT NULL)
           OR (c.status NOT IN ('CREATED', 'RUNNING', 'PAUSED', 'ABORTED') AND c.settled_at IS NULL
               AND (c.pending > 0 OR c.downloading > 0 OR c.installing > 0)))
    ORDER BY c.tenant_id, c.id;
END;
RESET ROLE;
DO $$
BEGIN
    EXECUTE format('REVOKE CREATE ON SCHEMA %I FROM rollwave_due', current_schema());
END $$;
