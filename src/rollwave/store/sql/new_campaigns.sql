-- name: chosen_firmware
SELECT device_type, file_size_bytes::bigint AS file_size_bytes FROM firmware_versions WHERE tenant_id = $1 AND id = $2::bigint;

-- name: group_exists
SELECT EXISTS (SELECT FROM device_groups WHERE tenant_id = $1 AND group_id = $2);

-- name: insert
INSERT INTO ota_campaigns
    (tenant_id, name, firmware_version_id, target_group_id, rollout_strategy, rollout_rate, abort_threshold,
     abort_min_completed, canary_percent, max_in_flight, progress_timeout, answer_timeout, device_timeout,
     max_attempts, retry_on, retry_delay, retry_delay_max, created_by, policy_revision, placed_revision, status)
VALUES ($1, $2, $3, $4, $5, $6, $7::float8, $8, $9::float8, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $19, 'CREATED')
RETURNING id;

-- name: earlier_request
-- The campaign of this idempotency key. No row if a host has deleted the campaign: then the key may be used again.
SELECT campaign_id, encode(digest, 'hex') AS digest
FROM rollwave_idempotency
WHERE tenant_id = $1 AND key = $2
  AND EXISTS (SELECT FROM ota_campaigns c WHERE c.tenant_id = $1 AND c.id = campaign_id);

-- name: forget_key
DELETE FROM rollwave_idempotency
WHERE tenant_id = $1 AND key = $2
  AND NOT EXISTS (SELECT FROM ota_campaigns c WHERE c.tenant_id = $1 AND c.id = campaign_id);

-- name: keep_key
INSERT INTO rollwave_idempotency (tenant_id, key, digest, campaign_id) VALUES ($1, $2, decode($3::text, 'hex'), $4);

-- name: overlaps
-- The three unfinished campaigns, of the newest $4, in which most of the first $3 members of the group $2 wait or are in progress. looked_at:
-- the number of these members. Each is looked up by its key in each campaign: joined as a set, a whole campaign could be read.
WITH members AS MATERIALIZED (
    SELECT device_id::text AS device_id FROM device_group_members WHERE tenant_id = $1 AND group_id = $2 ORDER BY device_id LIMIT $3
)
SELECT c.id AS campaign_id, c.name, c.status, w.version::text AS version, x.devices, (SELECT count(*)::int FROM members) AS looked_at
FROM (
    SELECT id, name, status, firmware_version_id FROM ota_campaigns
    WHERE tenant_id = $1 AND status IN ('CREATED', 'RUNNING', 'PAUSED')
    ORDER BY id DESC
    LIMIT $4
) AS c
CROSS JOIN LATERAL (
    SELECT count(*)::int AS devices
    FROM members m
    CROSS JOIN LATERAL (
        SELECT status FROM ota_device_status WHERE tenant_id = $1 AND campaign_id = c.id AND device_id = m.device_id OFFSET 0
    ) AS d
    WHERE d.status IN ('PENDING', 'DOWNLOADING', 'INSTALLING')
) AS x
LEFT JOIN firmware_versions w ON w.tenant_id = $1 AND w.id = c.firmware_version_id
WHERE x.devices > 0
ORDER BY x.devices DESC, c.id DESC
LIMIT 3;
