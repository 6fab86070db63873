-- How many executions of a campaign are in each state, beside succeeded and failed: moved with the rows, so that nobody
-- who looks at a campaign scans them. NULL: not counted yet, as in every row written before, or by hand.

ALTER TABLE ota_campaigns
    ADD COLUMN IF NOT EXISTS pending integer,
    ADD COLUMN IF NOT EXISTS downloading integer,
    ADD COLUMN IF NOT EXISTS installing integer,
    ADD COLUMN IF NOT EXISTS skipped integer;

-- What operators look for: what went wrong, and what may hang in the midst of an installation. Written for such a device
-- alone.
CREATE INDEX IF NOT EXISTS ota_device_status_looked_for
    ON ota_device_status (tenant_id, campaign_id, status, device_id)
    WHERE status IN ('FAILED', 'SKIPPED', 'INSTALLING');

-- An execution is written five times on its way to the end, and each time its page had better have room: then a page in
-- half of which lies what is past is a page to write to, and the table does not grow. Vacuum comes by when a fiftieth of the
-- rows is past, not a fifth, so that the heads of the queues stay clean in mid-campaign, and what PostgreSQL believes
-- of a table is renewed as often. A campaign's row is written with each batch. What a host has set stays.
DO $$
DECLARE
    wanted record;
BEGIN
    FOR wanted IN
        SELECT c.oid::regclass AS name, s.setting, s.value
        FROM (VALUES
            ('ota_device_status', 'fillfactor', '50'),
            ('ota_device_status', 'autovacuum_vacuum_scale_factor', '0.02'),
            ('ota_device_status', 'autovacuum_vacuum_threshold', '10000'),
            ('ota_device_status', 'autovacuum_analyze_scale_factor', '0.02'),
            ('ota_device_status', 'autovacuum_analyze_threshold', '10000'),
            ('ota_campaigns', 'fillfactor', '50'),
            ('ota_campaigns', 'autovacuum_vacuum_scale_factor', '0.02'),
            ('ota_campaigns', 'autovacuum_vacuum_threshold', '1000')
        ) AS s (of_table, setting, value)
        JOIN pg_class c ON c.oid = s.of_table::regclass AND c.relkind = 'r' -- a partitioned table has no pages
        WHERE NOT EXISTS (SELECT FROM pg_options_to_table(c.reloptions) AS o WHERE o.option_name = s.setting)
    LOOP
        EXECUTE format('ALTER TABLE %s SET (%s = %s)', wanted.name, wanted.setting, wanted.value);
    END LOOP;
END $$;
