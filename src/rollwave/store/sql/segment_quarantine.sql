-- Segments under quarantine: their devices are not sent to. The statements need the campaign's lock.

-- name: quarantine
-- Quarantine the segments with labels $3. Not those that are in quarantine already.
UPDATE ota_campaign_segments s SET quarantined_at = statement_timestamp(), quarantined_because = $4
WHERE s.tenant_id = $1 AND s.campaign_id = $2 AND s.quarantined_at IS NULL
  AND $3::text::jsonb = (SELECT jsonb_object_agg(k, s.labels -> k) FROM jsonb_object_keys($3::text::jsonb) AS k)
RETURNING s.number;

-- name: quarantine_new
-- Quarantine segments that an edit has made of devices for which one of these guardrails ($3) has tripped.
UPDATE ota_campaign_segments s
SET quarantined_at = statement_timestamp(), quarantined_because = 'guardrail ' || t.guardrail || ' had tripped for these devices'
FROM ota_campaign_tests t
WHERE s.tenant_id = $1 AND s.campaign_id = $2 AND s.quarantined_at IS NULL
  AND t.tenant_id = $1 AND t.campaign_id = $2 AND t.guardrail = ANY ($3::text[]) AND t.tripped_at IS NOT NULL
  AND t.labels = (SELECT jsonb_object_agg(k, s.labels -> k) FROM jsonb_object_keys(t.labels) AS k)
RETURNING s.number, s.quarantined_because, t.guardrail;

-- name: carry
-- Put segments under quarantine that have devices of others under quarantine since an edit: new ones ($3) with all labels of one, and
-- those ($5) that devices of one ($4) have entered, if the labels that both have are equal. Another value: the device has a new label.
WITH asked AS (
    SELECT NULL::int AS left_segment, number FROM unnest($3::int[]) AS n (number)
    UNION ALL
    SELECT * FROM unnest($4::int[], $5::int[])
), found AS (
    SELECT DISTINCT ON (n.number) n.number, q.quarantined_at,
           CASE WHEN n.labels @> q.labels THEN q.quarantined_because
                ELSE 'has devices of segment ' || q.number || ', which was under quarantine when the policy was edited: '
                     || q.quarantined_because END AS because
    FROM asked a
    JOIN ota_campaign_segments n
      ON n.tenant_id = $1 AND n.campaign_id = $2 AND n.number = a.number AND n.quarantined_at IS NULL
    JOIN ota_campaign_segments q
      ON q.tenant_id = $1 AND q.campaign_id = $2 AND q.quarantined_at IS NOT NULL
         AND CASE WHEN a.left_segment IS NULL THEN n.labels @> q.labels
                  ELSE q.number = a.left_segment AND n.labels || q.labels = q.labels || n.labels END
    ORDER BY n.number, n.labels @> q.labels DESC, q.quarantined_at, q.number
)
UPDATE ota_campaign_segments s SET quarantined_at = found.quarantined_at, quarantined_because = found.because
FROM found
WHERE s.tenant_id = $1 AND s.campaign_id = $2 AND s.number = found.number AND s.quarantined_at IS NULL
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
