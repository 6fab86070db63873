-- name: keep
-- Keep messages of devices that could not be read, at most $5 rows per tenant.
WITH kept AS (
    INSERT INTO ota_quarantine (tenant_id, device_id, reason, payload)
    SELECT $1, q.device_id, q.reason, decode(q.payload, 'hex')
    FROM unnest($2::text[], $3::text[], $4::text[]) AS q (device_id, reason, payload)
    WHERE EXISTS (SELECT FROM tenants WHERE tenant_id = $1)
)
DELETE FROM ota_quarantine
WHERE tenant_id = $1
  AND id <= (SELECT id FROM ota_quarantine WHERE tenant_id = $1 ORDER BY id DESC OFFSET $5 LIMIT 1);

-- name: tenants
-- The tenants that have such messages, as far as row-level security shows them to this login.
SELECT DISTINCT tenant_id FROM ota_quarantine ORDER BY tenant_id;

-- name: newest
-- The newest $2 messages; with $3: of those with a smaller id.
SELECT id, device_id, EXTRACT(epoch FROM received_at)::float8 AS received_at, reason, encode(payload, 'hex') AS payload
FROM ota_quarantine
WHERE tenant_id = $1 AND ($3::bigint IS NULL OR id < $3)
ORDER BY id DESC
LIMIT $2;

-- name: count
SELECT count(*) FROM ota_quarantine WHERE tenant_id = $1;

-- name: clear
WITH gone AS (DELETE FROM ota_quarantine WHERE tenant_id = $1 RETURNING id)
SELECT count(*) FROM gone;
