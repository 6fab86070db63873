-- name: forget_expired
-- One that is being added to just now is left to the next time.
WITH gone AS (
    DELETE FROM rollwave_group_imports i
    WHERE i.tenant_id = $1 AND i.id IN (
        SELECT e.id FROM rollwave_group_imports e
        WHERE e.tenant_id = $1 AND e.expires_at <= statement_timestamp()
        FOR UPDATE SKIP LOCKED)
    RETURNING i.id
)
DELETE FROM rollwave_group_import_devices d USING gone WHERE d.tenant_id = $1 AND d.import_id = gone.id;

-- name: open
SELECT count(*) FROM rollwave_group_imports WHERE tenant_id = $1 AND applied IS NULL;

-- name: insert
INSERT INTO rollwave_group_imports (tenant_id, group_id, created_by, expires_at)
VALUES ($1, $2, $3, statement_timestamp() + make_interval(secs => $4))
RETURNING id AS import_id, group_id, devices, expires_at;

-- name: lock
-- Holds the import until the transaction ends. Not applied: there is none, it has expired, or it is of another group.
SELECT devices, applied FROM rollwave_group_imports
WHERE tenant_id = $1 AND id = $2::bigint AND group_id = $3 AND expires_at > statement_timestamp()
FOR UPDATE;

-- name: add_devices
-- Returns how many of these the import did not have yet (xmax is 0 in a row that was inserted, not updated).
WITH added AS (
    INSERT INTO rollwave_group_import_devices (tenant_id, import_id, device_id, described, device_type, attributes)
    SELECT $1::text, $2::bigint, u.device_id, u.described, u.device_type, u.attributes
    FROM unnest($3::text[], $4::boolean[], $5::text[], $6::jsonb[])
        AS u (device_id, described, device_type, attributes)
    ON CONFLICT (tenant_id, import_id, device_id) DO UPDATE
    SET described = true, device_type = EXCLUDED.device_type, attributes = EXCLUDED.attributes
    WHERE EXCLUDED.described
    RETURNING xmax = 0 AS is_new
)
SELECT count(*) FROM added WHERE is_new;

-- name: count_devices
UPDATE rollwave_group_imports
SET devices = devices + $3::int, expires_at = statement_timestamp() + make_interval(secs => $4)
WHERE tenant_id = $1 AND id = $2::bigint
RETURNING id AS import_id, group_id, devices, expires_at;

-- name: register_devices
-- Those that are not registered yet, in one order for everybody, as registry.register_devices does.
INSERT INTO devices (tenant_id, device_id)
SELECT $1::text, i.device_id
FROM rollwave_group_import_devices i
WHERE i.tenant_id = $1::text AND i.import_id = $2::bigint
  AND NOT EXISTS (SELECT FROM devices d WHERE d.tenant_id = $1::text AND d.device_id = i.device_id)
ORDER BY i.device_id
ON CONFLICT DO NOTHING;

-- name: describe_devices
-- Replace what is known of devices, in one order for everybody, as registry.describe_devices does.
WITH held AS (
    SELECT d.device_id, i.device_type, i.attributes
    FROM devices d
    JOIN rollwave_group_import_devices i ON i.tenant_id = $1 AND i.import_id = $2::bigint AND i.device_id = d.device_id
    WHERE d.tenant_id = $1 AND i.described
    ORDER BY d.device_id
    FOR NO KEY UPDATE OF d
)
UPDATE devices d
SET device_type = held.device_type, attributes = held.attributes
FROM held
WHERE d.tenant_id = $1 AND d.device_id = held.device_id;

-- name: remove_members
DELETE FROM device_group_members m
WHERE m.tenant_id = $1 AND m.group_id = $3
  AND NOT EXISTS (SELECT FROM rollwave_group_import_devices i
                  WHERE i.tenant_id = $1 AND i.import_id = $2::bigint AND i.device_id = m.device_id);

-- name: add_members
INSERT INTO device_group_members (tenant_id, group_id, device_id)
SELECT $1::text, $3::text, i.device_id
FROM rollwave_group_import_devices i
WHERE i.tenant_id = $1::text AND i.import_id = $2::bigint
  AND NOT EXISTS (SELECT FROM device_group_members m
                  WHERE m.tenant_id = $1::text AND m.group_id = $3::text AND m.device_id = i.device_id)
ON CONFLICT DO NOTHING;

-- name: finish
UPDATE rollwave_group_imports SET applied = $3::jsonb WHERE tenant_id = $1 AND id = $2::bigint;

-- name: forget_devices
DELETE FROM rollwave_group_import_devices WHERE tenant_id = $1 AND import_id = $2::bigint;

-- name: delete
DELETE FROM rollwave_group_imports WHERE tenant_id = $1 AND id = $2::bigint;
