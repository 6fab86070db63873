-- name: outlook
-- What is left to do, each answered from the head of one index. EXISTS would not: PostgreSQL takes an order from it.
SELECT (SELECT true FROM ota_device_status
        WHERE tenant_id = $1 AND campaign_id = $2 AND status = 'PENDING' AND attempt = 0
        ORDER BY id LIMIT 1) IS NOT NULL AS waiting,
       (SELECT COALESCE(EXTRACT(epoch FROM due_at - statement_timestamp()), 0)::float8 FROM ota_device_status
        WHERE tenant_id = $1 AND campaign_id = $2
          AND (status IN ('DOWNLOADING', 'INSTALLING') OR (status = 'PENDING' AND attempt > 0))
        ORDER BY due_at NULLS FIRST LIMIT 1) AS due_in,
       (SELECT true FROM ota_device_status WHERE tenant_id = $1 AND campaign_id = $2
        ORDER BY device_id LIMIT 1) IS NOT NULL AS any;

-- name: next_due
-- Seconds until the first lease, deadline or delay ends. No row: none runs.
SELECT COALESCE(EXTRACT(epoch FROM due_at - statement_timestamp()), 0)::float8
FROM ota_device_status
WHERE tenant_id = $1 AND campaign_id = $2
  AND (status IN ('DOWNLOADING', 'INSTALLING') OR (status = 'PENDING' AND attempt > 0))
ORDER BY due_at NULLS FIRST
LIMIT 1;

-- name: in_flight
-- How many devices are in flight, counted up to $3.
SELECT count(*)::int FROM (
    SELECT FROM ota_device_status
    WHERE tenant_id = $1 AND campaign_id = $2
      AND (status IN ('DOWNLOADING', 'INSTALLING') OR (status = 'PENDING' AND attempt > 0))
    ORDER BY due_at NULLS FIRST LIMIT $3
) AS flying;

-- name: any_taken
-- Whether the broker has taken the command for any of the campaign's devices.
SELECT c.succeeded + c.failed > 0
       OR (SELECT true FROM ota_device_status
           WHERE tenant_id = $1 AND campaign_id = $2 AND status IN ('DOWNLOADING', 'INSTALLING')
           ORDER BY due_at NULLS FIRST LIMIT 1) IS NOT NULL
FROM ota_campaigns c
WHERE c.tenant_id = $1 AND c.id = $2;

-- name: count_pending
-- Not counted yet: as many as wait, counted no further than ten thousand.
SELECT CASE WHEN c.pending + c.downloading + c.installing + c.succeeded + c.failed IS NOT NULL AND c.skipped >= 0
            THEN c.pending ELSE (
    SELECT count(*)::int FROM (
        SELECT FROM ota_device_status
        WHERE tenant_id = $1 AND campaign_id = $2 AND status = 'PENDING' AND attempt = 0
        ORDER BY id LIMIT 10000) AS waiting) END
FROM ota_campaigns c
WHERE c.tenant_id = $1 AND c.id = $2;
