-- name: get
-- A key whose campaign a host has deleted is free again.
SELECT campaign_id, encode(digest, 'hex') AS digest
FROM rollwave_idempotency
WHERE tenant_id = $1 AND key = $2
  AND EXISTS (SELECT FROM ota_campaigns c WHERE c.tenant_id = $1 AND c.id = campaign_id);

-- name: forget
DELETE FROM rollwave_idempotency
WHERE tenant_id = $1 AND key = $2
  AND NOT EXISTS (SELECT FROM ota_campaigns c WHERE c.tenant_id = $1 AND c.id = campaign_id);

-- name: insert
INSERT INTO rollwave_idempotency (tenant_id, key, digest, campaign_id) VALUES ($1, $2, decode($3::text, 'hex'), $4);
