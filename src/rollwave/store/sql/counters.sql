-- name: count
-- Add this transaction's transitions to the counters. Rows are locked in the order of ids, so that no two batches deadlock.
-- A campaign in which a device ends has something to store of its devices (labels.store). row_version: as in campaigns.get; also
-- NULL if an edit put the revision in force while this statement waited for the lock.
WITH tally AS (
    SELECT * FROM unnest($2::bigint[], $3::int[], $4::int[], $5::int[], $6::int[], $7::int[], $8::int[])
        AS t (campaign_id, pending, downloading, installing, succeeded, failed, skipped)
), locked AS (
    SELECT c.id FROM ota_campaigns c JOIN tally t ON t.campaign_id = c.id
    WHERE c.tenant_id = $1
    ORDER BY c.id
    FOR NO KEY UPDATE OF c
)
UPDATE ota_campaigns c
SET succeeded = COALESCE(c.succeeded, 0) + t.succeeded, failed = COALESCE(c.failed, 0) + t.failed,
    pending = c.pending + t.pending, downloading = c.downloading + t.downloading,
    installing = c.installing + t.installing, skipped = c.skipped + t.skipped,
    unstored_after = CASE WHEN t.succeeded > 0 OR t.failed > 0 THEN '' ELSE c.unstored_after END
FROM tally t JOIN locked h ON h.id = t.campaign_id
WHERE c.tenant_id = $1 AND c.id = t.campaign_id
RETURNING c.tenant_id, c.id, c.status, c.succeeded, c.failed, c.sent, c.abort_threshold::text::float8 AS abort_threshold,
          c.abort_min_completed, c.policy_revision,
          CASE WHEN c.policy_revision IS NOT NULL THEN (
              SELECT p.ctid::text || ' ' || EXTRACT(epoch FROM p.created_at)::text FROM ota_campaign_policies p
              WHERE p.tenant_id = $1 AND p.campaign_id = c.id AND p.revision = c.policy_revision) END AS row_version;

-- name: is_placed
-- Whether the campaign's cells can be compared: it follows a policy document, and all of its devices are targeted.
SELECT policy_revision IS NOT NULL AND targeted_devices IS NULL FROM ota_campaigns WHERE tenant_id = $1 AND id = $2;

-- name: compare
-- The counters and the numbers of rows, in one snapshot. The engine changes both in the same transactions, so a difference comes from other
-- SQL, and stays the same until it is repaired.
SELECT EXTRACT(epoch FROM c.reconciled_at)::float8 AS compared_at, c.succeeded, c.failed, c.sent, c.pending, c.downloading, c.installing, c.skipped,
       d.succeeded AS rows_succeeded, d.failed AS rows_failed, d.sent AS rows_sent, d.pending AS rows_pending,
       d.downloading AS rows_downloading, d.installing AS rows_installing, d.skipped AS rows_skipped, NULL AS cells
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

-- name: compare_placed
-- The same under a policy document, and what the cells lack. The rows are read once for both: they cost more than all the rest.
WITH tally AS MATERIALIZED (
    SELECT (position >> 44)::int - 1 AS wave, segment, status, count(*) AS devices, count(*) FILTER (WHERE attempt > 0) AS claimed
    FROM ota_device_status
    WHERE tenant_id = $1 AND campaign_id = $2
    GROUP BY 1, 2, 3
), differences AS (
    SELECT wave, segment, sum(waiting) AS waiting, sum(held) AS held, sum(in_flight) AS in_flight, sum(succeeded) AS succeeded,
           sum(failed) AS failed, sum(skipped) AS skipped
    FROM (SELECT wave, abs(segment) AS segment,
                 CASE WHEN status = 'PENDING' THEN devices - claimed ELSE 0 END AS waiting,
                 CASE WHEN status = 'PENDING' AND segment < 0 THEN devices - claimed ELSE 0 END AS held,
                 CASE WHEN status IN ('DOWNLOADING', 'INSTALLING') THEN devices
                      WHEN status = 'PENDING' THEN claimed ELSE 0 END AS in_flight,
                 CASE WHEN status = 'SUCCESS' THEN devices ELSE 0 END AS succeeded,
                 CASE WHEN status = 'FAILED' THEN devices ELSE 0 END AS failed,
                 CASE WHEN status = 'SKIPPED' THEN devices ELSE 0 END AS skipped
          FROM tally
          WHERE segment <> 0
          UNION ALL
          SELECT wave, segment, -waiting, -held, -in_flight, -succeeded, -failed, -skipped
          FROM ota_campaign_cells WHERE tenant_id = $1 AND campaign_id = $2) AS both_sides
    GROUP BY wave, segment
    HAVING sum(waiting) <> 0 OR sum(held) <> 0 OR sum(in_flight) <> 0 OR sum(succeeded) <> 0 OR sum(failed) <> 0
           OR sum(skipped) <> 0
)
SELECT EXTRACT(epoch FROM c.reconciled_at)::float8 AS compared_at, c.succeeded, c.failed, c.sent, c.pending, c.downloading, c.installing, c.skipped,
       d.succeeded AS rows_succeeded, d.failed AS rows_failed, d.sent AS rows_sent, d.pending AS rows_pending,
       d.downloading AS rows_downloading, d.installing AS rows_installing, d.skipped AS rows_skipped,
       CASE WHEN c.policy_revision IS NOT NULL AND c.targeted_devices IS NULL THEN (
           SELECT jsonb_agg(jsonb_build_array(wave, segment, waiting, held, in_flight, succeeded, failed, skipped))
           FROM differences) END::text AS cells
FROM ota_campaigns c, LATERAL (
    SELECT COALESCE(sum(devices) FILTER (WHERE status = 'SUCCESS'), 0)::int AS succeeded,
           COALESCE(sum(devices) FILTER (WHERE status = 'FAILED'), 0)::int AS failed,
           COALESCE(sum(CASE WHEN status IN ('DOWNLOADING', 'INSTALLING', 'SUCCESS', 'FAILED') THEN devices
                             ELSE claimed END), 0)::int AS sent,
           COALESCE(sum(devices) FILTER (WHERE status = 'PENDING'), 0)::int AS pending,
           COALESCE(sum(devices) FILTER (WHERE status = 'DOWNLOADING'), 0)::int AS downloading,
           COALESCE(sum(devices) FILTER (WHERE status = 'INSTALLING'), 0)::int AS installing,
           COALESCE(sum(devices) FILTER (WHERE status = 'SKIPPED'), 0)::int AS skipped
    FROM tally
) AS d
WHERE c.tenant_id = $1 AND c.id = $2;

-- name: begin_counting
-- Start counting: from now on the counters change with the rows. Until the earlier rows are added (repair), skipped is too
-- low by $3, which is more than the devices of any campaign. So it is negative, and readers count the rows instead.
UPDATE ota_campaigns
SET succeeded = COALESCE(succeeded, 0), failed = COALESCE(failed, 0),
    pending = COALESCE(pending, 0), downloading = COALESCE(downloading, 0), installing = COALESCE(installing, 0),
    skipped = CASE WHEN skipped < 0 THEN skipped ELSE COALESCE(skipped, 0) - $3 END
WHERE tenant_id = $1 AND id = $2
  AND pending + downloading + installing + succeeded + failed + skipped IS NULL;

-- name: date_reconciliation
UPDATE ota_campaigns SET reconciled_at = statement_timestamp() WHERE tenant_id = $1 AND id = $2;

-- name: repair
-- Add the difference that a comparison found. Not applied: the counters were compared again or repaired since.
UPDATE ota_campaigns
SET succeeded = COALESCE(succeeded, 0) + $4, failed = COALESCE(failed, 0) + $5, sent = sent + $6,
    pending = pending + $7, downloading = downloading + $8, installing = installing + $9, skipped = skipped + $10,
    unstored_after = CASE WHEN $4 > 0 OR $5 > 0 THEN '' ELSE unstored_after END,
    reconciled_at = clock_timestamp()
WHERE tenant_id = $1 AND id = $2 AND EXTRACT(epoch FROM reconciled_at)::float8 IS NOT DISTINCT FROM $3::float8
RETURNING id;

-- name: repair_cells
-- Add the differences that a comparison found. The campaign is locked.
INSERT INTO ota_campaign_cells AS l
    (tenant_id, campaign_id, wave, segment, waiting, held, in_flight, succeeded, failed, skipped)
SELECT $1, $2, * FROM unnest($3::int[], $4::int[], $5::int[], $6::int[], $7::int[], $8::int[], $9::int[], $10::int[])
ON CONFLICT (tenant_id, campaign_id, wave, segment) DO UPDATE
SET waiting = l.waiting + EXCLUDED.waiting, held = l.held + EXCLUDED.held,
    in_flight = l.in_flight + EXCLUDED.in_flight, succeeded = l.succeeded + EXCLUDED.succeeded, failed = l.failed + EXCLUDED.failed,
    skipped = l.skipped + EXCLUDED.skipped;

-- name: adopt
-- Take over up to $4 rows that a host's earlier worker left in progress. Their progress and device timeouts begin now, and the
-- time before counts as suspended. Rows with completed_at had finished before the worker overwrote them: FAILED if the engine
-- recorded that or if there is an error message and less than 100 % of progress, otherwise SUCCESS. If the error message is a
-- reason for which the engine skips ($5), the worker has sent to the device after that: it is in progress.
-- Needs the campaign's lock.
WITH left_behind AS (
    SELECT ctid AS place, campaign_id, device_id, status, completed_at IS NOT NULL AS ended,
           COALESCE(error_message IN (SELECT ota_fitting(reason) FROM unnest($5::text[]) AS reason), false) AS skipped,
           attempt > 0 AND failed_attempt = attempt AS failed_before,
           attempt > 0 AND failed_attempt = attempt OR error_message <> '' AND COALESCE(progress_pct, 0) < 100 AS failed
    FROM ota_device_status
    WHERE tenant_id = $1 AND campaign_id = $2 AND due_at IS NULL AND status IN ('DOWNLOADING', 'INSTALLING')
    ORDER BY due_at NULLS FIRST
    LIMIT $4
    FOR UPDATE SKIP LOCKED
)
UPDATE ota_device_status d
SET attempt = GREATEST(d.attempt, 1), sent_attempt = GREATEST(d.attempt, 1), heard_attempt = GREATEST(d.attempt, 1),
    status = CASE WHEN NOT locked.finished THEN d.status WHEN locked.failed THEN 'FAILED' ELSE 'SUCCESS' END,
    failed_attempt = CASE WHEN locked.sent_since THEN 0
                          WHEN locked.finished AND locked.failed THEN GREATEST(d.attempt, 1)
                          ELSE d.failed_attempt END,
    failed_reason = CASE WHEN locked.sent_since THEN NULL
                         WHEN locked.finished AND locked.failed AND NOT locked.failed_before THEN 'reported'
                         ELSE d.failed_reason END,
    error_message = CASE WHEN NOT locked.sent_since THEN d.error_message END,
    started_at = CASE WHEN isfinite(d.started_at) THEN d.started_at ELSE statement_timestamp() END,
    completed_at = CASE WHEN locked.finished THEN d.completed_at END,
    suspended_before = (
        SELECT c.suspended_for
               -- The present suspension began at active_at; campaigns.activate will add it.
               + CASE WHEN c.active_since IS NULL AND c.active_at IS NOT NULL
                      THEN GREATEST(0, EXTRACT(epoch FROM statement_timestamp() - c.active_at))::float8 ELSE 0 END
        FROM ota_campaigns c WHERE c.tenant_id = $1 AND c.id = $2
    ) - CASE WHEN isfinite(d.started_at)
             THEN EXTRACT(epoch FROM statement_timestamp() - d.started_at)::float8 ELSE 0 END,
    due_at = CASE WHEN NOT locked.finished THEN statement_timestamp() + make_interval(secs => $3) END
FROM (SELECT *, ended AND NOT skipped AS finished, ended AND skipped AS sent_since FROM left_behind) AS locked
WHERE d.tenant_id = $1 AND d.ctid = locked.place
  AND d.campaign_id = locked.campaign_id AND d.device_id = locked.device_id
RETURNING d.device_id, CASE WHEN locked.sent_since THEN 'SKIPPED' ELSE locked.status END AS was, d.status AS became, d.attempt,
          d.error_message, locked.failed_before, d.segment, d.position, d.dispatch_number;

-- name: any_left_behind
SELECT true FROM ota_device_status
WHERE tenant_id = $1 AND campaign_id = $2 AND due_at IS NULL AND status IN ('DOWNLOADING', 'INSTALLING')
ORDER BY due_at NULLS FIRST
LIMIT 1;

-- name: leave
-- Leave overdue rows with completed_at to adopt, which restores how they ended. The rows are locked.
UPDATE ota_device_status SET due_at = NULL
WHERE tenant_id = $1 AND campaign_id = ANY (ARRAY[$2::bigint]) AND device_id = ANY ($3::text[]);

-- name: outlook
-- What the campaign has left to do. Each subquery reads the head of one index; with EXISTS, PostgreSQL would drop its ORDER BY.
SELECT (SELECT true FROM ota_device_status
        WHERE tenant_id = $1 AND campaign_id = $2 AND status = 'PENDING' AND attempt = 0
        ORDER BY segment, position, id LIMIT 1) IS NOT NULL AS waiting,
       (SELECT COALESCE(EXTRACT(epoch FROM due_at - statement_timestamp()), 0)::float8 FROM ota_device_status
        WHERE tenant_id = $1 AND campaign_id = $2
          AND (status IN ('DOWNLOADING', 'INSTALLING') OR (status = 'PENDING' AND attempt > 0))
        ORDER BY due_at NULLS FIRST LIMIT 1) AS due_in,
       (SELECT true FROM ota_device_status WHERE tenant_id = $1 AND campaign_id = $2
        ORDER BY device_id LIMIT 1) IS NOT NULL AS any;

-- name: next_due
-- Seconds until the first lease, deadline or delay ends. No row: there is none.
SELECT COALESCE(EXTRACT(epoch FROM due_at - statement_timestamp()), 0)::float8
FROM ota_device_status
WHERE tenant_id = $1 AND campaign_id = $2
  AND (status IN ('DOWNLOADING', 'INSTALLING') OR (status = 'PENDING' AND attempt > 0))
ORDER BY due_at NULLS FIRST
LIMIT 1;

-- name: in_flight
-- Number of devices in flight, but at most $3.
SELECT count(*)::int FROM (
    SELECT FROM ota_device_status
    WHERE tenant_id = $1 AND campaign_id = $2
      AND (status IN ('DOWNLOADING', 'INSTALLING') OR (status = 'PENDING' AND attempt > 0))
    ORDER BY due_at NULLS FIRST LIMIT $3
) AS flying;

-- name: any_taken
-- Whether the broker has accepted the command for at least one device of the campaign.
SELECT c.succeeded + c.failed > 0
       OR (SELECT true FROM ota_device_status
           WHERE tenant_id = $1 AND campaign_id = $2 AND status IN ('DOWNLOADING', 'INSTALLING')
           ORDER BY due_at NULLS FIRST LIMIT 1) IS NOT NULL
FROM ota_campaigns c
WHERE c.tenant_id = $1 AND c.id = $2;

-- name: count_pending
-- If the campaign is not counted yet: the number of devices that were never claimed, but at most ten thousand.
SELECT CASE WHEN c.pending + c.downloading + c.installing + c.succeeded + c.failed IS NOT NULL AND c.skipped >= 0
            THEN c.pending ELSE (
    SELECT count(*)::int FROM (
        SELECT FROM ota_device_status
        WHERE tenant_id = $1 AND campaign_id = $2 AND status = 'PENDING' AND attempt = 0
        ORDER BY segment, position, id LIMIT 10000) AS waiting) END
FROM ota_campaigns c
WHERE c.tenant_id = $1 AND c.id = $2;
