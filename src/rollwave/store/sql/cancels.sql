-- name: request
-- Devices in flight of an aborted campaign are to be told. Returns how many these are. The commit wakes the workers.
-- Not applied: the campaign was cancelled before, or is not ABORTED.
UPDATE ota_campaigns SET cancelled_at = statement_timestamp()
WHERE tenant_id = $1 AND id = $2 AND status = 'ABORTED' AND cancelled_at IS NULL
RETURNING GREATEST(0, sent - COALESCE(succeeded, 0) - COALESCE(failed, 0)) AS devices, pg_notify('rollwave_due', $1);

-- name: due_in
-- Seconds until the next cancel commands may be claimed, 0 or less: now. No row: the campaign was not cancelled.
SELECT COALESCE(EXTRACT(epoch FROM cancel_next_at - statement_timestamp()), 0)::float8
FROM ota_campaigns
WHERE tenant_id = $1 AND id = $2 AND status = 'ABORTED' AND cancelled_at IS NOT NULL
FOR NO KEY UPDATE;

-- name: claim
-- Claim up to $3 devices that were sent to, are not terminal and were not told yet, for $4 seconds. The campaign's next
-- cancel commands may be claimed in $5 seconds, so that the rate holds over all workers. A device that another worker is
-- sending its update to is left out: it is told when that has ended.
WITH told AS (
    SELECT ctid AS place, campaign_id, device_id
    FROM ota_device_status
    WHERE tenant_id = $1 AND campaign_id = $2
      AND (status IN ('DOWNLOADING', 'INSTALLING') OR (status = 'PENDING' AND attempt > 0))
      AND NOT (attempt > sent_attempt AND due_at > statement_timestamp())
      AND cancel_sent_at IS NULL
      AND (cancel_claimed_until IS NULL OR cancel_claimed_until <= statement_timestamp())
    ORDER BY due_at NULLS FIRST
    LIMIT $3
    FOR UPDATE SKIP LOCKED
), claimed AS (
    UPDATE ota_device_status d
    SET cancel_claimed_until = statement_timestamp() + make_interval(secs => $4)
    FROM told AS locked
    WHERE d.tenant_id = $1 AND d.ctid = locked.place
      AND d.campaign_id = locked.campaign_id AND d.device_id = locked.device_id
    RETURNING d.device_id, d.attempt, COALESCE(d.refused_for = 'connection_ended', false) AS suspect
), paced AS (
    UPDATE ota_campaigns SET cancel_next_at = statement_timestamp() + make_interval(secs => $5)
    WHERE tenant_id = $1 AND id = $2 AND (SELECT count(*) FROM claimed) > 0
)
SELECT device_id, attempt, suspect FROM claimed;

-- name: next_due
-- Seconds until a device may have to be told: a lease or a delay ends. No row: every device was told, or is terminal.
SELECT min(GREATEST(0, EXTRACT(epoch FROM
           GREATEST(cancel_claimed_until, CASE WHEN attempt > sent_attempt THEN due_at END) - statement_timestamp())))::float8
FROM (
    SELECT attempt, sent_attempt, due_at, cancel_claimed_until
    FROM ota_device_status
    WHERE tenant_id = $1 AND campaign_id = $2
      AND (status IN ('DOWNLOADING', 'INSTALLING') OR (status = 'PENDING' AND attempt > 0))
      AND cancel_sent_at IS NULL
    ORDER BY due_at NULLS FIRST
    LIMIT 1000
) AS untold;

-- name: mark
-- Record that the broker acknowledged the cancel commands of these devices ($3). Not applied: the device is deleted.
WITH locked AS (
    SELECT d.device_id
    FROM (SELECT * FROM unnest($3::text[]) AS s (device_id) ORDER BY device_id COLLATE "C") AS s
    CROSS JOIN LATERAL (
        SELECT device_id FROM ota_device_status
        WHERE tenant_id = $1 AND campaign_id = $2 AND device_id = s.device_id
        FOR UPDATE
    ) AS d
)
UPDATE ota_device_status SET cancel_sent_at = statement_timestamp()
WHERE tenant_id = $1 AND campaign_id = ANY (ARRAY[$2::bigint])
  AND device_id = ANY (ARRAY(SELECT device_id FROM locked));

-- name: release
-- The broker did not acknowledge the cancel commands of these devices ($3): they may be claimed again in $4 seconds.
-- Not applied: the device was told meanwhile.
WITH locked AS (
    SELECT d.device_id
    FROM (SELECT * FROM unnest($3::text[]) AS s (device_id) ORDER BY device_id COLLATE "C") AS s
    CROSS JOIN LATERAL (
        SELECT device_id FROM ota_device_status
        WHERE tenant_id = $1 AND campaign_id = $2 AND device_id = s.device_id AND cancel_sent_at IS NULL
        FOR UPDATE
    ) AS d
)
UPDATE ota_device_status SET cancel_claimed_until = statement_timestamp() + make_interval(secs => $4)
WHERE tenant_id = $1 AND campaign_id = ANY (ARRAY[$2::bigint])
  AND device_id = ANY (ARRAY(SELECT device_id FROM locked));
