-- name: page
-- Devices of a campaign by id, after $4, at most $5. code $6 and reason $7: of the last failed attempt; empty: it has none. wave $8: its
-- number, of a campaign whose devices are placed. segment $9: its number, likewise. NULL: any.
SELECT device_id, status, progress_pct, error_message, error_code, failed_reason, attempt, EXTRACT(epoch FROM due_at)::float8 AS due_at,
       EXTRACT(epoch FROM started_at)::float8 AS started_at, EXTRACT(epoch FROM completed_at)::float8 AS completed_at,
       EXTRACT(epoch FROM created_at)::float8 AS created_at
FROM ota_device_status
WHERE tenant_id = $1 AND campaign_id = $2::bigint
  AND ($3::text IS NULL OR status = $3) AND ($4::text IS NULL OR device_id > $4)
  AND ($6::text IS NULL OR COALESCE(error_code, '') = $6) AND ($7::text IS NULL OR COALESCE(failed_reason, '') = $7)
  AND ($8::int IS NULL OR position >= ($8 + 1)::bigint << 44 AND position < ($8 + 2)::bigint << 44)
  AND ($9::int IS NULL OR segment = $9)
ORDER BY device_id
LIMIT $5;

-- name: page_looked_for
-- The same for a state that has its own partial index. The condition repeats the index's, so that a generic plan can use it.
SELECT device_id, status, progress_pct, error_message, error_code, failed_reason, attempt, EXTRACT(epoch FROM due_at)::float8 AS due_at,
       EXTRACT(epoch FROM started_at)::float8 AS started_at, EXTRACT(epoch FROM completed_at)::float8 AS completed_at,
       EXTRACT(epoch FROM created_at)::float8 AS created_at
FROM ota_device_status
WHERE tenant_id = $1 AND campaign_id = $2::bigint AND status IN ('FAILED', 'SKIPPED', 'INSTALLING')
  AND status = $3 AND ($4::text IS NULL OR device_id > $4)
  AND ($6::text IS NULL OR COALESCE(error_code, '') = $6) AND ($7::text IS NULL OR COALESCE(failed_reason, '') = $7)
  AND ($8::int IS NULL OR position >= ($8 + 1)::bigint << 44 AND position < ($8 + 2)::bigint << 44)
  AND ($9::int IS NULL OR segment = $9)
ORDER BY device_id
LIMIT $5;

-- name: count
-- The number of these devices, counted up to $4.
SELECT count(*)::int
FROM (SELECT FROM ota_device_status
      WHERE tenant_id = $1 AND campaign_id = $2::bigint
        AND ($3::text IS NULL OR status = $3)
        AND ($5::text IS NULL OR COALESCE(error_code, '') = $5) AND ($6::text IS NULL OR COALESCE(failed_reason, '') = $6)
        AND ($7::int IS NULL OR position >= ($7 + 1)::bigint << 44 AND position < ($7 + 2)::bigint << 44)
        AND ($8::int IS NULL OR segment = $8)
      LIMIT $4) AS counted;

-- name: count_looked_for
SELECT count(*)::int
FROM (SELECT FROM ota_device_status
      WHERE tenant_id = $1 AND campaign_id = $2::bigint AND status IN ('FAILED', 'SKIPPED', 'INSTALLING')
        AND status = $3
        AND ($5::text IS NULL OR COALESCE(error_code, '') = $5) AND ($6::text IS NULL OR COALESCE(failed_reason, '') = $6)
        AND ($7::int IS NULL OR position >= ($7 + 1)::bigint << 44 AND position < ($7 + 2)::bigint << 44)
        AND ($8::int IS NULL OR segment = $8)
      LIMIT $4) AS counted;
