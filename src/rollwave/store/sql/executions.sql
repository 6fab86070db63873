-- name: insert_for_group
-- One execution for each member of the group, in the order of device ids. A device of another type than the
-- firmware's is never sent to.
WITH targeted AS (
    INSERT INTO ota_device_status (tenant_id, campaign_id, device_id, status, error_message, completed_at)
    SELECT m.tenant_id, $2, m.device_id,
           CASE WHEN d.device_type <> $4 THEN 'SKIPPED' ELSE 'PENDING' END,
           CASE WHEN d.device_type <> $4
                THEN 'device type ' || d.device_type || ' does not match the firmware''s, ' || $4::text END,
           CASE WHEN d.device_type <> $4 THEN statement_timestamp() END
    FROM device_group_members m
    LEFT JOIN devices d ON d.tenant_id = m.tenant_id AND d.device_id = m.device_id
    WHERE m.tenant_id = $1 AND m.group_id = $3
    ORDER BY m.device_id
    RETURNING status
)
SELECT count(*)::int AS total, (count(*) FILTER (WHERE status = 'PENDING'))::int AS sendable FROM targeted;

-- name: claim
-- Take up to $3 commands. Devices that are due again come first: under the same attempt where the broker never
-- acknowledged it, under the next one after silence, at most $5 in all. Then devices never sent to, lowest id
-- first, at most $4 of them; one that cannot be addressed ($7) is skipped here, before anything is published.
-- What is claimed is ours until the lease of $6 seconds ends.
WITH again AS (
    SELECT device_id
    FROM ota_device_status
    WHERE tenant_id = $1 AND campaign_id = $2
      AND (status IN ('DOWNLOADING', 'INSTALLING') OR (status = 'PENDING' AND attempt > 0))
      AND due_at <= statement_timestamp()
      AND (attempt > sent_attempt OR attempt < $5)
      AND device_id ~ $7
    ORDER BY due_at
    LIMIT $3
    FOR UPDATE SKIP LOCKED
), fresh AS (
    SELECT device_id
    FROM ota_device_status
    WHERE tenant_id = $1 AND campaign_id = $2 AND status = 'PENDING' AND attempt = 0
    ORDER BY id
    LIMIT LEAST($4, $3 - (SELECT count(*) FROM again))
    FOR UPDATE SKIP LOCKED
), picked AS (
    SELECT device_id, false AS fresh FROM again
    UNION ALL
    SELECT device_id, true FROM fresh
)
UPDATE ota_device_status d
SET attempt = CASE WHEN d.device_id !~ $7 OR d.attempt > d.sent_attempt THEN d.attempt ELSE d.attempt + 1 END,
    status = CASE WHEN d.device_id !~ $7 THEN 'SKIPPED'
                  WHEN d.status = 'INSTALLING' THEN 'DOWNLOADING'
                  ELSE d.status END,
    progress_pct = 0,
    error_message = CASE WHEN d.device_id !~ $7 THEN $8 END,
    completed_at = CASE WHEN d.device_id !~ $7 THEN statement_timestamp() END,
    due_at = CASE WHEN d.device_id ~ $7 THEN statement_timestamp() + make_interval(secs => $6) END
FROM picked p
WHERE d.tenant_id = $1 AND d.campaign_id = $2 AND d.device_id = p.device_id
RETURNING d.device_id, d.attempt, p.fresh, d.status = 'SKIPPED' AS skipped;

-- name: mark_sent
-- The broker has acknowledged these. Not applied: the device has reported already, the campaign was stopped
-- and the lease had ended, or another worker was sooner.
WITH sent AS (
    SELECT * FROM unnest($3::text[], $4::int[]) AS s (device_id, attempt)
), held AS (
    SELECT d.device_id
    FROM ota_device_status d JOIN sent s ON s.device_id = d.device_id AND s.attempt = d.attempt
    WHERE d.tenant_id = $1 AND d.campaign_id = $2 AND d.attempt > d.sent_attempt
      AND d.status IN ('PENDING', 'DOWNLOADING')
    ORDER BY d.device_id
    FOR UPDATE OF d
)
UPDATE ota_device_status d
SET status = 'DOWNLOADING',
    sent_attempt = d.attempt,
    started_at = COALESCE(d.started_at, statement_timestamp()),
    due_at = statement_timestamp() + make_interval(secs => $5)
FROM held h
WHERE d.tenant_id = $1 AND d.campaign_id = $2 AND d.device_id = h.device_id
RETURNING d.device_id;

-- name: release
-- The broker did not take these: they may be claimed again, under the same attempt, after $5 seconds.
-- Not applied: the lease had ended and another worker has them.
UPDATE ota_device_status d
SET due_at = statement_timestamp() + make_interval(secs => $5)
FROM unnest($3::text[], $4::int[]) AS s (device_id, attempt)
WHERE d.tenant_id = $1 AND d.campaign_id = $2 AND d.device_id = s.device_id
  AND d.attempt = s.attempt AND d.attempt > d.sent_attempt AND d.status IN ('PENDING', 'DOWNLOADING')
RETURNING d.device_id;

-- name: apply_reports
-- Take in one report a device. Rows are held in a fixed order; each moves forward only (ota_status_rank), and
-- only where the campaign has been sent to. One row comes back for each report: what the execution was (NULL:
-- no such execution for this tenant) and whether the report changed it.
WITH report AS MATERIALIZED (
    SELECT * FROM unnest($2::bigint[], $3::text[], $4::text[], $5::int[], $6::text[], $7::int[])
        WITH ORDINALITY AS r (campaign_id, device_id, status, progress, error, attempt, number)
), held AS MATERIALIZED (
    SELECT r.number, r.status AS reported, r.progress, r.error, r.attempt AS reported_attempt,
           d.campaign_id, d.device_id, d.status AS was, d.attempt,
           make_interval(secs => COALESCE(c.progress_timeout, $8)) AS patience
    FROM report r
    JOIN ota_device_status d
      ON d.tenant_id = $1 AND d.campaign_id = r.campaign_id AND d.device_id = r.device_id
    JOIN ota_campaigns c ON c.tenant_id = $1 AND c.id = r.campaign_id
    ORDER BY d.campaign_id, d.device_id
    FOR UPDATE OF d
), moved AS (
    UPDATE ota_device_status d
    SET status = h.reported,
        progress_pct = COALESCE(h.progress, d.progress_pct),
        error_message = CASE WHEN h.reported = 'SUCCESS' THEN NULL ELSE COALESCE(h.error, d.error_message) END,
        sent_attempt = d.attempt,
        started_at = COALESCE(d.started_at, statement_timestamp()),
        completed_at = CASE WHEN ota_status_rank(h.reported) = 3 THEN statement_timestamp() END,
        due_at = CASE WHEN ota_status_rank(h.reported) < 3 THEN statement_timestamp() + h.patience END
    FROM held h
    WHERE d.tenant_id = $1 AND d.campaign_id = h.campaign_id AND d.device_id = h.device_id
      AND (d.attempt > 0 OR d.status <> 'PENDING')
      AND (h.reported_attempt IS NULL OR h.reported_attempt = d.attempt)
      AND (ota_status_rank(d.status) < ota_status_rank(h.reported)
           OR d.status = h.reported AND ota_status_rank(d.status) < 3
              AND (h.progress > d.progress_pct
                   OR d.due_at < statement_timestamp() + h.patience * 0.75))
    RETURNING h.number
)
SELECT r.number::int - 1 AS position, h.was, h.attempt, m.number IS NOT NULL AS applied
FROM report r
LEFT JOIN held h USING (number)
LEFT JOIN moved m USING (number)
ORDER BY r.number;

-- name: adopt_in_progress
-- Rows that a host's earlier worker left in progress have been sent to; their patience starts now.
UPDATE ota_device_status
SET attempt = GREATEST(attempt, 1), sent_attempt = GREATEST(attempt, 1),
    due_at = statement_timestamp() + make_interval(secs => $3)
WHERE tenant_id = $1 AND campaign_id = $2 AND due_at IS NULL
  AND (status IN ('DOWNLOADING', 'INSTALLING') OR (status = 'PENDING' AND attempt > 0))
RETURNING device_id;

-- name: fail_silent
-- Devices whose patience ended with no attempt left ($3; 0 when the campaign sends no more).
WITH silent AS (
    SELECT device_id
    FROM ota_device_status
    WHERE tenant_id = $1 AND campaign_id = $2
      AND status IN ('DOWNLOADING', 'INSTALLING')
      AND due_at <= statement_timestamp()
      AND (attempt <= sent_attempt OR $3 = 0)
      AND (attempt >= $3 OR device_id !~ $5)
    ORDER BY due_at
    LIMIT $4
    FOR UPDATE SKIP LOCKED
)
UPDATE ota_device_status d
SET status = 'FAILED', completed_at = statement_timestamp(), due_at = NULL,
    error_message = 'no report within ' || $6::text || ' s of the last sign of life; command sent '
                    || d.sent_attempt || CASE d.sent_attempt WHEN 1 THEN ' time' ELSE ' times' END
FROM silent s
WHERE d.tenant_id = $1 AND d.campaign_id = $2 AND d.device_id = s.device_id
RETURNING d.device_id, d.sent_attempt, d.error_message;

-- name: skip_unsent
-- Devices of a stopped campaign that were never sent to. One that a worker is sending to right now is left to
-- its lease.
WITH waiting AS (
    SELECT device_id FROM ota_device_status
    WHERE tenant_id = $1 AND campaign_id = $2 AND status = 'PENDING' AND attempt = 0
    ORDER BY id LIMIT $3 FOR UPDATE SKIP LOCKED
), lapsed AS (
    SELECT device_id FROM ota_device_status
    WHERE tenant_id = $1 AND campaign_id = $2 AND status = 'PENDING' AND attempt > 0
      AND due_at <= statement_timestamp()
    LIMIT $3 FOR UPDATE SKIP LOCKED
), unsent AS (
    SELECT device_id FROM waiting UNION ALL SELECT device_id FROM lapsed
)
UPDATE ota_device_status d
SET status = 'SKIPPED', completed_at = statement_timestamp(), due_at = NULL, error_message = $4
FROM unsent u
WHERE d.tenant_id = $1 AND d.campaign_id = $2 AND d.device_id = u.device_id;

-- name: outlook
-- What is left to do, each answered from the head of one small index.
SELECT EXISTS (SELECT FROM ota_device_status
               WHERE tenant_id = $1 AND campaign_id = $2 AND status = 'PENDING' AND attempt = 0) AS waiting,
       EXISTS (SELECT FROM ota_device_status
               WHERE tenant_id = $1 AND campaign_id = $2
                 AND (status IN ('DOWNLOADING', 'INSTALLING') OR (status = 'PENDING' AND attempt > 0))) AS open,
       EXISTS (SELECT FROM ota_device_status WHERE tenant_id = $1 AND campaign_id = $2) AS any;

-- name: in_flight
-- How many devices are in flight, counted up to $3.
SELECT count(*)::int FROM (
    SELECT FROM ota_device_status
    WHERE tenant_id = $1 AND campaign_id = $2
      AND (status IN ('DOWNLOADING', 'INSTALLING') OR (status = 'PENDING' AND attempt > 0))
    LIMIT $3
) AS flying;

-- name: count_pending
SELECT count(*)::int FROM ota_device_status
WHERE tenant_id = $1 AND campaign_id = $2 AND status = 'PENDING';

-- name: count_all
SELECT count(*)::int FROM ota_device_status WHERE tenant_id = $1 AND campaign_id = $2;
