-- name: campaigns
-- Campaigns with the number $2, or with $3 in their names, newest first, among the newest $4.
SELECT id, name, status
FROM (SELECT id, name, status FROM ota_campaigns WHERE tenant_id = $1 ORDER BY id DESC LIMIT $4) AS newest
WHERE id = $2::bigint OR strpos(lower(name), lower($3::text)) > 0
ORDER BY id = $2::bigint DESC NULLS LAST, id DESC
LIMIT $5;

-- name: campaign
-- The campaign with the number $2.
SELECT id, name, status FROM ota_campaigns WHERE tenant_id = $1 AND id = $2::bigint;

-- name: devices
-- Devices whose ids begin with $2. In the order of the database, ids that begin with a text follow it, but others may be among them:
-- the next $3 are looked at. Row-level security lets an index be used for >=, but not for LIKE.
SELECT device_id
FROM (SELECT device_id FROM devices WHERE tenant_id = $1 AND device_id >= $2::text ORDER BY device_id LIMIT $3) AS next
WHERE starts_with(device_id::text, $2::text)
LIMIT $4;

-- name: groups
-- Groups whose ids begin with $2, as devices.
SELECT group_id
FROM (SELECT group_id FROM device_groups WHERE tenant_id = $1 AND group_id >= $2::text ORDER BY group_id LIMIT $3) AS next
WHERE starts_with(group_id::text, $2::text)
LIMIT $4;

-- name: firmware
-- Firmware whose version begins with $2, newest first, among the newest $3.
SELECT id, version, device_type
FROM (SELECT id, version::text AS version, device_type::text AS device_type FROM firmware_versions
      WHERE tenant_id = $1 ORDER BY id DESC LIMIT $3) AS newest
WHERE starts_with(lower(version), lower($2::text))
LIMIT $4;
