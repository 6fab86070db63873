-- name: write
-- Write the waves with the names $3, and $4 devices that their selectors fit. The campaign is locked.
INSERT INTO ota_campaign_waves (tenant_id, campaign_id, number, name, matched, size, state, since, opened_at)
SELECT $1, $2, w.number - 1, w.name, w.matched,
       (SELECT COALESCE(sum(waiting + in_flight + succeeded + failed + skipped), 0)::int FROM ota_campaign_cells l
        WHERE l.tenant_id = $1 AND l.campaign_id = $2 AND l.wave = w.number - 1),
       CASE WHEN w.number = 1 THEN 'open' ELSE 'waiting' END, statement_timestamp(),
       CASE WHEN w.number = 1 THEN statement_timestamp() END
FROM unnest($3::text[], $4::int[]) WITH ORDINALITY AS w (name, matched, number)
ON CONFLICT (tenant_id, campaign_id, number)
DO UPDATE SET name = EXCLUDED.name, matched = EXCLUDED.matched, size = EXCLUDED.size;

-- name: grow
-- Write the sizes of the waves anew. Devices that were added fit the selectors of their waves.
UPDATE ota_campaign_waves w SET size = l.size, matched = w.matched + GREATEST(0, l.size - w.size)
FROM (SELECT wave, sum(waiting + in_flight + succeeded + failed + skipped)::int AS size
      FROM ota_campaign_cells WHERE tenant_id = $1 AND campaign_id = $2 GROUP BY wave) AS l
WHERE w.tenant_id = $1 AND w.campaign_id = $2 AND w.number = l.wave AND w.size <> l.size;

-- name: remove
DELETE FROM ota_campaign_waves WHERE tenant_id = $1 AND campaign_id = $2 AND number >= $3;

-- name: note
-- The state of a wave, since now if it is another one. Not applied: an edit has removed the wave.
UPDATE ota_campaign_waves
SET since = CASE WHEN state IS DISTINCT FROM $4 THEN statement_timestamp() ELSE since END,
    state = $4, soak_from = to_timestamp($5), soak_failed = $6
WHERE tenant_id = $1 AND campaign_id = $2 AND number = $3;

-- name: retried
-- The soak of the wave $3 begins again with one more failed device, and $4 of them get another attempt. Not applied: it does not soak.
UPDATE ota_campaign_waves SET soak_failed = soak_failed - $4
WHERE tenant_id = $1 AND campaign_id = $2 AND number = $3 AND soak_failed IS NOT NULL;

-- name: promote
UPDATE ota_campaign_waves SET promoted_at = statement_timestamp(), promoted_by = $4
WHERE tenant_id = $1 AND campaign_id = $2 AND number = $3;

-- name: open_next
-- Not applied: another worker has opened it.
WITH moved AS (
    UPDATE ota_campaigns SET wave = $3 + 1 WHERE tenant_id = $1 AND id = $2 AND wave = $3 RETURNING id
), passed AS (
    UPDATE ota_campaign_waves w
    SET state = CASE WHEN w.number = $3 THEN 'passed' ELSE 'open' END, since = statement_timestamp(),
        passed_at = CASE WHEN w.number = $3 THEN statement_timestamp() ELSE w.passed_at END,
        opened_at = CASE WHEN w.number = $3 THEN w.opened_at ELSE statement_timestamp() END
    FROM moved
    WHERE w.tenant_id = $1 AND w.campaign_id = moved.id AND w.number IN ($3, $3 + 1)
)
SELECT id, pg_notify('rollwave_due', $1) FROM moved;
