-- name: bring_forward
-- No lease, delay or deadline is longer than $3 seconds: what is due later was dated by a clock that has been set back
-- since. What waits to be sent is due now; a device in progress has $4 seconds.
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
-- Hold devices whose deadline passed more than $6 seconds ago: those whose attempt the broker acknowledged and that has not
-- failed yet, those that have no time left for another, those that had finished (counters.adopt), or, where the campaign sends no
-- more ($3), all. The total time of a device (retry.DeviceTime) is $4 seconds, which include those for which the campaign was
-- ever suspended. What becomes of each device is decided in domain.retry.
SELECT device_id, status, attempt, heard_attempt = attempt AS heard,
       CASE WHEN failed_attempt = attempt THEN failed_reason END AS failed_for,
       COALESCE(started_at, due_at) + make_interval(secs => $4 - suspended_before) <= statement_timestamp() AS out_of_time,
       completed_at IS NOT NULL AS finished
FROM ota_device_status
WHERE tenant_id = $1 AND campaign_id = $2
  AND status IN ('DOWNLOADING', 'INSTALLING')
  AND due_at <= statement_timestamp() - make_interval(secs => $6)
  AND ($3 OR completed_at IS NOT NULL OR attempt = sent_attempt
             AND (failed_attempt < attempt
                  OR started_at + make_interval(secs => $4 - suspended_before) <= statement_timestamp()))
ORDER BY due_at NULLS FIRST
LIMIT $5
FOR UPDATE SKIP LOCKED;

-- name: postpone
-- The last attempt of a device has failed. The next may be claimed after the delay ($5), if that ends within the device's
-- total time ($6 seconds, which include those for which the campaign was ever suspended): retry.DeviceTime. The row is locked.
UPDATE ota_device_status
SET failed_attempt = attempt, failed_reason = $4,
    due_at = LEAST(statement_timestamp() + make_interval(secs => $5),
                   started_at + make_interval(secs => $6 - suspended_before))
WHERE tenant_id = $1 AND campaign_id = $2 AND device_id = $3;

-- name: fail
-- The engine gives a device up. The row is held and in progress. What the device said of a failed attempt stays.
UPDATE ota_device_status
SET status = 'FAILED', failed_attempt = attempt, failed_reason = $4,
    error_message = COALESCE(CASE WHEN failed_attempt = attempt THEN error_message END, ota_fitting($5)),
    completed_at = statement_timestamp(), due_at = NULL
WHERE tenant_id = $1 AND campaign_id = $2 AND device_id = $3;
