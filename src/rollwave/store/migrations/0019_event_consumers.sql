-- Readers of all events of a tenant, in the order of their ids.
CREATE INDEX ota_campaign_history_of_tenant ON ota_campaign_history (tenant_id, id);

-- How far each of them has come.
CREATE TABLE rollwave_event_consumers (
    tenant_id text NOT NULL,
    consumer text NOT NULL,     -- its name
    last_event bigint NOT NULL, -- the id of the last event that it has dealt with
    moved_at timestamptz NOT NULL DEFAULT statement_timestamp(),
    PRIMARY KEY (tenant_id, consumer)
);
ALTER TABLE rollwave_event_consumers ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;

-- It goes with its tenant, as in 0015: by a foreign key, or where a host made the table of tenants by the trigger there, whose
-- function is as before but for the one table more.
DO $do$
BEGIN
    IF NOT EXISTS (SELECT FROM rollwave_adopted_tables WHERE table_name = 'tenants') THEN
        ALTER TABLE rollwave_event_consumers ADD FOREIGN KEY (tenant_id) REFERENCES tenants (tenant_id) ON DELETE CASCADE;
    END IF;
    EXECUTE format($create$
CREATE OR REPLACE FUNCTION %1$I.rollwave_forget_tenant() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET row_security = on AS $$
DECLARE
    named text := COALESCE(current_setting('app.tenant_id', true), '');
    gone text;
    -- In this order: campaigns refer to firmware.
    ours text[] := ARRAY(
        SELECT o.name
        FROM unnest(ARRAY['ota_device_status', 'ota_campaign_waves', 'ota_campaign_history', 'rollwave_idempotency',
                          'ota_campaigns', 'firmware_versions', 'device_group_members', 'device_groups', 'devices',
                          'ota_quarantine', 'rollwave_api_keys', 'rollwave_event_consumers',
                          'rollwave_group_import_devices', 'rollwave_group_imports']) WITH ORDINALITY AS o (name, place)
        WHERE o.name NOT IN (SELECT table_name FROM %1$I.rollwave_adopted_tables)
        ORDER BY o.place);
    of_table text;
BEGIN
    IF COALESCE(pg_partition_root(TG_RELID), TG_RELID) <> '%1$I.tenants'::regclass THEN
        RAISE EXCEPTION 'this trigger is for %%, not for %%', 'tenants', TG_RELID::regclass;
    END IF;
    IF TG_OP = 'TRUNCATE' THEN
        EXECUTE (SELECT 'TRUNCATE ' || string_agg(format('%%I.%%I', %1$L, name), ', ') FROM unnest(ours) AS name);
        RETURN NULL;
    END IF;
    gone := OLD.tenant_id;
    PERFORM set_config('app.tenant_id', gone, true);
    -- A host may have a tenant in several rows.
    IF NOT EXISTS (SELECT FROM %1$I.tenants WHERE tenant_id = OLD.tenant_id) THEN
        FOREACH of_table IN ARRAY ours LOOP
            EXECUTE format('DELETE FROM %%I.%%I WHERE tenant_id = $1', %1$L, of_table) USING gone;
        END LOOP;
    END IF;
    PERFORM set_config('app.tenant_id', named, true);
    RETURN NULL;
END $$;
    $create$, current_schema());
END $do$;
