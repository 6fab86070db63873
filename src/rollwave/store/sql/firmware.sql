-- name: insert
INSERT INTO firmware_versions
    (tenant_id, version, file_url, checksum_sha256, file_size_bytes, device_type, description, created_by)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
RETURNING id, tenant_id, version, description, file_url, file_size_bytes, checksum_sha256, device_type,
          created_at, created_by;

-- name: get
SELECT id, tenant_id, version, description, file_url, file_size_bytes, checksum_sha256, device_type,
       created_at, created_by
FROM firmware_versions
WHERE tenant_id = $1 AND id = $2::bigint;

-- name: page
-- Newest first.
SELECT id, tenant_id, version, description, file_url, file_size_bytes, checksum_sha256, device_type,
       created_at, created_by
FROM firmware_versions
WHERE tenant_id = $1 AND ($2::text IS NULL OR device_type = $2) AND ($3::bigint IS NULL OR id < $3)
ORDER BY id DESC
LIMIT $4;

-- name: total
SELECT count(*) FROM firmware_versions WHERE tenant_id = $1 AND ($2::text IS NULL OR device_type = $2);

-- name: delete
-- Not applied: there is no such firmware, or a campaign uses it.
DELETE FROM firmware_versions
WHERE tenant_id = $1 AND id = $2::bigint
  AND NOT EXISTS (SELECT FROM ota_campaigns WHERE tenant_id = $1 AND firmware_version_id = $2::bigint)
RETURNING id;
