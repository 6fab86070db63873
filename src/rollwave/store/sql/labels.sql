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

-- name: record
-- The devices $2 have reported now, with the versions $3, if any. Rows are locked in the order of devices, and found by the conflict
-- alone: a look before it could have the plan of an empty table, which reads all of it for each device. Not applied: no version is
-- reported, and the stored time is less than $4 seconds old.
INSERT INTO rollwave_device_fields AS f (tenant_id, device_id, version, version_key, version_at, last_seen)
SELECT $1::text, u.device_id, u.version, rollwave_version_key(u.version),
       CASE WHEN u.version IS NOT NULL THEN statement_timestamp() END, statement_timestamp()
FROM unnest($2::text[], $3::text[]) AS u (device_id, version)
ORDER BY u.device_id COLLATE "C"
ON CONFLICT (tenant_id, device_id) DO UPDATE
SET version = COALESCE(EXCLUDED.version, f.version), version_at = COALESCE(EXCLUDED.version_at, f.version_at),
    version_key = CASE WHEN EXCLUDED.version IS NULL THEN f.version_key ELSE EXCLUDED.version_key END,
    last_seen = GREATEST(f.last_seen, EXCLUDED.last_seen)
WHERE EXCLUDED.version IS NOT NULL
   OR (f.last_seen > statement_timestamp() - make_interval(secs => $4)) IS NOT TRUE;

-- name: record_of_many_tenants
-- A function of the schema that does the same for devices of many tenants.
SELECT rollwave_record_devices($1, $2, $3, $4);

-- name: unstored
-- The last device of an ended campaign that is stored; no row: nothing is left to store, or devices may still report. ended: the devices
-- that have ended.
SELECT unstored_after, COALESCE(succeeded, 0) + COALESCE(failed, 0) AS ended
FROM ota_campaigns
WHERE tenant_id = $1 AND id = $2 AND unstored_after IS NOT NULL
  AND (status NOT IN ('CREATED', 'RUNNING', 'PAUSED', 'ABORTED') OR (status = 'ABORTED' AND settled_at IS NOT NULL));

-- name: store
-- Store what the executions of the next $4 devices of the campaign, after the device $3, say about the devices: the version that
-- they succeeded with, and when they were heard. The rule is that of rollwave_heard and rollwave_registered. Rows are locked in the
-- order of devices, and the campaign not at all, as a batch of reports locks them. Not applied: what is stored is newer.
WITH firmware AS MATERIALIZED (
    SELECT NULLIF(w.version::text, '') AS version, rollwave_version_key(w.version::text) AS version_key
    FROM ota_campaigns c
    LEFT JOIN firmware_versions w ON w.tenant_id = $1 AND w.id = c.firmware_version_id
    WHERE c.tenant_id = $1 AND c.id = $2
), scanned AS MATERIALIZED (
    SELECT device_id, status, failed_reason, heard_attempt, started_at, completed_at
    FROM ota_device_status
    WHERE tenant_id = $1 AND campaign_id = $2 AND device_id > $3
    ORDER BY device_id
    LIMIT $4
), heard AS (
    SELECT s.device_id, f.version, f.version_key,
           CASE WHEN f.version IS NOT NULL THEN
               to_timestamp(COALESCE(rollwave_microseconds(s.completed_at), 0) / 1e6) END AS version_at,
           to_timestamp(rollwave_microseconds(
               rollwave_heard_at(s.status, s.failed_reason, s.heard_attempt, s.started_at, s.completed_at)) / 1e6) AS heard_at
    FROM scanned s
    LEFT JOIN firmware f ON s.status = 'SUCCESS'
    WHERE s.status = 'SUCCESS' OR s.heard_attempt > 0
), stored AS (
    INSERT INTO rollwave_device_fields AS f (tenant_id, device_id, version, version_key, version_at, last_seen)
    SELECT $1::text, device_id, version, version_key, version_at, heard_at
    FROM heard
    WHERE version IS NOT NULL OR heard_at IS NOT NULL
    ORDER BY device_id COLLATE "C"
    ON CONFLICT (tenant_id, device_id) DO UPDATE
    SET version = CASE WHEN EXCLUDED.version_at > COALESCE(f.version_at, '-infinity') THEN EXCLUDED.version ELSE f.version END,
        version_key = CASE WHEN EXCLUDED.version_at > COALESCE(f.version_at, '-infinity') THEN EXCLUDED.version_key
                           ELSE f.version_key END,
        version_at = GREATEST(f.version_at, EXCLUDED.version_at),
        last_seen = GREATEST(f.last_seen, EXCLUDED.last_seen)
    WHERE EXCLUDED.version_at > COALESCE(f.version_at, '-infinity')
       OR EXCLUDED.last_seen > COALESCE(f.last_seen, '-infinity')
)
SELECT count(*)::int AS devices, max(device_id) AS up_to FROM scanned;

-- name: note_stored
-- The devices up to $4 are stored; NULL: all of them. Not applied: devices have ended since they were read, as $3 and $5 show, or
-- another worker has stored them.
UPDATE ota_campaigns SET unstored_after = $4::text
WHERE tenant_id = $1 AND id = $2 AND unstored_after = $3::text AND COALESCE(succeeded, 0) + COALESCE(failed, 0) = $5::int
RETURNING id;
