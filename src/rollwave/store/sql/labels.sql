-- The labels of devices. The relations that selectors are put over are functions of the schema (migration 0021).

-- name: view
-- The view rollwave_devices that a host may have made in this schema. taken: the schema's owner owns it. In a schema of
-- pg_database_owner, the owner is the database's. invoker: it reads its tables with the rights of the role that asks.
SELECT c.relkind::text = 'v' AND (c.relowner = n.nspowner OR (r.rolname = 'pg_database_owner' AND c.relowner = d.datdba)) AS taken,
       COALESCE((SELECT o.option_value::boolean FROM pg_options_to_table(c.reloptions) AS o
                 WHERE o.option_name = 'security_invoker'), false) AS invoker,
       pg_get_userbyid(c.relowner)::text AS owner
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_roles r ON r.oid = n.nspowner
JOIN pg_database d ON d.datname = current_database()
WHERE n.nspname = current_schema() AND c.relname = 'rollwave_devices' AND c.relkind IN ('r', 'p', 'v', 'm', 'f');

-- name: try_view
-- Whether the host's view can be read and has its columns: an error says why not. There is no row without a tenant.
SELECT count(*) FROM rollwave_host_devices('', ARRAY[]::text[]);

-- name: check_view
-- What the host's view says about the devices $2: one that it has twice, and the time zones.
SELECT (SELECT h.device_id FROM rollwave_host_devices($1, $2::text[]) AS h GROUP BY h.device_id HAVING count(*) > 1 LIMIT 1) AS twice,
       ARRAY(SELECT DISTINCT h.time_zone FROM rollwave_host_labels($1, $2::text[]) AS h WHERE h.time_zone IS NOT NULL) AS zones;

-- name: record
-- The devices $2 have reported now. One that succeeded in the campaign $3 runs the version of its firmware, unless it has
-- reported its version ($4) itself. Rows are locked in the order of devices, and found by the conflict alone: a look before it
-- could have the plan of an empty table, which reads all of it for each device. Not applied: the row says the same, and its
-- time is less than $5 seconds old.
WITH firmware AS MATERIALIZED (
    SELECT c.id AS campaign_id, w.version::text AS version, rollwave_version_key(w.version::text) AS version_key
    FROM ota_campaigns c
    JOIN firmware_versions w ON w.tenant_id = $1 AND w.id = c.firmware_version_id
    WHERE c.tenant_id = $1 AND c.id = ANY (ARRAY(SELECT DISTINCT unnest($3::bigint[])))
), said AS MATERIALIZED (
    SELECT u.device_id, COALESCE(u.version, w.version) AS version,
           CASE WHEN u.version IS NULL THEN w.version_key ELSE rollwave_version_key(u.version) END AS version_key
    FROM unnest($2::text[], $3::bigint[], $4::text[]) AS u (device_id, campaign_id, version)
    LEFT JOIN firmware w ON w.campaign_id = u.campaign_id
)
INSERT INTO rollwave_device_fields AS f (tenant_id, device_id, version, version_key, last_seen)
SELECT $1::text, s.device_id, s.version, s.version_key, statement_timestamp()
FROM said s
ORDER BY s.device_id COLLATE "C"
ON CONFLICT (tenant_id, device_id) DO UPDATE
SET version = COALESCE(EXCLUDED.version, f.version), last_seen = EXCLUDED.last_seen,
    version_key = CASE WHEN EXCLUDED.version IS NULL THEN f.version_key ELSE EXCLUDED.version_key END
WHERE (f.last_seen > statement_timestamp() - make_interval(secs => $5)
       AND (EXCLUDED.version IS NULL OR f.version = EXCLUDED.version)) IS NOT TRUE;

-- name: record_of_many_tenants
-- A function of the schema that does the same for devices of many tenants.
SELECT rollwave_record_devices($1, $2, $3, $4, $5);
