-- Indexes, and keys that lead with the tenant. An adopted table keeps the keys it has and gains what is missing.

CREATE FUNCTION pg_temp.has_unique_index(of_table text, VARIADIC columns text[]) RETURNS boolean
LANGUAGE sql AS $$
    SELECT EXISTS (
        SELECT FROM pg_index i
        WHERE i.indrelid = of_table::regclass AND i.indisunique AND i.indpred IS NULL
          AND (SELECT array_agg(a.attname::text ORDER BY a.attname)
               FROM pg_attribute a WHERE a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey::int2[]))
              = (SELECT array_agg(c ORDER BY c) FROM unnest(columns) AS c)
          AND i.indnkeyatts = cardinality(columns))
$$;

DO $$
BEGIN
    IF NOT pg_temp.has_unique_index('ota_campaigns', 'tenant_id', 'id') THEN
        CREATE UNIQUE INDEX ota_campaigns_tenant_key ON ota_campaigns (tenant_id, id);
    END IF;
    IF NOT pg_temp.has_unique_index('firmware_versions', 'tenant_id', 'id') THEN
        CREATE UNIQUE INDEX firmware_versions_tenant_key ON firmware_versions (tenant_id, id);
    END IF;
    IF NOT pg_temp.has_unique_index('ota_device_status', 'tenant_id', 'campaign_id', 'device_id') THEN
        CREATE UNIQUE INDEX ota_device_status_tenant_key ON ota_device_status (tenant_id, campaign_id, device_id);
    END IF;
    IF NOT pg_temp.has_unique_index('devices', 'tenant_id', 'device_id') THEN
        CREATE UNIQUE INDEX devices_tenant_key ON devices (tenant_id, device_id);
    END IF;
    IF NOT pg_temp.has_unique_index('device_groups', 'tenant_id', 'group_id') THEN
        CREATE UNIQUE INDEX device_groups_tenant_key ON device_groups (tenant_id, group_id);
    END IF;
    IF NOT pg_temp.has_unique_index('device_group_members', 'tenant_id', 'group_id', 'device_id') THEN
        CREATE UNIQUE INDEX device_group_members_tenant_key
            ON device_group_members (tenant_id, group_id, device_id);
    END IF;
END $$;

-- Each execution is in one of these two queues at a time, and in none once it is terminal.
CREATE INDEX IF NOT EXISTS ota_device_status_waiting
    ON ota_device_status (tenant_id, campaign_id, id)
    WHERE status = 'PENDING' AND attempt = 0;
CREATE INDEX IF NOT EXISTS ota_device_status_open
    ON ota_device_status (tenant_id, campaign_id, due_at NULLS FIRST)
    WHERE status IN ('DOWNLOADING', 'INSTALLING') OR (status = 'PENDING' AND attempt > 0);

CREATE INDEX IF NOT EXISTS ota_campaigns_due
    ON ota_campaigns (tenant_id, id)
    WHERE status IN ('RUNNING', 'PAUSED') OR (status = 'ABORTED' AND settled_at IS NULL);
CREATE UNIQUE INDEX IF NOT EXISTS ota_campaigns_idempotency
    ON ota_campaigns (tenant_id, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX IF NOT EXISTS ota_campaigns_firmware ON ota_campaigns (tenant_id, firmware_version_id);
CREATE INDEX IF NOT EXISTS device_group_members_device ON device_group_members (tenant_id, device_id);

-- Between tables that are ours on both ends. An execution and a campaign's group have none on purpose: hosts
-- write both before, or without, registering devices and groups here.
DO $$
DECLARE
    foreign_key record;
BEGIN
    FOR foreign_key IN
        SELECT * FROM (VALUES
            ('devices', 'tenant_id', 'tenants', 'tenant_id'),
            ('device_groups', 'tenant_id', 'tenants', 'tenant_id'),
            ('device_group_members', 'tenant_id, group_id', 'device_groups', 'tenant_id, group_id'),
            ('device_group_members', 'tenant_id, device_id', 'devices', 'tenant_id, device_id'),
            ('firmware_versions', 'tenant_id', 'tenants', 'tenant_id'),
            ('ota_campaigns', 'tenant_id', 'tenants', 'tenant_id'),
            ('ota_campaigns', 'tenant_id, firmware_version_id', 'firmware_versions', 'tenant_id, id'),
            ('ota_device_status', 'tenant_id, campaign_id', 'ota_campaigns', 'tenant_id, id'),
            ('ota_campaign_waves', 'tenant_id, campaign_id', 'ota_campaigns', 'tenant_id, id'),
            ('ota_campaign_history', 'tenant_id, campaign_id', 'ota_campaigns', 'tenant_id, id'),
            ('ota_quarantine', 'tenant_id', 'tenants', 'tenant_id'),
            ('rollwave_api_keys', 'tenant_id', 'tenants', 'tenant_id')
        ) AS wanted (of_table, columns, to_table, to_columns)
        WHERE NOT EXISTS (SELECT FROM rollwave_adopted_tables WHERE table_name IN (of_table, to_table))
    LOOP
        EXECUTE format('ALTER TABLE %I ADD FOREIGN KEY (%s) REFERENCES %I (%s)',
                       foreign_key.of_table, foreign_key.columns, foreign_key.to_table, foreign_key.to_columns);
    END LOOP;
END $$;

-- domain.execution.RANK, for guards inside SQL.
CREATE OR REPLACE FUNCTION ota_status_rank(status text) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE status
        WHEN 'PENDING' THEN 0 WHEN 'DOWNLOADING' THEN 1 WHEN 'INSTALLING' THEN 2
        WHEN 'SUCCESS' THEN 3 WHEN 'FAILED' THEN 3 WHEN 'SKIPPED' THEN 3 END
$$;

-- The engine's own words, cut to what a host's column holds: they must never be what stops a campaign.
CREATE OR REPLACE FUNCTION ota_fitting(words text) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT left(words, (SELECT CASE WHEN a.atttypmod > 4 THEN a.atttypmod - 4 ELSE 1024 END
                        FROM pg_attribute a
                        WHERE a.attrelid = 'ota_device_status'::regclass AND a.attname = 'error_message'))
$$;
