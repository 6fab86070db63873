-- name: register_tenant
-- Only where it is missing: a host's own table may want more columns than we know of.
INSERT INTO tenants (tenant_id)
SELECT $1::text WHERE NOT EXISTS (SELECT FROM tenants WHERE tenant_id = $1::text)
ON CONFLICT DO NOTHING;

-- name: insert
INSERT INTO rollwave_api_keys (tenant_id, key_id, name, role, secret_sha256, expires_at)
VALUES ($1, $2, $3, $4, $5, statement_timestamp() + $6::interval);

-- name: usable
-- Expiry and revocation by the database's clock. A tenant that was deleted has no key, whatever is left of it.
SELECT role, secret_sha256
FROM rollwave_api_keys
WHERE tenant_id = $1 AND key_id = $2 AND revoked_at IS NULL
  AND (expires_at IS NULL OR expires_at > statement_timestamp())
  AND EXISTS (SELECT FROM tenants WHERE tenant_id = $1);

-- name: all
SELECT key_id, name, role, created_at, expires_at, revoked_at
FROM rollwave_api_keys
WHERE tenant_id = $1
ORDER BY created_at, key_id;

-- name: revoke
-- The first revocation's time stays. Not applied: there is no such key.
UPDATE rollwave_api_keys SET revoked_at = COALESCE(revoked_at, statement_timestamp())
WHERE tenant_id = $1 AND key_id = $2
RETURNING key_id;
