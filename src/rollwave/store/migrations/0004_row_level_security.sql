-- Who may see which rows. The engine does all its work on tenant tables as pulse_app, inside a transaction
-- that names one tenant; without that name, pulse_app sees nothing.

DO $$
DECLARE
    wanted text;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'pulse_app') THEN
        CREATE ROLE pulse_app NOLOGIN NOINHERIT NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'rollwave_due') THEN
        CREATE ROLE rollwave_due NOLOGIN NOINHERIT NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE;
    END IF;
    -- So that a migrating login which is no superuser can take the role, and hand a function to the other. One
    -- that may not pass them on needs no grant if it has them already.
    FOR wanted IN
        SELECT r.rolname FROM pg_roles r
        WHERE r.rolname IN ('pulse_app', 'rollwave_due')
          AND NOT (SELECT me.rolsuper FROM pg_roles me WHERE me.rolname = current_user)
          AND (NOT pg_has_role(current_user, r.oid, 'MEMBER')
               OR pg_has_role(current_user, r.oid, 'MEMBER WITH ADMIN OPTION'))
    LOOP
        EXECUTE format('GRANT %I TO %I', wanted, current_user);
    END LOOP;
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO pulse_app, rollwave_due', current_schema());
END $$;

GRANT SELECT, INSERT ON tenants TO pulse_app;
GRANT SELECT, INSERT, UPDATE ON devices, device_groups TO pulse_app;
GRANT SELECT, INSERT, DELETE ON device_group_members, firmware_versions, ota_quarantine TO pulse_app;
GRANT SELECT, INSERT, UPDATE ON ota_campaigns, ota_device_status, ota_campaign_waves, rollwave_api_keys TO pulse_app;
GRANT SELECT, INSERT ON ota_campaign_history TO pulse_app;
GRANT SELECT ON rollwave_installation, rollwave_migrations TO pulse_app;
GRANT SELECT, INSERT, UPDATE ON rollwave_listener_slots TO pulse_app;

DO $$
DECLARE
    each record;
BEGIN
    FOR each IN
        SELECT t.name, a.table_name IS NOT NULL AS adopted, COALESCE(a.had_row_security, false) AS had_row_security,
               (SELECT s.oid::regclass
                FROM pg_attrdef f
                JOIN pg_depend p ON p.classid = 'pg_attrdef'::regclass AND p.objid = f.oid
                JOIN pg_class s ON p.refclassid = 'pg_class'::regclass AND s.oid = p.refobjid AND s.relkind = 'S'
                WHERE f.adrelid = t.name::regclass LIMIT 1) AS id_sequence
        FROM unnest(ARRAY['tenants', 'devices', 'device_groups', 'device_group_members', 'firmware_versions',
                          'ota_campaigns', 'ota_device_status', 'ota_campaign_waves', 'ota_campaign_history',
                          'ota_quarantine', 'rollwave_api_keys']) AS t (name)
        LEFT JOIN rollwave_adopted_tables a ON a.table_name = t.name
    LOOP
        IF each.id_sequence IS NOT NULL THEN
            EXECUTE format('GRANT USAGE ON SEQUENCE %s TO pulse_app', each.id_sequence);
        END IF;
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', each.name);
        EXECUTE format(
            'CREATE POLICY rollwave_tenant ON %I
                USING (tenant_id = NULLIF(current_setting(''app.tenant_id'', true), ''''))
                WITH CHECK (tenant_id = NULLIF(current_setting(''app.tenant_id'', true), ''''))', each.name);
        IF NOT each.adopted THEN
            EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', each.name);
        ELSE
            -- Whatever else lets a host in, pulse_app stays within its tenant.
            EXECUTE format(
                'CREATE POLICY rollwave_tenant_only ON %I AS RESTRICTIVE
                    USING (current_user <> ''pulse_app''
                           OR tenant_id = NULLIF(current_setting(''app.tenant_id'', true), ''''))', each.name);
            IF NOT each.had_row_security THEN
                -- The host's own logins go on seeing what they saw, until `rollwave migrate --force-rls`.
                EXECUTE format(
                    'CREATE POLICY rollwave_host ON %I
                        USING (current_user NOT IN (''pulse_app'', ''rollwave_due''))
                        WITH CHECK (current_user NOT IN (''pulse_app'', ''rollwave_due''))', each.name);
            END IF;
        END IF;
    END LOOP;
END $$;
