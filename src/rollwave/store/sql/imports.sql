-- name: forget_expired
-- Delete expired imports, except those that another transaction is adding to now.
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
RETURNING id AS import_id, group_id, devices, EXTRACT(epoch FROM expires_at)::float8 AS expires_at;

-- name: lock
-- Lock the import until the transaction ends. Not applied: it does not exist, has expired, or belongs to another group.
SELECT devices, applied::text AS applied FROM rollwave_group_imports
WHERE tenant_id = $1 AND id = $2::bigint AND group_id = $3 AND expires_at > statement_timestamp()
FOR UPDATE;

-- name: add_devices
-- Returns the number of devices that the import did not have yet (xmax is 0 in a row that was inserted, not updated).
WITH added AS (
    INSERT INTO rollwave_group_import_devices (tenant_id, import_id, device_id, described, device_type, attributes)
    SELECT $1::text, $2::bigint, u.device_id, u.described, u.device_type, u.attributes::jsonb
    FROM unnest($3::text[], $4::boolean[], $5::text[], $6::text[])
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
RETURNING id AS import_id, group_id, devices, EXTRACT(epoch FROM expires_at)::float8 AS expires_at;

-- name: plan_for_these_values
-- A generic plan expects ten elements in an array, and would join thousands of them in nested loops.
SET LOCAL plan_cache_mode = force_custom_plan;

-- name: open_devices
DECLARE imported NO SCROLL CURSOR FOR
SELECT device_id, described, device_type, attributes::text AS attributes
FROM rollwave_group_import_devices
WHERE tenant_id = $1 AND import_id = $2::bigint
ORDER BY device_id;

-- name: next_devices
FETCH 5000 FROM imported;

-- name: members
SELECT device_id FROM device_group_members WHERE tenant_id = $1 AND group_id = $2;

-- name: remove_members
DELETE FROM device_group_members WHERE tenant_id = $1 AND group_id = $2 AND device_id = ANY ($3::text[]);

-- name: finish
UPDATE rollwave_group_imports SET applied = $3::text::jsonb WHERE tenant_id = $1 AND id = $2::bigint;

-- name: forget_devices
DELETE FROM rollwave_group_import_devices WHERE tenant_id = $1 AND import_id = $2::bigint;

-- name: delete
DELETE FROM rollwave_group_imports WHERE tenant_id = $1 AND id = $2::bigint;
