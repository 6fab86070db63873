-- name: insert
INSERT INTO ota_campaign_waves (tenant_id, campaign_id, number, up_to, opened_at)
SELECT $1, $2, w.number, w.up_to, CASE w.number WHEN 0 THEN statement_timestamp() END
FROM unnest($3::int[], $4::int[]) AS w (number, up_to)
ON CONFLICT DO NOTHING;

-- name: pass_gate
WITH passed AS (
    UPDATE ota_campaign_waves SET passed_at = statement_timestamp()
    WHERE tenant_id = $1 AND campaign_id = $2 AND number = $3
)
UPDATE ota_campaign_waves SET opened_at = statement_timestamp()
WHERE tenant_id = $1 AND campaign_id = $2 AND number = $3 + 1;

-- name: open_wave
-- Not applied: another worker opened it.
UPDATE ota_campaigns SET wave = $3 WHERE tenant_id = $1 AND id = $2 AND wave = $3 - 1 RETURNING id;
