-- Rights are made right by `rollwave migrate` each time it runs (domain/rights.py); what has to be changed once is here.

-- What the host itself gave pulse_app before 0004 gave it more: then it is a role that the host works with. Where that
-- was not written down before, more than 0004 ever gave tells.
ALTER TABLE rollwave_adopted_tables ADD COLUMN host_gave boolean NOT NULL DEFAULT false;
DO $$
DECLARE
    remembered boolean := to_regclass('pg_temp.rollwave_before') IS NOT NULL;
    surplus text;
BEGIN
    CREATE TEMP TABLE IF NOT EXISTS rollwave_before (name text, privilege text);
    IF remembered THEN
        UPDATE rollwave_adopted_tables
        SET host_gave = table_name IN (SELECT b.name FROM pg_temp.rollwave_before b);
    ELSE
        UPDATE rollwave_adopted_tables a
        SET host_gave = EXISTS (
            SELECT FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']) AS has
            WHERE has_table_privilege('pulse_app', to_regclass(quote_ident(a.table_name)), has)
              AND has <> ALL (CASE
                  WHEN a.table_name = 'tenants' THEN ARRAY['SELECT', 'INSERT']
                  WHEN a.table_name IN ('device_group_members', 'firmware_versions') THEN ARRAY['SELECT', 'INSERT', 'DELETE']
                  ELSE ARRAY['SELECT', 'INSERT', 'UPDATE'] END));
    END IF;
    -- Tenants of a host are the host's to register. 0004 let pulse_app do so too; where the host did, it still may.
    IF EXISTS (SELECT FROM rollwave_adopted_tables WHERE table_name = 'tenants') THEN
        FOR surplus IN
            SELECT format('INSERT ON TABLE %I', 'tenants')
            UNION
            SELECT format('USAGE ON SEQUENCE %I', s.relname)
            FROM pg_attrdef f
            JOIN pg_depend p ON p.classid = 'pg_attrdef'::regclass AND p.objid = f.oid AND p.refclassid = 'pg_class'::regclass
            JOIN pg_class s ON s.oid = p.refobjid AND s.relkind = 'S'
            WHERE f.adrelid = 'tenants'::regclass
        LOOP
            CONTINUE WHEN CASE
                WHEN remembered THEN EXISTS (
                    SELECT FROM pg_temp.rollwave_before b
                    WHERE surplus LIKE b.privilege || ' ON % ' || quote_ident(b.name))
                ELSE (SELECT host_gave FROM rollwave_adopted_tables WHERE table_name = 'tenants') END;
            EXECUTE format('REVOKE %s FROM pulse_app', surplus);
        END LOOP;
    END IF;
END $$;

-- Policies that a host has on tables without row-level security have no effect. Those that it makes later are meant to.
ALTER TABLE rollwave_adopted_tables ADD COLUMN unused_policies text[] NOT NULL DEFAULT '{}';
UPDATE rollwave_adopted_tables a
SET unused_policies = ARRAY(
    SELECT p.polname::text FROM pg_policy p
    WHERE p.polrelid = to_regclass(quote_ident(a.table_name)) AND p.polname !~ '^rollwave_')
WHERE NOT a.had_row_security;

-- Under which key a campaign was asked for, and the digest of what was asked for, belong to the API. They move out of the
-- campaign's row, which a host may show as it is.
CREATE TABLE rollwave_idempotency (
    tenant_id text NOT NULL,
    key text NOT NULL,
    digest bytea NOT NULL,
    campaign_id bigint NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, key)
);
DO $$
DECLARE
    forced boolean := (SELECT relforcerowsecurity FROM pg_class WHERE oid = 'ota_campaigns'::regclass);
BEGIN
    -- Their owner reads the rows of all tenants.
    ALTER TABLE ota_campaigns NO FORCE ROW LEVEL SECURITY;
    INSERT INTO rollwave_idempotency (tenant_id, key, digest, campaign_id, created_at)
    SELECT tenant_id, idempotency_key, idempotency_digest, id, COALESCE(created_at, now())
    FROM ota_campaigns
    WHERE idempotency_key IS NOT NULL AND idempotency_digest IS NOT NULL;
    DROP INDEX IF EXISTS ota_campaigns_idempotency;
    BEGIN
        ALTER TABLE ota_campaigns DROP COLUMN IF EXISTS idempotency_key, DROP COLUMN IF EXISTS idempotency_digest;
    EXCEPTION WHEN dependent_objects_still_exist THEN
        -- A host's view has them. They stay, and are empty.
        UPDATE ota_campaigns SET idempotency_key = NULL, idempotency_digest = NULL
        WHERE idempotency_key IS NOT NULL OR idempotency_digest IS NOT NULL;
    END;
    IF forced THEN
        ALTER TABLE ota_campaigns FORCE ROW LEVEL SECURITY;
    END IF;
    IF NOT EXISTS (SELECT FROM rollwave_adopted_tables WHERE table_name = 'ota_campaigns') THEN
        ALTER TABLE rollwave_idempotency ADD FOREIGN KEY (tenant_id, campaign_id)
            REFERENCES ota_campaigns (tenant_id, id) ON DELETE CASCADE;
    END IF;
END $$;
ALTER TABLE rollwave_idempotency ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
