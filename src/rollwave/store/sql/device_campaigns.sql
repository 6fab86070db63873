-- name: page
-- The campaigns of the device $2 below the number $3, newest first, at most $4. The device is looked up by its key in each of the
-- tenant's campaigns, because an index by device would be written for each device of each campaign.
SELECT c.id AS campaign_id, c.name, c.status AS campaign_status, w.version AS firmware_version, d.status, d.progress_pct, d.attempt,
       d.error_message, d.error_code, d.failed_reason, EXTRACT(epoch FROM d.started_at)::float8 AS started_at,
       EXTRACT(epoch FROM d.completed_at)::float8 AS completed_at, EXTRACT(epoch FROM d.created_at)::float8 AS created_at
FROM (
    SELECT id, name, status, firmware_version_id FROM ota_campaigns
    WHERE tenant_id = $1 AND ($3::bigint IS NULL OR id < $3)
    ORDER BY id DESC
) AS c
CROSS JOIN LATERAL (
    SELECT * FROM ota_device_status
    WHERE tenant_id = $1 AND campaign_id = c.id AND device_id = $2::text
    OFFSET 0
) AS d
LEFT JOIN firmware_versions w ON w.tenant_id = $1 AND w.id = c.firmware_version_id
ORDER BY c.id DESC
LIMIT $4;

-- name: count
-- The number of the campaigns of the device.
SELECT count(*)::int
FROM ota_campaigns c
CROSS JOIN LATERAL (
    SELECT FROM ota_device_status
    WHERE tenant_id = $1 AND campaign_id = c.id AND device_id = $2::text
    OFFSET 0
) AS d
WHERE c.tenant_id = $1;

-- name: is_registered
SELECT EXISTS (SELECT FROM devices WHERE tenant_id = $1 AND device_id = $2::text);
