-- A version is registered once for each device type, and no type counts as one. No index is made where a table holds
-- duplicates already, or where a host's columns do not allow one: firmware.register checks under a lock either way.
DO $$
BEGIN
    CREATE UNIQUE INDEX IF NOT EXISTS rollwave_firmware_version
        ON firmware_versions (tenant_id, version, (COALESCE(device_type, '')));
EXCEPTION WHEN unique_violation OR program_limit_exceeded OR feature_not_supported OR invalid_object_definition
               OR invalid_text_representation OR datatype_mismatch THEN
    RAISE NOTICE 'firmware_versions gets no unique index: %', SQLERRM;
END $$;

-- A large group is imported in parts. They wait here, and become the group's members in one transaction.
CREATE TABLE rollwave_group_imports (
    id bigserial,
    tenant_id text NOT NULL,
    group_id text NOT NULL,
    devices integer NOT NULL DEFAULT 0, -- received so far
    created_by text NOT NULL,           -- the API key's id
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    applied jsonb,                      -- the answer to who applied it; NULL: not applied
    PRIMARY KEY (tenant_id, id)
);
CREATE TABLE rollwave_group_import_devices (
    tenant_id text NOT NULL,
    import_id bigint NOT NULL,
    device_id text NOT NULL,
    described boolean NOT NULL,         -- whether what follows replaces what is known of the device
    device_type text,
    attributes jsonb,
    PRIMARY KEY (tenant_id, import_id, device_id)
);

GRANT SELECT, INSERT, UPDATE, DELETE ON rollwave_group_imports, rollwave_group_import_devices TO pulse_app;
GRANT USAGE ON SEQUENCE rollwave_group_imports_id_seq TO pulse_app;
DO $$
DECLARE
    of_tenants text;
BEGIN
    FOREACH of_tenants IN ARRAY ARRAY['rollwave_group_imports', 'rollwave_group_import_devices'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', of_tenants);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', of_tenants);
        EXECUTE format(
            'CREATE POLICY rollwave_tenant ON %I
                USING (tenant_id = NULLIF(current_setting(''app.tenant_id'', true), ''''))
                WITH CHECK (tenant_id = NULLIF(current_setting(''app.tenant_id'', true), ''''))', of_tenants);
    END LOOP;
END $$;
