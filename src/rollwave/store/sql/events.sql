-- Each statement locks the campaign's row before the id of an event is drawn (history.py says why).

-- name: append
WITH locked AS MATERIALIZED (
    SELECT FROM ota_campaigns WHERE tenant_id = $1 AND id = $2 FOR NO KEY UPDATE
)
INSERT INTO ota_campaign_history (tenant_id, campaign_id, event, actor, detail)
SELECT $1::text, $2::bigint, $3, $4, $5::text::jsonb FROM locked;

-- name: append_failed_attempts
WITH locked AS MATERIALIZED (
    SELECT id FROM ota_campaigns
    WHERE tenant_id = $1 AND id = ANY ($2::bigint[])
    ORDER BY id
    FOR NO KEY UPDATE
)
INSERT INTO ota_campaign_history (tenant_id, campaign_id, device_id, event, actor, detail)
SELECT $1::text, f.campaign_id, f.device_id, CASE WHEN f.given_up THEN 'given_up' ELSE 'attempt_failed' END, f.actor,
       jsonb_build_object('attempt', f.attempt, 'cause', f.cause, 'reason', f.reason, 'final', f.final)
FROM unnest($2::bigint[], $3::text[], $4::int[], $5::text[], $6::text[], $7::text[], $8::boolean[],
            $9::boolean[])
    WITH ORDINALITY AS f (campaign_id, device_id, attempt, cause, reason, actor, final, given_up, number)
JOIN locked ON locked.id = f.campaign_id
ORDER BY f.number;
