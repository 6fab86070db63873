-- name: failed
-- Failed devices after $3, by id, with the reason $4 and the code $5 of their last attempt (NULL: any). The condition on the
-- status repeats that of an index (views.devices_looked_for).
SELECT device_id
FROM ota_device_status
WHERE tenant_id = $1 AND campaign_id = $2::bigint AND status IN ('FAILED', 'SKIPPED', 'INSTALLING') AND status = 'FAILED'
  AND device_id > $3::text
  AND ($4::text IS NULL OR failed_reason = $4) AND ($5::text IS NULL OR error_code = $5)
ORDER BY device_id
LIMIT $6;

-- name: again
-- Give each of these devices another attempt, which the next claim may take: as after a failed attempt that the policy retries.
-- The device timeout begins with its next command. Returns the devices that it gave one.
-- Not applied: the device is not FAILED any more, or for another reason ($4) or with another code ($5).
WITH locked AS (
    SELECT d.device_id
    FROM (SELECT * FROM unnest($3::text[]) AS s (device_id) ORDER BY device_id COLLATE "C") AS s
    CROSS JOIN LATERAL (
        SELECT device_id FROM ota_device_status
        WHERE tenant_id = $1 AND campaign_id = $2 AND device_id = s.device_id AND status = 'FAILED'
          AND ($4::text IS NULL OR failed_reason = $4) AND ($5::text IS NULL OR error_code = $5)
        FOR UPDATE
    ) AS d
), again AS (
    UPDATE ota_device_status
    SET status = 'DOWNLOADING',
        -- A host may have written the failure of a device that the engine has never sent to.
        attempt = GREATEST(attempt, 1), sent_attempt = GREATEST(attempt, 1), failed_attempt = GREATEST(attempt, 1),
        failed_reason = COALESCE(failed_reason, 'reported'),
        -- Guardrails of a document have counted the device, and must not count it again (guardrail.read_failures).
        failed_before = CASE WHEN segment <> 0 THEN ARRAY(
            SELECT DISTINCT f FROM unnest(failed_before || (COALESCE(failed_reason, 'reported') || ':' || COALESCE(error_code, '')))
                AS t (f)) END,
        started_at = NULL, completed_at = NULL, due_at = statement_timestamp(), refusals = 0, refused_for = NULL
    WHERE tenant_id = $1 AND campaign_id = ANY (ARRAY[$2::bigint])
      AND device_id = ANY (ARRAY(SELECT device_id FROM locked))
    RETURNING device_id, attempt, abs(segment) AS segment, position, budget_values
)
SELECT device_id, attempt, segment, (position >> 44)::int - 1 AS wave, budget_values FROM again ORDER BY device_id;

-- name: cells
-- These devices of waves ($3) and segments ($4) are in flight again. Not applied: an edit of the policy has removed the cell.
UPDATE ota_campaign_cells l
SET failed = l.failed - moved.devices, in_flight = l.in_flight + moved.devices
FROM unnest($3::int[], $4::int[], $5::int[]) AS moved (wave, segment, devices)
CROSS JOIN LATERAL (
    SELECT ctid AS place FROM ota_campaign_cells
    WHERE tenant_id = $1 AND campaign_id = $2 AND wave = moved.wave AND segment = moved.segment
    OFFSET 0 -- otherwise it is a join, which may read all cells for each of these
) AS cell
WHERE l.tenant_id = $1 AND l.ctid = cell.place;
