-- name: failed
-- The last $4 failures of a campaign, and how many there are. Of more than $3 failed devices, the first $3 by id are looked at. The
-- condition on the status repeats that of an index (views.devices_looked_for).
WITH failed AS MATERIALIZED (
    SELECT device_id, completed_at, error_code, failed_reason, left(error_message, 200) AS error_message
    FROM ota_device_status
    WHERE tenant_id = $1 AND campaign_id = $2::bigint AND status IN ('FAILED', 'SKIPPED', 'INSTALLING') AND status = 'FAILED'
    ORDER BY device_id
    LIMIT $3
)
SELECT device_id, error_code, failed_reason, error_message, (SELECT count(*) FROM failed)::int AS failed
FROM failed
ORDER BY completed_at DESC NULLS LAST, device_id
LIMIT $4;

-- name: succeeded
-- A sample of $4 succeeded devices: those with the least hashes of their ids, among the first $3 devices of the campaign by id.
SELECT device_id
FROM (SELECT device_id, status FROM ota_device_status
      WHERE tenant_id = $1 AND campaign_id = $2::bigint
      ORDER BY device_id LIMIT $3) AS scanned
WHERE status = 'SUCCESS'
ORDER BY hashtext(device_id::text), device_id
LIMIT $4;
