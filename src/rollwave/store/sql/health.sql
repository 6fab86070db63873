-- name: server
SELECT current_setting('server_version_num')::int / 10000 AS major, current_setting('server_version') AS version;

-- name: encoding
SELECT current_setting('server_encoding');

-- name: login
SELECT rolname::text AS name, rolsuper AS superuser, rolbypassrls AS bypasses_rls
FROM pg_roles WHERE rolname = session_user;

-- name: roles
SELECT rolname::text AS name, rolcanlogin AS can_login, rolsuper AS superuser, rolbypassrls AS bypasses_rls
FROM pg_roles WHERE rolname IN ('pulse_app', 'rollwave_due');

-- name: has_schema
SELECT to_regclass('rollwave_migrations') IS NOT NULL;

-- name: schema_version
SELECT max(version) FROM rollwave_migrations;

-- name: tables
-- Row-level security of the tables with tenants' rows. rights.wrong checks each policy.
SELECT n.name, c.oid IS NOT NULL AS present,
       COALESCE(c.relrowsecurity, false) AS enabled,
       COALESCE(c.relforcerowsecurity, false) AS forced,
       EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND p.polname ~ '^rollwave_') AS has_policy,
       EXISTS (SELECT FROM rollwave_adopted_tables a WHERE a.table_name = n.name) AS adopted
FROM unnest($1::text[]) AS n (name)
LEFT JOIN pg_class c ON c.oid = to_regclass(quote_ident(n.name))
ORDER BY n.name;

-- name: seen_without_tenant
-- The tables of which rows are visible. As pulse_app without a tenant, the result must be empty.
SELECT 'tenants' WHERE EXISTS (SELECT FROM tenants)
UNION ALL SELECT 'devices' WHERE EXISTS (SELECT FROM devices)
UNION ALL SELECT 'device_groups' WHERE EXISTS (SELECT FROM device_groups)
UNION ALL SELECT 'device_group_members' WHERE EXISTS (SELECT FROM device_group_members)
UNION ALL SELECT 'firmware_versions' WHERE EXISTS (SELECT FROM firmware_versions)
UNION ALL SELECT 'ota_campaigns' WHERE EXISTS (SELECT FROM ota_campaigns)
UNION ALL SELECT 'ota_device_status' WHERE EXISTS (SELECT FROM ota_device_status)
UNION ALL SELECT 'ota_campaign_waves' WHERE EXISTS (SELECT FROM ota_campaign_waves)
UNION ALL SELECT 'ota_campaign_history' WHERE EXISTS (SELECT FROM ota_campaign_history)
UNION ALL SELECT 'ota_campaign_policies' WHERE EXISTS (SELECT FROM ota_campaign_policies)
UNION ALL SELECT 'ota_campaign_segments' WHERE EXISTS (SELECT FROM ota_campaign_segments)
UNION ALL SELECT 'ota_campaign_cells' WHERE EXISTS (SELECT FROM ota_campaign_cells)
UNION ALL SELECT 'ota_campaign_tests' WHERE EXISTS (SELECT FROM ota_campaign_tests)
UNION ALL SELECT 'ota_campaign_test_buckets' WHERE EXISTS (SELECT FROM ota_campaign_test_buckets)
UNION ALL SELECT 'ota_campaign_ranks' WHERE EXISTS (SELECT FROM ota_campaign_ranks)
UNION ALL SELECT 'ota_campaign_budget_values' WHERE EXISTS (SELECT FROM ota_campaign_budget_values)
UNION ALL SELECT 'ota_campaign_budget_held' WHERE EXISTS (SELECT FROM ota_campaign_budget_held)
UNION ALL SELECT 'ota_campaign_points' WHERE EXISTS (SELECT FROM ota_campaign_points)
UNION ALL SELECT 'ota_campaign_plans' WHERE EXISTS (SELECT FROM ota_campaign_plans)
UNION ALL SELECT 'ota_quarantine' WHERE EXISTS (SELECT FROM ota_quarantine)
UNION ALL SELECT 'rollwave_api_keys' WHERE EXISTS (SELECT FROM rollwave_api_keys)
UNION ALL SELECT 'rollwave_device_fields' WHERE EXISTS (SELECT FROM rollwave_device_fields)
UNION ALL SELECT 'rollwave_brake_history' WHERE EXISTS (SELECT FROM rollwave_brake_history)
UNION ALL SELECT 'rollwave_brakes' WHERE EXISTS (SELECT FROM rollwave_brakes)
UNION ALL SELECT 'rollwave_event_consumers' WHERE EXISTS (SELECT FROM rollwave_event_consumers)
UNION ALL SELECT 'rollwave_group_imports' WHERE EXISTS (SELECT FROM rollwave_group_imports)
UNION ALL SELECT 'rollwave_group_import_devices' WHERE EXISTS (SELECT FROM rollwave_group_import_devices)
UNION ALL SELECT 'rollwave_idempotency' WHERE EXISTS (SELECT FROM rollwave_idempotency)
UNION ALL SELECT 'rollwave_policies' WHERE EXISTS (SELECT FROM rollwave_policies);

-- name: due
SELECT count(*) FROM rollwave_due_campaigns_2();

-- name: slots
SELECT slot FROM rollwave_listener_slots
WHERE slot < $1::int AND alive_at > statement_timestamp() - make_interval(secs => $2)
ORDER BY slot;

-- name: clock
SELECT EXTRACT(epoch FROM clock_timestamp())::float8;

-- name: single_tenant
-- Whether there is only one tenant. False too if row-level security hides others from this login.
SELECT NOT row_security_active('tenants')
       AND (SELECT count(*) FROM (SELECT DISTINCT tenant_id FROM tenants LIMIT 2) AS t) = 1;
