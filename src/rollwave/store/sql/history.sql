-- name: append
INSERT INTO ota_campaign_history (tenant_id, campaign_id, event, actor, detail) VALUES ($1, $2, $3, $4, $5::jsonb);

-- name: append_failed_attempts
INSERT INTO ota_campaign_history (tenant_id, campaign_id, device_id, event, actor, detail)
SELECT $1::text, f.campaign_id, f.device_id, CASE WHEN f.given_up THEN 'given_up' ELSE 'attempt_failed' END, f.actor,
       jsonb_build_object('attempt', f.attempt, 'cause', f.cause, 'reason', f.reason, 'final', f.final)
FROM unnest($2::bigint[], $3::text[], $4::int[], $5::text[], $6::text[], $7::text[], $8::boolean[],
            $9::boolean[])
    AS f (campaign_id, device_id, attempt, cause, reason, actor, final, given_up);
