-- name: sample
-- A sample of the devices of a campaign that was not looked at yet: those with the least hashes of their ids, among the first $3 devices by id.
SELECT device_id
FROM (SELECT d.device_id
      FROM ota_campaigns c
      CROSS JOIN LATERAL (SELECT device_id FROM ota_device_status
                          WHERE tenant_id = $1 AND campaign_id = $2::bigint
                          ORDER BY device_id LIMIT $3) AS d
      WHERE c.tenant_id = $1 AND c.id = $2::bigint AND c.from_versions IS NULL AND c.targeted_devices IS NULL) AS first
ORDER BY hashtext(device_id::text), device_id
LIMIT $4;

-- name: write
-- Not applied: another worker was first.
UPDATE ota_campaigns SET from_versions = $3::text::jsonb
WHERE tenant_id = $1 AND id = $2::bigint AND from_versions IS NULL;
