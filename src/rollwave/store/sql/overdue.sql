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
-- Devices of closed segments ($7) are left out, unless the campaign sends nothing more: their clocks stand (standing.hold). So are
-- those whose segment was closed until lately, until that time counts as suspended (standing.give_time).
-- $8: only devices that have reported themselves that their attempt failed.
-- domain.retry decides the outcome of each device.
SELECT device_id, status, attempt, heard_attempt = attempt AS heard,
       CASE WHEN failed_attempt = attempt THEN failed_reason END AS failed_for,
       COALESCE(started_at, due_at) + make_interval(secs => $4 - suspended_before) <= statement_timestamp() AS out_of_time,
       completed_at IS NOT NULL AS finished, segment, position, dispatch_number, budget_values,
       error_code, failed_before
FROM ota_device_status d
WHERE tenant_id = $1 AND campaign_id = $2
  AND status IN ('DOWNLOADING', 'INSTALLING')
  AND due_at <= statement_timestamp() - make_interval(secs => $6)
  AND ($3 OR segment <> ALL ($7::int[]))
  AND (segment = 0 OR completed_at IS NOT NULL OR started_at IS NULL
       OR NOT EXISTS (SELECT FROM ota_campaign_segments s
                      WHERE s.tenant_id = $1 AND s.campaign_id = $2 AND s.number = d.segment AND NOT upper_inf(s.closed)
                        AND upper(s.closed) > GREATEST(d.stood_until, d.started_at)))
  AND ($3 OR completed_at IS NOT NULL OR attempt = sent_attempt
             AND (failed_attempt < attempt
                  OR started_at + make_interval(secs => $4 - suspended_before) <= statement_timestamp()))
  AND (NOT $8 OR failed_attempt = attempt AND failed_reason IN ('reported', 'rejected') AND completed_at IS NULL)
ORDER BY due_at NULLS FIRST
LIMIT $5
FOR UPDATE SKIP LOCKED;

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
