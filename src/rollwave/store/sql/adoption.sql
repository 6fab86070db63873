-- name: adopt
-- Rows that a host's earlier worker left in progress have been sent to: their silence and their whole time begin now, and
-- what passed before counts as suspended. Those with completed_at had finished, and the worker wrote over it afterwards:
-- they failed if the engine knows of it, or if there is an error message and they were not done (100 %), else they
-- succeeded. One that the engine had skipped, for one of the reasons $5, the worker has sent to since: it is in progress.
-- Up to $4 rows. Needs the campaign's lock.
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
    status = CASE WHEN NOT held.finished THEN d.status WHEN held.failed THEN 'FAILED' ELSE 'SUCCESS' END,
    failed_attempt = CASE WHEN held.sent_since THEN 0
                          WHEN held.finished AND held.failed THEN GREATEST(d.attempt, 1)
                          ELSE d.failed_attempt END,
    failed_reason = CASE WHEN held.sent_since THEN NULL
                         WHEN held.finished AND held.failed AND NOT held.failed_before THEN 'reported'
                         ELSE d.failed_reason END,
    error_message = CASE WHEN NOT held.sent_since THEN d.error_message END,
    started_at = CASE WHEN isfinite(d.started_at) THEN d.started_at ELSE statement_timestamp() END,
    completed_at = CASE WHEN held.finished THEN d.completed_at END,
    suspended_before = (
        SELECT c.suspended_for
               -- Suspended since active_at, and added up when it is active again (campaigns.activate).
               + CASE WHEN c.active_since IS NULL AND c.active_at IS NOT NULL
                      THEN GREATEST(0, EXTRACT(epoch FROM statement_timestamp() - c.active_at))::float8 ELSE 0 END
        FROM ota_campaigns c WHERE c.tenant_id = $1 AND c.id = $2
    ) - CASE WHEN isfinite(d.started_at)
             THEN EXTRACT(epoch FROM statement_timestamp() - d.started_at)::float8 ELSE 0 END,
    due_at = CASE WHEN NOT held.finished THEN statement_timestamp() + make_interval(secs => $3) END
FROM (SELECT *, ended AND NOT skipped AS finished, ended AND skipped AS sent_since FROM left_behind) AS held
WHERE d.tenant_id = $1 AND d.ctid = held.place AND d.campaign_id = held.campaign_id AND d.device_id = held.device_id
RETURNING d.device_id, CASE WHEN held.sent_since THEN 'SKIPPED' ELSE held.status END AS was, d.status AS became, d.attempt,
          d.error_message, held.failed_before;

-- name: any_left_behind
SELECT true FROM ota_device_status
WHERE tenant_id = $1 AND campaign_id = $2 AND due_at IS NULL AND status IN ('DOWNLOADING', 'INSTALLING')
ORDER BY due_at NULLS FIRST
LIMIT 1;

-- name: leave
-- What is overdue and has completed_at had finished: adopt says what became of it. The rows are held.
UPDATE ota_device_status SET due_at = NULL
WHERE tenant_id = $1 AND campaign_id = ANY (ARRAY[$2::bigint]) AND device_id = ANY ($3::text[]);
