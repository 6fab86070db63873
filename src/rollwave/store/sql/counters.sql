-- name: count
-- Move the counters by transitions that this transaction made, in the order of ids: no two batches wait
-- for each other in a ring.
WITH tally AS (
    SELECT * FROM unnest($2::bigint[], $3::int[], $4::int[], $5::int[], $6::int[], $7::int[], $8::int[])
        AS t (campaign_id, pending, downloading, installing, succeeded, failed, skipped)
), held AS (
    SELECT c.id FROM ota_campaigns c JOIN tally t ON t.campaign_id = c.id
    WHERE c.tenant_id = $1
    ORDER BY c.id
    FOR NO KEY UPDATE OF c
)
UPDATE ota_campaigns c
SET succeeded = COALESCE(c.succeeded, 0) + t.succeeded, failed = COALESCE(c.failed, 0) + t.failed,
    pending = c.pending + t.pending, downloading = c.downloading + t.downloading,
    installing = c.installing + t.installing, skipped = c.skipped + t.skipped
FROM tally t JOIN held h ON h.id = t.campaign_id
WHERE c.tenant_id = $1 AND c.id = t.campaign_id
RETURNING c.id, c.status, c.succeeded, c.failed, c.sent, c.abort_threshold::text::float8 AS abort_threshold,
          c.abort_min_completed;

-- name: compare
-- The counters, and what the rows say, in one snapshot. Who moves rows moves the counters with them, so that a difference
-- is somebody else's doing, and stays what it is until it is repaired.
SELECT EXTRACT(epoch FROM c.reconciled_at)::float8 AS compared_at, c.succeeded, c.failed, c.sent, c.pending, c.downloading, c.installing, c.skipped,
       d.succeeded AS rows_succeeded, d.failed AS rows_failed, d.sent AS rows_sent, d.pending AS rows_pending,
       d.downloading AS rows_downloading, d.installing AS rows_installing, d.skipped AS rows_skipped
FROM ota_campaigns c, LATERAL (
    SELECT COALESCE(sum(devices) FILTER (WHERE status = 'SUCCESS'), 0)::int AS succeeded,
           COALESCE(sum(devices) FILTER (WHERE status = 'FAILED'), 0)::int AS failed,
           COALESCE(sum(CASE WHEN status IN ('DOWNLOADING', 'INSTALLING', 'SUCCESS', 'FAILED') THEN devices
                             ELSE claimed END), 0)::int AS sent,
           COALESCE(sum(devices) FILTER (WHERE status = 'PENDING'), 0)::int AS pending,
           COALESCE(sum(devices) FILTER (WHERE status = 'DOWNLOADING'), 0)::int AS downloading,
           COALESCE(sum(devices) FILTER (WHERE status = 'INSTALLING'), 0)::int AS installing,
           COALESCE(sum(devices) FILTER (WHERE status = 'SKIPPED'), 0)::int AS skipped
    FROM (SELECT status, count(*) AS devices, count(*) FILTER (WHERE attempt > 0) AS claimed
          FROM ota_device_status
          WHERE tenant_id = $1 AND campaign_id = $2
          GROUP BY status) AS tally
) AS d
WHERE c.tenant_id = $1 AND c.id = $2;

-- name: begin_counting
-- From now on the counters move with the rows. Until what was there before is added (repair), skipped is too low by $3, which
-- is more than a campaign can have devices: it is below zero, and readers count the rows instead.
UPDATE ota_campaigns
SET succeeded = COALESCE(succeeded, 0), failed = COALESCE(failed, 0),
    pending = COALESCE(pending, 0), downloading = COALESCE(downloading, 0), installing = COALESCE(installing, 0),
    skipped = CASE WHEN skipped < 0 THEN skipped ELSE COALESCE(skipped, 0) - $3 END
WHERE tenant_id = $1 AND id = $2
  AND pending + downloading + installing + succeeded + failed + skipped IS NULL;

-- name: date_reconciliation
UPDATE ota_campaigns SET reconciled_at = statement_timestamp() WHERE tenant_id = $1 AND id = $2;

-- name: repair
-- Add what the counters lacked when they were compared. Not applied: they have been compared again since, or repaired.
UPDATE ota_campaigns
SET succeeded = COALESCE(succeeded, 0) + $4, failed = COALESCE(failed, 0) + $5, sent = sent + $6,
    pending = pending + $7, downloading = downloading + $8, installing = installing + $9, skipped = skipped + $10,
    reconciled_at = clock_timestamp()
WHERE tenant_id = $1 AND id = $2 AND EXTRACT(epoch FROM reconciled_at)::float8 IS NOT DISTINCT FROM $3::float8
RETURNING id;
