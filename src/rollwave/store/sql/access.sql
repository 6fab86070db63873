-- name: is_registered
SELECT EXISTS (SELECT FROM tenants WHERE tenant_id = $1::text);

-- name: are_a_hosts
-- Whether a host made the table tenants. If so, the host registers tenants itself.
SELECT EXISTS (SELECT FROM rollwave_adopted_tables WHERE table_name = 'tenants');

-- name: register
INSERT INTO tenants (tenant_id) VALUES ($1::text) ON CONFLICT DO NOTHING;

-- name: insert
INSERT INTO rollwave_api_keys (tenant_id, key_id, name, role, secret_sha256, expires_at)
VALUES ($1, $2, $3, $4, decode($5::text, 'hex'), statement_timestamp() + make_interval(secs => $6));

-- name: usable
-- Expiry and revocation use the database's clock. The keys of a deleted tenant are not valid, even if their rows remain.
-- note_use: the stored time of its last use is more than an hour old.
SELECT role, encode(secret_sha256, 'hex') AS secret_sha256,
       (last_used_at > statement_timestamp() - interval '1 hour') IS NOT TRUE AS note_use
FROM rollwave_api_keys
WHERE tenant_id = $1 AND key_id = $2 AND revoked_at IS NULL
  AND (expires_at IS NULL OR expires_at > statement_timestamp())
  AND EXISTS (SELECT FROM tenants WHERE tenant_id = $1);

-- name: usable_of
-- The same for the keys $2.
SELECT key_id, role
FROM rollwave_api_keys
WHERE tenant_id = $1 AND key_id = ANY ($2::text[]) AND revoked_at IS NULL
  AND (expires_at IS NULL OR expires_at > statement_timestamp())
  AND EXISTS (SELECT FROM tenants WHERE tenant_id = $1);

-- name: note_use
-- Not applied: another request has stored it. A request does not wait for another one that is storing it.
UPDATE rollwave_api_keys SET last_used_at = statement_timestamp()
WHERE tenant_id = $1 AND key_id = (
    SELECT key_id FROM rollwave_api_keys
    WHERE tenant_id = $1 AND key_id = $2 AND (last_used_at > statement_timestamp() - interval '1 hour') IS NOT TRUE
    FOR NO KEY UPDATE SKIP LOCKED
);

-- name: all
SELECT key_id, name, role, EXTRACT(epoch FROM created_at)::float8 AS created_at,
       EXTRACT(epoch FROM expires_at)::float8 AS expires_at, EXTRACT(epoch FROM revoked_at)::float8 AS revoked_at,
       EXTRACT(epoch FROM last_used_at)::float8 AS last_used_at
FROM rollwave_api_keys
WHERE tenant_id = $1
ORDER BY created_at, key_id;

-- name: revoke
-- Keeps the time of the first revocation. Not applied: there is no such key.
UPDATE rollwave_api_keys SET revoked_at = COALESCE(revoked_at, statement_timestamp())
WHERE tenant_id = $1 AND key_id = $2
RETURNING key_id;
