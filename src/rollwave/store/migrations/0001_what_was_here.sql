-- Which tables did a host have before us? Theirs are adopted: their rows and their access stay as they are.

CREATE TABLE IF NOT EXISTS rollwave_installation (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    installed_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO rollwave_installation SELECT WHERE NOT EXISTS (SELECT FROM rollwave_installation);

CREATE TABLE IF NOT EXISTS rollwave_adopted_tables (
    table_name text PRIMARY KEY,
    had_row_security boolean NOT NULL
);
INSERT INTO rollwave_adopted_tables
SELECT c.relname, c.relrowsecurity
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = current_schema()
  AND c.relkind IN ('r', 'p')
  AND c.relname IN ('tenants', 'devices', 'device_groups', 'device_group_members',
                    'firmware_versions', 'ota_campaigns', 'ota_device_status')
ON CONFLICT DO NOTHING;
