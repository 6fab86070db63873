-- Segments under quarantine: their devices are not sent to. The statements need the campaign's lock.

-- name: quarantine
-- Quarantine the segments with labels $3. Not those that are in quarantine already.
UPDATE ota_campaign_segments s SET quarantined_at = statement_timestamp(), quarantined_because = $4
WHERE s.tenant_id = $1 AND s.campaign_id = $2 AND s.quarantined_at IS NULL
  AND $3::text::jsonb = (SELECT jsonb_object_agg(k, s.labels -> k) FROM jsonb_object_keys($3::text::jsonb) AS k)
RETURNING s.number;

-- name: under_quarantine
-- The segments under quarantine: first those that have been so for the longest time.
SELECT number, labels::text AS labels, quarantined_because
FROM ota_campaign_segments
WHERE tenant_id = $1 AND campaign_id = $2 AND quarantined_at IS NOT NULL
ORDER BY quarantined_at, number;

-- name: put
-- Put segments ($3) under quarantine for reasons ($5), each since the same moment as another one ($4; NULL: now). Not applied: the
-- segment is under quarantine already.
UPDATE ota_campaign_segments s
SET quarantined_at = COALESCE(source.quarantined_at, statement_timestamp()), quarantined_because = put.reason
FROM unnest($3::int[], $4::int[], $5::text[]) AS put (number, source, reason)
CROSS JOIN LATERAL (
    SELECT ctid AS place FROM ota_campaign_segments
    WHERE tenant_id = $1 AND campaign_id = $2 AND number BETWEEN put.number AND put.number
    ORDER BY number LIMIT 1 -- by the primary key (cells.sql)
) AS found
LEFT JOIN LATERAL (
    SELECT quarantined_at FROM ota_campaign_segments
    WHERE tenant_id = $1 AND campaign_id = $2 AND number BETWEEN put.source AND put.source
    ORDER BY number LIMIT 1
) AS source ON true
WHERE s.tenant_id = $1 AND s.ctid = found.place AND s.quarantined_at IS NULL
RETURNING s.number, s.quarantined_because;

-- name: release
-- Not applied: the segment is not in quarantine. The commit wakes the workers (store/wake_ups.py).
WITH released AS (
    UPDATE ota_campaign_segments SET quarantined_at = NULL, quarantined_because = NULL
    WHERE tenant_id = $1 AND campaign_id = $2 AND number = $3 AND quarantined_at IS NOT NULL
    RETURNING number
)
SELECT number, pg_notify('rollwave_due', '') FROM released;

-- name: exists
SELECT EXISTS (SELECT FROM ota_campaign_segments WHERE tenant_id = $1 AND campaign_id = $2 AND number = $3);
