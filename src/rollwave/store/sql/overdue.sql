-- name: bring_forward
-- No lease, delay or deadline is longer than $3 seconds: a later due_at was set before the database's clock was set back. A
-- device that waits to be sent to is due now; a device in progress has $4 seconds.
WITH misdated AS (
    SELECT ctid AS place, campaign_id, device_id FROM ota_device_status
    WHERE tenant_id = $1 AND campaign_id = $2
      AND (status IN ('DOWNLOADING', 'INSTALLING') OR (status = 'PENDING' AND attempt > 0))
      AND due_at > statement_timestamp() + make_interval(secs => $3)
    ORDER BY due_at DESC NULLS LAST
    LIMIT 100000
    FOR UPDATE SKIP LOCKED
)
UPDATE ota_device_status d
SET due_at = statement_timestamp() + make_interval(secs => CASE WHEN d.status = 'PENDING' THEN 0 ELSE $4 END),
    started_at = LEAST(d.started_at, statement_timestamp())
FROM misdated AS locked
WHERE d.tenant_id = $1 AND d.ctid = locked.place
  AND d.campaign_id = locked.campaign_id AND d.device_id = locked.device_id;

-- name: lock_overdue
-- Lock devices whose deadline passed more than $6 seconds ago. If the campaign sends nothing more ($3), all of them; otherwise
-- those whose attempt was acknowledged and has not failed yet, those whose device timeout has passed, and those that had
-- finished (counters.adopt). The device timeout (retry.DeviceTime) is $4 seconds, including all suspensions of the campaign.
-- Devices of closed segments ($7) are left out, unless the campaign sends nothing more: their clocks stand (hold).
-- $8: only devices that have reported themselves that their attempt failed.
-- domain.retry decides the outcome of each device.
SELECT device_id, status, attempt, heard_attempt = attempt AS heard,
       CASE WHEN failed_attempt = attempt THEN failed_reason END AS failed_for,
       COALESCE(started_at, due_at) + make_interval(secs => $4 - suspended_before) <= statement_timestamp() AS out_of_time,
       completed_at IS NOT NULL AS finished, segment, position, dispatch_number, budget_values,
       error_code, failed_before
FROM ota_device_status
WHERE tenant_id = $1 AND campaign_id = $2
  AND status IN ('DOWNLOADING', 'INSTALLING')
  AND due_at <= statement_timestamp() - make_interval(secs => $6)
  AND ($3 OR segment <> ALL ($7::int[]))
  AND ($3 OR completed_at IS NOT NULL OR attempt = sent_attempt
             AND (failed_attempt < attempt
                  OR started_at + make_interval(secs => $4 - suspended_before) <= statement_timestamp()))
  AND (NOT $8 OR failed_attempt = attempt AND failed_reason IN ('reported', 'rejected') AND completed_at IS NULL)
ORDER BY due_at NULLS FIRST
LIMIT $5
FOR UPDATE SKIP LOCKED;

-- name: hold
-- Hold up to $8 devices that are due and whose segment ($3) is closed: it opens in so many seconds ($4; NULL: unknown). They are
-- due again then, or at the latest after $7 ($9) seconds, by the same rule as retry.hold (a test compares the two). A device that works
-- on its command has the progress timeout ($5 seconds) after that. The device timeout ($6 seconds, including all suspensions of
-- the campaign) is prolonged.
WITH closed AS (
    SELECT segment, opens_in IS NOT NULL AND opens_in <= $7 AS opens_soon, LEAST(COALESCE(opens_in, $9), $7) AS wait
    FROM unnest($3::int[], $4::float8[]) AS c (segment, opens_in)
), due AS (
    SELECT ctid AS place, campaign_id, device_id FROM ota_device_status
    WHERE tenant_id = $1 AND campaign_id = $2
      AND (status IN ('DOWNLOADING', 'INSTALLING') OR (status = 'PENDING' AND attempt > 0))
      AND due_at <= statement_timestamp()
      AND (completed_at IS NULL OR status = 'PENDING')
      AND segment = ANY ($3::int[])
    ORDER BY due_at NULLS FIRST
    LIMIT $8
    FOR UPDATE SKIP LOCKED
), held AS (
    UPDATE ota_device_status d
    SET due_at = statement_timestamp() + make_interval(secs => closed.wait + CASE
            WHEN closed.opens_soon AND d.status <> 'PENDING' AND d.attempt = d.sent_attempt AND d.failed_attempt < d.attempt
            THEN $5 ELSE 0 END),
        suspended_before = d.suspended_before - CASE WHEN d.started_at IS NULL THEN 0 ELSE closed.wait + GREATEST(0, $5 - EXTRACT(
            epoch FROM d.started_at + make_interval(secs => $6 - d.suspended_before) - statement_timestamp())::float8) END
    FROM due, closed
    WHERE d.tenant_id = $1 AND d.ctid = due.place
      AND d.campaign_id = due.campaign_id AND d.device_id = due.device_id AND closed.segment = d.segment
    RETURNING d.device_id
)
SELECT count(*)::int FROM held;

-- name: give_time
-- Up to $8 devices in progress that are due now or soon (the statement that judges them is a later one), and whose deadline was set before their segment ($3) opened ($4: seconds since
-- 1970), have the progress timeout ($5 seconds) from then on. A deadline is the answer timeout ($7) from the command, or the
-- progress timeout from a report. The device timeout ($6 seconds, including all suspensions of the campaign) is not shorter.
WITH opened AS (
    SELECT segment, to_timestamp(at) AS at FROM unnest($3::int[], $4::float8[]) AS o (segment, at)
), due AS (
    SELECT d.ctid AS place, d.campaign_id, d.device_id, opened.at + make_interval(secs => $5) AS until
    FROM ota_device_status d, opened
    WHERE d.tenant_id = $1 AND d.campaign_id = $2 AND d.segment = opened.segment
      AND d.status IN ('DOWNLOADING', 'INSTALLING') AND d.completed_at IS NULL
      AND d.attempt = d.sent_attempt AND d.failed_attempt < d.attempt
      AND d.due_at <= statement_timestamp() + interval '10 seconds'
      AND d.due_at < opened.at + make_interval(secs => CASE WHEN d.heard_attempt = d.attempt THEN $5 ELSE $7 END)
    ORDER BY d.due_at NULLS FIRST
    LIMIT $8
    FOR UPDATE OF d SKIP LOCKED
), given AS (
    UPDATE ota_device_status d
    SET due_at = GREATEST(d.due_at, due.until),
        suspended_before = d.suspended_before - GREATEST(0, EXTRACT(
            epoch FROM due.until - d.started_at - make_interval(secs => $6 - d.suspended_before))::float8)
    FROM due
    WHERE d.tenant_id = $1 AND d.ctid = due.place
      AND d.campaign_id = due.campaign_id AND d.device_id = due.device_id
    RETURNING d.device_id
)
SELECT count(*)::int FROM given;

-- name: postpone
-- Record that the last attempt of a device has failed. The next one may be claimed after the delay ($5 seconds), if it ends
-- before the device timeout ($6 seconds, including all suspensions of the campaign: retry.DeviceTime). The row is locked.
UPDATE ota_device_status
SET failed_attempt = attempt, failed_reason = $4,
    due_at = LEAST(statement_timestamp() + make_interval(secs => $5),
                   started_at + make_interval(secs => $6 - suspended_before))
WHERE tenant_id = $1 AND campaign_id = $2 AND device_id = $3;

-- name: fail
-- Fail a device in progress. If the device reported an error for this attempt, its message stays. The row is locked.
UPDATE ota_device_status
SET status = 'FAILED', failed_attempt = attempt, failed_reason = $4,
    error_message = COALESCE(CASE WHEN failed_attempt = attempt THEN error_message END, ota_fitting($5)),
    completed_at = statement_timestamp(), due_at = NULL
WHERE tenant_id = $1 AND campaign_id = $2 AND device_id = $3;
