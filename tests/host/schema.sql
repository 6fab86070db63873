-- What the host's migrations made, as its owner. Its service logs in as host_service and works as pulse_app, with the
-- tenant in app.tenant_id; its own administrators set app.is_admin.

-- As it was set up once, for all tables that come: everything to the role that its service works as.
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO pulse_app;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT USAGE, SELECT ON SEQUENCES TO pulse_app;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT EXECUTE ON FUNCTIONS TO pulse_app;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO host_reports;

CREATE TABLE schema_migrations (
    version varchar(50) PRIMARY KEY,
    applied_at timestamp NOT NULL DEFAULT now()
);

CREATE TABLE tenants (
    id serial PRIMARY KEY,
    tenant_id varchar(64) NOT NULL UNIQUE,
    name varchar(200) NOT NULL DEFAULT '',
    created_at timestamp NOT NULL DEFAULT now()
);
CREATE TABLE devices (
    id serial PRIMARY KEY,
    tenant_id varchar(64) NOT NULL REFERENCES tenants (tenant_id) ON DELETE CASCADE,
    device_id varchar(100) NOT NULL,
    name varchar(200),
    last_seen timestamp,
    UNIQUE (tenant_id, device_id)
);
CREATE TABLE device_groups (
    id serial PRIMARY KEY,
    tenant_id varchar(64) NOT NULL REFERENCES tenants (tenant_id) ON DELETE CASCADE,
    group_id varchar(64) NOT NULL,
    name varchar(200),
    UNIQUE (tenant_id, group_id)
);
CREATE TABLE device_group_members (
    tenant_id varchar(64) NOT NULL REFERENCES tenants (tenant_id) ON DELETE CASCADE,
    group_id varchar(64) NOT NULL,
    device_id varchar(100) NOT NULL,
    UNIQUE (tenant_id, group_id, device_id)
);
CREATE TABLE firmware_versions (
    id serial PRIMARY KEY,
    tenant_id varchar(64) NOT NULL REFERENCES tenants (tenant_id) ON DELETE CASCADE,
    version varchar(50) NOT NULL,
    description text,
    file_url varchar(500) NOT NULL,
    file_size_bytes bigint,
    checksum_sha256 varchar(64),
    device_type varchar(50),
    created_at timestamp DEFAULT now(),
    created_by varchar(100),
    UNIQUE (tenant_id, version, device_type)
);
CREATE TABLE ota_campaigns (
    id serial PRIMARY KEY,
    tenant_id varchar(64) NOT NULL REFERENCES tenants (tenant_id) ON DELETE CASCADE,
    name varchar(100) NOT NULL,
    firmware_version_id integer NOT NULL REFERENCES firmware_versions (id) ON DELETE CASCADE,
    target_group_id varchar(64),
    rollout_strategy varchar(20) DEFAULT 'linear',
    rollout_rate integer DEFAULT 10,
    abort_threshold float DEFAULT 0.1,
    status varchar(20) NOT NULL DEFAULT 'CREATED',
    total_devices integer DEFAULT 0,
    succeeded integer DEFAULT 0,
    failed integer DEFAULT 0,
    started_at timestamp,
    completed_at timestamp,
    created_at timestamp DEFAULT now(),
    created_by varchar(100)
);
CREATE TABLE ota_device_status (
    id serial PRIMARY KEY,
    tenant_id varchar(64) NOT NULL REFERENCES tenants (tenant_id) ON DELETE CASCADE,
    campaign_id integer NOT NULL REFERENCES ota_campaigns (id) ON DELETE CASCADE,
    device_id varchar(100) NOT NULL,
    status varchar(20) NOT NULL DEFAULT 'PENDING',
    progress_pct integer DEFAULT 0,
    error_message varchar(255),
    started_at timestamp,
    completed_at timestamp,
    created_at timestamp DEFAULT now(),
    UNIQUE (tenant_id, campaign_id, device_id)
);

-- A tenant sees its own rows. Of the tenants themselves it changes nothing: that is for administrators.
DO $$
DECLARE
    of_tenants text;
BEGIN
    FOREACH of_tenants IN ARRAY ARRAY['devices', 'device_groups', 'device_group_members', 'firmware_versions',
                                      'ota_campaigns', 'ota_device_status'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', of_tenants);
        EXECUTE format(
            'CREATE POLICY tenant_isolation ON %I USING (tenant_id = current_setting(''app.tenant_id'', true))',
            of_tenants);
    END LOOP;
END $$;
ALTER TABLE tenants ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_reads_itself ON tenants FOR SELECT
    USING (tenant_id = current_setting('app.tenant_id', true));
CREATE POLICY administrators ON tenants
    USING (current_setting('app.is_admin', true) = 'on');

INSERT INTO schema_migrations (version) VALUES ('2026_01_ota');
