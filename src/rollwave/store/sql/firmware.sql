-- name: lock_version
-- Until this transaction ends, no other one can register this version for this device type.
SELECT pg_advisory_xact_lock(hashtextextended(concat_ws('/', 'firmware', $1::text, $2::text, COALESCE($3::text, '')), 0));

-- name: insert
-- Not applied: the version is already registered for this device type. Needs the lock if there is no unique index.
INSERT INTO firmware_versions
    (tenant_id, version, file_url, checksum_sha256, file_size_bytes, device_type, description, created_by)
SELECT $1::text, $2::text, $3::text, $4::text, $5::bigint, $6::text, $7::text, $8::text
WHERE NOT EXISTS (SELECT FROM firmware_versions f
                  WHERE f.tenant_id = $1::text AND f.version = $2::text
                    AND COALESCE(f.device_type::text, '') = COALESCE($6::text, ''))
ON CONFLICT DO NOTHING
RETURNING id, tenant_id, version, description, file_url, file_size_bytes::bigint AS file_size_bytes, checksum_sha256,
          device_type, EXTRACT(epoch FROM created_at)::float8 AS created_at, created_by;

-- name: of_version
-- Newest first. There is more than one row if they were inserted before versions were unique.
SELECT id, tenant_id, version, description, file_url, file_size_bytes::bigint AS file_size_bytes, checksum_sha256,
       device_type, EXTRACT(epoch FROM created_at)::float8 AS created_at, created_by
FROM firmware_versions f
WHERE f.tenant_id = $1 AND f.version = $2::text AND COALESCE(f.device_type::text, '') = COALESCE($3::text, '')
ORDER BY f.id DESC;

-- name: get
SELECT id, tenant_id, version, description, file_url, file_size_bytes::bigint AS file_size_bytes, checksum_sha256,
       device_type, EXTRACT(epoch FROM created_at)::float8 AS created_at, created_by
FROM firmware_versions
WHERE tenant_id = $1 AND id = $2::bigint;

-- name: page
-- Newest first. device_type::text: a host's column may be an enumeration. It has no index.
SELECT id, tenant_id, version, description, file_url, file_size_bytes::bigint AS file_size_bytes, checksum_sha256,
       device_type, EXTRACT(epoch FROM created_at)::float8 AS created_at, created_by
FROM firmware_versions
WHERE tenant_id = $1 AND ($2::text IS NULL OR device_type::text = $2) AND ($3::bigint IS NULL OR id < $3)
ORDER BY id DESC
LIMIT $4;

-- name: total
SELECT count(*) FROM firmware_versions WHERE tenant_id = $1 AND ($2::text IS NULL OR device_type::text = $2);

-- name: delete
-- Not applied: there is no such firmware, or a campaign uses it.
DELETE FROM firmware_versions
WHERE tenant_id = $1 AND id = $2::bigint
  AND NOT EXISTS (SELECT FROM ota_campaigns WHERE tenant_id = $1 AND firmware_version_id = $2::bigint)
RETURNING id;
