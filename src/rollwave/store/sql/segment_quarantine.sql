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

-- name: release
-- Not applied: the segment is not in quarantine. The commit wakes the workers (store/campaigns.py).
WITH released AS (
    UPDATE ota_campaign_segments SET quarantined_at = NULL, quarantined_because = NULL
    WHERE tenant_id = $1 AND campaign_id = $2 AND number = $3 AND quarantined_at IS NOT NULL
    RETURNING number
)
SELECT number, pg_notify('rollwave_due', '') FROM released;

-- name: exists
SELECT EXISTS (SELECT FROM ota_campaign_segments WHERE tenant_id = $1 AND campaign_id = $2 AND number = $3);
