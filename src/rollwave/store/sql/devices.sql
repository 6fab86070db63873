-- name: update_device
-- Not applied: the device is not registered yet.
UPDATE devices SET device_type = $3, attributes = $4::text::jsonb
WHERE tenant_id = $1 AND device_id = $2
RETURNING device_id;

-- name: insert_device
INSERT INTO devices (tenant_id, device_id, device_type, attributes)
VALUES ($1, $2, $3, $4::text::jsonb)
ON CONFLICT (tenant_id, device_id) DO UPDATE
SET device_type = EXCLUDED.device_type, attributes = EXCLUDED.attributes;

-- name: put_fields
-- Set the time zone $3 and the version $4, also to NULL. If $5 is false, the version stays what it is.
INSERT INTO rollwave_device_fields AS f (tenant_id, device_id, time_zone, version, version_key, version_at)
VALUES ($1, $2, $3, $4, rollwave_version_key($4), CASE WHEN $5 THEN statement_timestamp() END)
ON CONFLICT (tenant_id, device_id) DO UPDATE
SET time_zone = EXCLUDED.time_zone, version = CASE WHEN $5 THEN EXCLUDED.version ELSE f.version END,
    version_key = CASE WHEN $5 THEN EXCLUDED.version_key ELSE f.version_key END,
    version_at = COALESCE(EXCLUDED.version_at, f.version_at);

-- name: empty_time_zone
-- Not applied: nothing is stored of this device.
UPDATE rollwave_device_fields SET time_zone = NULL WHERE tenant_id = $1 AND device_id = $2;

-- name: get_device
SELECT r.device_id, r.device_type, r.attributes::text AS attributes, EXTRACT(epoch FROM r.created_at)::float8 AS created_at,
       r.time_zone, r.version, EXTRACT(epoch FROM r.last_seen)::float8 AS last_seen_at
FROM rollwave_registered($1) AS r
WHERE r.device_id = $2;

-- name: devices
-- device_type::text: a host's column may be an enumeration. It has no index.
SELECT r.device_id, r.device_type, r.attributes::text AS attributes, EXTRACT(epoch FROM r.created_at)::float8 AS created_at,
       r.time_zone, r.version, EXTRACT(epoch FROM r.last_seen)::float8 AS last_seen_at
FROM (
    SELECT device_id::text AS device_id
    FROM devices
    WHERE tenant_id = $1 AND ($2::text IS NULL OR device_type::text = $2) AND ($3::text IS NULL OR device_id > $3)
    ORDER BY device_id
    LIMIT $4
) AS d
CROSS JOIN LATERAL (SELECT * FROM rollwave_registered($1) AS x WHERE x.device_id = d.device_id OFFSET 0) AS r
ORDER BY r.device_id;

-- name: devices_of
-- The devices $2.
SELECT r.device_id, r.device_type, r.attributes::text AS attributes, EXTRACT(epoch FROM r.created_at)::float8 AS created_at,
       r.time_zone, r.version, EXTRACT(epoch FROM r.last_seen)::float8 AS last_seen_at
FROM unnest($2::text[]) AS d (device_id)
CROSS JOIN LATERAL (SELECT * FROM rollwave_registered($1) AS x WHERE x.device_id = d.device_id OFFSET 0) AS r
ORDER BY r.device_id;

-- name: count_devices
SELECT count(*) FROM devices WHERE tenant_id = $1 AND ($2::text IS NULL OR device_type::text = $2);

-- name: lock_group
-- Lock the group until the transaction ends. Not applied: there is no such group.
SELECT group_id FROM device_groups WHERE tenant_id = $1 AND group_id = $2 FOR NO KEY UPDATE;

-- name: insert_group
-- A transaction that inserts the same group at the same time waits here.
INSERT INTO device_groups (tenant_id, group_id) VALUES ($1, $2)
ON CONFLICT (tenant_id, group_id) DO UPDATE SET group_id = EXCLUDED.group_id;

-- name: register_devices
-- Insert the devices that are not registered yet, ordered by id, so that no two requests deadlock.
INSERT INTO devices (tenant_id, device_id)
SELECT $1::text, wanted.device_id
FROM unnest($2::text[]) AS wanted (device_id)
WHERE NOT EXISTS (SELECT FROM devices d WHERE d.tenant_id = $1::text AND d.device_id = wanted.device_id)
ORDER BY wanted.device_id
ON CONFLICT DO NOTHING;

-- name: describe_devices
-- Replace type and attributes of registered devices, ordered by id, so that no two requests deadlock.
WITH locked AS (
    SELECT d.device_id FROM devices d
    WHERE d.tenant_id = $1 AND d.device_id = ANY ($2::text[])
    ORDER BY d.device_id
    FOR NO KEY UPDATE
)
UPDATE devices d
SET device_type = given.device_type, attributes = given.attributes::jsonb
FROM unnest($2::text[], $3::text[], $4::text[]) AS given (device_id, device_type, attributes)
JOIN locked ON locked.device_id = given.device_id
WHERE d.tenant_id = $1 AND d.device_id = given.device_id;

-- name: remove_members
DELETE FROM device_group_members m
WHERE m.tenant_id = $1 AND m.group_id = $2
  AND NOT EXISTS (SELECT FROM unnest($3::text[]) AS wanted (device_id) WHERE wanted.device_id = m.device_id);

-- name: add_members
INSERT INTO device_group_members (tenant_id, group_id, device_id)
SELECT $1::text, $2::text, wanted.device_id
FROM unnest($3::text[]) AS wanted (device_id)
WHERE NOT EXISTS (SELECT FROM device_group_members m
                  WHERE m.tenant_id = $1::text AND m.group_id = $2::text AND m.device_id = wanted.device_id)
ON CONFLICT DO NOTHING;

-- name: get_group
SELECT g.group_id, EXTRACT(epoch FROM g.created_at)::float8 AS created_at,
       (SELECT count(*) FROM device_group_members m
        WHERE m.tenant_id = $1 AND m.group_id = g.group_id) AS total
FROM device_groups g
WHERE g.tenant_id = $1 AND g.group_id = $2;

-- name: members
SELECT device_id
FROM device_group_members
WHERE tenant_id = $1 AND group_id = $2 AND ($3::text IS NULL OR device_id > $3)
ORDER BY device_id
LIMIT $4;

-- name: groups
SELECT g.group_id, EXTRACT(epoch FROM g.created_at)::float8 AS created_at,
       (SELECT count(*) FROM device_group_members m
        WHERE m.tenant_id = $1 AND m.group_id = g.group_id) AS total
FROM device_groups g
WHERE g.tenant_id = $1 AND ($2::text IS NULL OR g.group_id > $2)
ORDER BY g.group_id
LIMIT $3;

-- name: count_groups
SELECT count(*) FROM device_groups WHERE tenant_id = $1;

-- name: groups_of
-- The groups of a device, ordered by id.
SELECT group_id FROM device_group_members WHERE tenant_id = $1 AND device_id = $2 ORDER BY group_id LIMIT $3;
